//! Whether a row matches.

use std::cmp::Ordering;

use gantry_proto::v1::search_attribute::Value as Attribute;
use gantry_proto::{PrincipalId, ScheduleId, WorkflowId, limits};

use super::{Field, Filter, Literal, Node, Part, Relation};
use crate::core::rows::WorkflowRow;
use crate::core::schedule;
use crate::lifecycle::workflow::WorkflowState;

/// What a field is in a row.
enum Value<'a> {
    Text(&'a str),
    Number(f64),
    Flag(bool),
    TimeMs(u64),
    State(WorkflowState),
    Workflow(WorkflowId),
    Principal(PrincipalId),
    Schedule(ScheduleId),
}

impl Filter {
    /// Whether a workflow matches. `partitions`: how many there are, which says where a schedule of some name lives.
    #[must_use]
    pub fn matches(&self, row: &WorkflowRow, partitions: u16) -> bool {
        matches(&self.root, row, partitions)
    }
}

fn matches(node: &Node, row: &WorkflowRow, partitions: u16) -> bool {
    match node {
        Node::Constant(value) => *value,
        Node::And(a, b) => matches(a, row, partitions) && matches(b, row, partitions),
        Node::Or(a, b) => matches(a, row, partitions) || matches(b, row, partitions),
        Node::Not(inner) => !matches(inner, row, partitions),
        Node::Has(field) => value(field, row).is_some(),
        Node::Compare(field, relation, literal) => value(field, row)
            .and_then(|value| compare(&value, literal, row, partitions))
            .is_some_and(|order| holds(*relation, order)),
        Node::In(field, literals) => value(field, row).is_some_and(|value| {
            let same = |literal: &Literal| compare(&value, literal, row, partitions) == Some(Ordering::Equal);
            literals.iter().any(same)
        }),
        Node::Part(field, part, wanted) => match value(field, row) {
            Some(Value::Text(text)) => match part {
                Part::Start => text.starts_with(wanted.as_str()),
                Part::End => text.ends_with(wanted.as_str()),
                Part::Anywhere => text.contains(wanted.as_str()),
            },
            _ => false,
        },
    }
}

fn holds(relation: Relation, order: Ordering) -> bool {
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::Unequal => order.is_ne(),
        Relation::Less => order.is_lt(),
        Relation::LessOrEqual => order.is_le(),
        Relation::Greater => order.is_gt(),
        Relation::GreaterOrEqual => order.is_ge(),
    }
}

/// `None` when they are of different types.
fn compare(value: &Value<'_>, literal: &Literal, row: &WorkflowRow, partitions: u16) -> Option<Ordering> {
    Some(match (value, literal) {
        (Value::Text(a), Literal::Text(b)) => (*a).cmp(b.as_str()),
        (Value::Number(a), Literal::Number(b)) => a.partial_cmp(b)?,
        (Value::Flag(a), Literal::Flag(b)) => a.cmp(b),
        (Value::TimeMs(a), Literal::TimeMs(b)) => a.cmp(b),
        (Value::State(a), Literal::State(b)) => a.cmp(b),
        (Value::Workflow(a), Literal::Workflow(b)) => a.cmp(b),
        (Value::Principal(a), Literal::Principal(b)) => a.cmp(b),
        (Value::Schedule(a), Literal::Text(name)) => a.cmp(&schedule::id_of(row.tenant, name, partitions)),
        _ => return None,
    })
}

fn value<'a>(field: &Field, row: &'a WorkflowRow) -> Option<Value<'a>> {
    Some(match field {
        Field::Id => Value::Workflow(row.id),
        Field::State => Value::State(row.state()),
        Field::Name => Value::Text(&row.name),
        Field::Playbook => Value::Text(&row.playbook.as_ref()?.name),
        Field::Version => Value::Number(row.playbook.as_ref()?.version.into()),
        Field::Schedule => Value::Schedule(row.schedule.as_ref()?.schedule),
        Field::Parent => Value::Workflow(row.lineage.as_ref()?.parent),
        Field::Root => Value::Workflow(row.lineage.as_ref()?.root),
        Field::Origin => Value::Workflow(row.origin.as_ref()?.workflow),
        Field::Created => Value::TimeMs(row.created_at_ms),
        Field::Ended => Value::TimeMs(row.ended_at_ms?),
        Field::Priority => Value::Number(row.priority.unwrap_or(limits::PRIORITY_DEFAULT).into()),
        Field::Code => Value::Text(row.end_code.as_deref()?),
        Field::SubmittedBy => Value::Principal(row.submitted_by),
        Field::Label(name) => Value::Text(&row.labels.iter().find(|label| label.key == *name)?.value),
        Field::Attribute(name) => {
            let attribute = row.attributes.iter().find(|attribute| attribute.name == *name)?;
            match attribute.value.as_ref()? {
                Attribute::Text(text) => Value::Text(text),
                Attribute::Number(number) => Value::Number(*number),
                Attribute::Flag(flag) => Value::Flag(*flag),
                Attribute::TimeMs(time) => Value::TimeMs(*time),
            }
        }
    })
}
