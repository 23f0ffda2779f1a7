//! `gantry pause`: let nothing new of a definition or of the tenant start.

use anyhow::Result;
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::playbook::segment;
use super::table::Table;
use super::{Exit, Form, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PauseCommand {
    /// What is paused
    Ls,
    /// Let nothing new start; what runs ends by itself
    Set {
        /// Name of a workflow or a playbook; everything of the tenant when absent
        #[arg(long)]
        definition: Option<String>,
        /// Why
        #[arg(short = 'm', long)]
        comment: Option<String>,
    },
    /// Let it go on
    Lift {
        /// Name of a workflow or a playbook; the tenant when absent
        #[arg(long)]
        definition: Option<String>,
    },
}

#[derive(Debug, Deserialize)]
struct Held {
    scope: String,
    #[serde(default)]
    definition: Option<String>,
    #[serde(default)]
    by: Option<String>,
    since_ms: u64,
    #[serde(default)]
    why: Option<String>,
}

fn path(definition: Option<&String>) -> String {
    match definition {
        Some(name) => format!("/pauses/definitions/{}", segment(name)),
        None => "/pauses/tenant".to_owned(),
    }
}

fn word(definition: Option<&String>) -> String {
    definition.map_or_else(|| "the tenant".to_owned(), |name| format!("definition {name}"))
}

pub(crate) async fn run(command: PauseCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    let said = match command {
        PauseCommand::Ls => {
            let page: Value = client.get("/pauses").await?;
            if form == Form::Json {
                output::json(&page)?;
            } else {
                list(serde_json::from_value(page["items"].clone())?)?;
            }
            return Ok(Exit::Ok);
        }
        PauseCommand::Set { definition, comment } => {
            let request = client.request(Method::PUT, &path(definition.as_ref()));
            let answer = client.send(request.json(&json!({ "comment": comment }))).await?;
            let held: Value = answer.json().await?;
            if form == Form::Json {
                output::json(&held)?;
            }
            format!("{} is paused", word(definition.as_ref()))
        }
        PauseCommand::Lift { definition } => {
            let request = client.request(Method::DELETE, &path(definition.as_ref()));
            client.send(request).await?;
            format!("{} goes on", word(definition.as_ref()))
        }
    };
    if form == Form::Text {
        output::line(&said)?;
    }
    Ok(Exit::Ok)
}

fn list(items: Vec<Held>) -> Result<()> {
    let mut table = Table::new(&["PAUSED", "NAME", "SINCE", "BY", "WHY"]);
    for each in items {
        table.row(vec![
            each.scope,
            each.definition.unwrap_or_default(),
            output::time(each.since_ms),
            each.by.unwrap_or_default(),
            each.why.unwrap_or_default(),
        ]);
    }
    table.print()
}
