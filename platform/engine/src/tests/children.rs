//! Child workflows on the whole engine, with real couriers between its partitions.

use std::time::Duration;

use gantry_proto::v1::EndCause;
use gantry_proto::{ErrorCode, WorkflowId};

use super::world::{World, caller, ended, ok, submission, tenant, with_outputs};
use crate::api::{Backend as _, TaskState, Verdict, WaitingView, WorkflowQuery, WorkflowState, WorkflowView};

const FAMILY: &str = "
name: parent
parameters: {who: {type: string, default: Ada}, numbers: {type: array, default: [1, 2]}}
tasks:
  ask:
    workflow:
      definition:
        name: child
        parameters: {name: {type: string}, list: {type: array}}
        tasks:
          say: {run: 'echo {{ params.name }} {{ params.list | length }}', outputs: word}
        outputs: {word: '{{ tasks.say.outputs.word }}'}
      parameters: {name: 'dear {{ params.who }}', list: '{{ params.numbers }}'}
  use:
    needs: ask
    run: 'echo {{ tasks.ask.outputs.word }}'
";

/// Waits until the workflow looks as wanted. The engine is asked again after each of its changes in real time.
async fn until(world: &World, id: WorkflowId, wanted: impl Fn(&WorkflowView) -> bool) -> WorkflowView {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Ok(view) = world.engine.workflow(tenant(), id).await
                && wanted(&view)
            {
                return view;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap()
}

fn has_ended(view: &WorkflowView) -> bool {
    view.summary.ended_at_ms.is_some()
}

fn child_of(view: &WorkflowView, task: &str) -> WorkflowId {
    view.tasks.iter().find(|each| each.name == task).unwrap().child.unwrap()
}

/// Letters are acknowledged with a batch of their own, a little later; then every outbox is empty.
async fn at_rest(world: &World) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while world.letters() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    world.verify();
}

