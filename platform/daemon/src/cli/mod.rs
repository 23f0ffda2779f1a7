//! The command line. Data goes to stdout, talk to stderr; `-o json` prints answers as they came from the API.

mod artifact;
mod backup;
mod bulk;
mod doctor;
mod follow;
mod init;
mod journal;
mod journal_export;
mod key;
mod limit;
mod logs;
mod node;
mod output;
mod pause;
mod playbook;
mod query;
mod run;
mod schedule;
mod table;
mod task;
mod tenant;
mod trace;
mod upload;
mod workflow;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::client::config::ConnectionArgs;
use crate::targets;

/// How a command ends. Scripts match on these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The workflow failed, or the command could not be carried out.
    Failed = 1,
    /// Wrong usage, or the server refused the request.
    Refused = 2,
    /// The workflow was cancelled.
    Cancelled = 3,
}

/// What was asked for cannot be asked for: a missing file, a malformed argument. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct Usage(pub(crate) anyhow::Error);

/// Durable workflows whose steps run in fresh containers.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Form of the output
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = Form::Text)]
    form: Form,
    #[command(subcommand)]
    command: Command,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs: the API's own documents.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: engine, gateway and a node, on embedded stores
    Dev(targets::dev::DevArgs),
    /// Run engine and gateway; nodes join over the network
    Server(targets::server::ServerArgs),
    /// Run a node on a container host, or manage nodes (`ls`, `drain`, `token`)
    Node(node::NodeArgs),
    /// Create a data directory and its first admin key
    Init(init::InitArgs),
    /// Submit a workflow and follow it to its end
    Run(run::RunArgs),
    /// List, show, signal, cancel, hold and erase workflows
    #[command(subcommand)]
    Workflow(workflow::WorkflowCommand),
    /// Cancel, pause, resume, signal, retry, hold or erase every workflow that a filter fits
    #[command(subcommand)]
    Bulk(bulk::BulkCommand),
    /// Decide on a task: approve, reject, retry, skip, resolve, fail
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Keep definitions with versions: create, compare, run by name
    #[command(subcommand)]
    Playbook(playbook::PlaybookCommand),
    /// Start playbooks by the calendar
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Let nothing new of a definition or of the tenant start
    #[command(subcommand)]
    Pause(pause::PauseCommand),
    /// Tenants of the installation, and their shares of free slots
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Concurrency keys and rates: who holds them, who waits
    #[command(subcommand)]
    Limit(limit::LimitCommand),
    /// Ask history by SQL: workflows, tasks, steps, attempts, events, sandboxes, usage
    Query(query::QueryArgs),
    /// Print the output of steps
    Logs(logs::LogsArgs),
    /// List and download artifacts
    #[command(subcommand)]
    Artifact(artifact::ArtifactCommand),
    /// Store files for workflows to take as input, list and erase them
    Upload(upload::UploadArgs),
    /// Manage API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Look into the journal of a data directory
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Back the whole installation up, while it runs
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup
    Restore(backup::RestoreArgs),
    /// Check what this machine needs to run steps
    Doctor(doctor::DoctorArgs),
}

impl Cli {
    /// Whether this is a long-running role, which logs instead of talking.
    pub(crate) fn is_daemon(&self) -> bool {
        match &self.command {
            Command::Dev(_) | Command::Server(_) => true,
            Command::Node(args) => args.is_daemon(),
            _ => false,
        }
    }

    pub(crate) async fn run(self) -> Result<Exit> {
        let Self {
            connection,
            form,
            command,
        } = self;
        match command {
            Command::Dev(args) => targets::dev::run(args).await.map(|()| Exit::Ok),
            Command::Server(args) => targets::server::run(args).await.map(|()| Exit::Ok),
            Command::Node(args) => node::run(args, &connection, form).await,
            Command::Init(args) => init::run(args, form).await,
            Command::Run(args) => run::run(args, &connection, form).await,
            Command::Task(command) => task::run(command, &connection, form).await,
            Command::Workflow(command) => workflow::run(command, &connection, form).await,
            Command::Bulk(command) => bulk::run(command, &connection, form).await,
            Command::Playbook(command) => playbook::run(command, &connection, form).await,
            Command::Schedule(command) => schedule::run(command, &connection, form).await,
            Command::Pause(command) => pause::run(command, &connection, form).await,
            Command::Tenant(command) => tenant::run(command, &connection, form).await,
            Command::Limit(command) => limit::run(command, &connection, form).await,
            Command::Query(args) => query::run(args, &connection, form).await,
            Command::Logs(args) => logs::run(args, &connection).await,
            Command::Artifact(command) => artifact::run(command, &connection, form).await,
            Command::Upload(args) => upload::run(args, &connection, form).await,
            Command::Key(command) => key::run(command, &connection, form).await,
            Command::Journal(command) => journal::run(command, form).await,
            Command::Backup(args) => backup::backup(args, &connection, form).await,
            Command::Restore(args) => backup::restore(args, form).await,
            Command::Doctor(args) => doctor::run(args, form).await,
        }
    }
}
