//! `gantry schedule`: playbooks by the calendar.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::playbook::{all, segment};
use super::table::Table;
use super::{Exit, Form, Usage, output, run};
use crate::client::Client;
use crate::client::config::ConnectionArgs;

const OVERLAPS: [&str; 4] = ["skip", "queue", "allow", "replace"];

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Make a schedule, or replace what it says
    Set(Box<SetArgs>),
    /// Schedules of the tenant
    Ls,
    /// One schedule: what it says, when it comes next, what it did
    Show {
        /// Its name
        name: String,
    },
    /// Delete a schedule; runs that go on go on
    Rm {
        /// Its name
        name: String,
    },
    /// Let no times come; what passes meanwhile is not made up for
    Pause {
        /// Its name
        name: String,
    },
    /// Go on from now
    Resume {
        /// Its name
        name: String,
    },
    /// Start a run now, also while it is paused
    Run {
        /// Its name
        name: String,
        /// Instead of the schedule's own policy
        #[arg(long, value_parser = OVERLAPS)]
        overlap: Option<String>,
    },
    /// Start a run for each of the calendar's times in a range
    Backfill {
        /// Its name
        name: String,
        /// First time, such as 2026-03-01T00:00:00Z
        #[arg(long)]
        from: String,
        /// Last time
        #[arg(long)]
        to: String,
        /// Instead of the schedule's own policy
        #[arg(long, value_parser = OVERLAPS)]
        overlap: Option<String>,
    },
}

/// Arguments of `gantry schedule set`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Its name
    name: String,
    /// What it starts: `name` (the newest version at each time) or `name@version`
    #[arg(long)]
    playbook: String,
    /// When: minute hour day month weekday, such as "30 6 * * MON-FRI"; or six fields with seconds first
    #[arg(long)]
    cron: String,
    /// Where the hours are, such as Europe/Berlin
    #[arg(long, default_value = "UTC")]
    time_zone: String,
    /// Put each time off by less than this
    #[arg(long, default_value_t = 0)]
    jitter_ms: u64,
    /// What happens while a run goes on
    #[arg(long, default_value = "skip", value_parser = OVERLAPS)]
    overlap: String,
    /// What happens with times that passed while the daemon was down
    #[arg(long, default_value = "once", value_parser = ["skip", "once", "all"])]
    missed: String,
    /// A time that is later than this has been missed
    #[arg(long, default_value_t = gantry_proto::limits::SCHEDULE_GRACE_MS_DEFAULT)]
    grace_ms: u64,
    /// Parameter `name=text`, or `name:=json`
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Label of its runs, `key=value`
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Refuse when it exists
    #[arg(long)]
    new: bool,
}

#[derive(Debug, Deserialize)]
struct Schedule {
    name: String,
    playbook: String,
    cron: String,
    time_zone: String,
    overlap: String,
    missed: String,
    #[serde(default)]
    paused_by: Option<String>,
    next_ms: Vec<u64>,
    running: Vec<String>,
    queued_ms: Vec<u64>,
    #[serde(default)]
    last_run: Option<String>,
    #[serde(default)]
    last_due_ms: Option<u64>,
    started: u64,
    missed_times: u64,
    overlapped: u64,
    failed: u64,
    #[serde(default)]
    failure: Option<crate::client::model::Failure>,
}

fn time_of(text: &str) -> Result<u64> {
    let at: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("`{text}` is no time; write it as 2026-03-01T06:30:00Z or with an offset"))?;
    u64::try_from(at.as_millisecond()).with_context(|| format!("`{text}` is before 1970"))
}

