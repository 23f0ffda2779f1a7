//! Checks of assessments.

use std::collections::BTreeSet;

use gantry_proto::limits::{COMMENT_BYTES_MAX, REWORKS_DEFAULT, REWORKS_MAX, WAIT_MS_MAX};
use indexmap::IndexMap;

use super::names::Scope;
use super::{Check, join};
use crate::spec::definition::{AssessmentDef, StepDef};
use crate::spec::source::TaskSource;

impl Check<'_> {
    /// How the result of a task with these steps is judged.
    pub(super) fn assess(
        &mut self,
        path: &[String],
        source: &TaskSource,
        steps: &[StepDef],
        (parameters, tasks, before): (&BTreeSet<&str>, &IndexMap<String, TaskSource>, &BTreeSet<&str>),
    ) -> Option<AssessmentDef> {
        let assess = source.assess.as_ref()?;
        let path = join(path, "assess");
        if let Some(message) = &assess.message {
            let place = join(&path, "message");
            if message.len() > COMMENT_BYTES_MAX {
                self.complain(&place, format!("a message has at most {COMMENT_BYTES_MAX} bytes"));
            }
            let keys: Vec<String> = steps.iter().map(|step| step.key.clone()).collect();
            let scope = Scope::done(parameters, tasks, before, &keys);
            self.template(&place, message, &scope);
        }
        let deadline = assess.deadline.as_ref();
        if deadline.is_none() && assess.on_deadline.is_some() {
            self.complain_key(&join(&path, "on_deadline"), "`on_deadline` goes with `deadline`");
        }
        let reworks_max = assess.max_reworks.map_or(Some(REWORKS_DEFAULT), |given| {
            u32::try_from(given).ok().filter(|given| *given <= REWORKS_MAX)
        });
        if reworks_max.is_none() {
            let message = format!("a task is reworked 0 to {REWORKS_MAX} times");
            self.complain(&join(&path, "max_reworks"), message);
        }
        Some(AssessmentDef {
            message: assess.message.clone(),
            deadline_ms: deadline
                .and_then(|deadline| self.duration(&join(&path, "deadline"), deadline, 0, WAIT_MS_MAX)),
            on_deadline: assess.on_deadline.unwrap_or_default(),
            by: self.deciders(&join(&path, "by"), assess.by.as_ref()),
            reworks_max: reworks_max.unwrap_or_default(),
            exhausted: assess.exhausted.unwrap_or_default(),
        })
    }
}
