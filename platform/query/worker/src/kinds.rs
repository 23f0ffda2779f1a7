//! DuckDB's names of types, for the head of an answer.

use duckdb::core::{LogicalTypeHandle, LogicalTypeId as Id};

/// Types are nested as deep as a statement says; a name that is deeper than this is cut.
const DEPTH_MAX: usize = 8;

/// As DuckDB writes it: `BIGINT`, `DECIMAL(18,3)`, `STRUCT(a INTEGER, b VARCHAR)[]`.
pub(crate) fn name(kind: &LogicalTypeHandle) -> String {
    nested(kind, 0)
}

fn nested(kind: &LogicalTypeHandle, depth: usize) -> String {
    if depth >= DEPTH_MAX {
        return "...".to_owned();
    }
    let child = |index| nested(&kind.child(index), depth + 1);
    match kind.id() {
        Id::Varchar => kind
            .get_alias()
            .filter(|alias| !alias.is_empty())
            .unwrap_or_else(|| "VARCHAR".to_owned()),
        Id::Decimal => format!("DECIMAL({},{})", kind.decimal_width(), kind.decimal_scale()),
        Id::List => format!("{}[]", child(0)),
        Id::Map => format!("MAP({}, {})", child(0), child(1)),
        Id::Struct => {
            let fields: Vec<String> = (0..kind.num_children())
                .map(|index| format!("{} {}", kind.child_name(index), child(index)))
                .collect();
            format!("STRUCT({})", fields.join(", "))
        }
        id => simple(id).to_owned(),
    }
}

fn simple(id: Id) -> &'static str {
    match id {
        Id::Boolean => "BOOLEAN",
        Id::Tinyint => "TINYINT",
        Id::Smallint => "SMALLINT",
        Id::Integer => "INTEGER",
        Id::Bigint => "BIGINT",
        Id::UTinyint => "UTINYINT",
        Id::USmallint => "USMALLINT",
        Id::UInteger => "UINTEGER",
        Id::UBigint => "UBIGINT",
        Id::Float => "FLOAT",
        Id::Double => "DOUBLE",
        Id::Timestamp => "TIMESTAMP",
        Id::TimestampS => "TIMESTAMP_S",
        Id::TimestampMs => "TIMESTAMP_MS",
        Id::TimestampNs => "TIMESTAMP_NS",
        Id::TimestampTZ => "TIMESTAMP WITH TIME ZONE",
        Id::Date => "DATE",
        Id::Time | Id::TimeNs => "TIME",
        Id::TimeTZ => "TIME WITH TIME ZONE",
        Id::Interval => "INTERVAL",
        Id::Hugeint => "HUGEINT",
        Id::UHugeint => "UHUGEINT",
        Id::Bignum => "BIGNUM",
        Id::Blob => "BLOB",
        Id::Bit => "BIT",
        Id::Enum => "ENUM",
        Id::Uuid => "UUID",
        Id::Union => "UNION",
        Id::Array => "ARRAY",
        Id::SqlNull => "NULL",
        _ => "OTHER",
    }
}
