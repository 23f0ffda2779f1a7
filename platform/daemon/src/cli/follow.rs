//! Live progress of one workflow: a tree of tasks and steps with times on a terminal, plain lines otherwise. Both on stderr.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Result, bail};
use base64::Engine as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use owo_colors::Stream;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::output;
use crate::client::Client;
use crate::client::events::{self, Told};
use crate::client::model::{Step, Task, Workflow};

/// The view is read again at most so often, however many records arrive.
const REFRESH: Duration = Duration::from_millis(200);

/// Follows the workflow until it has ended. With `with_output` the steps' output goes to stdout.
pub(crate) async fn to_end(client: &Client, id: &str, with_output: bool) -> Result<()> {
    let mut screen: Box<dyn Screen> = if std::io::stderr().is_terminal() && !with_output {
        Box::new(Tree::new())
    } else {
        Box::new(Lines::default())
    };
    let (mut told, follower) = events::follow(client.clone(), id.to_owned(), with_output);
    let mut tick = interval(REFRESH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut dirty = true;
    let outcome = loop {
        tokio::select! {
            event = told.recv() => match event {
                Some(Told::Event { kind, data }) if kind == "output" => print_output(&data)?,
                Some(Told::Event { .. }) => dirty = true,
                Some(Told::Lost(reason)) => screen.note(&format!("connection lost ({reason}), dialling again")),
                Some(Told::Refused(error)) => break Err(error),
                Some(Told::End) => break Ok(()),
                None => bail!("the event stream ended without an end"),
            },
            _ = tick.tick(), if dirty => {
                if let Ok(workflow) = client.get::<Workflow>(&format!("/workflows/{id}")).await {
                    screen.show(&workflow);
                    dirty = false;
                }
            }
        }
    };
    drop(told);
    // It ends by itself once nobody listens; a broken runtime is all that could be wrong here.
    let _ = follower.await;
    outcome?;
    screen.show(&client.get(&format!("/workflows/{id}")).await?);
    screen.end();
    Ok(())
}

fn print_output(data: &Value) -> Result<()> {
    if let Some(text) = data.get("text").and_then(Value::as_str) {
        return output::raw(text.as_bytes());
    }
    let encoded = data.get("base64").and_then(Value::as_str).unwrap_or_default();
    match base64::engine::general_purpose::STANDARD.decode(encoded) {
        Ok(bytes) => output::raw(&bytes),
        Err(_) => bail!("the daemon sent output that is not base64"),
    }
}

trait Screen {
    fn show(&mut self, workflow: &Workflow);
    fn note(&mut self, text: &str);
    fn end(&mut self);
}

/// What is worth a new line when it changes.
fn signature(step: &Step) -> (String, u32) {
    let attempt = step.attempts.last();
    let state = attempt.map_or(step.state.as_str(), |attempt| attempt.state.as_str());
    (state.to_owned(), attempt.map_or(0, |attempt| attempt.attempt))
}

/// Why a task waits, in words.
pub(super) fn waiting(task: &Task) -> Option<String> {
    let waiting = task.waiting.as_ref()?;
    let reason = waiting.get("reason")?.as_str()?.replace('_', " ");
    let text = |pointer: &str| waiting.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if reason == "limit" {
        return Some(limit(waiting));
    }
    let mut detail = match waiting.get("missing").or_else(|| waiting.get("tasks")) {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => ["/faults/0/message", "/failure/message", "/message", "/name"]
            .into_iter()
            .map(text)
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned(),
    };
    if let Some(until) = waiting.get("until_ms").and_then(Value::as_u64) {
        let gap = if detail.is_empty() { "" } else { ", " };
        detail.push_str(&format!("{gap}until {}", output::time(until)));
    }
    Some(if detail.is_empty() {
        reason
    } else {
        format!("{reason}: {detail}")
    })
}

/// Which limit a task waits for, and how long still.
fn limit(waiting: &Value) -> String {
    let text = |name: &str| waiting.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| waiting.get(name).and_then(Value::as_u64);
    let mut said = format!("{} limit `{}`", text("kind"), text("key"));
    if let (Some(holders), Some(limit)) = (number("holders"), number("limit")) {
        said.push_str(&format!(", held {holders} of {limit} times"));
    }
    if let Some(ahead) = number("queue_position") {
        said.push_str(&format!(", {ahead} ahead"));
    }
    if let Some(next) = number("next_ms") {
        said.push_str(&format!(", next start {}", output::time(next)));
    }
    said
}

/// One line per change.
#[derive(Default)]
struct Lines {
    workflow: String,
    tasks: HashMap<String, (String, Option<String>)>,
    steps: HashMap<(String, String), (String, u32)>,
}

impl Screen for Lines {
    fn show(&mut self, workflow: &Workflow) {
        for task in &workflow.tasks {
            for step in &task.steps {
                let now = signature(step);
                let key = (task.name.clone(), step.key.clone());
                if now.1 > 0 && self.steps.get(&key) != Some(&now) {
                    let attempt = if now.1 > 1 {
                        format!(" (attempt {})", now.1)
                    } else {
                        String::new()
                    };
                    let state = output::state(&now.0, Stream::Stderr);
                    eprintln!("{}/{}: {state}{attempt}{}", task.name, step.key, took(step));
                    if let Some(failure) = step.attempts.last().and_then(|attempt| attempt.failure.as_ref()) {
                        eprintln!("  {} ({})", failure.message, failure.code);
                    }
                    self.steps.insert(key, now);
                }
            }
            let now = (task.state.clone(), waiting(task));
            if self.tasks.get(&task.name) != Some(&now) {
                let reason = now.1.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let outcome = task
                    .outcome
                    .as_deref()
                    .map(|outcome| format!(" ({})", outcome.replace('_', " ")));
                let outcome = outcome.unwrap_or_default();
                eprintln!(
                    "{}: {}{reason}{outcome}",
                    task.name,
                    output::state(&now.0, Stream::Stderr)
                );
                if let Some(failure) = &task.failure {
                    eprintln!("  {} ({})", failure.message, failure.code);
                }
                self.tasks.insert(task.name.clone(), now);
            }
        }
        if self.workflow != workflow.summary.state {
            self.workflow.clone_from(&workflow.summary.state);
            eprintln!(
                "{}: {}",
                workflow.summary.name,
                output::state(&self.workflow, Stream::Stderr)
            );
        }
    }

    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }

    fn end(&mut self) {}
}

