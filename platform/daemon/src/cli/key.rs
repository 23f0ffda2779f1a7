//! `gantry key`: API keys.

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::table::Table;
use super::{Exit, Form, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::{Key, List};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once
    Create {
        /// What it is for
        name: String,
        /// What it may do
        #[arg(long, default_value = "operate", value_parser = ["read", "operate", "admin"])]
        scope: String,
        /// When it ends, in milliseconds since the epoch
        #[arg(long)]
        expires_at_ms: Option<u64>,
    },
    /// Keys of the tenant
    Ls,
    /// Make a key worthless, at once
    Revoke {
        /// Key id
        id: String,
    },
}

pub(crate) async fn run(command: KeyCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    let document: Value = match &command {
        KeyCommand::Create {
            name,
            scope,
            expires_at_ms,
        } => {
            client
                .post(
                    "/keys",
                    &json!({"name": name, "scope": scope, "expires_at_ms": expires_at_ms}),
                )
                .await?
        }
        KeyCommand::Ls => client.get("/keys").await?,
        KeyCommand::Revoke { id } => client.post(&format!("/keys/{id}:revoke"), &json!({})).await?,
    };
    if form == Form::Json {
        output::json(&document)?;
        return Ok(Exit::Ok);
    }
    match command {
        KeyCommand::Create { .. } => {
            let Some(key) = document.get("key").and_then(Value::as_str) else {
                bail!("the answer holds no key")
            };
            eprintln!("the key is not shown again:");
            output::line(key)?;
        }
        KeyCommand::Ls => {
            let mut table = Table::new(&["ID", "NAME", "SCOPE", "CREATED", "LAST USED", "ENDS"]);
            for key in serde_json::from_value::<List<Key>>(document)?.items {
                let time = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), output::time);
                let ends = match (key.revoked_at_ms, key.expires_at_ms) {
                    (Some(at), _) => format!("revoked {}", output::time(at)),
                    (None, at) => time(at),
                };
                table.row(vec![
                    key.id,
                    key.name,
                    key.scope.unwrap_or_default(),
                    time(key.created_at_ms),
                    time(key.last_used_at_ms),
                    ends,
                ]);
            }
            table.print()?;
        }
        KeyCommand::Revoke { id } => output::line(&format!("{id} revoked"))?,
    }
    Ok(Exit::Ok)
}