pub(crate) async fn run(command: ScheduleCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    let path = |name: &str| format!("/schedules/{}", segment(name));
    let document: Value = match command {
        ScheduleCommand::Ls => return list(&client, form).await,
        ScheduleCommand::Rm { name } => {
            client.send(client.request(Method::DELETE, &path(&name))).await?;
            if form == Form::Text {
                output::line(&format!("{name} deleted"))?;
            }
            return Ok(Exit::Ok);
        }
        ScheduleCommand::Set(args) => set(&client, *args).await?,
        ScheduleCommand::Show { name } => client.get(&path(&name)).await?,
        ScheduleCommand::Pause { name } => client.post(&format!("{}:pause", path(&name)), &json!({})).await?,
        ScheduleCommand::Resume { name } => client.post(&format!("{}:resume", path(&name)), &json!({})).await?,
        ScheduleCommand::Run { name, overlap } => {
            client
                .post(&format!("{}:run", path(&name)), &json!({"overlap": overlap}))
                .await?
        }
        ScheduleCommand::Backfill {
            name,
            from,
            to,
            overlap,
        } => {
            let (from, to) = (time_of(&from).map_err(Usage)?, time_of(&to).map_err(Usage)?);
            let body = json!({"from_ms": from, "to_ms": to, "overlap": overlap});
            client.post(&format!("{}:backfill", path(&name)), &body).await?
        }
    };
    match form {
        Form::Json => output::json(&document)?,
        Form::Text => text(&serde_json::from_value(document).context("read the schedule")?)?,
    }
    Ok(Exit::Ok)
}

async fn set(client: &Client, args: SetArgs) -> Result<Value> {
    let body = json!({
        "playbook": args.playbook,
        "cron": args.cron,
        "time_zone": args.time_zone,
        "jitter_ms": args.jitter_ms,
        "overlap": args.overlap,
        "missed": args.missed,
        "grace_ms": args.grace_ms,
        "parameters": run::parameters(&args.params).map_err(Usage)?,
        "labels": run::labels(&args.labels).map_err(Usage)?,
    });
    let path = format!("/schedules/{}?new={}", segment(&args.name), args.new);
    let request = client.request(Method::PUT, &path).json(&body);
    client.send(request).await?.json().await.context("read the answer")
}

async fn list(client: &Client, form: Form) -> Result<Exit> {
    let (items, raw) = all::<Schedule>(client, "/schedules").await?;
    if form == Form::Json {
        output::json(&json!({"items": raw}))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "PLAYBOOK", "WHEN", "NEXT", "RUNS", "LAST RUN"]);
    for each in items {
        let next = match (&each.paused_by, each.next_ms.first()) {
            (Some(_), _) => "paused".to_owned(),
            (None, next) => next.map_or_else(|| "-".to_owned(), |at| output::time(*at)),
        };
        table.row(vec![
            each.name,
            each.playbook,
            format!("{} {}", each.cron, each.time_zone),
            next,
            each.started.to_string(),
            each.last_run.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.print()?;
    Ok(Exit::Ok)
}

fn text(schedule: &Schedule) -> Result<()> {
    output::line(&format!("{} starts {}", schedule.name, schedule.playbook))?;
    output::line(&format!("when:      {} ({})", schedule.cron, schedule.time_zone))?;
    output::line(&format!("overlap:   {}, missed: {}", schedule.overlap, schedule.missed))?;
    match &schedule.paused_by {
        Some(by) => output::line(&format!("next:      paused by {by}"))?,
        None => {
            let times: Vec<String> = schedule.next_ms.iter().map(|at| output::time(*at)).collect();
            output::line(&format!("next:      {}", times.join(", ")))?;
        }
    }
    output::line(&format!(
        "runs:      {} started, {} could not be; times left out: {} missed, {} overlapped",
        schedule.started, schedule.failed, schedule.missed_times, schedule.overlapped
    ))?;
    if let (Some(run), Some(due)) = (&schedule.last_run, schedule.last_due_ms) {
        output::line(&format!("last run:  {run} for {}", output::time(due)))?;
    }
    if !schedule.running.is_empty() || !schedule.queued_ms.is_empty() {
        let running = schedule.running.join(", ");
        output::line(&format!("now:       {running} runs, {} wait", schedule.queued_ms.len()))?;
    }
    if let Some(failure) = &schedule.failure {
        output::line(&format!("last failure: {} ({})", failure.message, failure.code))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::time_of;

    #[test]
    fn times_have_an_offset() {
        assert_eq!(time_of("1970-01-01T00:00:01Z").unwrap(), 1_000);
        assert_eq!(time_of("1970-01-01T02:00:01+02:00").unwrap(), 1_000);
        assert!(time_of("tomorrow").unwrap_err().to_string().contains("tomorrow"));
    }
}
