//! SQL over history: where `gantry-query` is, and what it reads.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use gantry_engine::Engine;
use gantry_gateway::QueryEngine;
use gantry_journal::archive::ArchiveStore;
#[cfg(feature = "query")]
use gantry_query::{Queries, QueryConfig};

use crate::data_dir::DataDir;

/// The answerer of queries; `None` where it is not built in. That the program is missing is said to whoever asks: everything else works without it.
#[cfg(feature = "query")]
pub(super) async fn open(
    data: &DataDir,
    engine: &Arc<Engine>,
    store: ArchiveStore,
) -> Result<Option<Arc<dyn QueryEngine>>> {
    let own = std::env::current_exe().context("find this binary")?;
    let config = QueryConfig::new(own.with_file_name("gantry-query"), data.query());
    let source = Arc::clone(engine);
    let queries = tokio::task::spawn_blocking(move || Queries::open(config, source as _, store))
        .await?
        .context("open the cache of queries")?;
    Ok(Some(Arc::new(queries)))
}

/// Not built in.
#[cfg(not(feature = "query"))]
#[allow(clippy::unused_async)] // as the other one
pub(super) async fn open(_: &DataDir, _: &Arc<Engine>, _: ArchiveStore) -> Result<Option<Arc<dyn QueryEngine>>> {
    Ok(None)
}
