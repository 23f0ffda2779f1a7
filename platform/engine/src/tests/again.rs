//! Restarts and forks on the model store: what runs again, what is carried over, and what cannot be.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use gantry_proto::{ErrorCode, WorkflowId};
use serde_json::{Map, json};

use super::world::{World, caller, candidate, ended, ok, tenant, with_outputs};
use crate::api::{
    Again, AgainFrom, AgainRequest, Backend as _, NodePort as _, Refusal, TaskState, WorkflowQuery, WorkflowState,
    WorkflowView,
};
use gantry_proto::v1::EndCause;

const CHAIN: &str = "
name: chain
parameters: {word: {type: string, default: one}}
attributes: {word: '{{ params.word }}'}
tasks:
  a: {steps: [{run: 'a1'}, {run: 'a2 {{ params.word }}'}]}
  b: {needs: a, run: 'b {{ tasks.a.outputs.x }} {{ params.word }}'}
  c: {needs: b, run: 'c {{ tasks.b.outputs.y }}'}
  side: {run: side}
outputs: {all: '{{ tasks.a.outputs.x }} {{ tasks.b.outputs.y }}'}
";

fn request(workflow: WorkflowId, from: Option<&str>) -> AgainRequest {
    AgainRequest {
        caller: caller(),
        workflow,
        again: Again::Restart,
        from: from.map(|task| AgainFrom {
            task: task.to_owned(),
            step: None,
        }),
        idempotency_key: None,
    }
}

fn fork(workflow: WorkflowId, from: Option<&str>, parameters: serde_json::Value) -> AgainRequest {
    AgainRequest {
        again: Again::Fork {
            parameters: parameters.as_object().unwrap().clone(),
            attributes: Map::new(),
            labels: vec![("kind".to_owned(), "fork".to_owned())],
            priority: Some(7),
        },
        ..request(workflow, from)
    }
}

async fn again(world: &World, request: AgainRequest) -> Result<WorkflowId, Refusal> {
    world.engine.again(request).await.map(|receipt| receipt.workflow)
}

/// Runs whatever is assigned until the workflow has ended; `fails` names what fails. Returns the commands.
async fn run(world: &World, workflow: WorkflowId, fails: &str) -> Vec<String> {
    world.desk.offer(vec![candidate(1, 1)]);
    world.engine.wake(&[workflow.partition()]);
    let mut ran = Vec::new();
    while !world.view(workflow).await.summary.state.is_end() {
        let Some((node, assignment)) = world.desk.try_assignment() else {
            tokio::task::yield_now().await;
            continue;
        };
        let command = assignment.plan.command.shell.clone().unwrap();
        let result = match command.split(' ').next().unwrap() {
            name if name == fails => ended(EndCause::Exited, Some(1)),
            "a1" => with_outputs("{\"x\": 1}"),
            "b" => with_outputs("{\"y\": \"two\"}"),
            _ => ok(),
        };
        ran.push(command);
        world.finish(node, &assignment.assignee, result).await;
    }
    ran
}

async fn failed(world: &World) -> WorkflowId {
    let id = world.submit(CHAIN).await;
    let mut ran = run(world, id, "c").await;
    ran.sort();
    assert_eq!(ran, ["a1", "a2 one", "b 1 one", "c two", "side"]);
    assert_eq!(world.view(id).await.summary.state, WorkflowState::Failed);
    id
}

fn carried(view: &WorkflowView) -> Vec<&str> {
    let tasks = view.tasks.iter().filter(|task| task.carried);
    tasks.map(|task| task.name.as_str()).collect()
}

