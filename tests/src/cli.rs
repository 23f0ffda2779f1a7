//! The `gantry` command as a person would run it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::paths;

const COMMAND_DEADLINE: Duration = Duration::from_secs(300);

/// What a command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Output {
    /// Fails with both streams unless the exit code is as expected.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.code != code {
            bail!(
                "exit code {} instead of {code}\nstdout: {}\nstderr: {}",
                self.code,
                self.stdout,
                self.stderr
            );
        }
        Ok(self)
    }

    /// stdout as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }
}

/// Runs `gantry` with these arguments, as a client of `connection` (URL and key) if there is one. `home` keeps the caller's own configuration out.
pub async fn gantry(connection: Option<(&str, &str)>, home: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(paths::gantry()?);
    command
        .args(arguments)
        .env("HOME", home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for variable in [
        "GANTRY_URL",
        "GANTRY_API_KEY",
        "GANTRY_CLIENT_CONFIG",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(variable);
    }
    if let Some((url, key)) = connection {
        command.env("GANTRY_URL", url).env("GANTRY_API_KEY", key);
    }
    let output = tokio::time::timeout(COMMAND_DEADLINE, command.output())
        .await
        .with_context(|| format!("gantry {arguments:?} hangs"))??;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
