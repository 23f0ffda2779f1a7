//! What sources must not contain.

use std::fs;
use std::process::Command;

use gantry_tests::paths::repository;

/// Longest source file. Past this a file has more than one job.
const LINES_MAX: usize = 700;

/// Files that may be longer, and why.
const LONG: [(&str, &str); 0] = [];

/// What must not stand in a source, and what to do instead. Written in two parts, so that this table does not find itself.
const FORBIDDEN: [(&str, &str, &str); 4] = [
    ("FIX", "ME", "mend it, or open an issue"),
    ("todo", "!(", "build it, or leave it out and say so in the documents"),
    ("unimplemented", "!(", "build it, or refuse with a typed error"),
    ("dbg", "!(", "use tracing"),
];

/// Files that git tracks.
pub(crate) fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files"])
        .current_dir(repository())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = String::from_utf8(output.stdout).expect("UTF-8 names");
    files
        .lines()
        .map(str::to_owned)
        .filter(|file| repository().join(file).is_file())
        .collect()
}

#[test]
fn sources_are_short_and_finished() {
    let mut faults = Vec::new();
    for file in tracked().iter().filter(|file| file.ends_with(".rs")) {
        let text = fs::read_to_string(repository().join(file)).expect("a source");
        let lines = text.lines().count();
        if lines > LINES_MAX && !LONG.iter().any(|(name, _)| name == file) {
            faults.push(format!("{file}: {lines} lines; split it by jobs"));
        }
        for (number, line) in text.lines().enumerate() {
            for (head, tail, instead) in FORBIDDEN {
                if line.contains(&format!("{head}{tail}")) {
                    faults.push(format!("{file}:{}: {head}{tail}: {instead}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn scripts_stop_at_the_first_fault() {
    for file in tracked() {
        let text = fs::read(repository().join(&file)).expect("a file");
        if text.starts_with(b"#!/usr/bin/env bash") || text.starts_with(b"#!/bin/bash") {
            let text = String::from_utf8(text).expect("UTF-8 script");
            assert!(
                text.lines().any(|line| line.trim() == "set -euo pipefail"),
                "{file} lacks `set -euo pipefail`"
            );
        }
    }
}
