//! `gantry task`: what a person decides on a task.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Exit, Form, Usage, output, run};
use crate::client::Client;
use crate::client::config::ConnectionArgs;

/// Which task, and why.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Workflow id
    workflow: String,
    /// Name or id of the task
    task: String,
    /// Why; it is recorded
    #[arg(short = 'm', long)]
    comment: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Approve what a task asks
    Approve(Which),
    /// Reject what a task asks, or its result: it fails
    Reject(Which),
    /// Accept the result of a task: it completes
    Accept {
        #[command(flatten)]
        which: Which,
        /// The round that was looked at; about another one it is refused
        #[arg(long)]
        round: Option<u32>,
    },
    /// Have the result of a task made again; the comment is the feedback
    Rework {
        #[command(flatten)]
        which: Which,
        /// The round that was looked at; about another one it is refused
        #[arg(long)]
        round: Option<u32>,
    },
    /// Let a task run elsewhere: what runs is ended, and runs there. With nothing said: on any node that fits
    Reassign {
        #[command(flatten)]
        which: Which,
        /// Only on this node, by its id
        #[arg(long)]
        node: Option<String>,
        /// Not on the node where it is, or was last
        #[arg(long)]
        away: bool,
        /// A node must offer this capability, instead of what the definition says; may be given several times
        #[arg(long = "capability", value_name = "NAME")]
        capabilities: Vec<String>,
        /// A node must have this label, instead of what the definition says; may be given several times
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<String>,
        /// All its steps begin anew, without the tree that it has
        #[arg(long)]
        restart: bool,
    },
    /// Let a task that was escalated, or that backs off, try again now
    Retry {
        #[command(flatten)]
        which: Which,
        /// Environment that wins over the definition's
        #[arg(short = 'e', long = "env", value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Parameter that wins in this task, as with `gantry run`
        #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
    },
    /// Complete a task that does not run, without running it
    Skip(Which),
    /// Complete an escalated task with these outputs
    Resolve {
        #[command(flatten)]
        which: Which,
        /// A JSON object
        #[arg(long, value_name = "JSON", default_value = "{}")]
        outputs: String,
    },
    /// Fail a task that does not run
    Fail(Which),
}

fn of_round(round: Option<u32>) -> Map<String, Value> {
    round
        .map(|round| ("round".to_owned(), json!(round)))
        .into_iter()
        .collect()
}

fn pairs(given: &[String]) -> Result<Map<String, Value>> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .with_context(|| format!("`{text}` is not NAME=VALUE"))?;
        Ok((name.to_owned(), Value::from(value)))
    };
    given.iter().map(pair).collect()
}

pub(crate) async fn run(command: TaskCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let (which, action, more) = match command {
        TaskCommand::Approve(which) => (which, "approve", Map::new()),
        TaskCommand::Reject(which) => (which, "reject", Map::new()),
        TaskCommand::Accept { which, round } => (which, "accept", of_round(round)),
        TaskCommand::Rework { which, round } => (which, "rework", of_round(round)),
        TaskCommand::Reassign {
            which,
            node,
            away,
            capabilities,
            labels,
            restart,
        } => {
            let mut more = Map::new();
            if let Some(node) = node {
                more.insert("node".to_owned(), json!(node));
            }
            if !capabilities.is_empty() || !labels.is_empty() {
                let labels = pairs(&labels).map_err(Usage)?;
                more.insert(
                    "requires".to_owned(),
                    json!({ "capabilities": capabilities, "labels": labels }),
                );
            }
            more.insert("away".to_owned(), json!(away));
            more.insert("restart".to_owned(), json!(restart));
            (which, "reassign", more)
        }
        TaskCommand::Skip(which) => (which, "skip", Map::new()),
        TaskCommand::Fail(which) => (which, "fail", Map::new()),
        TaskCommand::Retry { which, env, params } => {
            let mut more = Map::new();
            more.insert("env".to_owned(), Value::Object(pairs(&env).map_err(Usage)?));
            more.insert(
                "params".to_owned(),
                Value::Object(run::parameters(&params).map_err(Usage)?),
            );
            (which, "retry", more)
        }
        TaskCommand::Resolve { which, outputs } => {
            let outputs: Map<String, Value> = serde_json::from_str(&outputs)
                .context("`--outputs` is no JSON object")
                .map_err(Usage)?;
            let more = Map::from_iter([("outputs".to_owned(), Value::Object(outputs))]);
            (which, "resolve", more)
        }
    };
    let mut body = more;
    if let Some(comment) = &which.comment {
        body.insert("comment".to_owned(), json!(comment));
    }
    let client = Client::new(connection.resolve()?)?;
    let path = format!("/workflows/{}/tasks/{}:{action}", which.workflow, which.task);
    let answer: Value = client.post(&path, &Value::Object(body)).await?;
    match form {
        Form::Json => output::json(&answer)?,
        Form::Text => output::line(answer.get("state").and_then(Value::as_str).unwrap_or("done"))?,
    }
    Ok(Exit::Ok)
}
