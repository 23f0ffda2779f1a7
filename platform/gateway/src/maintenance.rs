//! What the process around the gateway can do with the installation as a whole.

use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use gantry_engine::api::Refusal;

/// What a backup leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupOptions {
    /// Artifacts themselves are in it, and not only their list.
    pub artifacts: bool,
}

/// Bytes of a backup as they are made. Dropping it ends the backup.
pub type BackupStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Work on the installation as a whole, all tenants together.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Begins a backup: a tar stream, whose last file is its manifest. One that ends without is broken off, and says why in `failure.json` where it can.
    ///
    /// # Errors
    /// When one is being made already, or none can be made now.
    async fn backup(&self, options: BackupOptions) -> Result<BackupStream, Refusal>;
}
