//! Lists of workflows: filters, indexes, pages.

use std::collections::BTreeSet;

use gantry_proto::{ErrorCode, WorkflowId};
use serde_json::{Map, json};

use super::world::{World, caller, submission, tenant};
use crate::api::{Backend as _, Page, Submit, TimeRange, WorkflowQuery, WorkflowState, WorkflowSummary};

const ASK: &str = "
name: ask
parameters: {customer: {type: string, default: acme}, due: {type: string, default: '2030-01-31T08:00:00Z'}}
attributes: {customer: '{{ params.customer }}', size: 3, late: false, due: {time: '{{ params.due }}'}}
tasks: {t: {approval: {message: '?'}}}
";

fn asked(customer: &str) -> Submit {
    let mut submit = submission(ASK);
    submit.parameters.insert("customer".to_owned(), json!(customer));
    submit
}

async fn list(world: &World, query: WorkflowQuery) -> Page<WorkflowSummary> {
    world.engine.workflows(tenant(), query).await.unwrap()
}

async fn found(world: &World, filter: &str) -> BTreeSet<WorkflowId> {
    let query = WorkflowQuery {
        filter: Some(filter.to_owned()),
        ..WorkflowQuery::default()
    };
    list(world, query).await.items.into_iter().map(|item| item.id).collect()
}

#[tokio::test]
async fn attributes_come_from_the_definition_and_from_the_submitter() {
    let world = World::new().await;
    let mut submit = asked("initech");
    submit.attributes = Map::from_iter([("late".to_owned(), json!(true)), ("note".to_owned(), json!("x"))]);
    let id = world.engine.submit(submit).await.unwrap().workflow;
    let view = world.view(id).await;
    let attributes = serde_json::to_value(&view.summary.attributes).unwrap();
    let due = json!({"time": "2030-01-31T08:00:00Z"});
    assert_eq!(
        attributes,
        json!({"customer": "initech", "due": due, "late": true, "note": "x", "size": 3})
    );
    for filter in [
        "attr.customer == 'initech' && attr.late && attr.size > 2.5 && attr.note == 'x'",
        "attr.due == timestamp('2030-01-31T08:00:00Z')",
    ] {
        assert_eq!(found(&world, filter).await, BTreeSet::from([id]), "{filter}");
    }
    let mut wrong = submission(ASK);
    wrong.attributes = Map::from_iter([
        ("list".to_owned(), json!([1])),
        ("long".to_owned(), json!("x".repeat(300))),
        ("a b".to_owned(), json!(1)),
    ]);
    let refusal = world.engine.submit(wrong).await.unwrap_err();
    assert_eq!((refusal.code, refusal.issues.len()), (ErrorCode::InvalidParameters, 3));
    let mut wrong = submission(ASK);
    wrong.parameters.insert("due".to_owned(), json!("soon"));
    let refusal = world.engine.submit(wrong).await.unwrap_err();
    assert!(refusal.message.contains("`soon` is no time"), "{refusal}");
}

#[tokio::test]
async fn an_idempotency_key_covers_attributes() {
    let world = World::new().await;
    let keyed = |late: bool| Submit {
        idempotency_key: Some("k".to_owned()),
        attributes: Map::from_iter([("late".to_owned(), json!(late))]),
        ..submission(ASK)
    };
    let first = world.engine.submit(keyed(true)).await.unwrap();
    assert!(world.engine.submit(keyed(true)).await.unwrap().replayed);
    let refusal = world.engine.submit(keyed(false)).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::IdempotencyMismatch);
    assert!(!first.replayed);
}

