//! `gantry run`: submit a definition and follow it to its end.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use gantry_proto::limits;
use owo_colors::Stream;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Exit, Form, Usage, follow, output, upload};
use crate::client::config::ConnectionArgs;
use crate::client::model::{List, Submitted, Workflow};
use crate::client::{Client, model};

/// Arguments of `gantry run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Workflow definition, YAML or JSON; `-` reads stdin
    #[arg(required_unless_present = "playbook")]
    file: Option<PathBuf>,
    /// Instead of a file: a playbook, `name` (its newest version) or `name@version`
    #[arg(long, value_name = "NAME[@VERSION]", conflicts_with = "file")]
    playbook: Option<String>,
    /// Parameter `name=text`; the definition says what type the text is read as. `name:=json` gives any JSON value
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Label `key=value`
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Store a file and set the parameter `name` to its id: `name=path`
    #[arg(long = "upload", value_name = "NAME=PATH")]
    uploads: Vec<String>,
    /// Return as soon as the workflow is durable
    #[arg(long)]
    detach: bool,
    /// Print the steps' output while they run
    #[arg(long)]
    follow_output: bool,
    /// How soon its tasks get nodes, 0 (last) to 9; as the definition says when absent
    #[arg(long, value_name = "0-9", value_parser = clap::value_parser!(u32).range(0..=9))]
    priority: Option<u32>,
    /// What it is found by: `name=text`, or `name:=json` for numbers, true, false and `{"time": "2030-01-31T08:00:00Z"}`
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<String>,
    /// Repeating the command with the same key returns the same workflow
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long the key is remembered, in milliseconds, at most 30 days; a day when absent
    #[arg(long, value_name = "MS", requires = "idempotency_key")]
    idempotency_ttl_ms: Option<u64>,
}

pub(crate) async fn run(args: RunArgs, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let definition = args.file.as_ref().map(read).transpose().map_err(Usage)?;
    let mut parameters = parameters(&args.params).map_err(Usage)?;
    let uploads = uploads(&args.uploads, &parameters).map_err(Usage)?;
    let labels = labels(&args.labels).map_err(Usage)?;
    let attributes = named("search attribute", &args.attributes).map_err(Usage)?;
    let client = Client::new(connection.resolve()?)?;
    for (name, file) in uploads {
        // The same command sends the same file under the same key, and so names the same upload in the same submission.
        let key = args.idempotency_key.as_ref().map(|key| format!("{key}/{name}"));
        let id = upload::file(&client, Path::new(file), key).await?;
        parameters.insert(name.to_owned(), Value::String(id));
    }
    let mut body =
        json!({"definition": definition, "playbook": args.playbook, "parameters": parameters, "labels": labels});
    if let Some(priority) = args.priority {
        body["priority"] = json!(priority);
    }
    if !attributes.is_empty() {
        body["attributes"] = Value::Object(attributes);
    }
    let mut request = client.request(Method::POST, "/workflows").json(&body);
    if let Some(key) = &args.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    if let Some(ttl_ms) = args.idempotency_ttl_ms {
        request = request.header("idempotency-ttl-ms", ttl_ms);
    }
    let submitted: Submitted = client.send(request).await?.json().await.context("read the answer")?;
    if args.detach {
        match form {
            Form::Json => output::json(&json!({"id": submitted.id, "replayed": submitted.replayed}))?,
            Form::Text => output::line(&submitted.id)?,
        }
        return Ok(Exit::Ok);
    }
    let known = if submitted.replayed {
        " (known by its idempotency key)"
    } else {
        ""
    };
    eprintln!("workflow {}{known}", submitted.id);
    follow::to_end(&client, &submitted.id, args.follow_output).await?;
    finish(&client, &submitted.id, form).await
}

/// Prints the result and says how it ended.
async fn finish(client: &Client, id: &str, form: Form) -> Result<Exit> {
    let document: Value = client.get(&format!("/workflows/{id}")).await?;
    let workflow: Workflow = serde_json::from_value(document.clone()).context("read the workflow")?;
    let artifacts: List<model::Artifact> = client.get(&format!("/workflows/{id}/artifacts")).await?;
    match form {
        Form::Json => output::json(&document)?,
        Form::Text => text(client, &workflow, &artifacts.items)?,
    }
    Ok(match workflow.summary.state.as_str() {
        "completed" => Exit::Ok,
        "cancelled" => Exit::Cancelled,
        _ => Exit::Failed,
    })
}

