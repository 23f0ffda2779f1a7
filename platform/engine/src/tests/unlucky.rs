//! Nodes that take nothing, and attempts that are lost: seen at once by who asks, with the reason.

use gantry_proto::v1::Fault;

use super::world::{World, ok, started, tenant};
use crate::api::{Backend as _, NodePort as _, StepState, TaskState, Verdict, WorkflowState};

const ONE: &str = "
name: one
tasks:
  work:
    steps: [{run: 'true'}]
";

#[tokio::test]
async fn a_node_that_refuses_everything_is_reported_with_its_reason_in_the_answer_to_each_refusal() {
    let world = World::new().await;
    let workflow = world.submit(ONE).await;
    for times in 1..=3 {
        let (node, assignment) = world.desk.assignment().await;
        let fault = Fault {
            code: "image-not-found".to_owned(),
            message: format!("no such image, asked for {times} times"),
            hint: Some("pull it".to_owned()),
        };
        let verdict = world.engine.refused(node, assignment.assignee, fault).await.unwrap();
        assert_eq!(verdict, Verdict::Accepted);
        // Acknowledged is durable, and durable is visible: nothing is waited for here.
        let view = world.view(workflow).await;
        let task = &view.tasks[0];
        let refused = task.refused.as_ref().expect("the refusal is in the view");
        assert_eq!((refused.times, refused.node), (times, node));
        assert_eq!(refused.failure.code, "image-not-found");
        assert_eq!(
            refused.failure.message,
            format!("no such image, asked for {times} times")
        );
        assert_eq!(refused.failure.hint.as_deref(), Some("pull it"));
        assert_eq!(task.state, TaskState::Pending);
        assert!(task.waiting.is_some(), "and it says that it waits");
        assert!(task.steps[0].attempts.is_empty(), "it was no attempt");

        let events = world.engine.events(tenant(), workflow, 0, 500).await.unwrap();
        let [.., lease, waiting] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(
            (lease.kind.as_str(), waiting.kind.as_str()),
            ("lease_ended", "task_waiting")
        );
        assert_eq!(lease.data["end"], "refused");
        assert_eq!(lease.data["code"], "image-not-found");
        assert_eq!(lease.data["message"], refused.failure.message.as_str());
        assert_eq!(waiting.data["reason"], "node_refused");
    }
    world.verify();
    let (node, assignment) = world.desk.assignment().await;
    world.engine.started(node, started(&assignment.assignee)).await.unwrap();
    assert_eq!(world.finish(node, &assignment.assignee, ok()).await, Verdict::Accepted);
    let view = world.view(workflow).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    assert_eq!(view.tasks[0].refused, None, "once it began, what was before is history");
    world.verify();
}

#[tokio::test]
async fn every_lost_attempt_is_reported_when_it_is_lost() {
    let world = World::new().await;
    let workflow = world.submit(ONE).await;
    for lost in 1..=3usize {
        let (node, assignment) = world.desk.assignment().await;
        assert_eq!(
            world.engine.dropped(node, assignment.assignee).await.unwrap(),
            Verdict::Accepted
        );
        let view = world.view(workflow).await;
        let attempts = &view.tasks[0].steps[0].attempts;
        let attempt = &attempts[lost - 1];
        assert_eq!(attempt.state, StepState::Lost);
        let failure = attempt.failure.as_ref().expect("a lost attempt says why");
        assert_eq!(failure.code, "infrastructure-lost");
        assert!(failure.message.contains("sandbox"), "{}", failure.message);
        let events = world.engine.events(tenant(), workflow, 0, 500).await.unwrap();
        let ended = events
            .iter()
            .filter(|event| event.kind == "step_ended" && event.data["end"] == "lost");
        assert_eq!(ended.count(), lost);
    }
    world.verify();
}
