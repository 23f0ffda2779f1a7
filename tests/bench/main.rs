//! Measures, through the public API alone, with fsync on and the full hardened profile. `tests/run bench` builds what it needs and calls this.
//!
//! Each measure prints `BENCH <name> <value> <unit>`, where the value is the median of the samples; the samples go to a file beside it.

mod durable;
mod report;
mod suite_main;

use anyhow::{Result, bail};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let names: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    match names.as_slice() {
        [] | ["main"] => suite_main::run(quick).await,
        ["durable"] => durable::run(quick).await,
        ["peer"] => durable::tune().await,
        other => bail!("there is no bench {other:?}; there are: main, durable, peer"),
    }
}
