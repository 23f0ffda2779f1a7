//! `gantry journal`: looking into the journal of a data directory whose daemon does not run.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use gantry_engine::inspect::{self, Filter, RecordView, Stats, Unsealer};
use gantry_engine::processor::storage::ContentError;
use gantry_engine::verify;
use gantry_journal::{FileKeyRing, RocksStore};
use gantry_proto::{PartitionId, WorkflowId};
use serde_json::{Value, json};

use super::backup::open_journal;
use super::journal_export;
use super::table::Table;
use super::{Exit, Form, output};
use crate::data_dir::DataDir;

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Check everything: order, completeness and chain of the log, and that what is stored is its fold
    Verify(DataArgs),
    /// Print records as JSON lines
    Dump(DumpArgs),
    /// Count records, rows and bytes by kind
    Stats(DataArgs),
    /// Write one workflow, or everything, into a file that other programs can read
    Export(journal_export::ExportArgs),
}

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The data directory; its daemon must not run
    #[arg(long, env = "GANTRY_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Only records of this workflow
    #[arg(long)]
    workflow: Option<WorkflowId>,
    /// Only this partition
    #[arg(long)]
    partition: Option<u16>,
    /// Only from this sequence on
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// What users and models wrote too; needs the master key
    #[arg(long)]
    payloads: bool,
}

pub(crate) async fn run(command: JournalCommand, form: Form) -> Result<Exit> {
    // Everything in here blocks, and nothing else runs.
    let done = tokio::task::spawn_blocking(move || match command {
        JournalCommand::Verify(args) => verify_all(&args, form),
        JournalCommand::Dump(args) => dump(&args),
        JournalCommand::Stats(args) => stats(&args, form),
        JournalCommand::Export(args) => journal_export::export(&args, form),
    });
    done.await?
}

/// A journal and the lock that keeps the daemon out.
pub(crate) struct Opened {
    pub(crate) data: DataDir,
    pub(crate) store: RocksStore,
}

impl Opened {
    pub(crate) fn open(args: &DataArgs) -> Result<Self> {
        let data = DataDir::open_existing(&args.data_dir)?;
        let store = open_journal(&data)?;
        Ok(Self { data, store })
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.store.partitions()).filter_map(PartitionId::new)
    }

    pub(crate) fn keyring(&self) -> Result<FileKeyRing> {
        FileKeyRing::open(&self.data.master_key()).context("payloads need the master key")
    }
}

