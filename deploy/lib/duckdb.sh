#!/usr/bin/env bash
# Fetches libduckdb.so once into the cache and prints the directory that holds it.
#
# DuckDB's C++ takes an hour to compile on two cores. Its makers publish the library built, as an npm package of their Node.js bindings; the package is
# pinned by its hash. Only `gantry-query` links it, by DUCKDB_LIB_DIR, and has it beside itself once installed.
set -euo pipefail

VERSION="1.5.6" # keep equal to the workspace's `duckdb` dependency (1.10506 is 1.5.6); tests/run tidy compares them
CACHE="${GANTRY_CACHE:-$HOME/.cache/gantry}/duckdb"
DIR="$CACHE/$VERSION-$(uname -m)"

if [ -f "$DIR/libduckdb.so" ]; then
  echo "$DIR"
  exit 0
fi

case "$(uname -m)" in
  x86_64) PACKAGE=node-bindings-linux-x64 RELEASE="$VERSION-r.1"
    SHA512="IXcrZJE6kEqM0Z4wwdVnGBHX/frOS33VPNAwDXQ/Q+Fs84b058Qe94chrCCIcNJlG8Y3UHIUU4eBeCQxW5mN1Q==" ;;
  # The newest that is published for this processor; patch releases share their C interface.
  aarch64) PACKAGE=node-bindings-linux-arm64 RELEASE="1.5.5-r.5"
    SHA512="CafH2AIvXtpwDynG3KB/4uEOHRGlFoB7auCRMIwH3BKNIobsANV5LSpDJ3tfyRCFIsK6e8AT1eseWVnu2Dv3cw==" ;;
  *)
    echo "no built libduckdb for $(uname -m): build with the feature duckdb-bundled of gantry-query-worker, or set DUCKDB_LIB_DIR" >&2
    exit 1
    ;;
esac

mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9
if [ ! -f "$DIR/libduckdb.so" ]; then
  registry="${NPM_CONFIG_REGISTRY:-https://registry.npmjs.org}"
  echo "fetching libduckdb $RELEASE into $DIR (24 MB, once)" >&2
  work="$(mktemp -d "$CACHE/fetch.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  curl -fsSL --retry 3 --connect-timeout 10 --max-time 600 -o "$work/package.tgz" \
    "${registry%/}/@duckdb/$PACKAGE/-/$PACKAGE-$RELEASE.tgz" || {
    echo "libduckdb cannot be fetched; set NPM_CONFIG_REGISTRY to a registry that answers, or DUCKDB_LIB_DIR to a directory with libduckdb.so" >&2
    exit 1
  }
  got="$(openssl dgst -sha512 -binary "$work/package.tgz" | base64 -w0)"
  if [ "$got" != "$SHA512" ]; then
    echo "@duckdb/$PACKAGE $RELEASE is not the pinned one (sha512-$got)" >&2
    exit 1
  fi
  tar -xzf "$work/package.tgz" -C "$work" package/libduckdb.so package/LICENSE
  mkdir -p "$DIR"
  cp "$work/package/LICENSE" "$DIR/LICENSE.duckdb"
  mv "$work/package/libduckdb.so" "$DIR/libduckdb.so"
fi
echo "$DIR"
