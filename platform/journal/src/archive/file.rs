//! Batches as Parquet files and back.
//!
//! One row group per [`GROUP_ROWS`] rows, Snappy, statistics per column chunk, and the number and version of the table in the footer. Readers find columns by
//! name, so that files of before a column was added can still be read.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use super::column::{BATCH_ROWS_MAX, Batch, Column, ColumnType, Field, Table};

/// Rows of one row group. What a reader skips or takes at once.
pub const GROUP_ROWS: usize = 8 * BATCH_ROWS_MAX;
/// Version of how tables are laid out in files.
const VERSION: u32 = 1;
const TABLE_KEY: &str = "gantry.table";
const VERSION_KEY: &str = "gantry.version";

/// Why a file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The encoder or decoder refused.
    #[error("Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// It is not a file of this table, or of a newer version.
    #[error("it is no file of table `{table}` that this version reads: {detail}")]
    Foreign {
        /// The table.
        table: &'static str,
        /// Why.
        detail: String,
    },
}

/// Writes one file into memory. Callers bound its size by looking at [`FileWriter::size_bytes`].
pub struct FileWriter {
    table: &'static Table,
    writer: SerializedFileWriter<Vec<u8>>,
    /// Rows of the next row group.
    pending: Option<Batch>,
    pending_bytes: usize,
    rows: u64,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter")
            .field("table", &self.table.name)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl FileWriter {
    /// An empty file of a table.
    ///
    /// # Errors
    /// A fault of ours: the schema is refused.
    pub fn new(table: &'static Table) -> Result<Self, FileError> {
        let writer = SerializedFileWriter::new(Vec::new(), schema(table)?, properties(table))?;
        Ok(Self {
            table,
            writer,
            pending: None,
            pending_bytes: 0,
            rows: 0,
        })
    }

    /// Adds rows of its table.
    ///
    /// # Errors
    /// When the encoder refuses.
    pub fn write(&mut self, batch: Batch) -> Result<(), FileError> {
        self.rows += batch.rows() as u64;
        self.pending_bytes += batch.size_bytes();
        match &mut self.pending {
            None => self.pending = Some(batch),
            Some(pending) => pending.append(batch),
        }
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.rows() >= GROUP_ROWS)
        {
            self.flush()?;
        }
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About how large it is: what is encoded, and what waits to be.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.writer.bytes_written() + self.pending_bytes
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the encoder refuses.
    pub fn finish(mut self) -> Result<Bytes, FileError> {
        self.flush()?;
        Ok(self.writer.into_inner()?.into())
    }

    fn flush(&mut self) -> Result<(), FileError> {
        let Some(batch) = self.pending.take() else {
            return Ok(());
        };
        self.pending_bytes = 0;
        let mut group = self.writer.next_row_group()?;
        for (column, field) in batch.columns.into_iter().zip(self.table.schema.0) {
            let Some(mut writer) = group.next_column()? else { break };
            match column {
                Column::Bool(values) => put::<BoolType, _>(writer.typed(), values, field, |value| value)?,
                Column::I64(values) | Column::TimestampMs(values) => {
                    put::<Int64Type, _>(writer.typed(), values, field, |value| value)?;
                }
                Column::F64(values) => put::<DoubleType, _>(writer.typed(), values, field, |value| value)?,
                Column::Text(values) | Column::Json(values) => {
                    put::<ByteArrayType, _>(writer.typed(), values, field, |text| ByteArray::from(text.into_bytes()))?;
                }
                Column::Bytes(values) => put::<ByteArrayType, _>(writer.typed(), values, field, ByteArray::from)?,
            }
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }
}

fn put<T: DataType, V>(
    writer: &mut ColumnWriterImpl<'_, T>,
    values: Vec<Option<V>>,
    field: &Field,
    convert: impl Fn(V) -> T::T,
) -> Result<(), FileError>
where
    Vec<T::T>: AsRef<[T::T]>,
{
    let levels: Option<Vec<i16>> = field
        .nullable
        .then(|| values.iter().map(|value| i16::from(value.is_some())).collect());
    let values: Vec<T::T> = values.into_iter().flatten().map(convert).collect();
    writer.write_batch(&values, levels.as_deref(), None)?;
    Ok(())
}

fn schema(table: &Table) -> Result<TypePtr, FileError> {
    let mut fields = Vec::with_capacity(table.schema.0.len());
    for field in table.schema.0 {
        let (physical, logical) = match field.kind {
            ColumnType::Bool => (Physical::BOOLEAN, None),
            ColumnType::I64 => (Physical::INT64, None),
            ColumnType::F64 => (Physical::DOUBLE, None),
            // As text: JSON as a type of its own is an extension in readers.
            ColumnType::Text | ColumnType::Json => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnType::Bytes => (Physical::BYTE_ARRAY, None),
            // Without time zone: readers without calendar data take it as it is.
            ColumnType::TimestampMs => (Physical::INT64, Some(LogicalType::timestamp(false, TimeUnit::MILLIS))),
        };
        let repetition = if field.nullable {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        };
        let built = Type::primitive_type_builder(field.name, physical)
            .with_logical_type(logical)
            .with_repetition(repetition)
            .build()?;
        fields.push(Arc::new(built));
    }
    Ok(Arc::new(
        Type::group_type_builder(table.name).with_fields(fields).build()?,
    ))
}

fn properties(table: &Table) -> WriterPropertiesPtr {
    let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    Arc::new(
        WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by("gantry".to_owned())
            .set_key_value_metadata(Some(vec![
                pair(TABLE_KEY, table.name.to_owned()),
                pair(VERSION_KEY, VERSION.to_string()),
            ]))
            .build(),
    )
}

/// Reads a file back, batch by batch.
pub struct FileReader {
    table: &'static Table,
    reader: SerializedFileReader<Bytes>,
    group: usize,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader")
            .field("table", &self.table.name)
            .finish_non_exhaustive()
    }
}

impl FileReader {
    /// Opens a file of a table.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(table: &'static Table, bytes: Bytes) -> Result<Self, FileError> {
        let reader = SerializedFileReader::new(bytes)?;
        let foreign = |detail: String| FileError::Foreign {
            table: table.name,
            detail,
        };
        let pairs = reader.metadata().file_metadata().key_value_metadata();
        let value = |key: &str| {
            let pair = pairs.into_iter().flatten().find(|pair| pair.key == key);
            pair.and_then(|pair| pair.value.clone())
        };
        if value(TABLE_KEY).as_deref() != Some(table.name) {
            return Err(foreign(format!("its footer names {:?}", value(TABLE_KEY))));
        }
        let version = value(VERSION_KEY).and_then(|version| version.parse::<u32>().ok());
        if version.is_none_or(|version| version == 0 || version > VERSION) {
            return Err(foreign(format!(
                "it has version {version:?}, this Gantry reads up to {VERSION}: use a newer one"
            )));
        }
        Ok(Self {
            table,
            reader,
            group: 0,
        })
    }

