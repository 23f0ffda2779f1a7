//! `gantry init`: a data directory with its master key, its directory and the first admin key.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use gantry_directory::{Directory as _, SqliteDirectory};
use gantry_journal::FileKeyRing;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Exit, Form, output};
use crate::data_dir::{DataDir, DataDirError};

/// Arguments of `gantry init`.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Directory for everything durable
    #[arg(long, env = "GANTRY_DATA_DIR")]
    data_dir: PathBuf,
}

pub(crate) async fn run(args: InitArgs, form: Form) -> Result<Exit> {
    let data = match DataDir::open(&args.data_dir) {
        Ok(data) => data,
        Err(DataDirError::InUse { path, .. }) if path.join("directory.db").exists() => {
            eprintln!("{} is initialised, and a daemon runs on it", path.display());
            return Ok(Exit::Ok);
        }
        Err(error) => return Err(error.into()),
    };
    let keyring = FileKeyRing::open_or_create(&data.master_key())?;
    let directory = SqliteDirectory::open(data.directory())
        .await
        .context("open the directory")?;
    let bootstrap = directory
        .ensure_bootstrap()
        .await
        .context("create the first tenant and key")?;
    let installation = directory.installation();
    data.note(
        &["master.key", "directory.db"],
        &installation.to_string(),
        &keyring.id(),
    )?;
    match (&bootstrap.admin, form) {
        (Some(admin), Form::Text) => {
            eprintln!(
                "{} is initialised. The first admin key, shown once:",
                args.data_dir.display()
            );
            output::line(admin.token.expose_secret())?;
        }
        (Some(admin), Form::Json) => output::json(&json!({
            "data_dir": args.data_dir, "installation": installation.to_string(), "key": admin.token.expose_secret(),
        }))?,
        (None, Form::Text) => eprintln!(
            "{} was initialised before; its admin key was shown then",
            args.data_dir.display()
        ),
        (None, Form::Json) => output::json(&json!({
            "data_dir": args.data_dir, "installation": installation.to_string(), "key": null,
        }))?,
    }
    directory.close().await;
    Ok(Exit::Ok)
}
