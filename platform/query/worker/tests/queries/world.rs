//! An archive of two tenants, with a tail.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_journal::archive::{
    ArchiveSource, ArchiveStore, BatchBuilder, ColumnType, Day, Field, FileWriter, Schema, SealedObject, Sink,
    Snapshot, SourceError, Table, Value,
};
use gantry_proto::TenantId;
use gantry_query::{Answer, Queries, Query, QueryConfig, QueryEngine as _, QueryError};
use tempfile::TempDir;

const fn field(name: &'static str, kind: ColumnType, nullable: bool) -> Field {
    Field {
        name,
        kind,
        nullable,
        about: "",
    }
}

pub(crate) static WORKFLOWS: Table = Table {
    id: 1,
    name: "workflows",
    about: "",
    schema: Schema(&[
        field("id", ColumnType::Text, false),
        field("ended_at", ColumnType::TimestampMs, true),
        field("labels", ColumnType::Json, false),
        field("cost", ColumnType::F64, true),
        field("good", ColumnType::Bool, true),
    ]),
};

pub(crate) static EVENTS: Table = Table {
    id: 2,
    name: "events",
    about: "",
    schema: Schema(&[
        field("workflow_id", ColumnType::Text, false),
        field("position", ColumnType::I64, false),
        field("record", ColumnType::Bytes, false),
    ]),
};

pub(crate) const DAY_MS: u64 = gantry_journal::archive::name::DAY_MS;
pub(crate) const FIRST_DAY: u32 = 20_000;

/// What a tenant has.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) sealed: Vec<SealedObject>,
    pub(crate) workflows: Vec<Vec<Value>>,
    pub(crate) events: Vec<Vec<Value>>,
}

#[derive(Default)]
pub(crate) struct Source {
    pub(crate) tenants: parking_lot::Mutex<BTreeMap<TenantId, History>>,
    /// Makes `tail` hand out rows until its reader has enough.
    pub(crate) endless: AtomicBool,
}

impl ArchiveSource for Source {
    fn tables(&self) -> &'static [&'static Table] {
        static TABLES: [&Table; 2] = [&WORKFLOWS, &EVENTS];
        &TABLES
    }

    fn snapshot(&self, tenant: TenantId) -> Result<Snapshot, SourceError> {
        Ok(Snapshot {
            tenant,
            objects: self
                .tenants
                .lock()
                .get(&tenant)
                .map(|history| history.sealed.clone())
                .unwrap_or_default(),
            through: BTreeMap::new(),
        })
    }

    fn tail(&self, snapshot: &Snapshot, tables: &[&str], sink: Sink<'_>) -> Result<(), SourceError> {
        loop {
            for table in self.tables() {
                if !tables.contains(&table.name) {
                    continue;
                }
                let rows = {
                    let tenants = self.tenants.lock();
                    let history = tenants.get(&snapshot.tenant);
                    history.map(|history| match table.id {
                        1 => history.workflows.clone(),
                        _ => history.events.clone(),
                    })
                };
                let mut builder = BatchBuilder::new(table);
                for row in rows.unwrap_or_default() {
                    builder.push(row)?;
                }
                if let Some(batch) = builder.take() {
                    sink(batch)?;
                }
            }
            if !self.endless.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    }
}

pub(crate) struct World {
    pub(crate) source: Arc<Source>,
    pub(crate) store: ArchiveStore,
    pub(crate) queries: Queries,
    pub(crate) directory: TempDir,
}

pub(crate) fn tenant(number: u8) -> TenantId {
    TenantId::from_bytes([number; 16])
}

pub(crate) fn workflow(id: &str, day: Option<u32>) -> Vec<Value> {
    vec![
        Value::text(id),
        Value::of(day, |day| Value::time(u64::from(day) * DAY_MS + 1)),
        Value::Json(format!("{{\"name\": \"{id}\"}}")),
        Value::F64(1.5),
        Value::Null,
    ]
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Tenant 1: `a` and `b` sealed on two days, `c` and its events in the tail. Tenant 2: `theirs` in both.
    pub(crate) fn with(change: impl FnOnce(&mut QueryConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ArchiveStore::local(&directory.path().join("archive")).unwrap();
        let source = Arc::new(Source::default());
        let mut config = QueryConfig::new(
            PathBuf::from(env!("CARGO_BIN_EXE_gantry-query")),
            directory.path().join("query"),
        );
        change(&mut config);
        let queries = Queries::open(config, Arc::clone(&source) as _, store.clone()).unwrap();
        let world = Self {
            source,
            store,
            queries,
            directory,
        };
        world.source.tenants.lock().insert(
            tenant(1),
            History {
                sealed: Vec::new(),
                workflows: vec![workflow("c", None)],
                events: vec![vec![
                    Value::text("c"),
                    Value::count(7),
                    Value::Bytes(vec![1, 2, 3].into()),
                ]],
            },
        );
        world.source.tenants.lock().insert(
            tenant(2),
            History {
                workflows: vec![workflow("theirs", None)],
                ..History::default()
            },
        );
        world
    }

    /// Seals one workflow on a day.
    pub(crate) async fn seal(&self, tenant: TenantId, id: &str, day: u32) {
        let mut builder = BatchBuilder::new(&WORKFLOWS);
        builder.push(workflow(id, Some(day))).unwrap();
        let mut writer = FileWriter::new(&WORKFLOWS).unwrap();
        writer.write(builder.take().unwrap()).unwrap();
        let bytes = writer.finish().unwrap();
        let name = format!("archive/{tenant}/{}/workflows/{id}.parquet", Day(day));
        self.store.put(&name, bytes.clone()).await.unwrap();
        let object = SealedObject {
            table: "workflows",
            name,
            day: Day(day),
            rows: 1,
            size_bytes: bytes.len() as u64,
            digest: bytes::Bytes::copy_from_slice(blake3::hash(&bytes).as_bytes()),
        };
        self.source.tenants.lock().get_mut(&tenant).unwrap().sealed.push(object);
    }

    pub(crate) async fn ask(&self, number: u8, sql: &str) -> Result<Answer, QueryError> {
        self.queries.query(query(number, sql)).await
    }

    /// Files that are kept of a tenant.
    pub(crate) fn cached(&self, number: u8) -> usize {
        let path = self.directory.path().join(format!("query/objects/{}", tenant(number)));
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    /// Directories of queries that run.
    pub(crate) fn runs(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("query/runs"))
            .unwrap()
            .count()
    }
}

pub(crate) fn query(number: u8, sql: &str) -> Query {
    Query {
        tenant: tenant(number),
        sql: sql.to_owned(),
        parameters: Vec::new(),
        rows_max: 1_000,
        timeout_ms: 20_000,
        since_ms: None,
        until_ms: None,
    }
}