    /// The rows of the next row group; `None` behind the last.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, FileError> {
        if self.group == self.reader.num_row_groups() {
            return Ok(None);
        }
        let group = self.reader.get_row_group(self.group)?;
        self.group += 1;
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let stored: Vec<String> = group
            .metadata()
            .columns()
            .iter()
            .map(|each| each.column_path().string())
            .collect();
        let mut columns = Vec::with_capacity(self.table.schema.0.len());
        for field in self.table.schema.0 {
            let Some(position) = stored.iter().position(|name| name == field.name) else {
                columns.push(Column::nulls(field.kind, rows));
                continue;
            };
            let column = take(group.get_column_reader(position)?, field, rows)?;
            if column.len() != rows {
                return Err(FileError::Foreign {
                    table: self.table.name,
                    detail: format!("column `{}` has {} of {rows} values", field.name, column.len()),
                });
            }
            columns.push(column);
        }
        Ok(Some(Batch {
            table: self.table,
            columns,
        }))
    }
}

fn take(reader: ColumnReader, field: &Field, rows: usize) -> Result<Column, FileError> {
    let text = |value: ByteArray| String::from_utf8_lossy(value.data()).into_owned();
    let bytes = |value: ByteArray| Bytes::copy_from_slice(value.data());
    Ok(match (reader, field.kind) {
        (ColumnReader::BoolColumnReader(reader), ColumnType::Bool) => Column::Bool(get(reader, rows, |value| value)?),
        (ColumnReader::Int64ColumnReader(reader), ColumnType::I64) => Column::I64(get(reader, rows, |value| value)?),
        (ColumnReader::Int64ColumnReader(reader), ColumnType::TimestampMs) => {
            Column::TimestampMs(get(reader, rows, |value| value)?)
        }
        (ColumnReader::DoubleColumnReader(reader), ColumnType::F64) => Column::F64(get(reader, rows, |value| value)?),
        (ColumnReader::ByteArrayColumnReader(reader), ColumnType::Text) => Column::Text(get(reader, rows, text)?),
        (ColumnReader::ByteArrayColumnReader(reader), ColumnType::Json) => Column::Json(get(reader, rows, text)?),
        (ColumnReader::ByteArrayColumnReader(reader), ColumnType::Bytes) => Column::Bytes(get(reader, rows, bytes)?),
        _ => {
            return Err(FileError::Foreign {
                table: "",
                detail: format!("column `{}` is of another type", field.name),
            });
        }
    })
}

