//! Docker as an outside witness: what it saw of an installation's containers.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Label that every container of an installation carries.
pub const LABEL_INSTALLATION: &str = "io.gantry.installation";
/// Label with the id of the sandbox that a container is.
pub const LABEL_SANDBOX: &str = "io.gantry.sandbox";

/// Runs `docker` and gives its stdout.
pub async fn docker(arguments: &[&str]) -> Result<String> {
    let output = tokio::time::timeout(
        Duration::from_secs(60),
        Command::new("docker").args(arguments).kill_on_drop(true).output(),
    )
    .await
    .with_context(|| format!("docker {arguments:?} hangs"))??;
    if !output.status.success() {
        bail!("docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ids of an installation's containers, in any state.
pub async fn containers(installation: &str) -> Result<Vec<String>> {
    let filter = format!("label={LABEL_INSTALLATION}={installation}");
    Ok(docker(&["ps", "-aq", "--no-trunc", "--filter", &filter])
        .await?
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

/// Kills PID 1 of a container from outside, as the kernel's OOM killer would: Docker is not asked.
pub async fn kill_supervisor(container: &str) -> Result<()> {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", container]).await?;
    let pid = pid
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{container} does not run: pid {pid}"))?;
    kill_process(pid, Signal::KILL).context("kill -9 of the supervisor")
}

/// Kills a container through Docker.
pub async fn kill_container(container: &str) -> Result<()> {
    docker(&["kill", "--signal", "KILL", container]).await.map(drop)
}

/// One event of a container.
#[derive(Debug, Clone, Deserialize)]
pub struct ContainerEvent {
    /// `create`, `start`, `die`, `destroy`, ...
    #[serde(rename = "Action")]
    pub action: String,
    /// Who.
    #[serde(rename = "Actor")]
    pub actor: Actor,
}

/// Whom an event is about.
#[derive(Debug, Clone, Deserialize)]
pub struct Actor {
    /// Container id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels and details.
    #[serde(rename = "Attributes")]
    pub attributes: HashMap<String, String>,
}

impl ContainerEvent {
    /// The sandbox that the container is.
    #[must_use]
    pub fn sandbox(&self) -> Option<&str> {
        self.actor.attributes.get(LABEL_SANDBOX).map(String::as_str)
    }
}

/// Records every event of an installation's containers until dropped.
pub struct Recorder {
    seen: watch::Receiver<Vec<ContainerEvent>>,
    // Killed when dropped, which ends the reader.
    _events: Child,
    _reader: JoinHandle<()>,
}

impl Recorder {
    /// Starts to record. Events since `since` (seconds of the epoch, as Docker's clock has them) are included, so none is missed.
    pub fn start(installation: &str, since: u64) -> Result<Self> {
        let mut events = Command::new("docker")
            .args([
                "events",
                "--format",
                "{{json .}}",
                "--filter",
                "type=container",
                "--since",
                &since.to_string(),
            ])
            .args(["--filter", &format!("label={LABEL_INSTALLATION}={installation}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("docker events")?;
        let mut lines = BufReader::new(events.stdout.take().context("docker events has no stdout")?).lines();
        let (sender, seen) = watch::channel(Vec::new());
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str::<ContainerEvent>(&line) {
                    Ok(event) => sender.send_modify(|all| all.push(event)),
                    Err(error) => eprintln!("docker events: {error}: {line}"),
                }
            }
        });
        Ok(Self {
            seen,
            _events: events,
            _reader: reader,
        })
    }

    /// How many events were seen so far: a mark to wait after.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.seen.borrow().len()
    }

    /// All events so far.
    #[must_use]
    pub fn all(&self) -> Vec<ContainerEvent> {
        self.seen.borrow().clone()
    }

    /// The first event of this action after a mark.
    pub async fn next(&self, action: &str, after: usize, deadline: Duration) -> Result<ContainerEvent> {
        let mut seen = self.seen.clone();
        let fits = |all: &Vec<ContainerEvent>| {
            all.get(after..)
                .is_some_and(|new| new.iter().any(|event| event.action == action))
        };
        let all = tokio::time::timeout(deadline, seen.wait_for(fits))
            .await
            .with_context(|| format!("no `{action}` event in {deadline:?}"))??;
        all[after..]
            .iter()
            .find(|event| event.action == action)
            .cloned()
            .context("the event that was waited for")
    }

    /// Waits until every container that was created is destroyed.
    pub async fn all_destroyed(&self, deadline: Duration) -> Result<()> {
        let mut seen = self.seen.clone();
        let count = |all: &[ContainerEvent], action: &str| all.iter().filter(|event| event.action == action).count();
        tokio::time::timeout(
            deadline,
            seen.wait_for(|all| count(all, "create") == count(all, "destroy")),
        )
        .await
        .with_context(|| format!("containers are left after {deadline:?}"))??;
        Ok(())
    }
}
