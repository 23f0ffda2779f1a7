//! `gantry node`: run one (`--join`), or manage them.

use anyhow::{Result, bail};
use clap::Subcommand;
use owo_colors::Stream;
use serde_json::{Value, json};

use super::table::Table;
use super::{Exit, Form, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::{Key, List, Node};
use crate::targets;

/// Arguments of `gantry node`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: Option<NodeCommand>,
    #[command(flatten)]
    join: targets::node::JoinArgs,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Nodes and how they are
    Ls,
    /// Give a node nothing new, let it finish what it holds
    Drain {
        /// Node id
        id: String,
        /// Take it back into service
        #[arg(long)]
        undo: bool,
    },
    /// Tokens that nodes join with
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: String,
        /// Nodes with this token serve every tenant
        #[arg(long)]
        shared: bool,
    },
    /// Tokens
    Ls,
    /// Make a token worthless
    Revoke {
        /// Token id
        id: String,
    },
}

impl NodeArgs {
    pub(crate) fn is_daemon(&self) -> bool {
        self.command.is_none()
    }
}

pub(crate) async fn run(args: NodeArgs, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let Some(command) = args.command else {
        return targets::node::run(args.join).await.map(|()| Exit::Ok);
    };
    let client = Client::new(connection.resolve()?)?;
    let document: Value = match &command {
        NodeCommand::Ls => client.get("/nodes").await?,
        NodeCommand::Drain { id, undo } => {
            client
                .post(&format!("/nodes/{id}:drain"), &json!({"drain": !undo}))
                .await?
        }
        NodeCommand::Token(TokenCommand::Create { name, shared }) => {
            client
                .post("/node-tokens", &json!({"name": name, "shared": shared}))
                .await?
        }
        NodeCommand::Token(TokenCommand::Ls) => client.get("/node-tokens").await?,
        NodeCommand::Token(TokenCommand::Revoke { id }) => {
            client.post(&format!("/node-tokens/{id}:revoke"), &json!({})).await?
        }
    };
    if form == Form::Json {
        output::json(&document)?;
        return Ok(Exit::Ok);
    }
    match command {
        NodeCommand::Ls => nodes(&serde_json::from_value::<List<Node>>(document)?.items)?,
        NodeCommand::Drain { .. } => nodes(&[serde_json::from_value(document)?])?,
        NodeCommand::Token(TokenCommand::Create { .. }) => {
            let Some(token) = document.get("token").and_then(Value::as_str) else {
                bail!("the answer holds no token")
            };
            eprintln!(
                "join with: gantry node --join http://HOST:7411 --token-file FILE   (the token is not shown again)"
            );
            output::line(token)?;
        }
        NodeCommand::Token(TokenCommand::Ls) => {
            let mut table = Table::new(&["ID", "NAME", "CREATED", "REVOKED"]);
            for token in serde_json::from_value::<List<Key>>(document)?.items {
                let revoked = token.revoked_at_ms.map_or_else(|| "-".to_owned(), output::time);
                table.row(vec![
                    token.id,
                    token.name,
                    token.created_at_ms.map_or_else(|| "-".to_owned(), output::time),
                    revoked,
                ]);
            }
            table.print()?;
        }
        NodeCommand::Token(TokenCommand::Revoke { id }) => output::line(&format!("{id} revoked"))?,
    }
    Ok(Exit::Ok)
}

fn nodes(nodes: &[Node]) -> Result<()> {
    let mut table = Table::new(&["ID", "NAME", "STATE", "STEPS", "VERSION", "LABELS"]);
    for node in nodes {
        let labels = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        table.row(vec![
            node.id.clone(),
            node.name.clone(),
            output::state(&node.state, Stream::Stdout),
            format!("{}/{}", node.running, node.slots),
            node.version.clone(),
            if labels.is_empty() { "-".to_owned() } else { labels },
        ]);
    }
    table.print()?;
    for node in nodes {
        if let Some(fault) = &node.fault {
            eprintln!("{}: {} ({})", node.name, fault.message, fault.code);
            if let Some(hint) = &fault.hint {
                eprintln!("  hint: {hint}");
            }
        }
    }
    Ok(())
}