fn text(client: &Client, workflow: &Workflow, artifacts: &[model::Artifact]) -> Result<()> {
    let summary = &workflow.summary;
    let took = summary
        .ended_at_ms
        .unwrap_or(summary.created_at_ms)
        .saturating_sub(summary.created_at_ms);
    let state = output::state(&summary.state, Stream::Stdout);
    output::line(&format!("{} {} in {}", summary.name, state, output::duration(took)))?;
    if let Some(failure) = &summary.failure {
        output::line(&format!("  {} ({})", failure.message, failure.code))?;
        if let Some(hint) = &failure.hint {
            output::line(&format!("  hint: {hint}"))?;
        }
    }
    if let Value::Object(outputs) = &workflow.outputs
        && !outputs.is_empty()
    {
        output::line("outputs:")?;
        for (name, value) in outputs {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output::line(&format!("  {name}: {value}"))?;
        }
    }
    if !artifacts.is_empty() {
        output::line("artifacts:")?;
        for artifact in artifacts {
            output::line(&format!(
                "  {}  {}  ({}/{})",
                artifact.name,
                output::size(artifact.size_bytes),
                artifact.task,
                artifact.step
            ))?;
        }
        output::line(&format!(
            "  get one: gantry artifact get {} {}",
            summary.id, artifacts[0].name
        ))?;
    }
    output::line(&format!("{}/api/v1/workflows/{}", client.base(), summary.id))
}

/// What the server takes as a bundle of playbooks.
pub(super) const BUNDLE_BYTES_MAX: u64 = 16 << 20;

/// A definition's text.
pub(super) fn read(file: &PathBuf) -> Result<String> {
    read_text(file, limits::DEFINITION_BYTES_MAX as u64)
}

/// A file's text, or that of stdin.
pub(super) fn read_text(file: &PathBuf, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let name = file.display();
    // One byte more than the limit tells a file of the limit from a larger one.
    if file.as_os_str() == "-" {
        std::io::stdin()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .context("read stdin")?;
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes))
            .with_context(|| format!("read {name}"))?;
    }
    if bytes.len() as u64 > limit {
        bail!("{name} is larger than the limit of {}", output::size(limit));
    }
    String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8 text"))
}

pub(super) fn parameters(given: &[String]) -> Result<Map<String, Value>> {
    named("parameter", given)
}

/// `name=text` or `name:=json`, each name once.
fn named(what: &str, given: &[String]) -> Result<Map<String, Value>> {
    let mut values = Map::new();
    for text in given {
        let (name, value) = one(what, text)?;
        if values.insert(name.clone(), value).is_some() {
            bail!("{what} `{name}` is given twice");
        }
    }
    Ok(values)
}

fn one(what: &str, text: &str) -> Result<(String, Value)> {
    let Some((name, value)) = text.split_once('=') else {
        bail!("`{text}` is no {what}: write name=value, or name:=json");
    };
    if let Some(name) = name.strip_suffix(':') {
        let value = serde_json::from_str(value).with_context(|| format!("{what} `{name}`: `{value}` is not JSON"))?;
        return Ok((name.to_owned(), value));
    }
    Ok((name.to_owned(), Value::String(value.to_owned())))
}

/// Parameters that are files, each given once and by no `-p`.
fn uploads<'a>(given: &'a [String], parameters: &Map<String, Value>) -> Result<Vec<(&'a str, &'a str)>> {
    let mut uploads: Vec<(&str, &str)> = Vec::with_capacity(given.len());
    for text in given {
        let Some((name, file)) = text
            .split_once('=')
            .filter(|(name, file)| !name.is_empty() && !file.is_empty())
        else {
            bail!("`{text}` is not an upload: write name=path");
        };
        if parameters.contains_key(name) || uploads.iter().any(|(other, _)| *other == name) {
            bail!("parameter `{name}` is given twice");
        }
        uploads.push((name, file));
    }
    Ok(uploads)
}

pub(super) fn labels(given: &[String]) -> Result<Map<String, Value>> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Value::String(value.to_owned()))),
            _ => bail!("`{text}` is not a label: write key=value"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_parameters_too() {
        let (a, b) = ("a=x=y".to_owned(), "b=/tmp/f".to_owned());
        let given = [a.clone(), b];
        assert_eq!(uploads(&given, &Map::new()).unwrap(), [("a", "x=y"), ("b", "/tmp/f")]);
        assert!(uploads(&[a.clone(), a.clone()], &Map::new()).is_err());
        assert!(uploads(&[a], &parameters(&["a=1".to_owned()]).unwrap()).is_err());
        assert!(uploads(&["a=".to_owned()], &Map::new()).is_err());
    }

    #[test]
    fn parameters_are_text_unless_json_is_asked_for() {
        assert_eq!(one("parameter", "a=1").unwrap(), ("a".to_owned(), json!("1")));
        assert_eq!(one("parameter", "a=x=y").unwrap(), ("a".to_owned(), json!("x=y")));
        assert_eq!(one("parameter", "a:=[1]").unwrap(), ("a".to_owned(), json!([1])));
        assert!(one("parameter", "a:=[1").is_err());
        assert!(one("parameter", "a").is_err());
        assert!(parameters(&["a=1".to_owned(), "a=2".to_owned()]).is_err());
    }
}
