//! SQL over history.

use axum::response::Response;
use bytes::Bytes;
use gantry_engine::api::Issue;
use gantry_proto::ErrorCode;
use gantry_proto::limits::{QUERY_ROWS_DEFAULT, QUERY_SQL_BYTES_MAX, QUERY_TIMEOUT_MS_DEFAULT};
use gantry_query::{Answer, Cut, Parameter, Query, QueryError};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{json, typed};
use crate::call::GuardedCall;
use crate::dto::query::{QueryAnswer, QueryBody, QueryColumn, QueryStats};
use crate::problem::Problem;

/// The statement, escaped, and its parameters.
const BODY_BYTES_MAX: usize = 4 * QUERY_SQL_BYTES_MAX;

/// Says in CSV and NDJSON what JSON says in `truncated`.
const TRUNCATED: &str = "gantry-truncated";

/// Form of the answer.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Csv,
    Lines,
}

fn form(call: &GuardedCall) -> Form {
    let accepts = call.header("accept").unwrap_or_default().to_ascii_lowercase();
    let first = accepts
        .split(',')
        .find_map(|media| match media.split(';').next().unwrap_or_default().trim() {
            "application/json" | "*/*" => Some(Form::Json),
            "text/csv" => Some(Form::Csv),
            "application/x-ndjson" | "application/jsonl" => Some(Form::Lines),
            _ => None,
        });
    first.unwrap_or(Form::Json)
}

fn parameter(name: &str, value: &Value) -> Result<Parameter, Problem> {
    Ok(match value {
        Value::Null => Parameter::Null,
        Value::Bool(value) => Parameter::Bool(*value),
        Value::String(text) => Parameter::Text(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Parameter::I64(whole),
            (None, Some(number)) => Parameter::F64(number),
            (None, None) => return Err(Problem::invalid(format!("parameter `{name}` is out of range"))),
        },
        Value::Array(_) | Value::Object(_) => {
            return Err(Problem::invalid(format!(
                "parameter `{name}` must be a text, a number, true, false or null"
            )));
        }
    })
}

fn parameters(given: Option<&Value>) -> Result<Vec<(String, Parameter)>, Problem> {
    match given {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => (1..)
            .zip(values)
            .map(|(position, value): (usize, _)| {
                let name = position.to_string();
                parameter(&name, value).map(|value| (name, value))
            })
            .collect(),
        Some(Value::Object(values)) => values
            .iter()
            .map(|(name, value)| parameter(name, value).map(|value| (name.clone(), value)))
            .collect(),
        Some(_) => Err(Problem::invalid(
            "`parameters` must be a list (for `?`) or an object (for `$name`)",
        )),
    }
}

pub(crate) async fn query(mut call: GuardedCall) -> Result<Response, Problem> {
    let Some(engine) = call.shared.query.clone() else {
        return Err(Problem::new(
            ErrorCode::QueryUnavailable,
            "this installation is built without queries",
        ));
    };
    let form = form(&call);
    let body: QueryBody = call.call.json(BODY_BYTES_MAX).await?;
    let asked = Query {
        tenant: call.key.tenant,
        parameters: parameters(body.parameters.as_ref())?,
        rows_max: body.max_rows.unwrap_or(QUERY_ROWS_DEFAULT),
        timeout_ms: body.timeout_ms.unwrap_or(QUERY_TIMEOUT_MS_DEFAULT),
        since_ms: body.since_ms,
        until_ms: body.until_ms,
        sql: body.sql,
    };
    let sql = asked.sql.clone();
    let answer = engine.query(asked).await.map_err(|error| problem(error, &sql))?;
    let truncated = answer.cut.map(|cut| match cut {
        Cut::Rows => "rows",
        Cut::Bytes => "bytes",
    });
    let mut response = match form {
        Form::Json => return json(StatusCode::OK, &whole(answer, truncated)?),
        Form::Csv => typed(StatusCode::OK, "text/csv; charset=utf-8", csv(&answer)?),
        Form::Lines => typed(StatusCode::OK, "application/x-ndjson", lines(&answer)?),
    };
    if let Some(truncated) = truncated {
        response
            .headers_mut()
            .insert(TRUNCATED, HeaderValue::from_static(truncated));
    }
    response
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    Ok(response)
}

#[allow(clippy::needless_pass_by_value)] // it stands where a function over errors is wanted
fn unreadable(error: serde_json::Error) -> Problem {
    tracing::error!(%error, "an answer of gantry-query is no JSON");
    Problem::new(ErrorCode::Internal, "the answer could not be written")
}

