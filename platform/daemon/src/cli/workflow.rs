//! `gantry workflow`: list, show, signal, cancel, hold, release, erase.

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use owo_colors::Stream;
use serde_json::{Value, json};

use super::table::Table;
use super::{Exit, Form, Usage, follow, output, run, trace};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::{List, Summary, Workflow};

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// Newest first
    Ls(Box<ListArgs>),
    /// Tasks, steps and attempts of one workflow
    Show {
        /// Workflow id
        id: String,
    },
    /// Give a workflow a signal that one of its tasks waits for
    Signal {
        /// Workflow id
        id: String,
        /// Name of the signal
        name: String,
        /// Any JSON; the fields of an object become outputs of the task
        #[arg(long, value_name = "JSON")]
        payload: Option<String>,
        /// Your id for the signal: sending it again with the same one changes nothing
        #[arg(long = "id", value_name = "ID")]
        signal_id: Option<String>,
    },
    /// Hold a workflow: nothing new starts
    Pause {
        /// Workflow id
        id: String,
        /// End running steps too; they run again later
        #[arg(long)]
        interrupt: bool,
        /// Why; it is recorded
        #[arg(short = 'm', long)]
        comment: Option<String>,
    },
    /// Let a workflow go on
    Resume {
        /// Workflow id
        id: String,
    },
    /// Start an ended workflow again, with the results of what need not run again
    Restart {
        /// Workflow id
        id: String,
        #[command(flatten)]
        from: FromArgs,
    },
    /// Start a workflow with the results of another one and other parameters
    Fork {
        /// Workflow id
        id: String,
        #[command(flatten)]
        from: FromArgs,
        /// Parameter `name=text`, or `name:=json`, that wins over the old one
        #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        /// Label `key=value` that wins over the old one
        #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Where its time went: tasks, steps, attempts, waiting and running; `-o json` is OTLP for trace viewers
    Trace {
        /// Workflow id
        id: String,
    },
    /// Ask a workflow to end
    Cancel {
        /// Workflow id
        id: String,
        /// Time between the polite signal and SIGKILL
        #[arg(long, value_name = "MS")]
        grace_ms: Option<u64>,
    },
    /// Keep a workflow whatever its retention, and refuse to erase it
    Hold {
        /// Workflow id
        id: String,
        /// Why, in words
        #[arg(long)]
        reason: Option<String>,
    },
    /// End a legal hold
    Release {
        /// Workflow id
        id: String,
    },
    /// Destroy what users wrote in an ended workflow, or in all of the tenant's, for good and for every backup
    Erase {
        /// Workflow id
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Every workflow and upload of the key's tenant
        #[arg(long, conflicts_with = "id")]
        all: bool,
        /// Really: nothing brings it back
        #[arg(long)]
        yes: bool,
    },
}

/// From where on things are done again.
#[derive(Debug, clap::Args)]
pub(crate) struct FromArgs {
    /// This task and all that need it run again; only what did not complete when absent
    #[arg(long = "from", value_name = "TASK")]
    task: Option<String>,
    /// Repeating the command with the same key returns the same workflow
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

async fn again(client: &Client, path: &str, from: FromArgs, mut body: Value, form: Form) -> Result<()> {
    if let Some(task) = from.task {
        body["from"] = json!({ "task": task });
    }
    let mut request = client.request(reqwest::Method::POST, path).json(&body);
    if let Some(key) = &from.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let answer: Value = client.send(request).await?.json().await.context("read the answer")?;
    match form {
        Form::Json => output::json(&answer),
        Form::Text => output::line(answer.get("id").and_then(Value::as_str).unwrap_or_default()),
    }
}

/// Arguments of `gantry workflow ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those that this filter fits, such as "state == 'failed' && attr.customer == 'acme'"
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<String>,
    /// Only these states, comma separated
    #[arg(long)]
    state: Option<String>,
    /// Only this name
    #[arg(long)]
    name: Option<String>,
    /// Only runs of this playbook
    #[arg(long)]
    playbook: Option<String>,
    /// Only runs of this schedule
    #[arg(long)]
    schedule: Option<String>,
    /// Only those that this workflow started
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Only with this label
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Only submitted at this time or later, such as 2026-03-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    created_from: Option<String>,
    /// Only submitted before this time
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    /// Only ended at this time or later
    #[arg(long, value_name = "TIME")]
    ended_from: Option<String>,
    /// Only ended before this time
    #[arg(long, value_name = "TIME")]
    ended_before: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Continue a list
    #[arg(long)]
    cursor: Option<String>,
}

