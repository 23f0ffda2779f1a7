//! Tasks over lists, one situation at a time.

use gantry_proto::v1::{Artifact, EndCause};
use gantry_proto::{ArtifactId, ErrorCode};
use serde_json::json;

use super::table::{Fate, Table, failed, partition, run_out};
use super::world::{candidate, ended, ok, with_outputs};
use crate::api::{Candidate, Order, TaskState, WorkflowState};
use crate::lifecycle::task::TaskState as State;

fn nodes() -> Vec<Candidate> {
    vec![candidate(1, 100)]
}

fn over(more: &str) -> String {
    format!(
        "
name: over
tasks:
  make: {{run: 'true', outputs: list}}
  each:
    needs: make
    for_each: '{{{{ tasks.make.outputs.list }}}}'
    {more}
    env: {{WHAT: '{{{{ item.name }}}}', NUMBER: '{{{{ item_index }}}}'}}
    run: 'echo {{{{ item.name }}}}'
  after:
    needs: each
    run_on: always
    run: 'echo {{{{ tasks.each.items | length }}}} {{{{ tasks.each.outputs[\"items\"] | tojson }}}} {{{{ tasks.each.items[0].item.name }}}} {{{{ tasks.each.state }}}}'
"
    )
}

/// Submits, and lets the list be made.
fn begin(table: &mut Table, more: &str, list: &serde_json::Value) -> gantry_proto::WorkflowId {
    let id = table.submit(&over(more), &nodes());
    let make = table.the_assignment();
    table.finish(&make, with_outputs(&json!({ "list": list }).to_string()), &nodes());
    id
}

fn names(count: usize) -> serde_json::Value {
    (0..count).map(|index| json!({ "name": format!("n{index}") })).collect()
}

