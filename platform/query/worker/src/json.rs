//! Values of an answer as JSON.
//!
//! Numbers are JSON numbers of any length, times are ISO 8601 (with `Z` where they are of UTC), bytes are base64. What is no JSON number (NaN, infinity) is
//! a text.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duckdb::arrow::array::{Array, AsArray, RecordBatch};
use duckdb::arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use duckdb::arrow::error::ArrowError;
use duckdb::arrow::util::display::{ArrayFormatter, FormatOptions};

/// One row as a JSON array.
pub(crate) fn row(batch: &RecordBatch, index: usize) -> Result<String, ArrowError> {
    let mut out = String::from("[");
    for (position, column) in batch.columns().iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        value(&mut out, column.as_ref(), index)?;
    }
    out.push(']');
    Ok(out)
}

fn value(out: &mut String, array: &dyn Array, index: usize) -> Result<(), ArrowError> {
    if array.is_null(index) {
        out.push_str("null");
        return Ok(());
    }
    macro_rules! number {
        ($kind:ty) => {{
            // Writing to a String does not fail.
            let _ = write!(out, "{}", array.as_primitive::<$kind>().value(index));
        }};
    }
    match array.data_type() {
        DataType::Null => out.push_str("null"),
        DataType::Boolean => out.push_str(if array.as_boolean().value(index) {
            "true"
        } else {
            "false"
        }),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => float(out, array.as_primitive::<Float32Type>().value(index).into()),
        DataType::Float64 => float(out, array.as_primitive::<Float64Type>().value(index)),
        DataType::Utf8 => text(out, array.as_string::<i32>().value(index)),
        DataType::LargeUtf8 => text(out, array.as_string::<i64>().value(index)),
        DataType::Utf8View => text(out, array.as_string_view().value(index)),
        DataType::Binary => bytes(out, array.as_binary::<i32>().value(index)),
        DataType::LargeBinary => bytes(out, array.as_binary::<i64>().value(index)),
        DataType::BinaryView => bytes(out, array.as_binary_view().value(index)),
        DataType::FixedSizeBinary(_) => bytes(out, array.as_fixed_size_binary().value(index)),
        DataType::Timestamp(unit, zone) => timestamp(out, array, index, *unit, zone.is_some()),
        DataType::Decimal128(_, scale) => decimal(out, array.as_primitive::<Decimal128Type>().value(index), *scale),
        DataType::List(_) => items(out, array.as_list::<i32>().value(index).as_ref())?,
        DataType::LargeList(_) => items(out, array.as_list::<i64>().value(index).as_ref())?,
        DataType::FixedSizeList(..) => items(out, array.as_fixed_size_list().value(index).as_ref())?,
        DataType::Struct(fields) => {
            let names = fields.iter().map(|field| field.name().as_str());
            object(out, names.zip(array.as_struct().columns()), index)?;
        }
        DataType::Map(..) => map(out, &array.as_map().value(index))?,
        // Dates, times, intervals, enumerations, unions.
        _ => text(out, &formatted(array, index)?),
    }
    Ok(())
}

fn formatted(array: &dyn Array, index: usize) -> Result<String, ArrowError> {
    ArrayFormatter::try_new(array, &FormatOptions::default())?
        .value(index)
        .try_to_string()
}

fn text(out: &mut String, text: &str) {
    // A text always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn bytes(out: &mut String, bytes: &[u8]) {
    text(out, &STANDARD.encode(bytes));
}

fn float(out: &mut String, number: f64) {
    match serde_json::Number::from_f64(number) {
        Some(number) => out.push_str(&number.to_string()),
        None => text(out, &number.to_string()),
    }
}

/// Every digit: DuckDB's HUGEINT comes as a decimal too, and may have one digit more than Arrow's own formatting expects.
fn decimal(out: &mut String, unscaled: i128, scale: i8) {
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::try_from(scale).unwrap_or(0);
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    if unscaled < 0 {
        out.push('-');
    }
    out.push_str(whole);
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
}

fn timestamp(out: &mut String, array: &dyn Array, index: usize, unit: TimeUnit, zoned: bool) {
    let moment = match unit {
        TimeUnit::Second => jiff::Timestamp::from_second(array.as_primitive::<TimestampSecondType>().value(index)),
        TimeUnit::Millisecond => {
            jiff::Timestamp::from_millisecond(array.as_primitive::<TimestampMillisecondType>().value(index))
        }
        TimeUnit::Microsecond => {
            jiff::Timestamp::from_microsecond(array.as_primitive::<TimestampMicrosecondType>().value(index))
        }
        TimeUnit::Nanosecond => {
            jiff::Timestamp::from_nanosecond(array.as_primitive::<TimestampNanosecondType>().value(index).into())
        }
    };
    let written = match moment {
        Ok(moment) => {
            let written = moment.to_string();
            if zoned {
                written
            } else {
                written.trim_end_matches('Z').to_owned()
            }
        }
        // Infinities and years past 9999.
        Err(_) => formatted(array, index).unwrap_or_else(|_| "infinity".to_owned()),
    };
    text(out, &written);
}

fn items(out: &mut String, items: &dyn Array) -> Result<(), ArrowError> {
    out.push('[');
    for index in 0..items.len() {
        if index > 0 {
            out.push(',');
        }
        value(out, items, index)?;
    }
    out.push(']');
    Ok(())
}

fn object<'a>(
    out: &mut String,
    fields: impl Iterator<Item = (&'a str, &'a duckdb::arrow::array::ArrayRef)>,
    index: usize,
) -> Result<(), ArrowError> {
    out.push('{');
    for (position, (name, column)) in fields.enumerate() {
        if position > 0 {
            out.push(',');
        }
        text(out, name);
        out.push(':');
        value(out, column.as_ref(), index)?;
    }
    out.push('}');
    Ok(())
}

/// A map has keys of any type: a list of pairs.
fn map(out: &mut String, entries: &duckdb::arrow::array::StructArray) -> Result<(), ArrowError> {
    out.push('[');
    for index in 0..entries.len() {
        if index > 0 {
            out.push(',');
        }
        out.push('[');
        value(out, entries.column(0).as_ref(), index)?;
        out.push(',');
        value(out, entries.column(1).as_ref(), index)?;
        out.push(']');
    }
    out.push(']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        for (unscaled, scale, written) in [
            (0, 0, "0"),
            (-5, 2, "-0.05"),
            (150, 2, "1.50"),
            (12, 0, "12"),
            (i128::MAX, 0, "170141183460469231731687303715884105727"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
        ] {
            let mut out = String::new();
            decimal(&mut out, unscaled, scale);
            assert_eq!(out, written);
        }
    }
}