#[tokio::test]
async fn a_child_runs_in_its_own_partition_and_its_outputs_become_the_tasks() {
    for partitions in [1, 2, 5] {
        let world = World::with_partitions(partitions).await;
        let parent = world.submit(FAMILY).await;
        let (node, say) = world.desk.assignment().await;
        let child = say.assignee.workflow;
        assert_eq!(
            say.plan.command.shell.as_deref(),
            Some("echo dear Ada 2"),
            "typed parameters arrive"
        );
        let view = world.view(parent).await;
        assert_eq!(child_of(&view, "ask"), child);
        assert_eq!(view.tasks[0].state, TaskState::Pending, "it holds no slot");
        assert_eq!(view.tasks[0].waiting, Some(WaitingView::Child { workflow: child }));
        let lineage = world.view(child).await.summary.lineage.unwrap();
        assert_eq!((lineage.parent, lineage.root, lineage.depth), (parent, parent, 1));
        assert_eq!(lineage.task, view.tasks[0].id);
        let query = WorkflowQuery {
            parent: Some(parent),
            ..WorkflowQuery::default()
        };
        let listed = world.engine.workflows(tenant(), query).await.unwrap();
        assert_eq!(listed.items.iter().map(|item| item.id).collect::<Vec<_>>(), [child]);
        let result = with_outputs(r#"{"word": "hi"}"#);
        assert_eq!(world.finish(node, &say.assignee, result).await, Verdict::Accepted);
        let (node, using) = world.desk.assignment().await;
        assert_eq!(using.plan.command.shell.as_deref(), Some("echo hi"));
        world.finish(node, &using.assignee, ok()).await;
        let view = until(&world, parent, has_ended).await;
        assert_eq!(view.summary.state, WorkflowState::Completed);
        let source = world.engine.source(tenant(), child).await.unwrap();
        crate::spec::compile(&source).unwrap();
        at_rest(&world).await;
    }
}

#[tokio::test]
async fn letters_and_children_survive_a_crash_at_every_stage() {
    let mut world = World::with_partitions(3).await;
    let parent = world.submit(FAMILY).await;
    world = world.restart().await;
    let (_, lost) = world.desk.assignment().await;
    let child = lost.assignee.workflow;
    world = world.restart().await;
    let view = world.view(parent).await;
    assert_eq!(child_of(&view, "ask"), child, "it was born once");
    // The holder of before comes back with its result: the lease has not expired.
    assert_eq!(
        world
            .finish(
                super::world::node_id(1),
                &lost.assignee,
                with_outputs(r#"{"word": "x"}"#)
            )
            .await,
        Verdict::Accepted
    );
    world = world.restart().await;
    let view = until(&world, parent, |view| view.tasks[0].state == TaskState::Completed).await;
    assert_eq!(view.tasks[1].name, "use");
    world = world.restart().await;
    assert_eq!(world.view(child).await.summary.state, WorkflowState::Completed);
    at_rest(&world).await;
}

#[tokio::test]
async fn cancelling_the_parent_ends_the_child_first() {
    let world = World::with_partitions(2).await;
    let parent = world.submit(FAMILY).await;
    let (node, say) = world.desk.assignment().await;
    let child = say.assignee.workflow;
    let state = world.engine.cancel(caller(), parent, Some(100)).await.unwrap();
    assert_eq!(state, WorkflowState::Active, "the child still runs");
    let (_, cancel) = world.desk.cancel().await;
    assert_eq!((cancel.assignee.clone(), cancel.grace_ms), (say.assignee.clone(), 100));
    world
        .finish(node, &say.assignee, ended(EndCause::Cancelled, None))
        .await;
    let view = until(&world, parent, has_ended).await;
    assert_eq!(view.summary.state, WorkflowState::Cancelled);
    assert_eq!(view.tasks[0].state, TaskState::Cancelled);
    assert_eq!(world.view(child).await.summary.state, WorkflowState::Cancelled);
    at_rest(&world).await;
}

#[tokio::test]
async fn a_child_that_is_cancelled_with_its_parent_before_it_is_born_runs_nothing() {
    let world = World::with_partitions(2).await;
    world.desk.offer(Vec::new());
    let parent = world.submit(FAMILY).await;
    world.engine.cancel(caller(), parent, None).await.unwrap();
    let view = until(&world, parent, has_ended).await;
    assert_eq!(view.summary.state, WorkflowState::Cancelled);
    let child = world.view(child_of(&view, "ask")).await;
    assert_eq!(child.summary.state, WorkflowState::Cancelled);
    assert_eq!(child.tasks[0].attempt, 0);
    assert!(world.desk.try_assignment().is_none());
    at_rest(&world).await;
}

#[tokio::test]
async fn a_child_that_fails_fails_its_task_and_says_so() {
    let world = World::with_partitions(2).await;
    let parent = world.submit(FAMILY).await;
    let (node, say) = world.desk.assignment().await;
    world
        .finish(node, &say.assignee, ended(EndCause::Exited, Some(3)))
        .await;
    let view = until(&world, parent, has_ended).await;
    let failure = view.tasks[0].failure.clone().unwrap();
    assert_eq!(failure.code, ErrorCode::ChildFailed.as_str());
    assert!(failure.message.contains("task `say` failed"), "{}", failure.message);
    assert_eq!(view.summary.state, WorkflowState::Failed);
    at_rest(&world).await;
}

#[tokio::test]
async fn a_detached_child_runs_alone() {
    let world = World::with_partitions(2).await;
    let source = FAMILY
        .replace(
            "parameters: {name: 'dear",
            "detached: true\n      parameters: {name: 'dear",
        )
        .replace(
            "echo {{ tasks.ask.outputs.word }}",
            "echo {{ tasks.ask.outputs.workflow }}",
        );
    let parent = world.submit(&source).await;
    let mut ran = Vec::new();
    for _ in 0..2 {
        let (node, next) = world.desk.assignment().await;
        ran.push(next.plan.task_name.clone());
        if next.plan.task_name == "use" {
            let child = child_of(&world.view(parent).await, "ask");
            assert_eq!(next.plan.command.shell, Some(format!("echo {child}")));
        }
        world
            .finish(node, &next.assignee, with_outputs(r#"{"word": "w"}"#))
            .await;
    }
    ran.sort();
    assert_eq!(ran, ["say", "use"]);
    let view = until(&world, parent, has_ended).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    let child = child_of(&view, "ask");
    let child = until(&world, child, has_ended).await;
    assert_eq!(child.summary.state, WorkflowState::Completed);
    assert!(child.summary.lineage.unwrap().detached);
    at_rest(&world).await;
}

#[tokio::test]
async fn what_a_child_is_given_must_match_and_generations_are_bounded() {
    let world = World::with_partitions(2).await;
    let wrong = FAMILY.replace("list: '{{ params.numbers }}'", "list: '{{ params.who }}'");
    let parent = world.submit(&wrong).await;
    let view = until(&world, parent, has_ended).await;
    assert_eq!(
        view.tasks[0].failure.as_ref().unwrap().code,
        ErrorCode::InvalidParameters.as_str()
    );
    let unknown = FAMILY.replace("list: '{{ params.numbers }}'", "lost: 1");
    let refusal = world.engine.submit(submission(&unknown)).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidDefinition);
    assert_eq!(refusal.issues.len(), 2, "{:?}", refusal.issues);
    assert!(refusal.issues.iter().all(|issue| issue.line.is_some()));
    // Inside of the child, too, with its place.
    let broken = FAMILY.replace("params.name }}", "params.nam }}");
    let refusal = world.engine.submit(submission(&broken)).await.unwrap_err();
    let issue = &refusal.issues[0];
    assert_eq!(
        issue.path.as_deref(),
        Some("/tasks/ask/workflow/definition/tasks/say/run")
    );
    assert_eq!(issue.line, Some(11));
    at_rest(&world).await;
}

const TRYING: &str = "
name: parent
tasks:
  ask:
    retry: {attempts: 2, backoff: 20ms}
    workflow: {definition: {name: child, tasks: {say: {run: 'true', outputs: word}}, outputs: {word: '{{ tasks.say.outputs.word }}'}}}
";

#[tokio::test]
async fn a_child_that_failed_is_followed_by_another_one_also_after_a_crash() {
    let world = World::with_partitions(3).await;
    let parent = world.submit(TRYING).await;
    let (node, first) = world.desk.assignment().await;
    world
        .finish(node, &first.assignee, ended(EndCause::Exited, Some(1)))
        .await;
    let backs_off = |view: &WorkflowView| {
        let waiting = view.tasks[0].waiting.as_ref();
        matches!(waiting, Some(WaitingView::RetryBackoff { attempt: 2, failure: Some(failure), .. }) if failure.code == "child-failed")
    };
    until(&world, parent, |view| {
        backs_off(view) || child_of(view, "ask") != first.assignee.workflow
    })
    .await;
    let world = world.restart().await;
    let (node, second) = world.desk.assignment().await;
    assert_ne!(second.assignee.workflow, first.assignee.workflow, "an id of its own");
    let result = with_outputs(r#"{"word": "hi"}"#);
    world.finish(node, &second.assignee, result).await;
    let view = until(&world, parent, has_ended).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    assert_eq!(child_of(&view, "ask"), second.assignee.workflow);
    at_rest(&world).await;
}

#[tokio::test]
async fn children_run_out_and_one_that_was_cancelled_is_not_followed() {
    let world = World::with_partitions(2).await;
    let parent = world.submit(TRYING).await;
    for _ in 0..2 {
        let (node, next) = world.desk.assignment().await;
        world
            .finish(node, &next.assignee, ended(EndCause::Exited, Some(1)))
            .await;
    }
    let view = until(&world, parent, has_ended).await;
    assert_eq!(view.summary.state, WorkflowState::Failed);
    assert_eq!(view.tasks[0].failure.as_ref().unwrap().code, "child-failed");
    let parent = world.submit(TRYING).await;
    let (node, next) = world.desk.assignment().await;
    world
        .engine
        .cancel(caller(), next.assignee.workflow, Some(0))
        .await
        .unwrap();
    world
        .finish(node, &next.assignee, ended(EndCause::Cancelled, None))
        .await;
    let view = until(&world, parent, has_ended).await;
    assert_eq!(view.summary.state, WorkflowState::Failed);
    assert!(world.desk.try_assignment().is_none());
    at_rest(&world).await;
}
