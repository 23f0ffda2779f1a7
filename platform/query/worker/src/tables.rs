//! The caller's tables: views over sealed files and the rows that are not sealed yet.

use std::fmt::Write as _;

use duckdb::types::{TimeUnit, Value};
use duckdb::{Connection, ToSql};
use gantry_proto::v1::{QueryColumnType, QueryTable, QueryTail, QueryValues};

use crate::failure::Failure;

/// Where the rows of tails are; the views are beside it, in `main`.
const TAIL_SCHEMA: &str = "tail";

/// The directory, in the working directory, that the files of tables are in. It is all that a statement may open.
pub(crate) const FILES: &str = "files";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sql_type(kind: QueryColumnType) -> &'static str {
    match kind {
        QueryColumnType::Bool => "BOOLEAN",
        QueryColumnType::I64 => "BIGINT",
        QueryColumnType::F64 => "DOUBLE",
        QueryColumnType::Text => "VARCHAR",
        QueryColumnType::Json => "JSON",
        QueryColumnType::Bytes => "BLOB",
        QueryColumnType::TimestampMs => "TIMESTAMPTZ",
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::internal(format!("a table cannot be made: {error}"))
}

/// Makes the empty tables that tails go into.
pub(crate) fn create_tails(connection: &Connection, tables: &[QueryTable]) -> Result<(), Failure> {
    let mut sql = format!("CREATE SCHEMA {TAIL_SCHEMA};");
    for table in tables {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| format!("{} {}", quoted(&column.name), sql_type(column.r#type())))
            .collect();
        // Writing to a String does not fail.
        let _ = write!(
            sql,
            "CREATE TABLE {TAIL_SCHEMA}.{} ({});",
            quoted(&table.name),
            columns.join(", ")
        );
    }
    connection.execute_batch(&sql).map_err(broken)
}

/// Makes the views. A column that a file does not have is null in it.
pub(crate) fn create_views(connection: &Connection, tables: &[QueryTable]) -> Result<(), Failure> {
    let mut sql = String::new();
    for table in tables {
        let name = quoted(&table.name);
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| {
                let name = quoted(&column.name);
                format!("CAST({name} AS {}) AS {name}", sql_type(column.r#type()))
            })
            .collect();
        let mut rows = format!("SELECT * FROM {TAIL_SCHEMA}.{name}");
        if !table.files.is_empty() {
            let files: Vec<String> = table
                .files
                .iter()
                .map(|file| format!("'{FILES}/{}'", file.replace('\'', "''")))
                .collect();
            let _ = write!(
                rows,
                " UNION ALL BY NAME SELECT * FROM read_parquet([{}], union_by_name = true)",
                files.join(", ")
            );
        }
        let _ = write!(
            sql,
            "CREATE VIEW {name} AS SELECT {} FROM ({rows});",
            columns.join(", ")
        );
    }
    connection.execute_batch(&sql).map_err(broken)
}

/// Adds rows to a tail.
pub(crate) fn append(connection: &Connection, tables: &[QueryTable], tail: &QueryTail) -> Result<(), Failure> {
    let table = tables
        .get(tail.table as usize)
        .filter(|table| table.columns.len() == tail.columns.len())
        .ok_or_else(|| Failure::internal("rows of a table that was not ordered"))?;
    let mut columns: Vec<Reader<'_>> = table
        .columns
        .iter()
        .zip(&tail.columns)
        .map(|(column, values)| Reader::new(column.r#type(), values))
        .collect();
    let mut appender = connection.appender_to_db(&table.name, TAIL_SCHEMA).map_err(of_append)?;
    let mut row = Vec::with_capacity(columns.len());
    for _ in 0..tail.rows {
        row.clear();
        for column in &mut columns {
            let value = column.next();
            row.push(value.ok_or_else(|| Failure::internal("a column of a tail is shorter than its rows"))?);
        }
        let row: Vec<&dyn ToSql> = row.iter().map(|value| value as &dyn ToSql).collect();
        appender.append_row(row.as_slice()).map_err(of_append)?;
    }
    appender.flush().map_err(of_append)
}

/// Memory may run out here; everything else is a fault of ours.
fn of_append(error: duckdb::Error) -> Failure {
    match Failure::from(error) {
        failure if failure.fault == gantry_proto::v1::QueryFault::Memory => failure,
        failure => broken(failure.message),
    }
}

/// The values of a column, row by row.
struct Reader<'a> {
    kind: QueryColumnType,
    values: &'a QueryValues,
    row: usize,
    present: usize,
}

impl<'a> Reader<'a> {
    fn new(kind: QueryColumnType, values: &'a QueryValues) -> Self {
        Self {
            kind,
            values,
            row: 0,
            present: 0,
        }
    }

    /// `None` when there are fewer values than rows.
    fn next(&mut self) -> Option<Value> {
        let row = self.row;
        self.row += 1;
        if let Some(present) = &self.values.present
            && *present.get(row)? == 0
        {
            return Some(Value::Null);
        }
        let at = self.present;
        self.present += 1;
        Some(match self.kind {
            QueryColumnType::Bool => Value::Boolean(*self.values.truths.get(at)?),
            QueryColumnType::I64 => Value::BigInt(*self.values.wholes.get(at)?),
            QueryColumnType::F64 => Value::Double(*self.values.numbers.get(at)?),
            QueryColumnType::TimestampMs => {
                Value::Timestamp(TimeUnit::Microsecond, self.values.wholes.get(at)?.saturating_mul(1_000))
            }
            QueryColumnType::Text | QueryColumnType::Json => {
                Value::Text(String::from_utf8_lossy(self.values.texts.get(at)?).into_owned())
            }
            QueryColumnType::Bytes => Value::Blob(self.values.texts.get(at)?.to_vec()),
        })
    }
}