#[tokio::test]
async fn a_restart_runs_only_what_did_not_complete() {
    let world = World::with_partitions(3).await;
    let old = failed(&world).await;
    let new = again(&world, request(old, None)).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(run(&world, new, "").await, ["c two"]);
    let view = world.view(new).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    assert_eq!(view.outputs, json!({"all": "1 two"}));
    assert_eq!(carried(&view), ["a", "b", "side"]);
    let origin = view.summary.origin.unwrap();
    assert_eq!(
        (origin.workflow, origin.kind.as_str(), origin.task),
        (old, "restart", None)
    );
    assert_eq!(
        world.view(old).await.summary.state,
        WorkflowState::Failed,
        "it is what it was"
    );
    let query = WorkflowQuery {
        filter: Some(format!("origin == '{old}' && attr.word == 'one'")),
        ..WorkflowQuery::default()
    };
    assert_eq!(world.engine.workflows(tenant(), query).await.unwrap().items.len(), 1);
    // Of the new one again: what was carried over is carried over once more.
    let third = again(&world, request(new, Some("b"))).await.unwrap();
    assert_eq!(run(&world, third, "").await, ["b 1 one", "c two"]);
    assert_eq!(carried(&world.view(third).await), ["a", "side"]);
    world.verify();
}

#[tokio::test]
async fn a_fork_has_other_parameters_from_there_on() {
    let world = World::new().await;
    let old = failed(&world).await;
    let new = again(&world, fork(old, Some("b"), json!({"word": "two"})))
        .await
        .unwrap();
    assert_eq!(run(&world, new, "").await, ["b 1 two", "c two"]);
    let view = world.view(new).await;
    assert_eq!(
        (view.parameters["word"].as_str(), view.labels["kind"].as_str()),
        (Some("two"), "fork")
    );
    assert_eq!(
        (view.summary.attributes["word"].as_str(), view.summary.priority),
        (Some("two"), 7)
    );
    assert_eq!(view.summary.origin.unwrap().task.as_deref(), Some("b"));
    let wrong = again(&world, fork(old, Some("b"), json!({"word": 5}))).await;
    // A number for a text is met half-way; a list is not.
    assert!(wrong.is_ok());
    let wrong = again(&world, fork(old, Some("b"), json!({"word": []})))
        .await
        .unwrap_err();
    assert_eq!(wrong.code, ErrorCode::InvalidParameters);
    world.verify();
}

#[tokio::test]
async fn one_that_runs_is_forked_and_not_restarted() {
    let world = World::new().await;
    let source = "{name: w, tasks: {a: {sleep: 0}, b: {needs: a, approval: {message: '?'}}, c: {needs: b, sleep: 0}}}";
    let old = world.submit(source).await;
    while world.view(old).await.tasks[1].state != TaskState::AwaitingApproval {
        tokio::task::yield_now().await;
    }
    let refusal = again(&world, request(old, None)).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Conflict);
    let new = again(&world, fork(old, None, json!({}))).await.unwrap();
    let view = world.view(new).await;
    assert_eq!(
        (view.tasks[0].state, view.tasks[1].state),
        (TaskState::Completed, TaskState::AwaitingApproval)
    );
    assert_eq!(world.view(old).await.tasks[1].state, TaskState::AwaitingApproval);
    world.verify();
}

