//! `gantry upload`: store files for workflows to take as input.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use gantry_proto::limits;
use reqwest::{Body, Method};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::table::Table;
use super::{Exit, Form, Usage, output};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::{List, Upload};

/// Arguments of `gantry upload`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct UploadArgs {
    #[command(subcommand)]
    command: Option<UploadCommand>,
    /// File to store (`./ls` for one that is called like a subcommand)
    file: Option<PathBuf>,
    /// What to call it; the file's own name when absent
    #[arg(long)]
    name: Option<String>,
    /// How long it is kept, in seconds; 24 hours when absent, which is the most
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Repeating the command with the same key stores nothing twice
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum UploadCommand {
    /// Uploads that are kept
    Ls,
    /// Erase one; workflows that took it keep their copies
    Rm {
        /// Upload id
        id: String,
    },
}

pub(crate) async fn run(args: UploadArgs, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    match (&args.command, &args.file) {
        (Some(UploadCommand::Ls), _) => {
            let document: Value = client.get("/uploads").await?;
            if form == Form::Json {
                output::json(&document)?;
                return Ok(Exit::Ok);
            }
            let mut table = Table::new(&["ID", "NAME", "SIZE", "EXPIRES"]);
            for upload in serde_json::from_value::<List<Upload>>(document)?.items {
                let expires = output::time(upload.expires_at_ms);
                table.row(vec![upload.id, upload.name, output::size(upload.size_bytes), expires]);
            }
            table.print()?;
        }
        (Some(UploadCommand::Rm { id }), _) => {
            client
                .send(client.request(Method::DELETE, &format!("/uploads/{id}")))
                .await?;
            eprintln!("{id} erased");
        }
        (None, Some(file)) => {
            let document = send(&client, file, &args).await?;
            match form {
                Form::Json => output::json(&document)?,
                Form::Text => output::line(&serde_json::from_value::<Upload>(document)?.id)?,
            }
        }
        (None, None) => {
            let nothing = anyhow::anyhow!("say which file: gantry upload FILE, or `gantry upload ls`");
            return Err(Usage(nothing).into());
        }
    }
    Ok(Exit::Ok)
}

/// Stores a file under its own name, for `gantry run --upload`; its id.
pub(super) async fn file(client: &Client, file: &Path, idempotency_key: Option<String>) -> Result<String> {
    let plain = UploadArgs {
        command: None,
        file: None,
        name: None,
        ttl: None,
        idempotency_key,
    };
    let document = send(client, file, &plain).await?;
    Ok(serde_json::from_value::<Upload>(document)?.id)
}

async fn send(client: &Client, file: &Path, args: &UploadArgs) -> Result<Value> {
    let shown = file.display();
    let opened = async {
        let opened = tokio::fs::File::open(file).await?;
        let meta = opened.metadata().await?;
        Ok::<_, std::io::Error>((opened, meta))
    };
    let (opened, meta) = opened.await.with_context(|| format!("read {shown}")).map_err(Usage)?;
    let check = || {
        if !meta.is_file() {
            bail!("{shown} is not a file");
        }
        if meta.len() > limits::UPLOAD_BYTES_MAX {
            let limit = output::size(limits::UPLOAD_BYTES_MAX);
            bail!("{shown} is larger than the limit of {limit} for an upload");
        }
        Ok(())
    };
    check().map_err(Usage)?;
    let own = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or(own).unwrap_or_else(|| "upload".to_owned());
    let mut query = vec![("name", name)];
    query.extend(
        args.ttl
            .map(|seconds| ("ttl_ms", seconds.saturating_mul(1_000).to_string())),
    );
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let mut request = client
        .request(Method::POST, &format!("/uploads?{query}"))
        .header("content-length", meta.len())
        .body(Body::wrap_stream(ReaderStream::new(opened)));
    if let Some(key) = &args.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    // It takes as long as the line takes; the server ends what stands still.
    client.open(request).await?.json().await.context("read the answer")
}
