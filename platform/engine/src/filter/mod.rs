//! Filters of workflows: a small, typed part of CEL over what a workflow's row says in the clear. A filter is checked when it is read; what is left to do for
//! a row is comparing, which cannot fail.

mod matches;
mod parse;

use std::collections::BTreeSet;

use gantry_proto::{PrincipalId, WorkflowId};

use crate::lifecycle::workflow::WorkflowState;

pub use parse::FilterError;

/// Every state.
pub(crate) const STATES: &[WorkflowState] = WorkflowState::STATES;

/// A filter that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    root: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Constant(bool),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    /// A field stands in this relation to a value of its type. False when there is no such thing.
    Compare(Field, Relation, Literal),
    /// A field is one of these.
    In(Field, Vec<Literal>),
    /// There is such a thing.
    Has(Field),
    /// A text has this part.
    Part(Field, Part, String),
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Id,
    State,
    Name,
    Playbook,
    Version,
    Schedule,
    Parent,
    Root,
    Origin,
    Created,
    Ended,
    Priority,
    Code,
    SubmittedBy,
    Label(String),
    Attribute(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    End,
    Anywhere,
}

/// A value in a filter.
#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Text(String),
    Number(f64),
    Flag(bool),
    TimeMs(u64),
    State(WorkflowState),
    Workflow(WorkflowId),
    Principal(PrincipalId),
}

/// Times from `from_ms` on and before `to_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// Not before this.
    pub from_ms: Option<u64>,
    /// Before this.
    pub to_ms: Option<u64>,
}

impl TimeRange {
    /// Whether a time is in it.
    #[must_use]
    pub fn contains(&self, time_ms: u64) -> bool {
        self.from_ms.is_none_or(|from| time_ms >= from) && self.to_ms.is_none_or(|to| time_ms < to)
    }

    /// Times in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            from_ms: self.from_ms.max(other.from_ms),
            to_ms: match (self.to_ms, other.to_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// The least range that has the times of both.
    fn or(self, other: Self) -> Self {
        Self {
            from_ms: self.from_ms.zip(other.from_ms).map(|(a, b)| a.min(b)),
            to_ms: self.to_ms.zip(other.to_ms).map(|(a, b)| a.max(b)),
        }
    }
}

impl Filter {
    /// States in which a workflow can match: a list need not look at others.
    #[must_use]
    pub fn states(&self) -> BTreeSet<WorkflowState> {
        states(&self.root)
    }

    /// When workflows were made that can match.
    #[must_use]
    pub fn created(&self) -> TimeRange {
        created(&self.root)
    }
}

fn all() -> BTreeSet<WorkflowState> {
    STATES.iter().copied().collect()
}

fn states(node: &Node) -> BTreeSet<WorkflowState> {
    let is = |literal: &Literal| match literal {
        Literal::State(state) => Some(*state),
        _ => None,
    };
    match node {
        Node::Constant(false) => BTreeSet::new(),
        Node::And(a, b) => states(a).intersection(&states(b)).copied().collect(),
        Node::Or(a, b) => states(a).union(&states(b)).copied().collect(),
        Node::Compare(Field::State, Relation::Equal, literal) => is(literal).into_iter().collect(),
        Node::Compare(Field::State, Relation::Unequal, literal) => {
            let mut others = all();
            is(literal).map(|state| others.remove(&state));
            others
        }
        Node::In(Field::State, literals) => literals.iter().filter_map(is).collect(),
        Node::Not(inner) => match &**inner {
            // A state is always there: what is not one of these is one of the others.
            Node::Compare(Field::State, Relation::Equal | Relation::Unequal, _) | Node::In(Field::State, _) => {
                all().difference(&states(inner)).copied().collect()
            }
            _ => all(),
        },
        _ => all(),
    }
}

fn created(node: &Node) -> TimeRange {
    match node {
        Node::And(a, b) => created(a).and(created(b)),
        Node::Or(a, b) => created(a).or(created(b)),
        Node::Compare(Field::Created, relation, Literal::TimeMs(time)) => {
            let (from, to) = match relation {
                Relation::Equal => (Some(*time), Some(time.saturating_add(1))),
                Relation::Unequal => (None, None),
                Relation::Less => (None, Some(*time)),
                Relation::LessOrEqual => (None, Some(time.saturating_add(1))),
                Relation::Greater => (Some(time.saturating_add(1)), None),
                Relation::GreaterOrEqual => (Some(*time), None),
            };
            TimeRange {
                from_ms: from,
                to_ms: to,
            }
        }
        _ => TimeRange::default(),
    }
}

#[cfg(test)]
mod tests;
