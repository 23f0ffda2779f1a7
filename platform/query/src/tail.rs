//! Rows that are not sealed, as messages for the process.

use bytes::{Bytes, BytesMut};
use gantry_journal::archive::{Batch, Column, ColumnType, Table};
use gantry_proto::frame::{self, FrameError};
use gantry_proto::limits::QUERY_FRAME_BYTES_MAX;
use gantry_proto::v1::query_input::Kind;
use gantry_proto::v1::{QueryColumn, QueryColumnType, QueryInput, QueryTable, QueryTail, QueryValues};
use prost::Message as _;

/// Rows go in frames of about this size.
const FRAME_BYTES: usize = 1 << 20;

/// A table as the process makes it.
pub(crate) fn table(table: &Table, files: Vec<String>) -> QueryTable {
    let columns = table.schema.0.iter().map(|field| QueryColumn {
        name: field.name.to_owned(),
        r#type: column_type(field.kind) as i32,
    });
    QueryTable {
        name: table.name.to_owned(),
        columns: columns.collect(),
        files,
    }
}

fn column_type(kind: ColumnType) -> QueryColumnType {
    match kind {
        ColumnType::Bool => QueryColumnType::Bool,
        ColumnType::I64 => QueryColumnType::I64,
        ColumnType::F64 => QueryColumnType::F64,
        ColumnType::Text => QueryColumnType::Text,
        ColumnType::Json => QueryColumnType::Json,
        ColumnType::Bytes => QueryColumnType::Bytes,
        ColumnType::TimestampMs => QueryColumnType::TimestampMs,
    }
}

/// The frames of a batch. `table` is its position in the order.
///
/// # Errors
/// When a single row is larger than a frame may be.
pub(crate) fn frames(batch: &Batch, table: u32) -> Result<Vec<Bytes>, FrameError> {
    let mut frames = Vec::new();
    encode(batch, table, 0..batch.rows(), &mut frames)?;
    Ok(frames)
}

fn encode(batch: &Batch, table: u32, rows: std::ops::Range<usize>, frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
    let tail = QueryTail {
        table,
        rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        columns: batch
            .columns
            .iter()
            .map(|column| values(column, rows.clone()))
            .collect(),
    };
    if rows.len() > 1 && tail.encoded_len() > FRAME_BYTES {
        let middle = rows.start + rows.len() / 2;
        encode(batch, table, rows.start..middle, frames)?;
        return encode(batch, table, middle..rows.end, frames);
    }
    frames.push(framed(Kind::Tail(tail))?);
    Ok(())
}

/// One message as a frame.
pub(crate) fn framed(kind: Kind) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::new();
    frame::encode_within(QUERY_FRAME_BYTES_MAX, &QueryInput { kind: Some(kind) }, &mut frame)?;
    Ok(frame.freeze())
}

fn values(column: &Column, rows: std::ops::Range<usize>) -> QueryValues {
    fn present<T>(values: &[Option<T>]) -> Option<Bytes> {
        if values.iter().all(Option::is_some) {
            return None;
        }
        Some(values.iter().map(|value| u8::from(value.is_some())).collect())
    }
    let mut out = QueryValues::default();
    match column {
        Column::Bool(values) => {
            let values = &values[rows];
            out.present = present(values);
            out.truths = values.iter().flatten().copied().collect();
        }
        Column::I64(values) | Column::TimestampMs(values) => {
            let values = &values[rows];
            out.present = present(values);
            out.wholes = values.iter().flatten().copied().collect();
        }
        Column::F64(values) => {
            let values = &values[rows];
            out.present = present(values);
            out.numbers = values.iter().flatten().copied().collect();
        }
        Column::Text(values) | Column::Json(values) => {
            let values = &values[rows];
            out.present = present(values);
            out.texts = values
                .iter()
                .flatten()
                .map(|text| Bytes::copy_from_slice(text.as_bytes()))
                .collect();
        }
        Column::Bytes(values) => {
            let values = &values[rows];
            out.present = present(values);
            out.texts = values.iter().flatten().cloned().collect();
        }
    }
    out
}