#[test]
fn items_are_tasks_that_run_side_by_side_and_come_back_in_order() {
    let mut table = Table::new();
    let id = begin(&mut table, "", &names(3));
    let mut items = table.assigned();
    assert_eq!(items.len(), 3);
    assert_eq!(items[1].1.plan.command.shell.as_deref(), Some("echo n1"));
    assert_eq!(items[2].1.plan.env[1].value, "2");
    assert_eq!(table.task(id, "each").row.state(), State::Pending);
    assert_eq!(table.task(id, "each[1]").row.item, Some(1));
    // However they end, the outputs are in the order of the list.
    items.reverse();
    for (number, item) in items.iter().enumerate() {
        table.finish(item, with_outputs(&format!("{{\"n\": {number}}}")), &nodes());
    }
    assert_eq!(table.task(id, "each").row.state(), State::Completed);
    let after = table.the_assignment();
    let said = after.1.plan.command.shell.as_deref();
    assert_eq!(said, Some(r#"echo 3 [{"n":2},{"n":1},{"n":0}] n0 completed"#));
    table.finish(&after, ok(), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    assert_eq!(table.workflow(id).row.tasks_total, 6);
    table.verify();
}

#[test]
fn only_so_many_items_run_at_once() {
    let mut table = Table::new();
    begin(&mut table, "max_parallel: 2", &names(5));
    let mut running = table.assigned();
    let mut seen = Vec::new();
    assert_eq!(running.len(), 2);
    while let Some(next) = running.pop() {
        seen.push(next.1.plan.command.shell.clone().unwrap());
        table.finish(&next, ok(), &nodes());
        running.extend(table.assigned());
        assert!(running.len() <= 2);
    }
    assert_eq!(seen.iter().filter(|command| command.starts_with("echo n")).count(), 5);
    table.verify();
}

#[test]
fn a_failed_item_stops_the_others_and_fails_the_task() {
    let mut table = Table::new();
    let id = begin(&mut table, "max_parallel: 2", &names(5));
    let running = table.assigned();
    table.finish(&running[0], failed(), &nodes());
    assert!(matches!(&table.orders[..], [Order::Cancel(_, cancel)] if cancel.assignee == running[1].1.assignee));
    assert_eq!(
        table.task(id, "each[4]").row.state(),
        State::Cancelled,
        "it never began"
    );
    assert_eq!(
        table.task(id, "each").row.state(),
        State::Pending,
        "not before its items have ended"
    );
    table.finish(&running[1], ended(EndCause::Cancelled, None), &nodes());
    let each = table.task(id, "each");
    assert_eq!(
        (each.row.state(), each.row.end_code.as_deref()),
        (State::Failed, Some(ErrorCode::ItemsFailed.as_str()))
    );
    table.verify();
}

#[test]
fn tolerated_failures_do_not_fail_the_task() {
    for (more, fails, outcome) in [
        ("", 0, State::Completed),
        ("on_item_failure: continue", 1, State::Failed),
        ("tolerated_failures: 2", 2, State::Completed),
        ("tolerated_failures: '20%'", 1, State::Completed),
        ("on_item_failure: continue\n    tolerated_failures: 1", 3, State::Failed),
    ] {
        let mut table = Table::new();
        let id = begin(&mut table, more, &names(5));
        let items = table.assigned();
        for (number, item) in items.iter().enumerate() {
            let result = if number < fails { failed() } else { ok() };
            table.finish(item, result, &nodes());
        }
        assert_eq!(table.task(id, "each").row.state(), outcome, "{more}");
        assert!(
            !table.workflow(id).row.is_ended(),
            "the task that always runs is not over"
        );
        run_out(&mut table, &nodes());
        table.verify();
    }
}

#[test]
fn an_item_is_tried_again_and_lost_like_any_task() {
    let mut table = Table::new();
    let id = begin(
        &mut table,
        "retry: {attempts: 2, backoff: 1s}\n    max_parallel: 1",
        &names(2),
    );
    let first = table.the_assignment();
    table.finish(&first, failed(), &nodes());
    assert!(table.assigned().is_empty(), "an item that backs off keeps its turn");
    table.crash();
    table.pass(1_000, &nodes());
    let again = table.the_assignment();
    assert_eq!(
        (again.1.assignee.attempt, again.1.assignee.task),
        (2, first.1.assignee.task)
    );
    table.expire(&again.1.assignee, &nodes());
    let third = table.the_assignment();
    table.finish(&third, ok(), &nodes());
    assert_eq!(run_out(&mut table, &nodes()), ["each/step-1", "after/step-1"]);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}

#[test]
fn cancelling_ends_items_first() {
    let mut table = Table::new();
    let id = begin(&mut table, "max_parallel: 1", &names(3));
    let running = table.the_assignment();
    assert_eq!(table.cancel(id), Ok(WorkflowState::Active));
    table.crash();
    assert_eq!(table.task(id, "each[2]").row.state(), State::Cancelled);
    table.finish(&running, ended(EndCause::Cancelled, None), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Cancelled);
    assert_eq!(table.task(id, "each").row.state(), TaskState::Cancelled);
    table.verify();
}

#[test]
fn what_is_no_list_or_too_long_fails_the_task_with_a_reason() {
    for (list, code) in [
        (json!("text"), ErrorCode::TemplateError),
        (json!({"a": 1}), ErrorCode::TemplateError),
        (names(2_000), ErrorCode::TooLarge),
    ] {
        let mut table = Table::new();
        let id = begin(&mut table, "", &list);
        let each = table.task(id, "each");
        assert_eq!(
            (each.row.state(), each.row.end_code.as_deref()),
            (State::Failed, Some(code.as_str()))
        );
        run_out(&mut table, &nodes());
        table.verify();
    }
}

#[test]
fn an_empty_list_is_done_at_once() {
    let mut table = Table::new();
    let source = "{name: none, tasks: {each: {for_each: [], run: 'true'}}}";
    let id = table.submit(source, &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}

#[test]
fn artifacts_of_all_items_can_be_taken() {
    let mut table = Table::new();
    let source = "
name: files
tasks:
  each: {for_each: [a, b], run: 'true', artifacts: ['*.txt']}
  take: {needs: each, inputs: [{task: each, artifact: '*.txt', path: in/}], run: 'true'}
";
    table.submit(source, &nodes());
    for (number, item) in (0u64..).zip(table.assigned()) {
        let mut result = ok();
        result.artifacts.push(Artifact {
            id: ArtifactId::new(1, partition(), number),
            name: "out.txt".to_owned(),
            ..Artifact::default()
        });
        table.finish(&item, result, &nodes());
    }
    table.batch(Vec::new(), &nodes(), Fate::Done);
    let take = table.the_assignment();
    let paths: Vec<&str> = take.1.plan.inputs.iter().map(|input| input.path.as_str()).collect();
    assert_eq!(paths, ["in/0/out.txt", "in/1/out.txt"]);
    table.verify();
}

#[test]
fn a_thousand_items_are_made_and_run() {
    let mut table = Table::new();
    let source =
        "{name: many, parameters: {}, tasks: {each: {for_each: '{{ range(999) }}', max_parallel: 7, run: 'true'}}}";
    let id = table.submit(source, &[]);
    assert_eq!(run_out(&mut table, &nodes()).len(), 999);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}
