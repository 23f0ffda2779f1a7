//! What filters accept, refuse and match.

use gantry_proto::v1::{Label, PlaybookRef, ScheduleRun, SearchAttribute, search_attribute::Value};
use gantry_proto::{PartitionId, TenantId};

use super::{Filter, STATES, TimeRange};
use crate::core::rows::WorkflowRow;
use crate::core::schedule;
use crate::lifecycle::workflow::WorkflowState;

fn row() -> WorkflowRow {
    let tenant = TenantId::new(1, PartitionId::default(), 7);
    let attribute = |name: &str, value: Value| SearchAttribute {
        name: name.to_owned(),
        value: Some(value),
    };
    let mut row = WorkflowRow {
        tenant,
        name: "release-eu".to_owned(),
        created_at_ms: 1_700_000_000_000,
        labels: vec![Label {
            key: "cost-centre".to_owned(),
            value: "r&d".to_owned(),
        }],
        playbook: Some(PlaybookRef {
            name: "release".to_owned(),
            version: 3,
        }),
        schedule: Some(ScheduleRun {
            schedule: schedule::id_of(tenant, "nightly", 8),
            due_ms: 1,
        }),
        attributes: vec![
            attribute("customer", Value::Text("acme".to_owned())),
            attribute("amount", Value::Number(-12.5)),
            attribute("urgent", Value::Flag(true)),
            attribute("due", Value::TimeMs(1_700_000_500_000)),
        ],
        ..WorkflowRow::default()
    };
    row.set_state(WorkflowState::Failed);
    row
}

fn fits(text: &str) -> bool {
    Filter::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .matches(&row(), 8)
}

#[test]
fn every_field_is_compared_by_its_type() {
    for text in [
        "true",
        "state == 'failed'",
        "state in ['failed', 'cancelled'] && name.startsWith('release')",
        "state != 'completed'",
        "!(state == 'completed') && name.endsWith('-eu') && name.contains('ease')",
        "playbook == 'release' && version >= 3 && 4 > version",
        "schedule == 'nightly'",
        "label['cost-centre'] == 'r&d'",
        "attr.customer == 'acme' && attr.amount < -12 && attr.urgent && attr.urgent == true",
        "attr.due > timestamp('2023-11-14T22:13:20Z')",
        "created >= timestamp('2023-11-14T22:13:20Z') && created < '2023-11-14T22:13:21Z'",
        "priority == 4",
        "has(attr.customer) && !has(attr.nothing) && !has(label.team)",
        "attr.nothing == 1 || attr['customer'] in ['x', 'acme']",
    ] {
        assert!(fits(text), "{text}");
    }
    for text in [
        "false",
        "state == 'active'",
        "name == 'release'",
        "schedule == 'weekly'",
        // What is not there is neither equal nor unequal, and neither is what has another type.
        "attr.nothing != 1",
        "attr.customer != 1",
        "attr.customer > 1",
        "ended > timestamp('1970-01-01T00:00:00Z')",
        "attr.customer",
    ] {
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, column, said) in [
        ("", 1, "empty"),
        ("state ==", 9, "no CEL expression"),
        ("name == 'x' && stat == 'failed'", 16, "no field `stat`"),
        ("state == 'broken'", 10, "no state `broken`"),
        ("state > 'failed'", 1, "no order"),
        ("name == 5", 9, "a text in quotes"),
        ("created > 'yesterday'", 11, "no time"),
        ("priority == 'high'", 13, "a number"),
        ("attr == 1", 1, "needs a name"),
        ("parent == 'x'", 11, "wf_"),
        ("name.matches('a*')", 1, "no function `matches`"),
        ("name + 'x' == 'y'", 1, ""),
        ("label.a.b == 'x'", 1, "behind a dot"),
        ("name", 1, "neither true nor false"),
        ("'x' == 'x'", 1, "compare a field"),
        ("state in 'failed'", 10, "a list"),
        ("[1].exists(x, x == 1)", 11, "not known in filters"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert!(error.message.contains(said), "{text}: {error}");
        assert_eq!((error.line, error.column), (1, column), "{text}: {error}");
    }
    let second = Filter::parse("name == 'é' &&\n  nothing == 1").unwrap_err();
    assert_eq!((second.line, second.column), (2, 3), "{second}");
    let long = vec!["name == 'x'"; 65].join(" || ");
    assert!(Filter::parse(&long).unwrap_err().message.contains("64"));
    assert!(Filter::parse(&format!("{}true{}", "(".repeat(500), ")".repeat(500))).is_err());
}

#[test]
fn a_filter_says_where_matches_can_be() {
    let states = |text: &str| Filter::parse(text).unwrap().states().into_iter().collect::<Vec<_>>();
    use WorkflowState::{Active, Cancelled, Completed, Failed, Paused, Pending};
    assert_eq!(states("state == 'failed' && name == 'x'"), [Failed]);
    assert_eq!(states("state == 'failed' || state == 'paused'"), [Paused, Failed]);
    assert_eq!(states("state == 'failed' || name == 'x'"), STATES);
    assert_eq!(
        states("!(state in ['pending', 'active', 'paused'])"),
        [Completed, Failed, Cancelled]
    );
    assert_eq!(
        states("state != 'completed' && state != 'failed'"),
        [Pending, Active, Paused, Cancelled]
    );
    assert_eq!(states("!(state == 'failed' && name == 'x')"), STATES);
    assert_eq!(states("state == 'failed' && state == 'active'"), []);
    let created = |text: &str| Filter::parse(text).unwrap().created();
    let range = |from_ms, to_ms| TimeRange { from_ms, to_ms };
    assert_eq!(
        created("created >= '1970-01-01T00:00:01Z' && created < '1970-01-01T00:00:05Z'"),
        range(Some(1_000), Some(5_000))
    );
    assert_eq!(
        created("created < '1970-01-01T00:00:01Z' || created < '1970-01-01T00:00:05Z'"),
        range(None, Some(5_000))
    );
    assert_eq!(
        created("created < '1970-01-01T00:00:01Z' || name == 'x'"),
        range(None, None)
    );
    assert_eq!(created("!(created < '1970-01-01T00:00:01Z')"), range(None, None));
}
