//! Typed columns: the one form in which rows go into sealed files and out of the hot tail.

use bytes::Bytes;

/// Rows of one batch at most: bounds the memory of whoever makes, writes or reads one.
pub const BATCH_ROWS_MAX: usize = 2_048;

/// What a column holds. The name in brackets is its type in `DuckDB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Truth (`BOOLEAN`).
    Bool,
    /// Whole number (`BIGINT`). Unsigned ones past `i64::MAX` are cut to it.
    I64,
    /// Number (`DOUBLE`).
    F64,
    /// UTF-8 (`VARCHAR`).
    Text,
    /// A JSON document as UTF-8 (`VARCHAR` that holds JSON).
    Json,
    /// Bytes (`BLOB`).
    Bytes,
    /// Milliseconds since the epoch, UTC (`TIMESTAMP_MS`, in Parquet `TIMESTAMP(MILLIS)`, without time zone).
    TimestampMs,
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name; never renamed once released.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether it may be absent.
    pub nullable: bool,
    /// What it means, for people.
    pub about: &'static str,
}

/// The columns of a table, in order. Columns are only ever added, at the end, as nullable ones: older files lack them, which reads as null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema(pub &'static [Field]);

impl Schema {
    /// Position of a column.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|field| field.name == name)
    }
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Number in keys; never reused.
    pub id: u8,
    /// Its name, as queries use it.
    pub name: &'static str,
    /// What a row is, for people.
    pub about: &'static str,
    /// Its columns.
    pub schema: Schema,
}

/// Values of one column; `None` is null.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // see `ColumnType`
pub enum Column {
    Bool(Vec<Option<bool>>),
    I64(Vec<Option<i64>>),
    F64(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
    Json(Vec<Option<String>>),
    Bytes(Vec<Option<Bytes>>),
    TimestampMs(Vec<Option<i64>>),
}

impl Column {
    /// An empty column.
    #[must_use]
    pub fn new(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Bool => Self::Bool(Vec::new()),
            ColumnType::I64 => Self::I64(Vec::new()),
            ColumnType::F64 => Self::F64(Vec::new()),
            ColumnType::Text => Self::Text(Vec::new()),
            ColumnType::Json => Self::Json(Vec::new()),
            ColumnType::Bytes => Self::Bytes(Vec::new()),
            ColumnType::TimestampMs => Self::TimestampMs(Vec::new()),
        }
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> ColumnType {
        match self {
            Self::Bool(_) => ColumnType::Bool,
            Self::I64(_) => ColumnType::I64,
            Self::F64(_) => ColumnType::F64,
            Self::Text(_) => ColumnType::Text,
            Self::Json(_) => ColumnType::Json,
            Self::Bytes(_) => ColumnType::Bytes,
            Self::TimestampMs(_) => ColumnType::TimestampMs,
        }
    }

    /// Values in it, nulls included.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::I64(values) | Self::TimestampMs(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Text(values) | Self::Json(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }

    /// Whether it has no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One value; null past the end.
    #[must_use]
    pub fn value(&self, row: usize) -> Value {
        let found = match self {
            Self::Bool(values) => values.get(row).copied().flatten().map(Value::Bool),
            Self::I64(values) => values.get(row).copied().flatten().map(Value::I64),
            Self::TimestampMs(values) => values.get(row).copied().flatten().map(Value::TimestampMs),
            Self::F64(values) => values.get(row).copied().flatten().map(Value::F64),
            Self::Text(values) => values.get(row).cloned().flatten().map(Value::Text),
            Self::Json(values) => values.get(row).cloned().flatten().map(Value::Json),
            Self::Bytes(values) => values.get(row).cloned().flatten().map(Value::Bytes),
        };
        found.unwrap_or(Value::Null)
    }

