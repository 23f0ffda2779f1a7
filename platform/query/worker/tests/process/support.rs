//! One query of one process.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::BytesMut;
use gantry_proto::frame;
use gantry_proto::limits::QUERY_FRAME_BYTES_MAX;
use gantry_proto::v1::query_input::Kind as Input;
use gantry_proto::v1::query_output::Kind as Reply;
use gantry_proto::v1::query_parameter::Value as Given;
use gantry_proto::v1::{
    QueryColumn, QueryColumnType, QueryEnd, QueryFailure, QueryFault, QueryInput, QueryOrder, QueryOutput,
    QueryParameter, QueryStart, QueryTable, QueryTail, QueryValues,
};
use tempfile::TempDir;

/// What a test asks.
pub(crate) struct Ask {
    pub(crate) order: QueryOrder,
    pub(crate) tails: Vec<QueryTail>,
    /// Holds the caller's files; another tenant's file is beside it.
    pub(crate) directory: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) columns: Vec<(String, String)>,
    pub(crate) rows: Vec<serde_json::Value>,
    /// As they came.
    pub(crate) raw: Vec<String>,
    pub(crate) end: QueryEnd,
}

/// A table `things(id, size, made, doc, raw, good, share)` with a sealed file of two rows and a tail of one.
pub(crate) fn ask(sql: &str) -> Ask {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own");
    let other = directory.path().join("other");
    for (directory, id) in [(&own, "sealed"), (&other, "elsewhere")] {
        let directory = directory.join("files");
        fs::create_dir_all(&directory).unwrap();
        duckdb::Connection::open_in_memory()
            .unwrap()
            .execute_batch(&format!(
                "COPY (SELECT '{id}-' || i AS id, i::BIGINT AS size, TIMESTAMPTZ '2026-11-20 10:00:00+00' AS made FROM range(2) t(i)) \
                 TO '{}' (FORMAT parquet)",
                directory.join("things.parquet").display()
            ))
            .unwrap();
    }
    let column = |name: &str, kind: QueryColumnType| QueryColumn {
        name: name.to_owned(),
        r#type: kind as i32,
    };
    let things = QueryTable {
        name: "things".to_owned(),
        columns: vec![
            column("id", QueryColumnType::Text),
            column("size", QueryColumnType::I64),
            column("made", QueryColumnType::TimestampMs),
            column("doc", QueryColumnType::Json),
            column("raw", QueryColumnType::Bytes),
            column("good", QueryColumnType::Bool),
            column("share", QueryColumnType::F64),
        ],
        files: vec!["things.parquet".to_owned()],
    };
    let tail = QueryTail {
        table: 0,
        rows: 2,
        columns: vec![
            texts(&["tail-0", "tail-1"]),
            QueryValues {
                present: Some(vec![0, 1].into()),
                wholes: vec![70],
                ..QueryValues::default()
            },
            QueryValues {
                wholes: vec![1_795_219_200_123, 0],
                ..QueryValues::default()
            },
            texts(&[r#"{"a": [1, 2]}"#, "null"]),
            texts(&["raw", ""]),
            QueryValues {
                truths: vec![true, false],
                ..QueryValues::default()
            },
            QueryValues {
                numbers: vec![0.5, f64::NAN],
                ..QueryValues::default()
            },
        ],
    };
    Ask {
        order: QueryOrder {
            sql: sql.to_owned(),
            parameters: Vec::new(),
            tables: vec![things],
            rows_max: 1_000,
            bytes_max: 1 << 20,
            timeout_ms: 20_000,
            memory_bytes: 64 << 20,
        },
        tails: vec![tail],
        directory,
    }
}

fn texts(values: &[&str]) -> QueryValues {
    QueryValues {
        texts: values.iter().map(|value| value.as_bytes().to_vec().into()).collect(),
        ..QueryValues::default()
    }
}

impl Ask {
    pub(crate) fn parameter(mut self, name: &str, value: Option<Given>) -> Self {
        self.order.parameters.push(QueryParameter {
            name: name.to_owned(),
            value,
        });
        self
    }

    pub(crate) fn order(mut self, change: impl FnOnce(&mut QueryOrder)) -> Self {
        change(&mut self.order);
        self
    }

    /// Runs the process as this user.
    pub(crate) fn run(self) -> Result<Answer, QueryFailure> {
        let (output, directory) = (self.spawn(|_| {}), &self.directory);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {talk}", output.status);
        assert!(talk.is_empty(), "it says: {talk}");
        read(&output.stdout, directory.path())
    }

    /// Runs the process, changed.
    pub(crate) fn spawn(&self, change: impl FnOnce(&mut Command)) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-query"));
        command
            .current_dir(self.directory.path().join("own"))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut frames = BytesMut::new();
        let inputs = std::iter::once(Input::Order(self.order.clone()))
            .chain(self.tails.iter().cloned().map(Input::Tail))
            .chain([Input::Start(QueryStart {})]);
        for kind in inputs {
            frame::encode_within(QUERY_FRAME_BYTES_MAX, &QueryInput { kind: Some(kind) }, &mut frames).unwrap();
        }
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            // It may have refused before it read everything.
            let _ = input.write_all(&frames);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }
}

/// Reads what the process wrote. Nothing in it may name a place on this machine.
pub(crate) fn read(output: &[u8], directory: &Path) -> Result<Answer, QueryFailure> {
    let mut bytes = BytesMut::new();
    let place = directory.to_string_lossy().into_owned();
    bytes.extend_from_slice(output);
    let mut answer = Answer {
        columns: Vec::new(),
        rows: Vec::new(),
        raw: Vec::new(),
        end: QueryEnd {
            more_rows: false,
            more_bytes: false,
        },
    };
    while let Some(message) = frame::decode_within::<QueryOutput>(QUERY_FRAME_BYTES_MAX, &mut bytes).unwrap() {
        match message.kind.unwrap() {
            Reply::Head(head) => {
                answer.columns = head.columns.into_iter().map(|each| (each.name, each.r#type)).collect();
            }
            Reply::Rows(rows) => {
                for row in rows.rows {
                    assert!(!row.contains(&place), "a place of this machine: {row}");
                    answer.rows.push(serde_json::from_str(&row).expect("a row is JSON"));
                    answer.raw.push(row);
                }
            }
            Reply::End(end) => {
                answer.end = end;
                return Ok(answer);
            }
            Reply::Failure(failure) => {
                assert!(
                    !failure.message.contains(&place),
                    "a place of this machine: {}",
                    failure.message
                );
                return Err(failure);
            }
        }
    }
    panic!("the process ended without an answer");
}

/// The answer's rows.
pub(crate) fn rows(sql: &str) -> Vec<serde_json::Value> {
    ask(sql)
        .run()
        .unwrap_or_else(|failure| panic!("{sql}: {failure:?}"))
        .rows
}

/// Why there is none.
pub(crate) fn failure(sql: &str) -> (QueryFault, String) {
    match ask(sql).run() {
        Ok(answer) => panic!("{sql} was answered: {answer:?}"),
        Err(failure) => (failure.fault(), failure.message),
    }
}