fn took(step: &Step) -> String {
    let Some(attempt) = step.attempts.last() else {
        return String::new();
    };
    match (
        attempt.started_at_ms.or(Some(attempt.assigned_at_ms)),
        attempt.finished_at_ms,
    ) {
        (Some(start), Some(end)) => format!(" in {}", output::duration(end.saturating_sub(start))),
        _ => String::new(),
    }
}

/// A tree that is redrawn in place.
struct Tree {
    bars: MultiProgress,
    rows: BTreeMap<(usize, usize), Row>,
}

struct Row {
    bar: ProgressBar,
    running_since: Option<Instant>,
}

impl Tree {
    fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            rows: BTreeMap::new(),
        }
    }

    fn row(&mut self, position: (usize, usize)) -> &mut Row {
        let after = self.rows.range(..position).next_back().map(|(_, row)| row.bar.clone());
        let bars = &self.bars;
        self.rows.entry(position).or_insert_with(|| {
            let bar = ProgressBar::no_length();
            let bar = match &after {
                Some(previous) => bars.insert_after(previous, bar),
                None => bars.insert(0, bar),
            };
            Row {
                bar,
                running_since: None,
            }
        })
    }

    fn draw(&mut self, position: (usize, usize), state: &str, text: String) {
        let indent = if position.1 == 0 { "" } else { "  " };
        let mark = match state {
            "completed" => "\u{1b}[32m✔\u{1b}[0m",
            "failed" => "\u{1b}[31m✘\u{1b}[0m",
            "cancelled" | "lost" | "skipped" => "\u{1b}[33m–\u{1b}[0m",
            "running" | "in_progress" | "assigned" | "claimed" => "{spinner:.cyan}",
            _ => "·",
        };
        let template = format!("{indent}{mark} {{msg}}");
        let row = self.row(position);
        // The template is ours and known to parse; a wrong one shows the default bar.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            row.bar
                .set_style(style.tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "]));
        }
        let running = matches!(state, "running" | "in_progress" | "assigned" | "claimed");
        match (running, row.running_since) {
            (true, None) => {
                row.running_since = Some(Instant::now());
                row.bar.enable_steady_tick(Duration::from_millis(100));
            }
            (false, Some(_)) => {
                row.running_since = None;
                row.bar.disable_steady_tick();
            }
            _ => {}
        }
        row.bar.set_message(text);
    }
}

impl Screen for Tree {
    fn show(&mut self, workflow: &Workflow) {
        for (index, task) in workflow.tasks.iter().enumerate() {
            let mut text = task.name.clone();
            if let Some(reason) = waiting(task) {
                text.push_str(&format!("  waits: {reason}"));
            }
            if let Some(outcome) = &task.outcome {
                text.push_str(&format!("  {}", outcome.replace('_', " ")));
            }
            if let (Some(start), Some(end)) = (task.started_at_ms, task.ended_at_ms) {
                text.push_str(&format!("  {}", output::duration(end.saturating_sub(start))));
            }
            if let Some(failure) = &task.failure {
                text.push_str(&format!("  {}", failure.message));
            }
            self.draw((index, 0), &task.state, text);
            for (step_index, step) in task.steps.iter().enumerate() {
                let (state, attempt) = signature(step);
                if attempt == 0 {
                    continue;
                }
                let mut text = step.key.clone();
                if attempt > 1 {
                    text.push_str(&format!("  attempt {attempt}"));
                }
                text.push_str(&took(step).replace(" in ", "  "));
                if let Some(progress) = step.attempts.last().and_then(|attempt| attempt.progress.as_ref()) {
                    text.push_str(&format!("  {}", progress.lines().last().unwrap_or_default()));
                }
                self.draw((index, step_index + 1), &state, text);
            }
        }
    }

    fn note(&mut self, text: &str) {
        // A terminal that is gone cannot be told.
        let _ = self.bars.println(text);
    }

    fn end(&mut self) {
        for row in self.rows.values() {
            row.bar.abandon();
        }
    }
}
