//! Syncs as the kernel sees them: strace beside the server, so that nobody has to believe the server's own count.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

/// How long strace may take to attach.
const ATTACH: Duration = Duration::from_secs(10);

/// Calls of fsync and fdatasync that `work` causes in the process; `None` where strace is not there or may not attach.
pub(super) async fn syscalls(pid: Pid, work: impl Future<Output = Result<()>>) -> Result<Option<f64>> {
    let started = Command::new("strace")
        .args([
            "-f",
            "-e",
            "trace=fsync,fdatasync",
            "-p",
            &pid.as_raw_nonzero().to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut strace) = started else {
        println!("strace is not there: syncs are not counted from outside");
        return Ok(None);
    };
    let mut lines = BufReader::new(strace.stderr.take().context("strace has an output")?);
    let mut first = String::new();
    tokio::time::timeout(ATTACH, lines.read_line(&mut first))
        .await
        .context("strace hangs")??;
    if !first.contains("attached") {
        println!("strace may not attach: {}", first.trim());
        return Ok(None);
    }
    let rest = tokio::spawn(async move {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).await.map(|_| rest)
    });
    // Attaching goes thread by thread.
    tokio::time::sleep(Duration::from_millis(500)).await;
    work.await?;
    let id = strace
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    kill_process(id.context("strace has ended")?, Signal::INT)?;
    strace.wait().await?;
    let rest = rest.await??;
    // A call that was interrupted by another thread's line is resumed in a second one, which does not count.
    let calls = rest
        .lines()
        .filter(|line| (line.contains("fsync(") || line.contains("fdatasync(")) && !line.contains("resumed"))
        .count();
    Ok(Some(f64::from(u32::try_from(calls)?)))
}
