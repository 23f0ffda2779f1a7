//! `gantry tenant`: tenants of the installation, and their shares.

use anyhow::{Context as _, Result};
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
pub(crate) enum TenantCommand {
    /// Tenants of the installation, with an admin key of the tenant `default`
    Ls,
    /// Set a tenant's share of free slots, with an admin key of the tenant `default`
    Weigh {
        /// Its id, from `ls`
        id: String,
        /// 1 to 1000; a tenant of weight 3 gets three times as many slots as one of weight 1 while both wait
        weight: u32,
    },
}

#[derive(Debug, Deserialize)]
struct Tenant {
    id: String,
    name: String,
    weight: u32,
}

pub(crate) async fn run(command: TenantCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    let document: Value = match command {
        TenantCommand::Ls => client.get("/tenants").await?,
        TenantCommand::Weigh { id, weight } => {
            let request = client.request(Method::PUT, &format!("/tenants/{}/weight", segment(&id)));
            let answer = client.send(request.json(&json!({ "weight": weight }))).await?;
            let tenant: Value = answer.json().await.context("read the answer")?;
            json!({ "items": [tenant] })
        }
    };
    match form {
        Form::Json => output::json(&document)?,
        Form::Text => {
            let mut table = Table::new(&["ID", "NAME", "WEIGHT"]);
            let items: Vec<Tenant> = serde_json::from_value(document["items"].clone()).context("read the tenants")?;
            for each in items {
                table.row(vec![each.id, each.name, each.weight.to_string()]);
            }
            table.print()?;
        }
    }
    Ok(Exit::Ok)
}
