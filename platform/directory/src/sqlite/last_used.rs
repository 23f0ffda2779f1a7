//! When a credential was last used: written by one task, at most once a minute per credential, many in one commit. Losing some is harmless.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use sqlx::SqlitePool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::to_sql;

/// Uses closer together than this are one.
const RESOLUTION_MS: u64 = 60_000;

/// Uses that wait to be written; past it they are forgotten.
const QUEUE_MAX: usize = 256;

const TRACKED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Used {
    Key([u8; 16]),
    NodeToken([u8; 16]),
}

pub(super) struct LastUsed {
    sent: Mutex<LruCache<Used, u64>>,
    queue: Mutex<Option<mpsc::Sender<(Used, u64)>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl LastUsed {
    pub(super) fn start(writer: SqlitePool) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(write(writer, receiver));
        Self {
            sent: Mutex::new(LruCache::new(TRACKED_MAX)),
            queue: Mutex::new(Some(sender)),
            task: Mutex::new(Some(task)),
        }
    }

    /// Notes a use. Never waits.
    pub(super) fn note(&self, used: Used, now_ms: u64) {
        {
            let mut sent = self.sent.lock();
            if sent
                .get(&used)
                .is_some_and(|last| now_ms < last.saturating_add(RESOLUTION_MS))
            {
                return;
            }
            sent.put(used, now_ms);
        }
        if let Some(queue) = &*self.queue.lock() {
            // A full queue loses this use: it is a hint for people, and the next minute brings another.
            let _ = queue.try_send((used, now_ms));
        }
    }

    /// Writes what waits and ends the task.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

async fn write(writer: SqlitePool, mut queue: mpsc::Receiver<(Used, u64)>) {
    let mut waiting = Vec::with_capacity(QUEUE_MAX);
    while queue.recv_many(&mut waiting, QUEUE_MAX).await > 0 {
        let newest: HashMap<Used, u64> = waiting.drain(..).collect();
        if let Err(error) = store(&writer, newest).await {
            tracing::warn!(%error, "cannot write when credentials were last used");
        }
    }
}

async fn store(writer: &SqlitePool, uses: HashMap<Used, u64>) -> Result<(), sqlx::Error> {
    let mut tx = writer.begin().await?;
    for (used, at_ms) in uses {
        let (query, id) = match used {
            Used::Key(id) => (
                "UPDATE api_keys SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?) WHERE id = ?",
                id,
            ),
            Used::NodeToken(id) => (
                "UPDATE node_tokens SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?) WHERE id = ?",
                id,
            ),
        };
        sqlx::query(query)
            .bind(to_sql(at_ms))
            .bind(id.as_slice())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}
