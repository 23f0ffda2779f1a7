//! What a test puts in the way of a connection: a listener in front of the real one, which the test can take away.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// Docker's own socket.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// A listener of either family.
pub(crate) trait Listener: Send + Sync + 'static {
    /// What it accepts.
    type Stream: Send + 'static;
    /// The next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// A listener at work. When it is dropped or closed, open connections break and new ones are refused.
pub(crate) struct Serving(JoinHandle<()>);

impl Serving {
    /// Lets `serve` have every connection of `listener`.
    pub(crate) fn start<L, F>(listener: L, serve: impl Fn(L::Stream) -> F + Send + 'static) -> Self
    where
        L: Listener,
        F: Future<Output = ()> + Send + 'static,
    {
        Self(tokio::spawn(async move {
            // Connections end with this set, that is, with the task.
            let mut connections = JoinSet::new();
            while let Ok(client) = listener.next().await {
                connections.spawn(serve(client));
                while connections.try_join_next().is_some() {}
            }
        }))
    }

    /// Returns when the listener and all connections are gone.
    pub(crate) async fn close(mut self) {
        self.0.abort();
        // Cancelled is how it ends.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A Unix socket in front of Docker's, open or closed, so that "Docker is down" can be tried without stopping the machine's Docker.
pub struct DockerProxy {
    path: PathBuf,
    serving: Option<Serving>,
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
        self.serving = Some(Serving::start(listener, |mut client| async move {
            let Ok(mut docker) = UnixStream::connect(DOCKER_SOCKET).await else {
                return;
            };
            // A broken connection is the point of this proxy.
            let _ = copy_bidirectional(&mut client, &mut docker).await;
        }));
        Ok(())
    }

    /// Docker is gone: open connections break, new ones are refused.
    pub async fn close(&mut self) -> Result<()> {
        if let Some(serving) = self.serving.take() {
            serving.close().await;
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        // Nothing is left behind by a scenario; a closed proxy has removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}
