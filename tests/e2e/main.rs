//! Scenarios against real daemons and real containers, through the command line and plain HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod again;
mod apart;
mod assess;
mod attempts;
mod bad_input;
mod bulk;
mod cancel;
mod children;
mod crash;
mod docker_down;
mod endings;
mod erase;
mod history;
mod keys;
mod limits;
mod load;
mod network;
mod pauses;
mod query;
mod reassign;
mod remote;
mod retry;
mod sample;
mod sse;
mod stalls;
mod storage;
mod submit;
mod uploads;
mod waits;

use std::time::Duration;

/// A workflow of a few containers ends within this on a busy two-core machine.
const SOON: Duration = Duration::from_secs(120);

/// A definition of one task `work` whose steps are shell scripts, `step-1`, `step-2`, ...
fn steps(scripts: &[&str]) -> String {
    let steps: Vec<_> = scripts
        .iter()
        .map(|script| serde_json::json!({ "run": script }))
        .collect();
    serde_json::json!({ "name": "scenario", "tasks": { "work": { "steps": steps } } }).to_string()
}
