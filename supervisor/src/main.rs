//! `gantry-supervisor`: PID 1 of every sandbox.
//!
//! It dials the node, starts what the node asks for with everything taken away that it has itself, streams the output, collects the dead, and keeps
//! exit status and output until the node has acknowledged them. It is one thread without locks: nothing in here waits for anything but events.

mod command;
mod ending;
mod files;
mod identity;
mod link;
mod oom;
mod output;
mod process;
mod reap;
mod reports;
mod run;
mod start_error;
mod supervisor;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::DumpableBehavior;

use crate::oom::OomCounter;
use crate::supervisor::{Leaving, Supervisor};

/// The read-only bind of the host's per-container directory with socket and nonce.
const SOCK_DIR: &str = "/.gantry/sock";
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The dead-man deadline passed: the container ends, and this says why.
const EXIT_ABANDONED: u8 = 3;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let sock_dir = match arguments(std::env::args().skip(1)) {
        Ok(sock_dir) => sock_dir,
        Err(message) => return fail(EXIT_USAGE, &message),
    };
    // Ending a tree means ending everything in the pid namespace, so the namespace must be its own.
    if std::process::id() != 1 {
        return fail(EXIT_USAGE, "this is PID 1 of a sandbox and runs nowhere else");
    }
    // No step reads the supervisor's memory or descriptors through /proc, whatever user it runs as.
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        return fail(1, &format!("cannot protect own memory: {error}"));
    }
    inherit_nothing();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot set up the event loop: {error}")),
    };
    let supervisor = Supervisor::new(sock_dir, OomCounter::find(Path::new(CGROUP_ROOT)));
    match runtime.block_on(supervisor.run()) {
        Ok(Leaving::Asked) => ExitCode::SUCCESS,
        Ok(Leaving::Abandoned) => ExitCode::from(EXIT_ABANDONED),
        Err(error) => fail(1, &format!("cannot listen to signals: {error}")),
    }
}

/// Whatever started this program may have left descriptors open and signals ignored; a step is to get neither.
fn inherit_nothing() {
    for signal in 1..32 {
        // SIGPIPE is ignored by Rust's own start-up, and std gives the default back to what it executes.
        if signal != libc::SIGPIPE {
            // SAFETY: sets a default disposition before any handler of ours exists. It fails for the two signals that have no other.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: integers only; it marks descriptors for closing at exec and closes none. Kernels before 5.11 refuse, and there, as everywhere
    // else under a container runtime, nothing but 0 to 2 is open.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// `--sock-dir DIR` is for tests; a container has the directory in its fixed place.
fn arguments(mut given: impl Iterator<Item = String>) -> Result<PathBuf, String> {
    let mut sock_dir = PathBuf::from(SOCK_DIR);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--sock-dir" => sock_dir = given.next().ok_or("--sock-dir needs a directory")?.into(),
            "--version" => return Err(format!("version {}", env!("CARGO_PKG_VERSION"))),
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    Ok(sock_dir)
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("gantry-supervisor: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_few() {
        let parse = |given: &[&str]| arguments(given.iter().map(|text| (*text).to_owned()));
        assert_eq!(parse(&[]).unwrap(), Path::new("/.gantry/sock"));
        assert_eq!(parse(&["--sock-dir", "/x"]).unwrap(), Path::new("/x"));
        assert!(parse(&["--sock-dir"]).is_err());
        assert!(parse(&["--what"]).is_err());
    }
}
