#!/usr/bin/env bash
# Builds the programs and puts them side by side, where `gantry` looks for `gantry-supervisor` and `gantry-query`, and that for libduckdb.so. Prints the
# directory.
#
#   deploy/lib/build.sh [supervisor|gantry|all] [cargo options, such as -j2 or --offline]
#
#   GANTRY_BIN_DIR    where the programs are put (default: gantry-bin in the target directory)
#   GANTRY_PROFILE    cargo profile of `gantry` (default: release)
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"

what="${1:-all}"
[ $# -eq 0 ] || shift
case "$what" in
  supervisor) GANTRY_SKIP_LIBRARIES=1 ;;
  gantry | all) ;;
  *) sed -n '2,8p' "$0" >&2; exit 2 ;;
esac
. "$HERE/env.sh"
cd "$ROOT"
mkdir -p "$GANTRY_BIN_DIR"

# A running program keeps its old file, and nobody ever sees half a new one.
install_program() {
  local from="$1" name="$2"
  # What did not change keeps its file, so that its hash and time say so.
  cmp -s "$from" "$GANTRY_BIN_DIR/$name" && return 0
  cp "$from" "$GANTRY_BIN_DIR/.$name.$$"
  chmod 0755 "$GANTRY_BIN_DIR/.$name.$$"
  mv "$GANTRY_BIN_DIR/.$name.$$" "$GANTRY_BIN_DIR/$name"
}

build_supervisor() {
  local host variable
  host="$(rustc -vV | sed -n 's/^host: //p')"
  variable="CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUSTFLAGS"
  # With --target, cargo gives these flags to the program alone: build scripts and macros stay dynamic, as macros must.
  # RUSTFLAGS would win over the variable, so a caller's is put in front of it.
  env -u RUSTFLAGS "$variable=${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo build --package gantry-supervisor --profile supervisor --target "$host" "$@" >&2
  local built="$CARGO_TARGET_DIR/$host/supervisor/gantry-supervisor"
  # It is PID 1 of images that contain nothing else; a dynamic one would only fail there.
  if command -v readelf >/dev/null && readelf -lW "$built" | grep -q INTERP; then
    echo "$built is not static" >&2
    exit 1
  fi
  install_program "$built" gantry-supervisor
}

build_gantry() {
  local profile="${GANTRY_PROFILE:-release}" directory
  case "$profile" in
    dev | test) directory=debug ;;
    *) directory="$profile" ;;
  esac
  cargo build --package gantry-daemon --bin gantry --package gantry-query-worker --bin gantry-query --profile "$profile" "$@" >&2
  install_program "$CARGO_TARGET_DIR/$directory/gantry" gantry
  install_program "$CARGO_TARGET_DIR/$directory/gantry-query" gantry-query
  install_program "$DUCKDB_LIB_DIR/libduckdb.so" libduckdb.so
}

case "$what" in
  supervisor) build_supervisor "$@" ;;
  gantry) build_gantry "$@" ;;
  all)
    build_supervisor "$@"
    build_gantry "$@"
    ;;
esac
echo "$GANTRY_BIN_DIR"
