//! `gantry bulk`: one command for every workflow that a filter fits.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use owo_colors::Stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::playbook::all;
use super::table::Table;
use super::{Exit, Form, Usage, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;

/// Pause between looks at a running operation.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum BulkCommand {
    /// Ask workflows to end
    Cancel {
        #[command(flatten)]
        which: WhichArgs,
        /// Time between the polite signal and SIGKILL
        #[arg(long, value_name = "MS")]
        grace_ms: Option<u64>,
    },
    /// Hold workflows: nothing new starts
    Pause {
        #[command(flatten)]
        which: WhichArgs,
        /// End running steps too; they run again later
        #[arg(long)]
        interrupt: bool,
    },
    /// Let workflows go on
    Resume {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Give workflows a signal
    Signal {
        #[command(flatten)]
        which: WhichArgs,
        /// Name of the signal
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Any JSON
        #[arg(long, value_name = "JSON")]
        payload: Option<String>,
    },
    /// Try again what was given to a person, ran out of attempts or waits for its next one
    Retry {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Keep workflows whatever their retention
    Hold {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Keep workflows no longer than their retention
    Release {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Destroy what users wrote in workflows that have ended
    Erase {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Bulk operations, newest first
    Ls,
    /// How far one is
    Show {
        /// Its id
        id: String,
    },
    /// Take no further workflows; what was done stays done
    Stop {
        /// Its id
        id: String,
    },
}

/// Which workflows, and how.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// A filter such as "state == 'active' && label.team == 'ops'"; `true` fits all
    #[arg(long = "where", value_name = "FILTER")]
    filter: String,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// Why
    #[arg(short = 'm', long)]
    comment: Option<String>,
    /// Workflows per second at most, 1 to 1000
    #[arg(long)]
    rate: Option<u32>,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
    /// Repeating the command with the same key returns the same operation
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Bulk {
    id: String,
    operation: String,
    #[serde(rename = "where")]
    filter: String,
    state: String,
    matched: u64,
    done: u64,
    skipped: u64,
    failed: u64,
    looked_at: u64,
    created_at_ms: u64,
    reasons: Vec<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    reason: String,
    failed: bool,
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Preview {
    matched: u64,
    by_state: Map<String, Value>,
    complete: bool,
}

impl Bulk {
    fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "completed" | "cancelled")
    }

    /// Something that was asked for was refused.
    fn exit(&self) -> Exit {
        match (self.state.as_str(), self.failed) {
            ("cancelled", _) => Exit::Cancelled,
            (_, 0) => Exit::Ok,
            _ => Exit::Failed,
        }
    }
}

pub(crate) async fn run(command: BulkCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    let (which, action) = match command {
        BulkCommand::Cancel { which, grace_ms } => (which, json!({"operation": "cancel", "grace_ms": grace_ms})),
        BulkCommand::Pause { which, interrupt } => (which, json!({"operation": "pause", "interrupt": interrupt})),
        BulkCommand::Resume { which } => (which, json!({"operation": "resume"})),
        BulkCommand::Retry { which } => (which, json!({"operation": "retry"})),
        BulkCommand::Hold { which } => (which, json!({"operation": "hold"})),
        BulkCommand::Release { which } => (which, json!({"operation": "release"})),
        BulkCommand::Erase { which } => (which, json!({"operation": "erase"})),
        BulkCommand::Signal { which, name, payload } => {
            let payload: Value = match &payload {
                Some(text) => serde_json::from_str(text)
                    .context("`--payload` is no JSON")
                    .map_err(Usage)?,
                None => Value::Null,
            };
            (
                which,
                json!({"operation": "signal", "signal": name, "payload": payload}),
            )
        }
        BulkCommand::Ls => return list(&client, form).await,
        BulkCommand::Show { id } => {
            let document: Value = client.get(&format!("/bulk/{id}")).await?;
            return show(document, form);
        }
        BulkCommand::Stop { id } => {
            let document: Value = client.post(&format!("/bulk/{id}:cancel"), &json!({})).await?;
            return show(document, form);
        }
    };
    start(&client, which, action, form).await
}

async fn start(client: &Client, which: WhichArgs, mut body: Value, form: Form) -> Result<Exit> {
    body["where"] = json!(which.filter);
    body["dry_run"] = json!(which.dry_run);
    body["comment"] = json!(which.comment);
    body["rate"] = json!(which.rate);
    let mut request = client.request(reqwest::Method::POST, "/bulk").json(&body);
    if let Some(key) = &which.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let mut document: Value = client.send(request).await?.json().await.context("read the answer")?;
    if which.dry_run {
        if form == Form::Json {
            output::json(&document)?;
            return Ok(Exit::Ok);
        }
        let preview: Preview = serde_json::from_value(document).context("read the answer")?;
        let or_more = if preview.complete { "" } else { " or more" };
        output::line(&format!("{}{or_more} workflows", preview.matched))?;
        for (state, count) in preview.by_state {
            output::line(&format!("  {state}: {count}"))?;
        }
        return Ok(Exit::Ok);
    }
    let read = |document: &Value| -> Result<Bulk> {
        serde_json::from_value(document.clone()).context("read the bulk operation")
    };
    let mut bulk = read(&document)?;
    if !which.detach {
        eprintln!("{} (ending this command does not end it)", bulk.id);
        while !bulk.has_ended() {
            tokio::time::sleep(LOOK).await;
            document = client.get(&format!("/bulk/{}", bulk.id)).await?;
            bulk = read(&document)?;
        }
    }
    show(document, form)?;
    Ok(if which.detach { Exit::Ok } else { bulk.exit() })
}

fn show(document: Value, form: Form) -> Result<Exit> {
    if form == Form::Json {
        output::json(&document)?;
        return Ok(Exit::Ok);
    }
    let bulk: Bulk = serde_json::from_value(document).context("read the bulk operation")?;
    output::line(&format!(
        "{}  {}  {}",
        bulk.id,
        bulk.operation,
        output::state(&bulk.state, Stream::Stdout)
    ))?;
    output::line(&format!("where {}", bulk.filter))?;
    output::line(&format!(
        "{} matched of {} looked at: {} done, {} skipped, {} refused",
        bulk.matched, bulk.looked_at, bulk.done, bulk.skipped, bulk.failed
    ))?;
    for reason in &bulk.reasons {
        let how = if reason.failed { "refused" } else { "skipped" };
        output::line(&format!(
            "  {how}: {} ({})",
            reason.reason.replace('_', " "),
            reason.count
        ))?;
    }
    Ok(Exit::Ok)
}

async fn list(client: &Client, form: Form) -> Result<Exit> {
    let (items, raw) = all::<Bulk>(client, "/bulk").await?;
    if form == Form::Json {
        output::json(&json!({"items": raw}))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        "ID",
        "OPERATION",
        "STATE",
        "MATCHED",
        "DONE",
        "SKIPPED",
        "REFUSED",
        "ASKED FOR",
    ]);
    for each in items {
        table.row(vec![
            each.id,
            each.operation,
            output::state(&each.state, Stream::Stdout),
            each.matched.to_string(),
            each.done.to_string(),
            each.skipped.to_string(),
            each.failed.to_string(),
            output::time(each.created_at_ms),
        ]);
    }
    table.print()?;
    Ok(Exit::Ok)
}
