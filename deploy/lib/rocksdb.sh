#!/usr/bin/env bash
# Builds librocksdb once into the cache and prints the directory that holds it.
#
# cargo would compile RocksDB's C++ (10-20 minutes on two cores) again for every profile; a static library in the cache, linked by
# ROCKSDB_LIB_DIR and ROCKSDB_STATIC, is compiled once per version. The sources are those of the pinned `librocksdb-sys` crate, built by its own
# build script, so that headers and library always belong together.
set -euo pipefail

CRATE_VERSION="0.25.0" # keep equal to the workspace's `rocksdb` dependency; tests/run tidy compares them
CACHE="${GANTRY_CACHE:-$HOME/.cache/gantry}"
DIR="$CACHE/rocksdb/$CRATE_VERSION-$(uname -m)"

if [ -f "$DIR/librocksdb.a" ]; then
  echo "$DIR"
  exit 0
fi

mkdir -p "$CACHE/rocksdb"
exec 9>"$CACHE/rocksdb/lock"
flock 9
if [ ! -f "$DIR/librocksdb.a" ]; then
  echo "building librocksdb (rocksdb crate $CRATE_VERSION) into $DIR: 10 to 20 minutes, once" >&2
  work="$(mktemp -d "$CACHE/rocksdb/build.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/src"
  echo 'fn main() {}' >"$work/src/main.rs"
  cat >"$work/Cargo.toml" <<TOML
[package]
name = "librocksdb-cache"
version = "0.0.0"
edition = "2024"
[dependencies]
rocksdb = { version = "=$CRATE_VERSION", default-features = false, features = ["lz4", "bindgen-runtime"] }
[workspace]
TOML
  flags=""
  # Hardware CRC32C: RocksDB checks every block, and its software path costs a tenth of a busy core.
  if [ "$(uname -m)" = x86_64 ] && grep -qw sse4_2 /proc/cpuinfo && grep -qw pclmulqdq /proc/cpuinfo; then
    flags="-C target-feature=+sse4.2,+pclmulqdq"
  fi
  (cd "$work" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC RUSTFLAGS="$flags" CARGO_TARGET_DIR="$work/target" cargo build --release >&2)
  lib="$(find "$work/target/release/build" -name librocksdb.a -print -quit)"
  [ -n "$lib" ] || { echo "librocksdb.a was not produced in $work/target" >&2; exit 1; }
  mkdir -p "$DIR"
  cp "$lib" "$DIR/librocksdb.a.tmp"
  mv "$DIR/librocksdb.a.tmp" "$DIR/librocksdb.a"
fi
echo "$DIR"