fn verify_all(args: &DataArgs, form: Form) -> Result<Exit> {
    let opened = Opened::open(args)?;
    let mut sound = Vec::new();
    let mut faults = Vec::new();
    let mut rows = Vec::new();
    let mut table = Table::new(&["PARTITION", "ENTRIES", "RECORDS", "WORKFLOWS", "CHAIN", "STATE"]);
    for partition in opened.partitions() {
        match verify::verify(&opened.store, partition) {
            Ok(report) => {
                let (chain, state) = (hex::encode(report.chain), hex::encode(report.state));
                if report.entries > 0 {
                    table.row(vec![
                        partition.to_string(),
                        report.entries.to_string(),
                        report.records.to_string(),
                        report.workflows.to_string(),
                        chain[..16].to_owned(),
                        state[..16].to_owned(),
                    ]);
                }
                rows.push(json!({
                    "partition": partition.index(), "ok": true, "entries": report.entries, "records": report.records,
                    "workflows": report.workflows, "chain": chain, "state": state, "digest": hex::encode(report.digest),
                }));
                sound.push((partition, report));
            }
            Err(error) => {
                rows.push(json!({"partition": partition.index(), "ok": false, "error": error.to_string()}));
                faults.push(format!("partition {partition}: {error}"));
            }
        }
    }
    let digest = faults
        .is_empty()
        .then(|| hex::encode(inspect::installation_digest(&sound)));
    match form {
        Form::Json => output::json(&json!({"ok": faults.is_empty(), "verify_digest": digest, "partitions": rows}))?,
        Form::Text => {
            table.print()?;
            match &digest {
                Some(digest) => output::line(&format!("verify digest {digest}"))?,
                None => {
                    for fault in &faults {
                        eprintln!("{fault}");
                    }
                    eprintln!("the journal is not sound: see docs/errors/data-damaged.md");
                }
            }
        }
    }
    Ok(if faults.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// Why a record did not get out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwritten {
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("write: {0}")]
    Io(#[from] std::io::Error),
}

fn dump(args: &DumpArgs) -> Result<Exit> {
    let opened = Opened::open(&args.data)?;
    let keyring = args.payloads.then(|| opened.keyring()).transpose()?;
    let unsealer = keyring.as_ref().map(|keyring| Unsealer::new(&opened.store, keyring));
    let filter = Filter {
        workflow: args.workflow,
        from_seq: args.from,
    };
    let home = args.workflow.map(|workflow| workflow.partition().index());
    let mut out = BufWriter::new(std::io::stdout().lock());
    for partition in opened.partitions() {
        let wanted = |only: Option<u16>| only.is_none_or(|only| only == partition.index());
        if !wanted(args.partition) || !wanted(home) {
            continue;
        }
        let each = |record: RecordView| -> Result<(), Unwritten> { Ok(writeln!(out, "{}", record.json)?) };
        match inspect::records(&opened.store, partition, filter, unsealer.as_ref(), each) {
            // `gantry journal dump | head`
            Err(Unwritten::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
            other => other?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        other => Ok(other.map(|()| Exit::Ok)?),
    }
}

fn stats(args: &DataArgs, form: Form) -> Result<Exit> {
    let opened = Opened::open(args)?;
    let mut sum = Stats::default();
    for partition in opened.partitions() {
        inspect::stats(&opened.store, partition, &mut sum)?;
    }
    let disk = disk_bytes(&opened)?;
    match form {
        Form::Json => {
            let tallies = |map: &std::collections::BTreeMap<String, inspect::Tally>| -> Value {
                map.iter()
                    .map(|(kind, tally)| (kind.clone(), json!({"count": tally.count, "bytes": tally.bytes})))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            };
            output::json(&json!({
                "partitions": opened.store.partitions(),
                "first_at_ms": sum.first_at_ms, "last_at_ms": sum.last_at_ms,
                "entries": {"count": sum.entries.count, "bytes": sum.entries.bytes},
                "payloads": {"count": sum.payloads.count, "bytes": sum.payloads.bytes},
                "records": tallies(&sum.records), "rows": tallies(&sum.rows),
                "disk_bytes": disk.iter().map(|(part, bytes)| ((*part).to_owned(), json!(bytes))).collect::<serde_json::Map<_, _>>(),
            }))?;
        }
        Form::Text => {
            let mut table = Table::new(&["WHAT", "KIND", "COUNT", "BYTES"]);
            let mut row = |what: &str, kind: &str, tally: inspect::Tally| {
                table.row(vec![
                    what.to_owned(),
                    kind.to_owned(),
                    tally.count.to_string(),
                    output::size(tally.bytes),
                ]);
            };
            row("log", "entries", sum.entries);
            row("log", "payloads", sum.payloads);
            sum.records.iter().for_each(|(kind, tally)| row("record", kind, *tally));
            sum.rows.iter().for_each(|(kind, tally)| row("row", kind, *tally));
            table.print()?;
            for (part, bytes) in disk {
                output::line(&format!("on disk: {part} {}", output::size(bytes)))?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn disk_bytes(opened: &Opened) -> Result<Vec<(&'static str, u64)>> {
    let parts = [
        ("journal", opened.data.journal()),
        ("segments", opened.data.segments()),
        ("blobs", opened.data.blobs()),
    ];
    let mut sizes = Vec::new();
    for (name, path) in parts {
        sizes.push((
            name,
            tree_bytes(&path, 0).with_context(|| format!("read {}", path.display()))?,
        ));
    }
    Ok(sizes)
}

/// Parts have files at most three directories deep.
const DEPTH_MAX: usize = 8;

fn tree_bytes(dir: &std::path::Path, depth: usize) -> std::io::Result<u64> {
    let mut bytes = 0;
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += match meta.is_dir() {
            true if depth < DEPTH_MAX => tree_bytes(&entry.path(), depth + 1)?,
            true => 0,
            false => meta.len(),
        };
    }
    Ok(bytes)
}
