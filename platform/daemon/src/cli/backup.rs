//! `gantry backup` and `gantry restore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use futures_util::TryStreamExt as _;
use gantry_directory::{Directory as _, SqliteDirectory};
use gantry_journal::{Erasures, FileKeyRing, RocksOptions, RocksStore};
use gantry_proto::limits;
use gantry_proto::time::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{Exit, Form, output};
use crate::backup::{self, BackupError, Installation, Options, Restore, Split, Summary};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::data_dir::DataDir;
use crate::targets::maintenance::copy_directory;

/// Arguments of `gantry backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// Where to put it: a directory that does not exist yet, or a file whose name ends in .tar
    path: PathBuf,
    /// Where to put the wrapped data keys [default: PATH.keys]
    #[arg(long)]
    keys: Option<PathBuf>,
    /// Artifacts too, and not only their list
    #[arg(long)]
    artifacts: bool,
    /// Back up this data directory, whose daemon does not run, instead of asking the daemon
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Arguments of `gantry restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup: a directory or a .tar file
    path: PathBuf,
    /// The data directory to make: one that does not exist yet, or is empty
    #[arg(long, env = "GANTRY_DATA_DIR")]
    data_dir: PathBuf,
    /// The master key file that the installation had; no backup contains it
    #[arg(long)]
    master_key: PathBuf,
    /// The wrapped data keys [default: PATH.keys]
    #[arg(long)]
    keys: Option<PathBuf>,
    /// List of what was erased, the newest there is: it stays erased, and the new directory goes on with it
    #[arg(long, value_name = "FILE", required_unless_present = "no_erasures")]
    erasures: Option<PathBuf>,
    /// Nothing was erased since the backup was made, or it may come back
    #[arg(long, conflicts_with = "erasures")]
    no_erasures: bool,
}

pub(crate) async fn backup(args: BackupArgs, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let keys = args.keys.clone().unwrap_or_else(|| Split::keys_beside(&args.path));
    let options = Options {
        artifacts: args.artifacts,
    };
    let summary = match &args.data_dir {
        Some(data_dir) => offline(data_dir, &args.path, &keys, options).await?,
        None => online(connection, &args.path, &keys, options).await?,
    };
    report(&args.path, &keys, &summary, form)
}

fn report(path: &Path, keys: &Path, summary: &Summary, form: Form) -> Result<Exit> {
    match form {
        Form::Json => output::json(&json!({
            "path": path, "keys": keys, "verify_digest": summary.verify_digest, "records": summary.records,
            "workflows": summary.workflows, "artifacts": summary.artifacts, "held_ms": summary.held_ms,
        }))?,
        Form::Text => {
            eprintln!(
                "{}: {} records of {} workflows, {} artifacts; its data keys are in {}. Keep them apart, and the master key apart from both.",
                path.display(),
                summary.records,
                summary.workflows,
                summary.artifacts,
                keys.display()
            );
            output::line(&format!("verify digest {}", summary.verify_digest))?;
        }
    }
    Ok(Exit::Ok)
}

async fn online(connection: &ConnectionArgs, path: &Path, keys: &Path, options: Options) -> Result<Summary> {
    let client = Client::new(connection.resolve()?)?;
    let request = client.request(Method::POST, &format!("/backups?artifacts={}", options.artifacts));
    let mut sink = Split::create(path, keys)?;
    let response = match client.open(request).await {
        Ok(response) => response,
        Err(error) => {
            sink.abandon();
            return Err(error);
        }
    };
    let stream = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
    let bridge = SyncIoBridge::new(Box::pin(stream));
    let received = spawn_blocking(move || match backup::receive(bridge, &mut sink) {
        Ok((_, summary)) => Ok(summary),
        Err(error) => {
            sink.abandon();
            Err(error)
        }
    });
    Ok(received.await??)
}

async fn offline(data_dir: &Path, path: &Path, keys: &Path, options: Options) -> Result<Summary> {
    let data = DataDir::open_existing(data_dir)?;
    let directory = Arc::new(
        SqliteDirectory::open(data.directory())
            .await
            .context("open the directory")?,
    );
    let keyring = FileKeyRing::open(&data.master_key())?;
    let copy = copy_directory(&directory);
    let id = directory.installation().to_string();
    let (path, keys) = (path.to_owned(), keys.to_owned());
    let packed = spawn_blocking(move || -> Result<Summary> {
        let store = open_journal(&data)?;
        let (segments, blobs) = (data.segments(), data.blobs());
        let from = Installation {
            store: &store,
            copy_directory: &copy,
            segments: &segments,
            blobs: &blobs,
            scratch: data.root(),
            id,
            master_key: keyring.id(),
            now_ms: SystemClock.now_ms(),
            stopped: &|| false,
        };
        let mut sink = Split::create(&path, &keys)?;
        match backup::pack(&from, options, &mut sink) {
            Ok(summary) => Ok(summary),
            Err(error) => {
                sink.abandon();
                Err(error.into())
            }
        }
    });
    let summary = packed.await?;
    directory.close().await;
    summary
}

/// The journal of a data directory whose daemon does not run.
pub(crate) fn open_journal(data: &DataDir) -> Result<RocksStore> {
    let options = RocksOptions {
        partitions: limits::PARTITIONS_DEFAULT,
    };
    RocksStore::open(&data.journal(), options).context("open the journal")
}

pub(crate) async fn restore(args: RestoreArgs, form: Form) -> Result<Exit> {
    let data_dir = args.data_dir.clone();
    let restored = spawn_blocking(move || {
        let erasures = args
            .erasures
            .as_deref()
            .map(Erasures::read)
            .transpose()
            .map_err(BackupError::from)?;
        let keys = args.keys.unwrap_or_else(|| Split::keys_beside(&args.path));
        let done = backup::restore(&Restore {
            backup: &args.path,
            keys: &keys,
            data_dir: &args.data_dir,
            master_key: &args.master_key,
            erasures: args.erasures.as_deref().zip(erasures.as_ref()),
        });
        done.map(|(header, summary)| (header, summary, erasures.map_or(0, |list| list.len())))
    });
    let (header, summary, erased) = restored
        .await
        .map_err(|error| anyhow!("the restore ended: {error}"))??;
    match form {
        Form::Json => output::json(&json!({
            "data_dir": data_dir, "installation": header.installation, "created_at_ms": header.created_at_ms,
            "verify_digest": summary.verify_digest, "records": summary.records, "workflows": summary.workflows, "erasures": erased,
        }))?,
        Form::Text => {
            eprintln!(
                "{} is as installation {} was on {}: {} records of {} workflows{}",
                data_dir.display(),
                header.installation,
                output::time(header.created_at_ms),
                summary.records,
                summary.workflows,
                if erased == 0 {
                    String::new()
                } else {
                    format!("; {erased} erasures were applied")
                }
            );
            output::line(&format!("verify digest {}", summary.verify_digest))?;
        }
    }
    Ok(Exit::Ok)
}
