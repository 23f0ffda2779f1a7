//! Backups of a running installation, as the API asks for them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_directory::{Directory as _, SqliteDirectory};
use gantry_engine::api::Refusal;
use gantry_gateway::{BackupOptions, BackupStream, Maintenance};
use gantry_journal::RocksStore;
use gantry_proto::ErrorCode;
use gantry_proto::time::{Clock as _, SystemClock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backup::{Installation, Options, TarSink, pack};
use crate::data_dir::DataDir;

/// Bytes that go out at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way: what a backup holds in memory beside its part of the journal.
const CHUNKS_MAX: usize = 8;
/// A reader that takes nothing for so long has gone: a backup keeps what was deleted since its cut on disk.
const READER_TIMEOUT: Duration = Duration::from_mins(1);
/// Commits wait while the directory is copied. It is small; when it hangs, the backup fails and work goes on.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes backups of a running core, one at a time.
pub(super) struct Backups {
    store: Arc<RocksStore>,
    directory: Arc<SqliteDirectory>,
    segments: PathBuf,
    blobs: PathBuf,
    root: PathBuf,
    master_key: String,
    one: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Backups {
    pub(super) fn new(
        store: Arc<RocksStore>,
        directory: Arc<SqliteDirectory>,
        data: &DataDir,
        master_key: String,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            directory,
            segments: data.segments(),
            blobs: data.blobs(),
            root: data.root().to_owned(),
            master_key,
            one: Arc::new(Semaphore::new(1)),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Waits for the one that runs; it ends soon after `stop`.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A copy of the directory, from a thread that may block.
pub(crate) fn copy_directory(
    directory: &Arc<SqliteDirectory>,
) -> impl Fn(&std::path::Path) -> Result<(), String> + use<> {
    let (directory, handle) = (Arc::clone(directory), Handle::current());
    move |path| {
        let copy = tokio::time::timeout(DIRECTORY_TIMEOUT, directory.snapshot_into(path));
        match handle.block_on(copy) {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it takes longer than {DIRECTORY_TIMEOUT:?}")),
        }
    }
}

#[async_trait]
impl Maintenance for Backups {
    async fn backup(&self, options: BackupOptions) -> Result<BackupStream, Refusal> {
        let Ok(permit) = Arc::clone(&self.one).try_acquire_owned() else {
            return Err(Refusal::new(
                ErrorCode::BackupRefused,
                "a backup is being made; there is one at a time",
            ));
        };
        let (chunks, stream) = mpsc::channel(CHUNKS_MAX);
        let (store, copy, stop) = (
            Arc::clone(&self.store),
            copy_directory(&self.directory),
            self.stop.clone(),
        );
        let (segments, blobs, root) = (self.segments.clone(), self.blobs.clone(), self.root.clone());
        let (id, master_key) = (self.directory.installation().to_string(), self.master_key.clone());
        let handle = Handle::current();
        self.tasks.spawn_blocking(move || {
            let _permit = permit;
            let from = Installation {
                store: &store,
                copy_directory: &copy,
                segments: &segments,
                blobs: &blobs,
                scratch: &root,
                id,
                master_key,
                now_ms: SystemClock.now_ms(),
                stopped: &|| stop.is_cancelled() || chunks.is_closed(),
            };
            let writer = ChunkWriter {
                chunks: chunks.clone(),
                handle,
                buffer: Vec::with_capacity(CHUNK_BYTES),
            };
            match pack(
                &from,
                Options {
                    artifacts: options.artifacts,
                },
                &mut TarSink::new(writer),
            ) {
                Ok(summary) => tracing::info!(
                    verify_digest = summary.verify_digest,
                    held_ms = summary.held_ms,
                    "a backup was made"
                ),
                Err(error) => tracing::warn!(%error, "a backup was not finished"),
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// Sends what is written down a channel, and waits for its reader, but not for ever.
struct ChunkWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    handle: Handle,
    buffer: Vec<u8>,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.handle
            .block_on(self.chunks.send_timeout(Ok(chunk.into()), READER_TIMEOUT))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the backup has gone"))
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES.saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..room]);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
