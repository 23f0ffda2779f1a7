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
    /// Reject what a task asks: it fails
    Reject(Which),
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
