//! A daemon or node under test: started, killed with -9 or asked to stop, its output in a log file.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long a process may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A child of ours. Killed when dropped, so that a panicking test leaves none behind.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `binary`; both of its output streams are appended to `log`.
    pub fn start(binary: &Path, arguments: &[OsString], environment: &[(&str, OsString)], log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {} {arguments:?}", binary.display()))?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .context("the child has no pid")?;
        Ok(Self {
            child,
            pid,
            log: log.to_path_buf(),
        })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// An error with the end of the log, if the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the process ended ({status}); its log {} ends with:\n{}",
                self.log.display(),
                tail(&self.log)
            );
        }
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        self.child.start_kill().context("kill -9")?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGSTOP: it does nothing at all until [`Self::resume`].
    pub fn pause(&self) -> Result<()> {
        kill_process(self.pid, Signal::STOP).context("SIGSTOP")
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        kill_process(self.pid, Signal::CONT).context("SIGCONT")
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        kill_process(self.pid, Signal::TERM).context("SIGTERM")?;
        match tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "still running {STOP_DEADLINE:?} after SIGTERM; its log {} ends with:\n{}",
                self.log.display(),
                tail(&self.log)
            ),
        }
    }

    /// A `kB` line of `/proc/<pid>/status`, in bytes: `VmRSS` now, `VmHWM` at most so far.
    pub fn memory_bytes(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let row = status
            .lines()
            .find_map(|row| row.strip_prefix(line)?.strip_prefix(':'))
            .with_context(|| format!("no {line} in status"))?;
        let kib: u64 = row
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .with_context(|| format!("{line}: {row}"))?;
        Ok(kib * 1024)
    }
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