#[tokio::test]
async fn lists_are_filtered_and_their_pages_are_stable() {
    let world = World::with_partitions(3).await;
    let mut open = Vec::new();
    let mut cancelled = Vec::new();
    for number in 0..40 {
        let customer = if number % 2 == 0 { "acme" } else { "initech" };
        let id = world.engine.submit(asked(customer)).await.unwrap().workflow;
        if number % 4 == 0 {
            world.engine.cancel(caller(), id, None).await.unwrap();
            cancelled.push(id);
        } else {
            open.push(id);
        }
        world.forward(std::time::Duration::from_millis(2));
    }
    let all: BTreeSet<_> = open.iter().chain(&cancelled).copied().collect();
    assert_eq!(found(&world, "true").await, all);
    assert_eq!(
        found(&world, "state == 'cancelled'").await,
        cancelled.iter().copied().collect()
    );
    assert_eq!(found(&world, "state == 'active'").await, open.iter().copied().collect());
    assert_eq!(found(&world, "state in ['paused', 'failed']").await, BTreeSet::new());
    assert_eq!(found(&world, "attr.customer == 'initech'").await.len(), 20);
    let paused = open[3];
    world.engine.pause(caller(), paused, false, None).await.unwrap();
    assert_eq!(
        found(&world, "state == 'paused' || state == 'failed'").await,
        BTreeSet::from([paused])
    );

    // Page by page, while others come and go.
    let mut query = WorkflowQuery {
        filter: Some("attr.customer == 'acme'".to_owned()),
        limit: 3,
        ..WorkflowQuery::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = list(&world, query.clone()).await;
        assert_eq!(page.searched_to_ms, None, "it was full, not cut short");
        seen.extend(page.items.iter().map(|item| item.id));
        world.forward(std::time::Duration::from_millis(2));
        world.engine.submit(asked("acme")).await.unwrap();
        match page.next_cursor {
            Some(cursor) => query.after = Some(cursor.parse().unwrap()),
            None => break,
        }
    }
    let expected: BTreeSet<_> = all.iter().copied().filter(|id| seen.contains(id)).collect();
    assert_eq!(
        (seen.len(), expected.len()),
        (20, 20),
        "each once, and none of the new ones"
    );
    assert!(seen.is_sorted_by_key(|id| std::cmp::Reverse(id.time_ms())));

    let times: Vec<u64> = list(
        &world,
        WorkflowQuery {
            limit: 500,
            ..WorkflowQuery::default()
        },
    )
    .await
    .items
    .iter()
    .map(|item| item.created_at_ms)
    .collect();
    let created = TimeRange {
        from_ms: Some(times[20]),
        to_ms: Some(times[10]),
    };
    let ranged = list(
        &world,
        WorkflowQuery {
            created,
            ..WorkflowQuery::default()
        },
    )
    .await;
    let expected: Vec<u64> = times.into_iter().filter(|time| created.contains(*time)).collect();
    assert_eq!(
        ranged.items.iter().map(|item| item.created_at_ms).collect::<Vec<_>>(),
        expected
    );
    let ended = TimeRange {
        from_ms: Some(1),
        to_ms: None,
    };
    let ended = list(
        &world,
        WorkflowQuery {
            ended,
            ..WorkflowQuery::default()
        },
    )
    .await;
    assert!(ended.items.iter().all(|item| item.state == WorkflowState::Cancelled) && ended.items.len() == 10);

    let refusal = world.engine.workflows(
        tenant(),
        WorkflowQuery {
            filter: Some("stat == 'x'".to_owned()),
            ..WorkflowQuery::default()
        },
    );
    let refusal = refusal.await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.issues[0].column),
        (ErrorCode::InvalidRequest, Some(1))
    );
    world.verify();
}

#[tokio::test]
async fn a_child_is_found_by_its_own_attributes() {
    let world = World::new().await;
    let parent = "
name: parent
tasks:
  c:
    workflow:
      definition: {name: kid, parameters: {n: {type: integer}}, attributes: {n: '{{ params.n }}'}, tasks: {t: {approval: {message: '?'}}}}
      parameters: {n: 7}
  bad:
    run_on: always
    needs: c
    workflow:
      definition: {name: kid, parameters: {n: {type: string}}, attributes: {n: {time: '{{ params.n }}'}}, tasks: {t: {approval: {message: '?'}}}}
      parameters: {n: never}
";
    let id = world.engine.submit(submission(parent)).await.unwrap().workflow;
    let child = loop {
        if let Some(child) = found(&world, "attr.n == 7").await.first().copied() {
            break child;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        found(&world, &format!("parent == '{id}'")).await,
        BTreeSet::from([child])
    );
    world.engine.cancel(caller(), child, None).await.unwrap();
    let view = loop {
        let view = world.view(id).await;
        if view.summary.state.is_end() {
            break view;
        }
        tokio::task::yield_now().await;
    };
    let bad = view.tasks.iter().find(|task| task.name == "bad").unwrap();
    let failure = bad.failure.as_ref().unwrap();
    assert_eq!(failure.code, "template-error");
    assert!(failure.message.contains("`never` is no time"), "{}", failure.message);
}
