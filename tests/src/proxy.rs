//! A Unix socket in front of Docker's that a test can take away, so that "Docker is down" can be tried without stopping the machine's Docker.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// Docker's own socket.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// The proxy; open or closed.
pub struct DockerProxy {
    path: PathBuf,
    serving: Option<JoinHandle<()>>,
}

impl DockerProxy {
    /// A closed proxy at `path`: connecting fails as it does when dockerd is not there.
    #[must_use]
    pub fn closed(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            serving: None,
        }
    }

    /// Docker answers from now on.
    pub fn open(&mut self) -> Result<()> {
        let listener = UnixListener::bind(&self.path).with_context(|| format!("listen on {}", self.path.display()))?;
        self.serving = Some(tokio::spawn(async move {
            // Connections end with this set, that is, with the task.
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let Ok(mut docker) = UnixStream::connect(DOCKER_SOCKET).await else {
                        return;
                    };
                    // A broken connection is the point of this proxy.
                    let _ = copy_bidirectional(&mut client, &mut docker).await;
                });
            }
        }));
        Ok(())
    }

    /// Docker is gone: open connections break, new ones are refused.
    pub async fn close(&mut self) -> Result<()> {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // Cancelled is how it ends.
            let _ = serving.await;
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}
