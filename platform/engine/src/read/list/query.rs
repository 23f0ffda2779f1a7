//! What a list is asked for, checked.

use std::collections::BTreeSet;

use gantry_proto::{ErrorCode, WorkflowId, limits};

use crate::api::{Issue, Refusal, TimeRange, WorkflowQuery, WorkflowState};
use crate::core::rows::WorkflowRow;
use crate::core::schedule;
use crate::filter::{Filter, FilterError, STATES};

/// A query whose filter parses.
#[derive(Debug)]
pub(crate) struct ListQuery {
    asked: WorkflowQuery,
    filter: Option<Filter>,
}

/// A filter that does not parse, as an answer.
pub(crate) fn refused(error: &FilterError) -> Refusal {
    Refusal {
        issues: vec![Issue {
            message: error.message.clone(),
            path: None,
            line: Some(error.line),
            column: Some(error.column),
        }],
        ..Refusal::new(ErrorCode::InvalidRequest, format!("the filter is not valid: {error}"))
    }
}

impl ListQuery {
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] with the place in the filter.
    pub(crate) fn new(asked: WorkflowQuery) -> Result<Self, Refusal> {
        let filter = asked.filter.as_deref().map(Filter::parse).transpose();
        let filter = filter.map_err(|error| refused(&error))?;
        Ok(Self { asked, filter })
    }

    pub(super) fn limit(&self) -> usize {
        match self.asked.limit {
            0 => limits::PAGE_ITEMS_DEFAULT as usize,
            asked => asked.min(limits::PAGE_ITEMS_MAX) as usize,
        }
    }

    pub(super) fn parent(&self) -> Option<WorkflowId> {
        self.asked.parent
    }

    pub(super) fn after(&self) -> Option<WorkflowId> {
        self.asked.after
    }

    /// States in which a workflow can match.
    pub(super) fn states(&self) -> BTreeSet<WorkflowState> {
        let asked: BTreeSet<WorkflowState> = match self.asked.states.as_slice() {
            [] => STATES.iter().copied().collect(),
            states => states.iter().copied().collect(),
        };
        match &self.filter {
            None => asked,
            Some(filter) => asked.intersection(&filter.states()).copied().collect(),
        }
    }

    /// When workflows were made that can match.
    pub(super) fn created(&self) -> TimeRange {
        let asked = self.asked.created;
        self.filter.as_ref().map_or(asked, |filter| asked.and(filter.created()))
    }

    pub(super) fn wanted(&self, row: &WorkflowRow, partitions: u16) -> bool {
        let asked = &self.asked;
        let ended = |range: &TimeRange| match row.ended_at_ms {
            None => *range == TimeRange::default(),
            Some(ended) => range.contains(ended),
        };
        let started_by = |name: &String| {
            let wanted = schedule::id_of(row.tenant, name, partitions);
            row.schedule.as_ref().is_some_and(|run| run.schedule == wanted)
        };
        let labelled = |(key, value): &(String, String)| {
            let mut labels = row.labels.iter();
            labels.any(|label| label.key == *key && label.value == *value)
        };
        (asked.states.is_empty() || asked.states.contains(&row.state()))
            && asked.name.as_ref().is_none_or(|name| *name == row.name)
            && asked
                .playbook
                .as_ref()
                .is_none_or(|name| row.playbook.as_ref().is_some_and(|playbook| playbook.name == *name))
            && asked.schedule.as_ref().is_none_or(started_by)
            && asked.labels.iter().all(labelled)
            && asked.created.contains(row.created_at_ms)
            && ended(&asked.ended)
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(row, partitions))
    }
}
