//! `gantry journal export`: a file of JSON lines with everything of one workflow, or of all. `docs/formats.md` describes it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use gantry_engine::inspect::{self, Filter, RecordView, Unsealer};
use gantry_engine::processor::storage::ContentError;
use gantry_journal::keys::{self, Parsed};
use gantry_journal::{Direction, SealError, SegmentStore, Store as _};
use gantry_proto::v1::OutputStream;
use gantry_proto::{TenantId, WorkflowId};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::journal::{DataArgs, Opened, Unwritten};
use super::{Exit, Form, output};

const EXPORT_FORMAT: u32 = 1;
/// Output that is read at once.
const READ_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The file to write; it must not exist
    file: PathBuf,
    /// Only this workflow; everything when absent
    #[arg(long)]
    workflow: Option<WorkflowId>,
    /// What users and models wrote too, and what steps printed; needs the master key
    #[arg(long)]
    payloads: bool,
}

/// Counts and hashes the lines before the last one.
struct Lines<W: Write> {
    out: W,
    hasher: blake3::Hasher,
    lines: u64,
}

impl<W: Write> Lines<W> {
    fn line(&mut self, value: &Value) -> io::Result<()> {
        let text = format!("{value}\n");
        self.hasher.update(text.as_bytes());
        self.lines += 1;
        self.out.write_all(text.as_bytes())
    }
}

pub(crate) fn export(args: &ExportArgs, form: Form) -> Result<Exit> {
    let opened = Opened::open(&args.data)?;
    let keyring = args.payloads.then(|| opened.keyring()).transpose()?;
    let unsealer = keyring.as_ref().map(|keyring| Unsealer::new(&opened.store, keyring));
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file)
        .with_context(|| format!("create {}", args.file.display()))?;
    let mut lines = Lines {
        out: BufWriter::new(file),
        hasher: blake3::Hasher::new(),
        lines: 0,
    };
    lines.line(&json!({
        "type": "header", "format": EXPORT_FORMAT, "gantry": env!("CARGO_PKG_VERSION"),
        "workflow": args.workflow.map(|id| id.to_string()), "payloads": args.payloads,
    }))?;
    let mut records = 0u64;
    let filter = Filter {
        workflow: args.workflow,
        from_seq: 0,
    };
    let home = args.workflow.map(|workflow| workflow.partition());
    for partition in opened
        .partitions()
        .filter(|partition| home.is_none_or(|home| home == *partition))
    {
        inspect::records(
            &opened.store,
            partition,
            filter,
            unsealer.as_ref(),
            |record: RecordView| {
                records += 1;
                let mut line = record.json;
                if let Value::Object(fields) = &mut line {
                    fields.shift_insert(0, "type".into(), json!("record"));
                }
                lines.line(&line).map_err(Unwritten::Io)
            },
        )?;
    }
    if let Some(only) = args.workflow
        && records == 0
    {
        bail!("there is no workflow {only} in {}", args.data.data_dir.display());
    }
    if let Some(unsealer) = &unsealer {
        outputs(&opened, args.workflow, unsealer, &mut lines)?;
    }
    let trailer = json!({
        "type": "end", "records": records, "lines": lines.lines, "blake3": lines.hasher.finalize().to_hex().to_string(),
    });
    writeln!(lines.out, "{trailer}")?;
    lines
        .out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    match form {
        Form::Json => output::json(
            &json!({"file": args.file, "records": records, "lines": trailer["lines"], "blake3": trailer["blake3"]}),
        )?,
        Form::Text => eprintln!("{}: {records} records", args.file.display()),
    }
    Ok(Exit::Ok)
}

/// What steps printed, chunk by chunk as it is stored.
fn outputs(
    opened: &Opened,
    only: Option<WorkflowId>,
    unsealer: &Unsealer<'_>,
    lines: &mut Lines<impl Write>,
) -> Result<()> {
    let segments = SegmentStore::open(&opened.data.segments())?;
    let handle = Handle::current();
    for (tenant, workflow) in workflows(opened, only)? {
        let key = match unsealer.key(tenant, workflow) {
            Ok(key) => key,
            Err(ContentError::Seal(SealError::Erased)) => continue,
            Err(error) => return Err(error.into()),
        };
        handle.block_on(segments.load(tenant, workflow))?;
        for stream in segments.streams(tenant, workflow) {
            let mut after = 0;
            loop {
                let chunks = handle.block_on(segments.read(&stream, &key, after, READ_BYTES))?;
                let Some(last) = chunks.last() else { break };
                after = last.seq;
                for chunk in chunks {
                    let name = match chunk.stream {
                        OutputStream::Stdout => "stdout",
                        OutputStream::Stderr => "stderr",
                    };
                    let mut line = json!({
                        "type": "output", "workflow": workflow.to_string(), "task": stream.task.to_string(), "step": stream.step,
                        "attempt": stream.attempt, "seq": chunk.seq, "stream": name, "at_ms": chunk.at_ms,
                    });
                    // Text where it is text; anything else as base64.
                    match std::str::from_utf8(&chunk.data) {
                        Ok(text) => line["text"] = json!(text),
                        Err(_) => {
                            use base64::Engine as _;
                            line["base64"] = json!(base64::engine::general_purpose::STANDARD.encode(&chunk.data));
                        }
                    }
                    lines.line(&line)?;
                }
            }
        }
    }
    handle.block_on(segments.close());
    Ok(())
}

/// Workflows of the export, in the order of their rows.
fn workflows(opened: &Opened, only: Option<WorkflowId>) -> Result<Vec<(TenantId, WorkflowId)>> {
    let mut found = Vec::new();
    for partition in opened.partitions() {
        let range = keys::all_of(keys::Kind::Workflow, partition);
        let mut from = range.from.to_vec();
        loop {
            let page = opened.store.scan(&from, &range.to, Direction::Forward, 512)?;
            let Some((last, _)) = page.last() else { break };
            from = last.to_vec();
            from.push(0);
            for (key, _) in &page {
                if let Some(Parsed::Workflow { tenant, workflow, .. }) = keys::parse(key)
                    && only.is_none_or(|only| only == workflow)
                {
                    found.push((tenant, workflow));
                }
            }
        }
    }
    Ok(found)
}
