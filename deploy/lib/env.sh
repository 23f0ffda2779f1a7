# Where builds go and what they link; sourced by everything that calls cargo. What is already set stays.
#
#   . deploy/lib/env.sh
#
# Sets GANTRY_CACHE, CARGO_TARGET_DIR, ROCKSDB_LIB_DIR, ROCKSDB_STATIC, DUCKDB_LIB_DIR and GANTRY_BIN_DIR. The first call on a machine builds librocksdb
# (deploy/lib/rocksdb.sh) and fetches libduckdb (deploy/lib/duckdb.sh), except when GANTRY_SKIP_LIBRARIES is set by a caller that builds nothing which
# links them.

export GANTRY_CACHE="${GANTRY_CACHE:-$HOME/.cache/gantry}"
# One target directory for all checkouts and scripts: third-party crates are compiled once.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$GANTRY_CACHE/target}"
export GANTRY_BIN_DIR="${GANTRY_BIN_DIR:-$CARGO_TARGET_DIR/gantry-bin}"
if [ -z "${GANTRY_SKIP_LIBRARIES:-}" ] && [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
  ROCKSDB_LIB_DIR="$("$(dirname "${BASH_SOURCE[0]}")/rocksdb.sh")" || return 1
  export ROCKSDB_LIB_DIR
fi
if [ -z "${GANTRY_SKIP_LIBRARIES:-}" ] && [ -z "${DUCKDB_LIB_DIR:-}" ]; then
  DUCKDB_LIB_DIR="$("$(dirname "${BASH_SOURCE[0]}")/duckdb.sh")" || return 1
  export DUCKDB_LIB_DIR
fi
export ROCKSDB_STATIC="${ROCKSDB_STATIC:-1}"