    /// A column of nulls.
    #[must_use]
    pub fn nulls(kind: ColumnType, rows: usize) -> Self {
        match kind {
            ColumnType::Bool => Self::Bool(vec![None; rows]),
            ColumnType::I64 => Self::I64(vec![None; rows]),
            ColumnType::F64 => Self::F64(vec![None; rows]),
            ColumnType::Text => Self::Text(vec![None; rows]),
            ColumnType::Json => Self::Json(vec![None; rows]),
            ColumnType::Bytes => Self::Bytes(vec![None; rows]),
            ColumnType::TimestampMs => Self::TimestampMs(vec![None; rows]),
        }
    }

    /// Adds the values of another column of the same type; one of another type adds nothing.
    fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Bool(values), Self::Bool(more)) => values.extend(more),
            (Self::I64(values), Self::I64(more)) | (Self::TimestampMs(values), Self::TimestampMs(more)) => {
                values.extend(more);
            }
            (Self::F64(values), Self::F64(more)) => values.extend(more),
            (Self::Text(values), Self::Text(more)) | (Self::Json(values), Self::Json(more)) => values.extend(more),
            (Self::Bytes(values), Self::Bytes(more)) => values.extend(more),
            _ => {}
        }
    }

    /// Keeps the values at which `keep` is true.
    fn retain(&mut self, keep: &[bool]) {
        fn only<T>(values: &mut Vec<T>, keep: &[bool]) {
            let mut keep = keep.iter();
            values.retain(|_| keep.next().copied().unwrap_or(false));
        }
        match self {
            Self::Bool(values) => only(values, keep),
            Self::I64(values) | Self::TimestampMs(values) => only(values, keep),
            Self::F64(values) => only(values, keep),
            Self::Text(values) | Self::Json(values) => only(values, keep),
            Self::Bytes(values) => only(values, keep),
        }
    }

    /// About what its values take.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::I64(values) | Self::TimestampMs(values) => values.len() * 8,
            Self::F64(values) => values.len() * 8,
            Self::Text(values) | Self::Json(values) => values.iter().flatten().map(|text| text.len() + 8).sum(),
            Self::Bytes(values) => values.iter().flatten().map(|bytes| bytes.len() + 8).sum(),
        }
    }

    /// Adds a value; `false`, and nothing added, when it is of another type.
    fn push(&mut self, value: Value) -> bool {
        match (self, value) {
            (Self::Bool(values), Value::Bool(value)) => values.push(Some(value)),
            (Self::I64(values), Value::I64(value)) | (Self::TimestampMs(values), Value::TimestampMs(value)) => {
                values.push(Some(value));
            }
            (Self::F64(values), Value::F64(value)) => values.push(Some(value)),
            (Self::Text(values), Value::Text(value)) | (Self::Json(values), Value::Json(value)) => {
                values.push(Some(value));
            }
            (Self::Bytes(values), Value::Bytes(value)) => values.push(Some(value)),
            (Self::Bool(values), Value::Null) => values.push(None),
            (Self::I64(values) | Self::TimestampMs(values), Value::Null) => values.push(None),
            (Self::F64(values), Value::Null) => values.push(None),
            (Self::Text(values) | Self::Json(values), Value::Null) => values.push(None),
            (Self::Bytes(values), Value::Null) => values.push(None),
            _ => return false,
        }
        true
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // see `ColumnType`
pub enum Value {
    Null,
    Bool(bool),
    I64(i64),
    F64(f64),
    Text(String),
    Json(String),
    Bytes(Bytes),
    TimestampMs(i64),
}

impl Value {
    /// A count or position as a number of a column.
    #[must_use]
    pub fn count(value: u64) -> Self {
        Self::I64(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A wall-clock time.
    #[must_use]
    pub fn time(ms: u64) -> Self {
        Self::TimestampMs(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// Anything with a text form.
    #[must_use]
    pub fn text(value: impl std::fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    /// `value`, or null.
    #[must_use]
    pub fn of<T>(value: Option<T>, make: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, make)
    }
}

/// A row that does not fit its table: a fault of whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// Another number of values than columns.
    #[error("table `{table}` has {expected} columns, the row has {got} values")]
    Width {
        /// The table.
        table: &'static str,
        /// Its columns.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// A value of another type, or null where there must be one.
    #[error("column `{table}.{column}` does not take this value")]
    Type {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

/// Rows of one table, column by column. Every column has as many values as there are rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Whose rows.
    pub table: &'static Table,
    /// In the order of the table's schema.
    pub columns: Vec<Column>,
}

impl Batch {
    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// About what its values take.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.columns.iter().map(Column::size_bytes).sum()
    }

    /// Adds the rows of another batch of the same table.
    pub fn append(&mut self, other: Self) {
        debug_assert_eq!(self.table.id, other.table.id, "batches of one table");
        for (column, more) in self.columns.iter_mut().zip(other.columns) {
            column.append(more);
        }
    }

    /// Keeps the rows at which `keep` is true.
    pub fn retain(&mut self, keep: &[bool]) {
        for column in &mut self.columns {
            column.retain(keep);
        }
    }

    /// One row, in the order of the schema.
    #[must_use]
    pub fn row(&self, row: usize) -> Vec<Value> {
        self.columns.iter().map(|column| column.value(row)).collect()
    }
}

/// Makes batches row by row.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    table: &'static Table,
    columns: Vec<Column>,
    rows: usize,
}

impl BatchBuilder {
    /// For a table.
    #[must_use]
    pub fn new(table: &'static Table) -> Self {
        let columns = table.schema.0.iter().map(|field| Column::new(field.kind)).collect();
        Self {
            table,
            columns,
            rows: 0,
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`ColumnError`]; the builder is then not to be used any more.
    pub fn push(&mut self, row: Vec<Value>) -> Result<(), ColumnError> {
        let table = self.table.name;
        if row.len() != self.columns.len() {
            return Err(ColumnError::Width {
                table,
                expected: self.columns.len(),
                got: row.len(),
            });
        }
        for ((value, column), field) in row.into_iter().zip(&mut self.columns).zip(self.table.schema.0) {
            let refused = (value == Value::Null && !field.nullable) || !column.push(value);
            if refused {
                return Err(ColumnError::Type {
                    table,
                    column: field.name,
                });
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About what they take.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.columns.iter().map(Column::size_bytes).sum()
    }

    /// Whether it holds as many rows as a batch may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS_MAX
    }

    /// Takes the rows so far; `None` when there are none.
    pub fn take(&mut self) -> Option<Batch> {
        if self.rows == 0 {
            return None;
        }
        let taken = std::mem::replace(self, Self::new(self.table));
        Some(Batch {
            table: taken.table,
            columns: taken.columns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: Table = Table {
        id: 1,
        name: "things",
        about: "for the test",
        schema: Schema(&[
            Field {
                name: "id",
                kind: ColumnType::Text,
                nullable: false,
                about: "",
            },
            Field {
                name: "at",
                kind: ColumnType::TimestampMs,
                nullable: true,
                about: "",
            },
        ]),
    };

    #[test]
    fn rows_come_back_as_they_went_in() {
        let mut builder = BatchBuilder::new(&TABLE);
        assert!(builder.take().is_none());
        let rows = [
            vec![Value::text("a"), Value::time(7)],
            vec![Value::text("b"), Value::Null],
        ];
        for row in &rows {
            builder.push(row.clone()).unwrap();
        }
        let batch = builder.take().unwrap();
        assert_eq!(batch.rows(), 2);
        assert_eq!([batch.row(0), batch.row(1)], rows);
        assert_eq!(builder.rows(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |row| BatchBuilder::new(&TABLE).push(row).unwrap_err().to_string();
        assert!(refused(vec![Value::text("a")]).contains("2 columns"));
        assert!(refused(vec![Value::Null, Value::Null]).contains("things.id"));
        assert!(refused(vec![Value::text("a"), Value::I64(1)]).contains("things.at"));
    }

    #[test]
    fn numbers_past_the_type_are_cut() {
        assert_eq!(Value::count(u64::MAX), Value::I64(i64::MAX));
    }
}
