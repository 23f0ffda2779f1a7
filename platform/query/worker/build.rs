//! Where `gantry-query` finds libduckdb.so: beside itself once installed; while it is developed, where it was linked from.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    println!("cargo::rerun-if-env-changed=GANTRY_CACHE");
    if env::var_os("CARGO_FEATURE_DUCKDB_BUNDLED").is_some() {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN");
    // A caller that did not source deploy/lib/env.sh, but has been through it once.
    let cache = env::var_os("GANTRY_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/gantry")));
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let fetched = cache.map(|cache| cache.join(format!("duckdb/1.5.6-{architecture}")));
    let directory = env::var_os("DUCKDB_LIB_DIR").map(PathBuf::from).or(fetched);
    let Some(directory) = directory.filter(|directory| directory.join("libduckdb.so").is_file()) else {
        println!("cargo::warning=libduckdb.so is not found: `. deploy/lib/env.sh` fetches it and sets DUCKDB_LIB_DIR");
        return;
    };
    println!("cargo::rustc-link-search=native={}", directory.display());
    println!("cargo::rustc-link-arg-tests=-Wl,-rpath,{}", directory.display());
    // A released program looks beside itself only: a path of the machine that built it means nothing elsewhere.
    if env::var("PROFILE").as_deref() == Ok("debug") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{}", directory.display());
    }
}