#[tokio::test]
async fn items_and_skipped_tasks_are_carried_over_as_they_ended() {
    let world = World::new().await;
    let source = "
name: list
tasks:
  skip: {when: 'false', run: 'true'}
  each: {for_each: [p, q], tolerated_failures: 1, on_item_failure: continue, run: 'each {{ item }}'}
  last: {needs: [each, skip], run: \"last {{ tasks.each.items[0].state }} {{ tasks.each.items[1].item }} {{ tasks.skip.code }}\"}
";
    let old = world.submit(source).await;
    world.desk.offer(vec![candidate(1, 1)]);
    world.engine.wake(&[old.partition()]);
    while !world.view(old).await.summary.state.is_end() {
        let Some((node, assignment)) = world.desk.try_assignment() else {
            tokio::task::yield_now().await;
            continue;
        };
        let good = assignment.plan.command.shell.as_deref() == Some("each q");
        let result = if good {
            with_outputs("{\"k\": 3}")
        } else {
            ended(EndCause::Exited, Some(1))
        };
        world.finish(node, &assignment.assignee, result).await;
    }
    let new = again(&world, request(old, None)).await.unwrap();
    assert_eq!(run(&world, new, "").await, ["last failed q skipped"]);
    let view = world.view(new).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    let each = view.tasks.iter().find(|task| task.name == "each").unwrap();
    assert_eq!(
        each.outputs,
        Some(json!({"items": [{}, {"k": 3}]})).filter(|_| each.outputs.is_some())
    );
    let items = each.items.unwrap();
    assert_eq!((items.total, items.completed, items.failed), (2, 1, 1));
    let refusal = again(&world, request(old, Some("each[0]"))).await.unwrap_err();
    assert!(refusal.message.contains("is an item"), "{refusal}");
    world.verify();
}

#[tokio::test]
async fn artifacts_become_the_new_ones_own() {
    let world = World::new().await;
    let source = "
name: files
tasks:
  make: {run: make, artifacts: ['out.txt']}
  take: {needs: make, inputs: [{task: make, artifact: out.txt, path: in.txt}], run: take}
";
    let old = world.submit(source).await;
    world.desk.offer(vec![candidate(1, 1)]);
    world.engine.wake(&[old.partition()]);
    let (node, assignment) = world.desk.assignment().await;
    let data = futures_util::stream::once(async { Ok(Bytes::from_static(b"content")) }).boxed();
    let artifact = world
        .engine
        .put_artifact(node, assignment.assignee.clone(), "out.txt".to_owned(), None, data);
    let artifact = artifact.await.unwrap();
    let result = gantry_proto::v1::StepResult {
        artifacts: vec![artifact.clone()],
        ..ok()
    };
    world.finish(node, &assignment.assignee, result).await;
    assert_eq!(run(&world, old, "take").await, ["take"]);

    let new = again(&world, request(old, None)).await.unwrap();
    world.engine.wake(&[new.partition()]);
    let (_, assignment) = world.desk.assignment().await;
    let input = &assignment.plan.inputs[0];
    assert_ne!(input.artifact, artifact.id);
    let body = world
        .engine
        .artifact(tenant(), new, input.artifact, None)
        .await
        .unwrap();
    let parts: Vec<Bytes> = body.stream.try_collect().await.unwrap();
    assert_eq!(parts.concat(), b"content");
    world.verify();
}

#[tokio::test]
async fn what_would_need_a_kept_tree_is_refused() {
    let world = World::new().await;
    let source = "
name: trees
tasks:
  a: {steps: [{key: one, run: 'a1'}, {key: two, run: 'a2'}]}
  b: {needs: a, workspace: {from: a}, run: 'b'}
";
    let old = world.submit(source).await;
    run(&world, old, "b").await;
    let refusal = again(&world, request(old, None)).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WorkspaceGone);
    assert!(refusal.hint.unwrap().contains("`a`"));
    let step = |step: &str| AgainRequest {
        from: Some(AgainFrom {
            task: "a".to_owned(),
            step: Some(step.to_owned()),
        }),
        ..request(old, None)
    };
    assert_eq!(
        again(&world, step("two")).await.unwrap_err().code,
        ErrorCode::WorkspaceGone
    );
    assert_eq!(
        again(&world, step("three")).await.unwrap_err().code,
        ErrorCode::InvalidRequest
    );
    let new = again(&world, step("one")).await.unwrap();
    assert_eq!(run(&world, new, "").await, ["a1", "a2", "b"]);
    let refusal = again(&world, request(new, None)).await.unwrap_err();
    assert!(refusal.message.contains("nothing to do again"), "{refusal}");
    let refusal = again(&world, request(new, Some("z"))).await.unwrap_err();
    assert!(refusal.message.contains("there are a, b"), "{refusal}");
}

#[tokio::test]
async fn the_same_key_finds_the_same_workflow() {
    let world = World::new().await;
    let old = failed(&world).await;
    let keyed = |from| AgainRequest {
        idempotency_key: Some("k".to_owned()),
        ..request(old, from)
    };
    let first = world.engine.again(keyed(None)).await.unwrap();
    let second = world.engine.again(keyed(None)).await.unwrap();
    assert_eq!(
        (first.workflow, first.replayed, second.replayed),
        (second.workflow, false, true)
    );
    let other = world.engine.again(keyed(Some("b"))).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::IdempotencyMismatch);
    let world = world.restart().await;
    let third = world.engine.again(keyed(None)).await.unwrap();
    assert_eq!((third.workflow, third.replayed), (first.workflow, true));
    assert_eq!(run(&world, first.workflow, "").await, ["c two"]);
    world.verify();
}
