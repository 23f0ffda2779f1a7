//! `gantry logs`: output of steps, in the order in which they ran.

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use reqwest::Method;

use super::{Exit, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::Workflow;

/// Arguments of `gantry logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Workflow id
    workflow: String,
    /// TASK or TASK/STEP; everything when absent
    step: Option<String>,
    /// Go on until the step has ended
    #[arg(short, long)]
    follow: bool,
    /// This attempt instead of the last
    #[arg(long)]
    attempt: Option<u32>,
    /// Only stdout or stderr
    #[arg(long, value_parser = ["stdout", "stderr"])]
    stream: Option<String>,
}

pub(crate) async fn run(args: LogsArgs, connection: &ConnectionArgs) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    let workflow: Workflow = client.get(&format!("/workflows/{}", args.workflow)).await?;
    let (task, step) = match &args.step {
        Some(path) => match path.split_once('/') {
            Some((task, step)) => (Some(task), Some(step)),
            None => (Some(path.as_str()), None),
        },
        None => (None, None),
    };
    let mut wanted = Vec::new();
    for candidate in &workflow.tasks {
        for key in candidate
            .steps
            .iter()
            .filter(|candidate| !candidate.attempts.is_empty() || args.follow)
            .map(|step| &step.key)
        {
            if task.is_none_or(|task| task == candidate.name) && step.is_none_or(|step| step == key) {
                wanted.push((candidate.name.clone(), key.clone()));
            }
        }
    }
    if wanted.is_empty() {
        match &args.step {
            Some(path) => bail!("workflow {} has no step `{path}` that has run", args.workflow),
            None => bail!("no step of workflow {} has run yet", args.workflow),
        }
    }
    let several = wanted.len() > 1;
    for (task, step) in wanted {
        if several {
            eprintln!("==> {task}/{step}");
        }
        print(&client, &args, &task, &step).await?;
    }
    Ok(Exit::Ok)
}

async fn print(client: &Client, args: &LogsArgs, task: &str, step: &str) -> Result<()> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("follow", if args.follow { "true" } else { "false" });
    if let Some(attempt) = args.attempt {
        query.append_pair("attempt", &attempt.to_string());
    }
    if let Some(stream) = &args.stream {
        query.append_pair("stream", stream);
    }
    let path = format!(
        "/workflows/{}/tasks/{task}/steps/{step}/logs?{}",
        args.workflow,
        query.finish()
    );
    let mut body = client.open(client.request(Method::GET, &path)).await?.bytes_stream();
    while let Some(chunk) = body.next().await {
        output::raw(&chunk.context("the connection broke; what was printed so far is not all")?)?;
    }
    Ok(())
}
