//! `gantry-query`: answers one query and ends.
//!
//! The daemon starts it for one query, with a working directory that holds the caller's files and nothing else, and talks to it over standard input and
//! output (`proto/gantry/v1/query.proto`). It is a process of its own because DuckDB is large, parses what strangers write, and does not keep every
//! allocation within its limit: here a fault, a leak or a runaway costs one query, and killing it is always safe. It gives up every right before it looks
//! at the statement.

#![warn(clippy::pedantic)]
// Names of products are no code.
#![allow(clippy::doc_markdown)]

mod channel;
mod confine;
mod database;
mod failure;
mod json;
mod kinds;
mod run;
mod statement;
mod tables;

use std::process::ExitCode;

use gantry_proto::v1::query_output::Kind;

use channel::Channel;

fn main() -> ExitCode {
    let mut channel = Channel::of_standard_streams();
    let answered = match run::answer(&mut channel) {
        Ok(end) => channel.send(Kind::End(end)),
        Err(failure) => channel.send(Kind::Failure(failure.into_message())),
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        // The daemon has gone: nobody is left to tell.
        Err(error) => {
            eprintln!("gantry-query: {error}");
            ExitCode::FAILURE
        }
    }
}
