//! `gantry`: the whole product on a laptop, and every role of a fleet.

mod backup;
mod cli;
mod client;
mod data_dir;
mod fault;
mod targets;
mod telemetry;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Exit, Usage};
use client::Refused;

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.is_daemon());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gantry: start the runtime: {error}");
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let exit = runtime.block_on(cli.run()).unwrap_or_else(|error| {
        eprintln!("gantry: {error:#}");
        if let Some(code) = fault::code_of(&error) {
            eprintln!("gantry: {code}, see docs/errors/{code}.md", code = code.as_str());
        }
        if error.is::<Refused>() || error.is::<Usage>() {
            Exit::Refused
        } else {
            Exit::Failed
        }
    });
    ExitCode::from(exit as u8)
}
