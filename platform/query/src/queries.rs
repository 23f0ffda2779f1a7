//! The way of a query.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_journal::archive::{ArchiveSource, ArchiveStore, Batch, SealedObject, Snapshot, SourceError};
use gantry_proto::TenantId;
use gantry_proto::limits::{
    QUERIES_MAX, QUERIES_PER_TENANT_MAX, QUERY_ANSWER_BYTES_MAX, QUERY_CACHE_BYTES_MAX, QUERY_MEMORY_BYTES,
    QUERY_OBJECTS_MAX, QUERY_PARAMETERS_MAX, QUERY_ROWS_MAX, QUERY_SQL_BYTES_MAX, QUERY_TAIL_BYTES_MAX,
    QUERY_TIMEOUT_MS_MAX,
};
use gantry_proto::v1::query_input::Kind;
use gantry_proto::v1::query_parameter::Value as Given;
use gantry_proto::v1::{QueryOrder, QueryParameter, QueryStart};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::api::{Answer, Parameter, Query, QueryEngine, QueryError, Stats};
use crate::cache::{Cache, RunDirectory};
use crate::process::Process;
use crate::{pick, tail};

/// Objects that are fetched at once for one query.
const FETCHES: usize = 4;
/// Frames of unsealed rows that wait for the process.
const FRAMES_QUEUE: usize = 4;
/// After a query's time is over, its process may say so for this long before it is killed.
const GRACE: Duration = Duration::from_millis(500);

/// Where things are, and how much a query may have.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// The program `gantry-query`.
    pub program: PathBuf,
    /// Directory for cached objects and for what queries see.
    pub directory: PathBuf,
    /// Bytes of cached objects.
    pub cache_bytes_max: u64,
    /// Memory of DuckDB for one query.
    pub memory_bytes: u64,
}

impl QueryConfig {
    /// Defaults for a program and a directory.
    #[must_use]
    pub fn new(program: PathBuf, directory: PathBuf) -> Self {
        Self {
            program,
            directory,
            cache_bytes_max: QUERY_CACHE_BYTES_MAX,
            memory_bytes: QUERY_MEMORY_BYTES,
        }
    }
}

/// Answers queries over an archive and its tail.
pub struct Queries {
    program: PathBuf,
    memory_bytes: u64,
    source: Arc<dyn ArchiveSource>,
    store: ArchiveStore,
    cache: Arc<Cache>,
    running: Semaphore,
    by_tenant: Mutex<HashMap<TenantId, usize>>,
}

/// A place among the queries that run.
struct Place<'a> {
    queries: &'a Queries,
    tenant: TenantId,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut by_tenant = self.queries.by_tenant.lock();
        if let Some(running) = by_tenant.get_mut(&self.tenant) {
            *running -= 1;
            if *running == 0 {
                by_tenant.remove(&self.tenant);
            }
        }
    }
}

