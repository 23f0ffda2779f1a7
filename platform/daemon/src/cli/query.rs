//! `gantry query`: history by SQL.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use jiff::{SpanRelativeTo, Timestamp, Zoned};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::table::Table;
use super::{Exit, Form, Usage, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;

/// Widest cell of the table; `-o json` and `--csv` show everything.
const CELL_CHARS_MAX: usize = 80;

#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    /// One statement that reads, or `-` to read it from standard input. `SHOW TABLES` lists the tables
    sql: String,
    /// A value for a parameter, may repeat: `name=value` for `$name`; JSON if it reads as JSON, else text
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Print comma-separated values
    #[arg(long)]
    csv: bool,
    /// Rows at most
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Milliseconds that it may take
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// Do not read sealed workflows that ended before: a day or time (2026-11-01), or an age (7d)
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Do not read sealed workflows that ended after
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    truncated: Option<String>,
    stats: Stats,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Stats {
    elapsed_ms: u64,
}

pub(crate) async fn run(args: QueryArgs, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let body = body(&args).map_err(Usage)?;
    let client = Client::new(connection.resolve()?)?;
    let request = client.request(Method::POST, "/query").json(&body);
    if args.csv {
        let response = client.send(request.header("accept", "text/csv")).await?;
        let truncated = response.headers().contains_key("gantry-truncated");
        output::raw(&response.bytes().await.context("read the answer")?)?;
        if truncated {
            eprintln!("there is more: --max-rows");
        }
        return Ok(Exit::Ok);
    }
    let text = client.send(request).await?.text().await.context("read the answer")?;
    match form {
        // As it came: numbers keep all their digits.
        Form::Json => output::line(&text)?,
        Form::Text => print(&serde_json::from_str(&text).context("read the answer")?)?,
    }
    Ok(Exit::Ok)
}

fn body(args: &QueryArgs) -> Result<Value> {
    let sql = if args.sql == "-" {
        let mut sql = String::new();
        std::io::stdin()
            .read_to_string(&mut sql)
            .context("read the statement from standard input")?;
        sql
    } else {
        args.sql.clone()
    };
    let mut body = Map::from_iter([("sql".to_owned(), json!(sql))]);
    let mut parameters = Map::new();
    for pair in &args.parameters {
        let Some((name, value)) = pair.split_once('=') else {
            bail!("-p takes NAME=VALUE, not `{pair}`");
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        parameters.insert(name.to_owned(), value);
    }
    if !parameters.is_empty() {
        body.insert("parameters".to_owned(), Value::Object(parameters));
    }
    let now = Zoned::now();
    let when = |text: &Option<String>| text.as_deref().map(|text| moment(text, &now)).transpose();
    let numbers = [
        ("max_rows", args.max_rows),
        ("timeout_ms", args.timeout_ms),
        ("since_ms", when(&args.since)?),
        ("until_ms", when(&args.until)?),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    Ok(Value::Object(body))
}

/// A time, a day (its first moment, UTC), or an age.
fn moment(text: &str, now: &Zoned) -> Result<u64> {
    let timestamp = if let Ok(timestamp) = text.parse::<Timestamp>() {
        timestamp
    } else if let Ok(day) = text.parse::<jiff::civil::Date>() {
        day.in_tz("UTC")?.timestamp()
    } else if let Ok(age) = text.parse::<jiff::Span>() {
        let length = age.to_duration(SpanRelativeTo::from(now))?;
        now.timestamp().checked_sub(length)?
    } else {
        bail!("`{text}` is no time: use 2026-11-01, 2026-11-01T12:00:00Z or an age like 7d");
    };
    u64::try_from(timestamp.as_millisecond()).context("a time before 1970")
}

fn print(answer: &Answer) -> Result<()> {
    let head: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    let mut table = Table::new(&head);
    for row in &answer.rows {
        table.row(row.iter().map(cell).collect());
    }
    table.print()?;
    let rows = answer.rows.len();
    let more = match answer.truncated.as_deref() {
        Some("rows") => ", and there is more: --max-rows",
        Some(_) => ", cut at the largest answer",
        None => "",
    };
    eprintln!(
        "{rows} row{} in {} ms{more}",
        if rows == 1 { "" } else { "s" },
        answer.stats.elapsed_ms
    );
    Ok(())
}

/// On one line, without what would move the cursor.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut shown: String = text
        .chars()
        .take(CELL_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() > CELL_CHARS_MAX {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_moments_and_ages() {
        let now: Zoned = "2026-11-21T12:00:00[UTC]".parse().unwrap();
        assert_eq!(moment("2026-11-01", &now).unwrap(), 1_793_491_200_000);
        assert_eq!(moment("2026-11-01T01:00:00Z", &now).unwrap(), 1_793_494_800_000);
        assert_eq!(
            moment("7d", &now).unwrap(),
            moment("2026-11-14T12:00:00Z", &now).unwrap()
        );
        assert_eq!(
            moment("90m", &now).unwrap(),
            moment("2026-11-21T10:30:00Z", &now).unwrap()
        );
        assert!(moment("yesterday", &now).is_err());
    }

    #[test]
    fn cells_stay_on_their_line() {
        assert_eq!(cell(&json!("a\nb\u{1b}[31m")), "a b [31m");
        assert_eq!(cell(&json!("x".repeat(100))).chars().count(), CELL_CHARS_MAX + 1);
        assert_eq!(
            (cell(&json!(null)), cell(&json!([1]))),
            (String::new(), "[1]".to_owned())
        );
    }
}
