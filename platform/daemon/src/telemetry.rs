//! Logs: structured lines on stderr. `GANTRY_LOG` filters (tracing's syntax), `GANTRY_LOG_FORMAT=json` is for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Sets up logging for the process. Client commands are quiet unless asked; roles log from `info` on.
pub(crate) fn start(daemon: bool) {
    let default = if daemon { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("GANTRY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::env::var("GANTRY_LOG_FORMAT").is_ok_and(|format| format == "json") {
        subscriber.json().init();
    } else {
        subscriber.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
