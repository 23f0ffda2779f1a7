//! `gantry limit`: concurrency keys and rates, who holds them and who waits.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::playbook::{all, segment};
use super::table::Table;
use super::{Exit, Form, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum LimitCommand {
    /// Concurrency keys and rates that somebody uses
    Ls {
        /// Only those of this key, as its template gives it (`--key` is the API key)
        #[arg(long = "of", value_name = "TEXT")]
        of: Option<String>,
    },
    /// One of them, with those who hold it and those who wait
    Show {
        /// Its id, from `ls`
        id: String,
    },
}

#[derive(Debug, Deserialize)]
struct Limit {
    id: String,
    kind: String,
    holders: u32,
    waiters: u32,
    #[serde(default)]
    next_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Claim {
    workflow: String,
    #[serde(default)]
    task: Option<String>,
    asked_at_ms: u64,
    #[serde(default)]
    since_ms: Option<u64>,
    #[serde(default)]
    evicted: bool,
}

#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(flatten)]
    limit: Limit,
    holding: Vec<Claim>,
    waiting: Vec<Claim>,
}

pub(crate) async fn run(command: LimitCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    match command {
        LimitCommand::Ls { of } => {
            let path = of.map_or_else(|| "/limits".to_owned(), |key| format!("/limits?key={}", segment(&key)));
            let (items, raw) = all::<Limit>(&client, &path).await?;
            match form {
                Form::Json => output::json(&json!({ "items": raw }))?,
                Form::Text => list(items)?,
            }
        }
        LimitCommand::Show { id } => {
            let document: Value = client.get(&format!("/limits/{}", segment(&id))).await?;
            match form {
                Form::Json => output::json(&document)?,
                Form::Text => text(serde_json::from_value(document).context("read the limit")?)?,
            }
        }
    }
    Ok(Exit::Ok)
}

fn list(items: Vec<Limit>) -> Result<()> {
    let mut table = Table::new(&["ID", "KIND", "HOLD", "WAIT", "NEXT"]);
    for each in items {
        table.row(vec![
            each.id,
            each.kind,
            each.holders.to_string(),
            each.waiters.to_string(),
            each.next_ms.map(output::time).unwrap_or_default(),
        ]);
    }
    table.print()
}

fn text(detail: Detail) -> Result<()> {
    let Detail {
        limit,
        holding,
        waiting,
    } = detail;
    output::line(&format!(
        "{} {}: {} hold, {} wait",
        limit.kind, limit.id, limit.holders, limit.waiters
    ))?;
    if let Some(next_ms) = limit.next_ms {
        output::line(&format!("next start {}", output::time(next_ms)))?;
    }
    let mut table = Table::new(&["", "WORKFLOW", "TASK", "SINCE"]);
    for claim in holding.into_iter().chain(waiting) {
        let word = match (claim.since_ms, claim.evicted) {
            (Some(_), true) => "ending",
            (Some(_), false) => "holds",
            (None, _) => "waits",
        };
        table.row(vec![
            word.to_owned(),
            claim.workflow,
            claim.task.unwrap_or_default(),
            output::time(claim.since_ms.unwrap_or(claim.asked_at_ms)),
        ]);
    }
    table.print()
}