impl ListArgs {
    fn query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &self.limit.to_string());
        for (key, value) in [
            ("where", &self.filter),
            ("state", &self.state),
            ("name", &self.name),
            ("playbook", &self.playbook),
            ("schedule", &self.schedule),
            ("parent", &self.parent),
            ("created_from", &self.created_from),
            ("created_before", &self.created_before),
            ("ended_from", &self.ended_from),
            ("ended_before", &self.ended_before),
            ("cursor", &self.cursor),
        ] {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        for label in &self.labels {
            query.append_pair("label", label);
        }
        query.finish()
    }
}

pub(crate) async fn run(command: WorkflowCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    match command {
        WorkflowCommand::Ls(args) => {
            let document: Value = client.get(&format!("/workflows?{}", args.query())).await?;
            match form {
                Form::Json => output::json(&document)?,
                Form::Text => list(&serde_json::from_value(document)?)?,
            }
        }
        WorkflowCommand::Show { id } => {
            let document: Value = client.get(&format!("/workflows/{id}")).await?;
            match form {
                Form::Json => output::json(&document)?,
                Form::Text => show(&serde_json::from_value(document)?)?,
            }
        }
        WorkflowCommand::Trace { id } => {
            let document: Value = client.get(&format!("/workflows/{id}/trace")).await?;
            match form {
                Form::Json => output::json(&document)?,
                Form::Text => trace::print(document)?,
            }
        }
        WorkflowCommand::Signal {
            id,
            name,
            payload,
            signal_id,
        } => {
            let payload: Value = match &payload {
                Some(text) => serde_json::from_str(text)
                    .context("`--payload` is no JSON")
                    .map_err(Usage)?,
                None => Value::Null,
            };
            let body = json!({"name": name, "payload": payload, "id": signal_id});
            let answer: Value = client.post(&format!("/workflows/{id}:signal"), &body).await?;
            let known = answer.get("duplicate").and_then(Value::as_bool) == Some(true);
            match form {
                Form::Json => output::json(&answer)?,
                Form::Text => output::line(if known { "known already" } else { "recorded" })?,
            }
        }
        WorkflowCommand::Pause { id, interrupt, comment } => {
            let body = json!({"interrupt": interrupt, "comment": comment});
            state(&client.post(&format!("/workflows/{id}:pause"), &body).await?, form)?;
        }
        WorkflowCommand::Resume { id } => {
            state(
                &client.post(&format!("/workflows/{id}:resume"), &json!({})).await?,
                form,
            )?;
        }
        WorkflowCommand::Restart { id, from } => {
            again(&client, &format!("/workflows/{id}:restart"), from, json!({}), form).await?;
        }
        WorkflowCommand::Fork {
            id,
            from,
            params,
            labels,
        } => {
            let parameters = run::parameters(&params).map_err(Usage)?;
            let labels = run::labels(&labels).map_err(Usage)?;
            let body = json!({"parameters": parameters, "labels": labels});
            again(&client, &format!("/workflows/{id}:fork"), from, body, form).await?;
        }
        WorkflowCommand::Cancel { id, grace_ms } => {
            let body = json!({"grace_ms": grace_ms});
            state(&client.post(&format!("/workflows/{id}:cancel"), &body).await?, form)?;
        }
        WorkflowCommand::Hold { id, reason } => {
            act(
                &client,
                form,
                &format!("/workflows/{id}:hold"),
                &json!({"reason": reason}),
                "held",
            )
            .await?;
        }
        WorkflowCommand::Release { id } => {
            act(
                &client,
                form,
                &format!("/workflows/{id}:release"),
                &json!({}),
                "released",
            )
            .await?;
        }
        WorkflowCommand::Erase { id, all: _, yes } => {
            if !yes {
                let what = id.as_deref().unwrap_or("a tenant");
                return Err(Usage(anyhow!(
                    "erasing {what} destroys definitions, parameters, outputs, logs and artifacts, and nothing brings them back: say --yes"
                ))
                .into());
            }
            let path = match id {
                Some(id) => format!("/workflows/{id}:erase"),
                None => {
                    let me: Value = client.get("/whoami").await?;
                    format!("/tenants/{}:erase", me["tenant"].as_str().unwrap_or_default())
                }
            };
            act(&client, form, &path, &json!({}), "erased").await?;
        }
    }
    Ok(Exit::Ok)
}

