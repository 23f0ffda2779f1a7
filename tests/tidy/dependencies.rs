//! Which crate may depend on which: the direction of docs/ARCHITECTURE.md as data.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate, and those of ours that it may depend on. `gantry-daemon` wires everything and `gantry-tests` tries everything; both may know all.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("gantry-proto", &[]),
    ("gantry-supervisor", &["gantry-proto"]),
    ("gantry-fleet-manager", &["gantry-proto"]),
    ("gantry-runtime-node", &["gantry-proto", "gantry-fleet-manager"]),
    ("gantry-journal", &["gantry-proto"]),
    ("gantry-directory", &["gantry-proto"]),
    ("gantry-events", &["gantry-proto"]),
    ("gantry-engine", &["gantry-journal", "gantry-proto"]),
    (
        "gantry-coordinator",
        &["gantry-engine", "gantry-directory", "gantry-proto"],
    ),
    ("gantry-query", &["gantry-journal", "gantry-proto"]),
    (
        "gantry-query-worker",
        &["gantry-proto", "gantry-journal", "gantry-query"],
    ),
    (
        "gantry-gateway",
        &[
            "gantry-engine",
            "gantry-directory",
            "gantry-events",
            "gantry-query",
            "gantry-proto",
        ],
    ),
    // What it replaces stays away: storage engines, SQL, HTTP, Docker.
    (
        "gantry-simulation",
        &["gantry-coordinator", "gantry-engine", "gantry-journal", "gantry-proto"],
    ),
];
const KNOWS_ALL: [&str; 3] = ["gantry-daemon", "gantry-tests", "gantry-test-worker"];

/// A dependency that one crate of ours alone may have, and why.
const ALONE: [(&str, &str, &str); 4] = [
    (
        "bollard",
        "gantry-fleet-manager",
        "only the fleet manager touches Docker",
    ),
    (
        "rocksdb",
        "gantry-journal",
        "storage engines stay behind the journal's `Store`",
    ),
    ("duckdb", "gantry-query-worker", "DuckDB runs in a process of its own"),
    ("sqlx", "gantry-directory", "SQL stays behind the directory's trait"),
];

/// Package name, and the names of all it depends on directly, for tests and builds too.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(gantry_tests::paths::repository())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| (name(package), list(&package["dependencies"]).iter().map(name).collect()))
        .collect()
}

#[test]
fn crates_depend_only_in_the_direction_of_the_architecture() {
    let packages = packages();
    for (package, dependencies) in &packages {
        if KNOWS_ALL.contains(&package.as_str()) {
            continue;
        }
        let (_, allowed) = ALLOWED.iter().find(|(name, _)| name == package).unwrap_or_else(|| {
            panic!("{package} is not in the table: add it to tests/tidy/dependencies.rs with what it may depend on, and to docs/ARCHITECTURE.md")
        });
        let ours: Vec<_> = dependencies
            .iter()
            .filter(|name| packages.contains_key(*name))
            .collect();
        for dependency in ours {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not depend on {dependency}: it may depend on {allowed:?}"
            );
        }
    }
    for (package, _) in ALLOWED {
        assert!(
            packages.contains_key(package),
            "{package} is in the table and not in the workspace"
        );
    }
}

#[test]
fn engines_and_docker_stay_behind_one_crate() {
    for (package, dependencies) in packages() {
        for (dependency, owner, why) in ALONE {
            assert!(
                package == owner || !dependencies.contains(dependency),
                "{package} depends on {dependency}: {why}, which is {owner}"
            );
        }
    }
}
