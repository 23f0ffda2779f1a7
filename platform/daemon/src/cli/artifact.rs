//! `gantry artifact`: list and download.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::table::Table;
use super::{Exit, Form, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::{Artifact, List};

#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// Artifacts of a workflow
    Ls {
        /// Workflow id
        workflow: String,
    },
    /// Download one
    Get {
        /// Workflow id
        workflow: String,
        /// Name, or id (`art_...`)
        name: String,
        /// Where to; stdout when absent
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

pub(crate) async fn run(command: ArtifactCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    match command {
        ArtifactCommand::Ls { workflow } => {
            let document: Value = client.get(&format!("/workflows/{workflow}/artifacts")).await?;
            if form == Form::Json {
                output::json(&document)?;
                return Ok(Exit::Ok);
            }
            let list: List<Artifact> = serde_json::from_value(document)?;
            let mut table = Table::new(&["NAME", "SIZE", "TASK", "STEP", "SHA256", "ID"]);
            for artifact in list.items {
                let sha256 = artifact.sha256.chars().take(12).collect();
                table.row(vec![
                    artifact.name,
                    output::size(artifact.size_bytes),
                    artifact.task,
                    artifact.step,
                    sha256,
                    artifact.id,
                ]);
            }
            table.print()?;
        }
        ArtifactCommand::Get { workflow, name, file } => {
            let id = find(&client, &workflow, &name).await?;
            download(
                &client,
                &format!("/workflows/{workflow}/artifacts/{id}"),
                file.as_deref(),
            )
            .await?;
        }
    }
    Ok(Exit::Ok)
}

async fn find(client: &Client, workflow: &str, name: &str) -> Result<String> {
    if name.starts_with("art_") {
        return Ok(name.to_owned());
    }
    let list: List<Artifact> = client.get(&format!("/workflows/{workflow}/artifacts")).await?;
    let mut matching = list.items.into_iter().filter(|artifact| artifact.name == name);
    match (matching.next(), matching.next()) {
        (Some(artifact), None) => Ok(artifact.id),
        (Some(first), Some(second)) => bail!(
            "several artifacts are called `{name}` ({}/{} {}, {}/{} {}, ...): name one by its id",
            first.task,
            first.step,
            first.id,
            second.task,
            second.step,
            second.id
        ),
        (None, _) => bail!("workflow {workflow} has no artifact `{name}`; `gantry artifact ls {workflow}` lists them"),
    }
}

/// A file appears under its name only when it is whole.
async fn download(client: &Client, path: &str, file: Option<&Path>) -> Result<()> {
    let mut body = client.open(client.request(Method::GET, path)).await?.bytes_stream();
    let Some(file) = file else {
        while let Some(chunk) = body.next().await {
            output::raw(&chunk.context("the connection broke in the middle of the artifact")?)?;
        }
        return Ok(());
    };
    let mut partial = file.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let written = async {
        let mut out = tokio::fs::File::create(&partial).await?;
        while let Some(chunk) = body.next().await {
            out.write_all(&chunk.context("the connection broke in the middle of the artifact")?)
                .await?;
        }
        out.sync_all().await?;
        tokio::fs::rename(&partial, file).await?;
        anyhow::Ok(())
    };
    if let Err(error) = written.await {
        // Nothing half-written stays; that it cannot be removed is the lesser news.
        let _ = tokio::fs::remove_file(&partial).await;
        return Err(error).with_context(|| format!("write {}", file.display()));
    }
    Ok(())
}