/// Where the workflow stands after a request.
fn state(answer: &Value, form: Form) -> Result<()> {
    match form {
        Form::Json => output::json(answer),
        Form::Text => output::line(answer.get("state").and_then(Value::as_str).unwrap_or("recorded")),
    }
}

async fn act(client: &Client, form: Form, path: &str, body: &Value, done: &str) -> Result<()> {
    let answer: Value = client.post(path, body).await?;
    match form {
        Form::Json => output::json(&answer),
        Form::Text => output::line(done),
    }
}

fn list(page: &List<Summary>) -> Result<()> {
    let mut table = Table::new(&["ID", "NAME", "STATE", "TASKS", "SUBMITTED", "TOOK"]);
    for summary in &page.items {
        let took = summary.ended_at_ms.map_or_else(
            || "-".to_owned(),
            |end| output::duration(end.saturating_sub(summary.created_at_ms)),
        );
        table.row(vec![
            summary.id.clone(),
            summary.name.clone(),
            output::state(&summary.state, Stream::Stdout),
            format!("{}/{}", summary.tasks_ended, summary.tasks_total),
            output::time(summary.created_at_ms),
            took,
        ]);
    }
    table.print()?;
    if let Some(cursor) = &page.next_cursor {
        if let Some(time) = page.searched_to_ms {
            eprintln!("searched back to {}", output::time(time));
        }
        eprintln!("more: --cursor {cursor}");
    }
    Ok(())
}

fn show(workflow: &Workflow) -> Result<()> {
    let summary = &workflow.summary;
    output::line(&format!(
        "{}  {}  {}",
        summary.id,
        summary.name,
        output::state(&summary.state, Stream::Stdout)
    ))?;
    output::line(&format!("submitted {}", output::time(summary.created_at_ms)))?;
    if let Some(failure) = &summary.failure {
        output::line(&format!("{} ({})", failure.message, failure.code))?;
    }
    if let Some(lineage) = &summary.lineage {
        output::line(&format!("started by {} (depth {})", lineage.parent, lineage.depth))?;
    }
    if let Some(ending) = &workflow.ending {
        let failure = &ending.failure;
        output::line(&format!(
            "ends as {}: {} ({})",
            ending.state, failure.message, failure.code
        ))?;
    }
    for task in &workflow.tasks {
        output::line(&format!(
            "{}  {}",
            task.name,
            output::state(&task.state, Stream::Stdout)
        ))?;
        if let Some(child) = &task.child {
            output::line(&format!("  child {child}"))?;
        }
        if let Some(items) = &task.items {
            output::line(&format!(
                "  items: {} of {} completed, {} failed, {} open",
                items.completed, items.total, items.failed, items.open
            ))?;
        }
        if let Some(waiting) = follow::waiting(task) {
            output::line(&format!("  waits: {waiting}"))?;
        }
        if let Some(outcome) = &task.outcome {
            output::line(&format!("  {}", outcome.replace('_', " ")))?;
        }
        if let Some(failure) = &task.failure {
            output::line(&format!("  {} ({})", failure.message, failure.code))?;
        }
        for step in &task.steps {
            output::line(&format!(
                "  {}  {}",
                step.key,
                output::state(&step.state, Stream::Stdout)
            ))?;
            for attempt in &step.attempts {
                let took = match (attempt.started_at_ms, attempt.finished_at_ms) {
                    (Some(start), Some(end)) => format!("  {}", output::duration(end.saturating_sub(start))),
                    _ => String::new(),
                };
                output::line(&format!(
                    "    attempt {}  {}{took}",
                    attempt.attempt,
                    output::state(&attempt.state, Stream::Stdout)
                ))?;
                if let Some(failure) = &attempt.failure {
                    output::line(&format!("      {} ({})", failure.message, failure.code))?;
                }
            }
        }
    }
    Ok(())
}