fn whole(answer: Answer, truncated: Option<&'static str>) -> Result<QueryAnswer, Problem> {
    let rows: Result<_, _> = answer.rows.into_iter().map(RawValue::from_string).collect();
    let stats = answer.stats;
    Ok(QueryAnswer {
        columns: answer
            .columns
            .into_iter()
            .map(|column| QueryColumn {
                name: column.name,
                r#type: column.kind,
            })
            .collect(),
        rows: rows.map_err(unreadable)?,
        truncated,
        stats: QueryStats {
            elapsed_ms: stats.elapsed_ms,
            objects: stats.objects,
            object_bytes: stats.object_bytes,
            fetched_bytes: stats.fetched_bytes,
            tail_rows: stats.tail_rows,
        },
    })
}

fn cells(row: &str) -> Result<Vec<&RawValue>, Problem> {
    serde_json::from_str(row).map_err(unreadable)
}

/// As RFC 4180 has it, with a head; null is empty, lists and objects are JSON.
fn csv(answer: &Answer) -> Result<Bytes, Problem> {
    let mut out = String::new();
    let names = answer.columns.iter().map(|column| column.name.clone());
    csv_line(&mut out, names);
    for row in &answer.rows {
        let cells = cells(row)?.into_iter().map(|cell| {
            let raw = cell.get();
            match raw {
                "null" => String::new(),
                _ if raw.starts_with('"') => serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()),
                _ => raw.to_owned(),
            }
        });
        csv_line(&mut out, cells);
    }
    Ok(out.into())
}

fn csv_line(out: &mut String, cells: impl Iterator<Item = String>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.push(',');
        }
        if cell.contains(['"', ',', '\n', '\r']) {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&cell);
        }
    }
    out.push_str("\r\n");
}

/// One object for each row.
fn lines(answer: &Answer) -> Result<Bytes, Problem> {
    let names: Vec<String> = answer
        .columns
        .iter()
        .map(|column| Value::from(column.name.as_str()).to_string())
        .collect();
    let mut out = String::new();
    for row in &answer.rows {
        out.push('{');
        for (index, (name, cell)) in names.iter().zip(cells(row)?).enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(name);
            out.push(':');
            out.push_str(cell.get());
        }
        out.push_str("}\n");
    }
    Ok(out.into())
}

/// Line and column of a byte of the statement, from 1; columns count characters.
fn place(sql: &str, position: usize) -> Option<(u32, u32)> {
    let before = sql.get(..position)?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some((u32::try_from(line).ok()?, u32::try_from(column).ok()?))
}

fn problem(error: QueryError, sql: &str) -> Problem {
    let at = |code: ErrorCode, message: String, position: Option<usize>| {
        let place = position.and_then(|position| place(sql, position));
        let problem = Problem::new(code, message.clone());
        match place {
            Some((line, column)) => problem.issue(Issue {
                message,
                path: None,
                line: Some(line),
                column: Some(column),
            }),
            None => problem,
        }
    };
    match error {
        QueryError::Request(message) => Problem::invalid(message),
        QueryError::Refused { message, position } => at(ErrorCode::QueryRefused, message, position)
            .hint("ask with one SELECT over the tables that `SHOW TABLES` names"),
        QueryError::Invalid { message, position } => at(ErrorCode::InvalidQuery, message, position),
        QueryError::Limit(message) => {
            Problem::new(ErrorCode::QueryLimit, message).hint("ask for less: fewer days, fewer rows to join or sort")
        }
        QueryError::Busy(message) => Problem::overloaded(message),
        QueryError::Unavailable(message) => Problem::new(ErrorCode::QueryUnavailable, message),
        QueryError::Source(error) => {
            tracing::error!(%error, "history cannot be read for a query");
            Problem::new(ErrorCode::StorageUnavailable, "history cannot be read now")
        }
        QueryError::Object(error) => {
            tracing::error!(%error, "an object of the archive cannot be read for a query");
            Problem::new(ErrorCode::StorageUnavailable, error.to_string())
        }
        QueryError::Internal(error) => {
            tracing::error!(%error, "a query cannot be answered");
            Problem::new(
                ErrorCode::Internal,
                "something went wrong on our side; the log has the details under the request id",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        assert_eq!(place("SELECT x", 7), Some((1, 8)));
        assert_eq!(place("SELECT\n 'ä', x", 14), Some((2, 7)));
        assert_eq!(place("x", 5), None);
        assert_eq!(place("ä", 1), None, "inside of a character");
    }
}
