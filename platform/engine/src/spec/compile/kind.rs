//! What a task is: exactly one of the keys that say so.

use gantry_proto::limits::{COMMENT_BYTES_MAX, DECIDERS_MAX, WAIT_MS_MAX};

use super::names::Scope;
use super::{Check, join};
use crate::spec::definition::{ApprovalDef, ChildDef, CodeDef, DecidersDef, SignalDef, SleepDef, TaskKind};
use crate::spec::scalars;
use crate::spec::source::{SleepSource, TaskSource};
use crate::spec::source_waits::{ApprovalSource, DecidersSource, SignalSource};
use crate::spec::template::has_markup;

/// The keys that say what a task is, and whether they are given.
fn heads(source: &TaskSource) -> [(&'static str, bool); 7] {
    [
        ("run", source.run.is_some()),
        ("steps", source.steps.is_some()),
        ("workflow", source.workflow.is_some()),
        ("sleep", source.sleep.is_some()),
        ("signal", source.signal.is_some()),
        ("approval", source.approval.is_some()),
        ("component", source.component.is_some()),
    ]
}

/// Keys of a task that mean something for steps only, and whether they are given.
fn of_steps(source: &TaskSource) -> [(&'static str, bool); 14] {
    [
        ("assess", source.assess.is_some()),
        ("workspace", source.workspace.is_some()),
        ("inputs", !source.inputs.is_empty()),
        (
            "requires",
            !source.requires.capabilities.is_empty()
                || !source.requires.labels.is_empty()
                || source.requires.arch.is_some(),
        ),
        ("image", source.image.is_some()),
        ("env", !source.env.is_empty()),
        ("workdir", source.workdir.is_some()),
        ("timeout", source.timeout.is_some()),
        ("retry", source.retry.is_some()),
        ("resources", source.resources.is_some()),
        ("output_limit", source.output_limit.is_some()),
        ("grace", source.grace.is_some()),
        ("outputs", source.outputs.is_some()),
        ("artifacts", source.artifacts.is_some()),
    ]
}

impl Check<'_> {
    /// The kind of a task; `None` when it has no one kind, which was complained of.
    pub(super) fn kind(&mut self, path: &[String], source: &TaskSource, scope: &Scope<'_>) -> Option<TaskKind> {
        let name = path.last().map(String::as_str).unwrap_or_default();
        let heads = heads(source);
        let given: Vec<&str> = heads.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        let head = match given.as_slice() {
            [] if self.handling => {
                self.complain_key(path, format!("`{name}` has nothing to do; give it `run` or `steps`"));
                return None;
            }
            [] => {
                let message = format!(
                    "task `{name}` has nothing to do; give it `run`, `steps`, `workflow`, `sleep`, `signal`, `approval` or `component`"
                );
                self.complain_key(path, message);
                return None;
            }
            [head] => *head,
            ["run", "steps"] => {
                self.complain_key(
                    &join(path, "run"),
                    format!("task `{name}` has both `run` and `steps`; `run` is the short form of a single step"),
                );
                return None;
            }
            [first, second, ..] => {
                let message = format!("task `{name}` has both `{first}` and `{second}`; a task is one of them");
                self.complain_key(&join(path, second), message);
                return None;
            }
        };
        let place = join(path, head);
        let kind = match (&source.workflow, &source.sleep, &source.signal, &source.approval) {
            (Some(child), ..) => {
                let child = self.child(&place, child, scope);
                let retry = self.child_retry(path, source);
                child.map(|child| TaskKind::Workflow(Box::new(ChildDef { retry, ..child })))
            }
            (_, Some(sleep), ..) => self.sleep(&place, sleep, scope).map(TaskKind::Sleep),
            (_, _, Some(signal), _) => Some(TaskKind::Signal(self.signal(&place, signal))),
            (.., Some(approval)) => Some(TaskKind::Approval(self.approval(&place, approval, scope))),
            _ if source.component.is_some() => {
                // What else it may have is checked where its own keys are.
                return Some(TaskKind::Code(CodeDef {
                    component: source.component.clone().unwrap_or_default(),
                    input: source.with.clone().unwrap_or_default(),
                }));
            }
            _ => return Some(TaskKind::Steps),
        };
        let others = |field: &str| field != "retry" || head != "workflow";
        let fields = of_steps(source);
        for (field, _) in fields.iter().filter(|(field, given)| *given && others(field)) {
            let message = format!("`{field}` goes with steps; task `{name}` is a `{head}` and runs none");
            self.complain_key(&join(path, field), message);
        }
        kind
    }

    fn sleep(&mut self, path: &[String], source: &SleepSource, scope: &Scope<'_>) -> Option<SleepDef> {
        match source {
            SleepSource::For(duration) => self.duration(path, duration, 0, WAIT_MS_MAX).map(SleepDef::ForMs),
            SleepSource::Until(fields) => {
                let place = join(path, "until");
                self.template(&place, &fields.until, scope);
                if !has_markup(&fields.until) {
                    self.checked(&place, scalars::time_ms(&fields.until));
                }
                Some(SleepDef::Until(fields.until.clone()))
            }
        }
    }

    fn signal(&mut self, path: &[String], source: &SignalSource) -> SignalDef {
        self.checked(&join(path, "name"), scalars::name(&source.name, true));
        let timeout = source.timeout.as_ref();
        if timeout.is_none() && source.on_timeout.is_some() {
            self.complain_key(&join(path, "on_timeout"), "`on_timeout` goes with `timeout`");
        }
        SignalDef {
            name: source.name.clone(),
            timeout_ms: timeout.and_then(|timeout| self.duration(&join(path, "timeout"), timeout, 0, WAIT_MS_MAX)),
            on_timeout: source.on_timeout.unwrap_or_default(),
        }
    }

    fn approval(&mut self, path: &[String], source: &ApprovalSource, scope: &Scope<'_>) -> ApprovalDef {
        let place = join(path, "message");
        if source.message.trim().is_empty() {
            self.complain(&place, "the message is empty; it says what is to be approved");
        }
        if source.message.len() > COMMENT_BYTES_MAX {
            self.complain(&place, format!("a message has at most {COMMENT_BYTES_MAX} bytes"));
        }
        self.template(&place, &source.message, scope);
        let deadline = source.deadline.as_ref();
        if deadline.is_none() && source.on_deadline.is_some() {
            self.complain_key(&join(path, "on_deadline"), "`on_deadline` goes with `deadline`");
        }
        ApprovalDef {
            message: source.message.clone(),
            deadline_ms: deadline.and_then(|deadline| self.duration(&join(path, "deadline"), deadline, 0, WAIT_MS_MAX)),
            on_deadline: source.on_deadline.unwrap_or_default(),
            by: self.deciders(&join(path, "by"), source.by.as_ref()),
        }
    }

    pub(super) fn deciders(&mut self, path: &[String], source: Option<&DecidersSource>) -> DecidersDef {
        let Some(source) = source else {
            return DecidersDef::default();
        };
        if source.scopes.is_empty() && source.keys.is_empty() {
            self.complain(path, "`by` names nobody; give it `scopes` or `keys`, or leave it out");
        }
        if source.scopes.len() + source.keys.len() > DECIDERS_MAX {
            self.complain(path, format!("at most {DECIDERS_MAX} scopes and keys may be named"));
        }
        for (position, key) in source.keys.iter().enumerate() {
            let checked = key.parse::<gantry_proto::PrincipalId>().map(|_| ());
            self.checked(
                &join(&join(path, "keys"), position),
                checked.map_err(|error| format!("`{key}` is no id of a key: {error}")),
            );
        }
        DecidersDef {
            scopes: source.scopes.clone(),
            keys: source.keys.clone(),
        }
    }
}
