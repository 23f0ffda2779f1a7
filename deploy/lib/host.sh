# shellcheck shell=bash
# What the machine must have, and getting it. Sourced after say.sh.

# How to call this command again as root with the same toolchain.
as_root_hint() { printf 'sudo env PATH="$PATH" HOME="$HOME" %s' "$1"; }

# need_supported_host COMMAND: Linux on a known CPU, Debian or Ubuntu, root. COMMAND is for the hint.
need_supported_host() {
  [ "$(uname -s)" = Linux ] || die "Gantry needs Linux; this is $(uname -s)." "Use a virtual machine with Debian 12 or newer, or Ubuntu 22.04 or newer."
  case "$(uname -m)" in
    x86_64 | aarch64) ;;
    *) die "Gantry is built for x86_64 and aarch64; this is $(uname -m)." ;;
  esac
  command -v apt-get >/dev/null || die "This command installs packages with apt-get, which is not here." \
    "On another distribution install these yourself: Docker Engine, libclang, the protobuf compiler, git, curl, jq, a C/C++ compiler;" \
    "then build with deploy/lib/build.sh and start \`gantry dev\` as docs/ARCHITECTURE.md tells."
  [ "$(id -u)" = 0 ] || die "Root is needed: steps get users, mounts and limits of their own." "Run: $(as_root_hint "$1")"
}

# need_rust DIRECTORY: a toolchain that is new enough for the workspace in DIRECTORY.
need_rust() {
  local wanted found
  # A shell that was not started as a login shell may not know a fresh rustup.
  if ! command -v cargo >/dev/null && [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
    # shellcheck disable=SC1091
    . "${CARGO_HOME:-$HOME/.cargo}/env"
  fi
  wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$1/Cargo.toml" | head -n 1)"
  command -v cargo >/dev/null || die "cargo is not in PATH; Rust $wanted or newer is needed." \
    "Install it: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal" \
    "With sudo, keep PATH and HOME: $(as_root_hint "$0")"
  found="$(cd "$1" && rustc --version | cut -d' ' -f2)"
  if [ "$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" != "$wanted" ]; then
    die "Rust $found is too old; $wanted or newer is needed." "Update it: rustup update stable"
  fi
}

has_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p | grep -q 'libclang\(-[0-9]*\)\?\.so' || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null
}

# missing_packages [MORE-COMMAND:PACKAGE...]: Debian packages of what is not here, one for each line.
missing_packages() {
  local pair
  # A machine with another Docker (docker-ce, say) has the commands, and keeps it.
  command -v dockerd >/dev/null || echo docker.io
  if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; fi
  has_libclang || echo libclang-dev
  for pair in protoc:protobuf-compiler cc:build-essential c++:build-essential git:git curl:curl jq:jq openssl:openssl mmdebstrap:mmdebstrap \
    setsid:util-linux "$@"; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
  done | sort -u
}

# install_missing [MORE-COMMAND:PACKAGE...]: says what it will install, asks, installs.
install_missing() {
  local packages
  mapfile -t packages < <(missing_packages "$@")
  [ "${#packages[@]}" -gt 0 ] || return 0
  say "These Debian packages will be installed: ${packages[*]}"
  confirm "Install them?" || die "Not installed." "Install them yourself: apt-get install -y ${packages[*]}" "or say yes beforehand: -y, or CI=true"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  # docker-cli is a package of its own on newer releases only, and known after the update at the earliest.
  mapfile -t packages < <(missing_packages "$@")
  apt-get install -y -q --no-install-recommends "${packages[@]}" >&2
}