fn get<T: DataType, V>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    convert: impl Fn(T::T) -> V,
) -> Result<Vec<Option<V>>, FileError> {
    let mut levels = Vec::new();
    let mut values: Vec<T::T> = Vec::new();
    let mut read = 0;
    while read < rows {
        let (records, _, _) = reader.read_records(rows - read, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    let mut values = values.into_iter().map(convert);
    // A column that must be there has no levels in the file: every value is.
    if levels.is_empty() {
        return Ok(values.map(Some).collect());
    }
    Ok(levels
        .into_iter()
        .map(|level| if level > 0 { values.next() } else { None })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::column::{BatchBuilder, Schema, Value};
    use super::*;

    const fn field(name: &'static str, kind: ColumnType, nullable: bool) -> Field {
        Field {
            name,
            kind,
            nullable,
            about: "",
        }
    }

    static NARROW: Table = Table {
        id: 9,
        name: "samples",
        about: "",
        schema: Schema(&[
            field("id", ColumnType::Text, false),
            field("count", ColumnType::I64, false),
            field("share", ColumnType::F64, true),
            field("ok", ColumnType::Bool, true),
            field("labels", ColumnType::Json, false),
            field("raw", ColumnType::Bytes, true),
            field("at", ColumnType::TimestampMs, true),
        ]),
    };

    /// As a later version would have it.
    static WIDE: Table = Table {
        id: 9,
        name: "samples",
        about: "",
        schema: Schema(&[
            field("id", ColumnType::Text, false),
            field("count", ColumnType::I64, false),
            field("share", ColumnType::F64, true),
            field("ok", ColumnType::Bool, true),
            field("labels", ColumnType::Json, false),
            field("raw", ColumnType::Bytes, true),
            field("at", ColumnType::TimestampMs, true),
            field("note", ColumnType::Text, true),
        ]),
    };

    static OTHER: Table = Table {
        id: 8,
        name: "others",
        about: "",
        schema: Schema(&[field("id", ColumnType::Text, false)]),
    };

    fn row(n: u64) -> Vec<Value> {
        let odd = n % 2 == 1;
        vec![
            Value::text(format!("id-{n}")),
            Value::count(n),
            Value::of(odd.then_some(0.5), Value::F64),
            Value::of((!odd).then_some(n.is_multiple_of(4)), Value::Bool),
            Value::Json(format!("{{\"n\":{n}}}")),
            Value::of(
                odd.then(|| Bytes::from(vec![0xff, u8::try_from(n % 251).unwrap()])),
                Value::Bytes,
            ),
            Value::of(n.is_multiple_of(3).then_some(n), Value::time),
        ]
    }

    fn file(rows: u64) -> Bytes {
        let mut writer = FileWriter::new(&NARROW).unwrap();
        let mut builder = BatchBuilder::new(&NARROW);
        for n in 0..rows {
            builder.push(row(n)).unwrap();
            if builder.is_full() {
                writer.write(builder.take().unwrap()).unwrap();
            }
        }
        if let Some(rest) = builder.take() {
            writer.write(rest).unwrap();
        }
        assert_eq!(writer.rows(), rows);
        writer.finish().unwrap()
    }

    #[test]
    fn rows_come_back_in_order_over_several_row_groups() {
        let rows = GROUP_ROWS as u64 * 2 + 17;
        let mut reader = FileReader::open(&NARROW, file(rows)).unwrap();
        let (mut n, mut groups) = (0, 0);
        while let Some(batch) = reader.next_batch().unwrap() {
            groups += 1;
            for index in 0..batch.rows() {
                assert_eq!(batch.row(index), row(n));
                n += 1;
            }
        }
        assert_eq!((n, groups), (rows, 3));
    }

    #[test]
    fn a_file_of_before_a_column_reads_as_null_there() {
        let mut reader = FileReader::open(&WIDE, file(3)).unwrap();
        let batch = reader.next_batch().unwrap().unwrap();
        let mut expected = row(2);
        expected.push(Value::Null);
        assert_eq!(batch.row(2), expected);
    }

    #[test]
    fn an_empty_file_and_one_of_something_else() {
        assert!(
            FileReader::open(&NARROW, file(0))
                .unwrap()
                .next_batch()
                .unwrap()
                .is_none()
        );
        let refused = FileReader::open(&OTHER, file(1)).unwrap_err().to_string();
        assert!(refused.contains("others") && refused.contains("samples"), "{refused}");
        let whole = file(5);
        assert!(FileReader::open(&NARROW, whole.slice(..whole.len() - 1)).is_err());
    }
}
