//! Runs the shipped engine and coordinator under virtual time, thousands of times, each time decided by a seed. See tests/simulation/README.md.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod checks;
mod client;
mod climate;
mod coverage;
mod dice;
mod disk;
mod faults;
mod host;
mod link;
mod names;
mod node;
mod operations;
mod oracle;
mod outcome;
mod panics;
mod projection;
mod runs;
mod server;
mod text;
mod world;

use anyhow::{Context as _, Result, bail};

fn main() -> std::process::ExitCode {
    match simulate() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn simulate() -> Result<()> {
    let options = runs::Options::parse(std::env::args().skip(1)).context("usage: gantry-simulation [--seed S] [--seeds N] [--first S] [--events N] [--threads N] [--broken N] [--trace] [--any-coverage]")?;
    panics::keep();
    let report = runs::run(&options)?;
    print!("{report}");
    if report.failed() {
        bail!("the simulation found something broken");
    }
    Ok(())
}
