//! One git command in an environment of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// What is kept of stdout and stderr; the rest is read and dropped.
const KEPT_BYTES_MAX: u64 = 64 << 10;

/// Which transports a command may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transports {
    /// A remote's.
    Remote,
    /// Paths that were checked, or are ours.
    Paths,
}

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    #[error("git cannot be started: {0}")]
    Start(#[source] std::io::Error),
    #[error("git did not end within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("{stderr}")]
    Failed { stderr: String },
    /// Asked several times.
    #[error("the remote cannot be reached: {0}")]
    Away(#[source] Box<GitError>),
}

impl GitError {
    /// Whether the remote may do it when it is asked again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Start(_) => false,
            Self::Timeout(_) | Self::Away(_) => true,
            Self::Failed { stderr } => {
                PASSING.iter().any(|text| stderr.contains(text)) && !FINAL.iter().any(|text| stderr.contains(text))
            }
        }
    }

    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Failed { stderr } if stderr.contains("No space left on device") || stderr.contains("Disk quota exceeded"))
    }
}

/// What git and its helpers say (in the C locale) when a remote cannot be reached, or breaks off, rather than says no.
const PASSING: &[&str] = &[
    "Could not resolve host",
    "Could not resolve hostname",
    "unable to look up",
    "Temporary failure in name resolution",
    "Failed to connect",
    "unable to connect",
    "Broken pipe",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Connection closed by",
    "Operation timed out",
    "Operation too slow",
    "Network is unreachable",
    "No route to host",
    "SSL_ERROR_SYSCALL",
    "gnutls_handshake",
    "TLS connection was non-properly terminated",
    "Empty reply from server",
    "transfer closed with",
    "early EOF",
    "the remote end hung up",
    "Proxy CONNECT aborted",
    "returned error: 408",
    "returned error: 429",
    "returned error: 5",
];

/// What a remote says for good, even when it hangs up next.
const FINAL: &[&str] = &[
    "Permission denied",
    "Host key verification failed",
    "not found",
    "does not exist",
    "access denied",
    "not exported",
];

/// How git is run.
#[derive(Debug, Clone)]
pub(super) struct Git {
    pub(super) config: PathBuf,
    pub(super) home: PathBuf,
    pub(super) ssh_command: String,
    pub(super) timeout: Duration,
}

/// The whole configuration that git sees.
pub(super) const CONFIG: &str = "\
[safe]
\tdirectory = *
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\taskPass =
[credential]
\thelper =
[protocol]
\tallow = never
[protocol \"ext\"]
\tallow = never
[submodule]
\trecurse = false
[fetch]
\tfsckObjects = true
\trecurseSubmodules = false
[fetch \"fsck\"]
\tzeroPaddedFilemode = ignore
\tbadTimezone = ignore
\tmissingSpaceBeforeDate = ignore
\tmissingSpaceBeforeEmail = ignore
\tmissingNameBeforeEmail = ignore
[uploadpack]
\tallowAnySHA1InWant = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
[init]
\tdefaultBranch = main
";

/// Of the node's own environment, git sees these: how it gets out.
const KEPT_ENV: &[&str] = &[
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];

struct KillGroup(Option<Pid>);

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Helpers (remote-https, index-pack) are in the group of the git that we started.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Git {
    /// Runs git and returns its stdout. Dropping the future kills it.
    pub(super) async fn run(&self, dir: &Path, transports: Transports, args: &[&str]) -> Result<String, GitError> {
        let mut command = Command::new("git");
        command.current_dir(dir).args(args).env_clear();
        command.env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        );
        for name in KEPT_ENV {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_SSH_COMMAND", &self.ssh_command)
            .env(
                "GIT_ALLOW_PROTOCOL",
                match transports {
                    Transports::Remote => "https:ssh:git",
                    Transports::Paths => "file",
                },
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(GitError::Start)?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let mut group = KillGroup(pid);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let all = async { tokio::join!(kept(stdout), kept(stderr), child.wait()) };
        let (stdout, stderr, status) = tokio::time::timeout(self.timeout, all)
            .await
            .map_err(|_| GitError::Timeout(self.timeout))?;
        let status = status.map_err(GitError::Start)?;
        group.0 = None;
        if status.success() {
            Ok(stdout)
        } else {
            Err(GitError::Failed {
                stderr: tail(&stderr, status),
            })
        }
    }
}

async fn kept(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut bytes = Vec::new();
    // A broken pipe shows in the exit status.
    let _ = (&mut pipe).take(KEPT_BYTES_MAX).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of what git said, as one printable line. A remote writes into it, too.
fn tail(stderr: &str, status: std::process::ExitStatus) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines[lines.len().saturating_sub(4)..].join("; ");
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1000)
        .collect();
    if text.is_empty() {
        format!("git ended with {status}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let failed = |stderr: &str| GitError::Failed { stderr: stderr.into() };
        for passing in [
            "fatal: unable to access 'https://h/r/': Could not resolve host: h",
            "fatal: unable to access 'https://h/r/': The requested URL returned error: 503",
            "error: RPC failed; curl 56 Recv failure: Connection reset by peer; fatal: early EOF",
            "fatal: unable to connect to 127.0.0.1:; 127.0.0.1: errno=Connection refused",
            "ssh: connect to host h port 22: Connection timed out; fatal: Could not read from remote repository.",
            "fatal: the remote end hung up unexpectedly",
        ] {
            assert!(failed(passing).is_passing(), "{passing}");
        }
        for stays in [
            "fatal: repository 'https://h/r/' not found",
            "fatal: unable to access 'https://h/r/': The requested URL returned error: 403",
            "fatal: could not read Username for 'https://h': terminal prompts disabled",
            "git@h: Permission denied (publickey).; fatal: the remote end hung up unexpectedly",
            "fatal: remote error: access denied or repository not exported: /r",
            "fatal: couldn't find remote ref refs/heads/x",
        ] {
            assert!(!failed(stays).is_passing(), "{stays}");
        }
    }
}