impl Queries {
    /// Opens the cache; nothing is started. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(config: QueryConfig, source: Arc<dyn ArchiveSource>, store: ArchiveStore) -> io::Result<Self> {
        Ok(Self {
            cache: Arc::new(Cache::open(&config.directory, config.cache_bytes_max)?),
            program: config.program,
            memory_bytes: config.memory_bytes,
            source,
            store,
            running: Semaphore::new(QUERIES_MAX),
            by_tenant: Mutex::new(HashMap::new()),
        })
    }

    fn place(&self, tenant: TenantId) -> Result<Place<'_>, QueryError> {
        let busy = |most: usize, whose: &str| {
            QueryError::Busy(format!(
                "{most} queries {whose} run already, which is as many as may; try again"
            ))
        };
        let mut by_tenant = self.by_tenant.lock();
        if by_tenant.get(&tenant).copied().unwrap_or(0) >= QUERIES_PER_TENANT_MAX {
            return Err(busy(QUERIES_PER_TENANT_MAX, "of this tenant"));
        }
        let permit = self
            .running
            .try_acquire()
            .map_err(|_| busy(QUERIES_MAX, "of all tenants"))?;
        *by_tenant.entry(tenant).or_insert(0) += 1;
        Ok(Place {
            queries: self,
            tenant,
            _permit: permit,
        })
    }

    async fn answer(&self, query: Query, deadline: Instant) -> Result<Answer, QueryError> {
        let tables = pick::tables(&query.sql, self.source.tables());
        let (source, tenant) = (Arc::clone(&self.source), query.tenant);
        let snapshot = blocking(move || source.snapshot(tenant).map_err(QueryError::from)).await?;
        let cache = Arc::clone(&self.cache);
        let run = blocking(move || cache.new_run()).await?;
        let mut stats = Stats::default();
        let files = self.provide(&snapshot, &tables, &query, &run, &mut stats).await?;

        let mut process = Process::start(&self.program, run.path())?;
        let order = self.order(&query, files, deadline)?;
        let alive = process
            .send(&tail::framed(Kind::Order(order)).map_err(too_large)?)
            .await;
        if alive {
            stats.tail_rows = self.feed(&mut process, snapshot, tables).await?;
        }
        let mut answer = process.answer().await?;
        answer.stats = stats;
        Ok(answer)
    }

    /// Puts the objects that the query needs into its directory; gives their names by table.
    async fn provide(
        &self,
        snapshot: &Snapshot,
        tables: &[&'static str],
        query: &Query,
        run: &RunDirectory,
        stats: &mut Stats,
    ) -> Result<HashMap<&'static str, Vec<String>>, QueryError> {
        let objects: Vec<SealedObject> = pick::objects(snapshot, tables, query).into_iter().cloned().collect();
        let bytes: u64 = objects.iter().map(|object| object.size_bytes).sum();
        if objects.len() > QUERY_OBJECTS_MAX || bytes > self.cache.max_bytes() {
            return Err(QueryError::Limit(format!(
                "it would read {} sealed objects of {bytes} bytes; at most {QUERY_OBJECTS_MAX} of {} bytes may be. Narrow it with since and until",
                objects.len(),
                self.cache.max_bytes()
            )));
        }
        (stats.objects, stats.object_bytes) = (objects.len() as u64, bytes);
        let provided: Vec<(&'static str, String, u64)> = stream::iter(objects)
            .map(|object| async move {
                let (name, fetched) = self.cache.provide(&self.store, query.tenant, &object, run).await?;
                Ok::<_, QueryError>((object.table, name, fetched))
            })
            .buffer_unordered(FETCHES)
            .try_collect()
            .await?;
        let mut files: HashMap<&'static str, Vec<String>> = HashMap::new();
        for (table, name, fetched) in provided {
            stats.fetched_bytes += fetched;
            files.entry(table).or_default().push(name);
        }
        for names in files.values_mut() {
            names.sort_unstable();
        }
        let (cache, snapshot) = (Arc::clone(&self.cache), snapshot.clone());
        blocking(move || {
            cache
                .tidy(&snapshot)
                .map_err(|error| QueryError::Internal(format!("tidy the cache of queries: {error}")))
        })
        .await?;
        Ok(files)
    }

    fn order(
        &self,
        query: &Query,
        mut files: HashMap<&'static str, Vec<String>>,
        deadline: Instant,
    ) -> Result<QueryOrder, QueryError> {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let timeout_ms = u64::try_from(left).unwrap_or(u64::MAX);
        if timeout_ms == 0 {
            return Err(late(query));
        }
        let parameters = query.parameters.iter().map(|(name, value)| QueryParameter {
            name: name.clone(),
            value: match value {
                Parameter::Null => None,
                Parameter::Bool(value) => Some(Given::Truth(*value)),
                Parameter::I64(value) => Some(Given::Whole(*value)),
                Parameter::F64(value) => Some(Given::Number(*value)),
                Parameter::Text(value) => Some(Given::Text(value.clone())),
            },
        });
        let tables = self.source.tables().iter();
        Ok(QueryOrder {
            sql: query.sql.clone(),
            parameters: parameters.collect(),
            tables: tables
                .map(|table| tail::table(table, files.remove(table.name).unwrap_or_default()))
                .collect(),
            rows_max: query.rows_max,
            bytes_max: QUERY_ANSWER_BYTES_MAX,
            timeout_ms,
            memory_bytes: self.memory_bytes,
        })
    }

    /// Sends the unsealed rows of the tables, and the start. Gives their number.
    async fn feed(
        &self,
        process: &mut Process,
        snapshot: Snapshot,
        tables: Vec<&'static str>,
    ) -> Result<u64, QueryError> {
        let (sender, mut frames) = mpsc::channel::<Bytes>(FRAMES_QUEUE);
        let source = Arc::clone(&self.source);
        // When this future is dropped the channel closes, and the reading ends at its next batch.
        let reading = tokio::task::spawn_blocking(move || read_tail(&*source, &snapshot, &tables, &sender));
        let mut alive = true;
        while let Some(frame) = frames.recv().await {
            if !process.send(&frame).await {
                alive = false;
                break;
            }
        }
        frames.close();
        let read = reading.await.map_err(|error| QueryError::Internal(error.to_string()))?;
        match read {
            // It stopped because the process stopped, which says why itself.
            Err(QueryError::Source(SourceError::Stopped)) if !alive => Ok(0),
            Ok(rows) => {
                if alive {
                    process
                        .send(&tail::framed(Kind::Start(QueryStart {})).map_err(too_large)?)
                        .await;
                }
                Ok(rows)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads the tail and hands its frames on. Blocks.
fn read_tail(
    source: &dyn ArchiveSource,
    snapshot: &Snapshot,
    tables: &[&str],
    frames: &mpsc::Sender<Bytes>,
) -> Result<u64, QueryError> {
    if tables.is_empty() {
        return Ok(0);
    }
    let (mut rows, mut bytes) = (0u64, 0usize);
    let mut failed = None;
    let known = source.tables();
    let read = source.tail(snapshot, tables, &mut |batch: Batch| {
        let table = known.iter().position(|table| table.id == batch.table.id).unwrap_or(known.len());
        let encoded = match tail::frames(&batch, u32::try_from(table).unwrap_or(u32::MAX)) {
            Ok(encoded) => encoded,
            Err(error) => {
                failed = Some(too_large(error));
                return Err(SourceError::Stopped);
            }
        };
        rows += batch.rows() as u64;
        bytes += encoded.iter().map(Bytes::len).sum::<usize>();
        if bytes > QUERY_TAIL_BYTES_MAX {
            failed = Some(QueryError::Limit(format!(
                "the rows that are not sealed yet are more than {QUERY_TAIL_BYTES_MAX} bytes; read fewer tables, or wait until they are sealed"
            )));
            return Err(SourceError::Stopped);
        }
        for frame in encoded {
            frames.blocking_send(frame).map_err(|_| SourceError::Stopped)?;
        }
        Ok(())
    });
    match (failed, read) {
        (Some(failed), _) => Err(failed),
        (None, Ok(())) => Ok(rows),
        (None, Err(error)) => Err(error.into()),
    }
}

#[allow(clippy::needless_pass_by_value)] // it stands where a function over errors is wanted
fn too_large(error: gantry_proto::frame::FrameError) -> QueryError {
    QueryError::Internal(format!("a message for gantry-query: {error}"))
}

fn late(query: &Query) -> QueryError {
    QueryError::Limit(format!("it ran longer than {} ms", query.timeout_ms))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| QueryError::Internal(error.to_string()))?
}

fn check(query: &Query) -> Result<(), QueryError> {
    let refused = |message: String| Err(QueryError::Request(message));
    if query.sql.len() > QUERY_SQL_BYTES_MAX {
        return refused(format!("`sql` is longer than {QUERY_SQL_BYTES_MAX} bytes"));
    }
    if query.parameters.len() > QUERY_PARAMETERS_MAX {
        return refused(format!("there are more than {QUERY_PARAMETERS_MAX} parameters"));
    }
    if query.rows_max == 0 || query.rows_max > QUERY_ROWS_MAX {
        return refused(format!("an answer has 1 to {QUERY_ROWS_MAX} rows"));
    }
    if query.timeout_ms == 0 || query.timeout_ms > QUERY_TIMEOUT_MS_MAX {
        return refused(format!("a query may take 1 to {QUERY_TIMEOUT_MS_MAX} ms"));
    }
    if query
        .since_ms
        .zip(query.until_ms)
        .is_some_and(|(since, until)| since > until)
    {
        return refused("since is after until".to_owned());
    }
    Ok(())
}

#[async_trait::async_trait]
impl QueryEngine for Queries {
    async fn query(&self, query: Query) -> Result<Answer, QueryError> {
        check(&query)?;
        let _place = self.place(query.tenant)?;
        let begun = Instant::now();
        let limit = Duration::from_millis(query.timeout_ms);
        let overdue = late(&query);
        let answered = tokio::time::timeout(limit + GRACE, self.answer(query, begun + limit)).await;
        let mut answer = answered.map_err(|_| overdue)??;
        answer.stats.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(answer)
    }
}
