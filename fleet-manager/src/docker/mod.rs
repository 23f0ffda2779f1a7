//! The one door to Docker: every endpoint that this product uses, and nothing else.
//!
//! Nothing here takes a container's id from outside: calls on a container take an [`Owned`], which only this module makes, after it has seen our
//! installation's and node's labels on it. Creating takes a [`HardenedContainer`], which only the hardened profile makes.
//!
//! Traps of the client that are dealt with here: a stream has no timeout, timeouts are whole seconds and end with the headers, a wait reports a
//! non-zero exit as an error, 304 comes as success, and any I/O error means "unknown", never "dead".

mod error;
mod owned;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::container::PathStatResponse;
use bollard::models::{ContainerInspectResponse, ImageInspect, SystemInfo};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use gantry_proto::{NodeId, SandboxId};
use parking_lot::Mutex;

pub(crate) use self::error::Trouble;
pub(crate) use self::owned::{LABEL_PREFIX, Labels, Listed, Owned, container_name};
use crate::config::Deadlines;
use crate::image::ImageName;
use crate::profile::HardenedContainer;

/// The client's own timeout, past every deadline of ours: ours decide.
const CLIENT_TIMEOUT_SECONDS: u64 = 600;

/// Connections to one Docker daemon on behalf of one node of one installation.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    installation: String,
    node: NodeId,
    deadlines: Deadlines,
    /// Made when the socket first exists: the client refuses to be built without it, and Docker may be started after us.
    client: Mutex<Option<Docker>>,
}

impl Engine {
    pub(crate) fn new(socket: PathBuf, installation: String, node: NodeId, deadlines: Deadlines) -> Self {
        Self {
            socket,
            installation,
            node,
            deadlines,
            client: Mutex::new(None),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn client(&self) -> Result<Docker, Trouble> {
        let mut slot = self.client.lock();
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let path = self
            .socket
            .to_str()
            .ok_or_else(|| Trouble::Lost("the socket's path is not UTF-8".to_owned()))?;
        let client = Docker::connect_with_unix(path, CLIENT_TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION)?;
        Ok(slot.insert(client).clone())
    }

    /// Whether the daemon answers at all.
    pub(crate) async fn ping(&self) -> Result<(), Trouble> {
        let client = self.client()?;
        timed(self.deadlines.health, client.ping()).await.map(drop)
    }

    /// What the daemon can do.
    pub(crate) async fn info(&self) -> Result<SystemInfo, Trouble> {
        let client = self.client()?;
        timed(self.deadlines.health, client.info()).await
    }

    /// An image by validated name or id.
    pub(crate) async fn image(&self, name: &ImageName) -> Result<ImageInspect, Trouble> {
        let client = self.client()?;
        timed(self.deadlines.read, client.inspect_image(name.as_str())).await
    }

    /// Fetches an image, reading the progress to its end.
    pub(crate) async fn pull(&self, name: &ImageName, limit: Duration) -> Result<(), Trouble> {
        let client = self.client()?;
        let options = CreateImageOptionsBuilder::default()
            .from_image(&name.with_tag())
            .build();
        let run = async {
            let mut progress = std::pin::pin!(client.create_image(Some(options), None, None));
            while let Some(line) = progress.next().await {
                line?;
            }
            Ok(())
        };
        timed(limit, run).await
    }

    /// Our containers, in any state.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, Trouble> {
        let client = self.client()?;
        let labels = owned::discovery_labels(&self.installation, self.node);
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = timed(self.deadlines.read, client.list_containers(Some(options))).await?;
        Ok(found
            .iter()
            .filter_map(|summary| owned::listed(summary, &self.installation, self.node))
            .collect())
    }

    /// The sandbox's container as Docker sees it, or `None` when there is none.
    ///
    /// # Errors
    /// [`Trouble::NotOurs`] when a container of that name lacks our labels.
    pub(crate) async fn inspect(
        &self,
        sandbox: SandboxId,
    ) -> Result<Option<(Owned, ContainerInspectResponse)>, Trouble> {
        let client = self.client()?;
        let name = container_name(sandbox);
        match timed(self.deadlines.read, client.inspect_container(&name, None)).await {
            Ok(seen) => {
                let owned = owned::verify(&seen, sandbox, &self.installation, self.node)?;
                Ok(Some((owned, seen)))
            }
            Err(Trouble::NotFound(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Creates a container; it is not started.
    ///
    /// # Errors
    /// [`Trouble::Conflict`] when the name is taken: an earlier try at the same sandbox.
    pub(crate) async fn create(&self, container: &HardenedContainer) -> Result<(), Trouble> {
        let client = self.client()?;
        let name = container_name(container.sandbox());
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        timed(
            self.deadlines.change,
            client.create_container(Some(options), container.body().clone()),
        )
        .await
        .map(drop)
    }

    /// What lies at an absolute path of a container that was never started. Not followed when it is a link. `None`: nothing does.
    pub(crate) async fn stat_unstarted(&self, owned: &Owned, path: &str) -> Result<Option<PathStatResponse>, Trouble> {
        let client = self.client()?;
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match timed(
            self.deadlines.change,
            client.get_container_archive_info(owned.id(), Some(options)),
        )
        .await
        {
            Ok(stat) => Ok(Some(stat)),
            Err(Trouble::NotFound(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Starts a container; one that runs already is fine.
    pub(crate) async fn start(&self, owned: &Owned) -> Result<(), Trouble> {
        let client = self.client()?;
        timed(self.deadlines.change, client.start_container(owned.id(), None)).await
    }

    /// Sends SIGKILL to PID 1, and with it to the whole container. One that does not run or exist is fine.
    pub(crate) async fn kill(&self, owned: &Owned) -> Result<(), Trouble> {
        let client = self.client()?;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        match timed(self.deadlines.change, client.kill_container(owned.id(), Some(options))).await {
            Ok(()) | Err(Trouble::NotFound(_) | Trouble::Conflict(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Kills and removes a container. One that does not exist is fine; [`Trouble::Conflict`]: its removal is already in progress.
    pub(crate) async fn remove(&self, owned: &Owned) -> Result<(), Trouble> {
        let client = self.client()?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match timed(
            self.deadlines.change,
            client.remove_container(owned.id(), Some(options)),
        )
        .await
        {
            Ok(()) | Err(Trouble::NotFound(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Returns when the container does not run, at once if it does not now, or after `limit`. A hint: inspect says what is true.
    pub(crate) async fn wait_stopped(&self, owned: &Owned, limit: Duration) -> Result<(), Trouble> {
        let client = self.client()?;
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let run = async {
            let mut ends = std::pin::pin!(client.wait_container(owned.id(), Some(options)));
            match ends.next().await {
                // The client makes an error of every exit code but 0.
                Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => Ok(()),
                Some(Err(error)) => Err(error),
                // The daemon went away: nobody knows.
                None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            }
        };
        timed(limit, run).await
    }
}

async fn timed<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Trouble> {
    // Boxed: the client's futures are large, and every caller would carry them.
    match tokio::time::timeout(limit, Box::pin(call)).await {
        Ok(answer) => answer.map_err(Trouble::from),
        Err(_) => Err(Trouble::TimedOut(limit)),
    }
}
