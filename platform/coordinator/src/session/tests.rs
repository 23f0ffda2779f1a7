//! What becomes of messages that the engine does not take.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use gantry_engine::api::Registration;
use gantry_proto::v1::{Artifact, NodeHealth, ProcessOutput, StepOutput, StepResult, StepStarted};
use gantry_proto::{ArtifactId, PartitionId, TaskId, TenantId, WorkflowId};
use parking_lot::Mutex;

use super::*;

/// Answers output with what the test says, and notes what is given up.
#[derive(Default)]
struct Script {
    output: Mutex<VecDeque<ErrorCode>>,
    given_up: Mutex<Vec<Assignee>>,
}

type Answer<T> = Result<T, Refusal>;

#[async_trait::async_trait]
impl NodePort for Script {
    async fn register(&self, _: Serves, _: Register) -> Answer<Registration> {
        Ok(Registration::default())
    }
    async fn departed(&self, _: NodeId, _: Departure) -> Answer<()> {
        Ok(())
    }
    async fn health(&self, _: NodeId, _: NodeHealth) -> Answer<()> {
        Ok(())
    }
    async fn renew(&self, _: NodeId, holding: Vec<Assignee>) -> Answer<Vec<Verdict>> {
        Ok(vec![Verdict::Accepted; holding.len()])
    }
    async fn started(&self, _: NodeId, _: StepStarted) -> Answer<Verdict> {
        Ok(Verdict::Accepted)
    }
    async fn output(&self, _: NodeId, _: Assignee, chunks: Vec<ProcessOutput>) -> Answer<(Verdict, u64)> {
        match self.output.lock().pop_front() {
            Some(code) => Err(Refusal::new(code, "scripted")),
            None => Ok((Verdict::Accepted, chunks.len() as u64)),
        }
    }
    async fn progress(&self, _: NodeId, _: Assignee, _: Bytes) -> Answer<Verdict> {
        Ok(Verdict::Accepted)
    }
    async fn finished(&self, _: NodeId, _: Assignee, _: StepResult) -> Answer<Verdict> {
        Ok(Verdict::Accepted)
    }
    async fn refused(&self, _: NodeId, _: Assignee, _: Fault) -> Answer<Verdict> {
        Ok(Verdict::Accepted)
    }
    async fn dropped(&self, _: NodeId, _: Assignee) -> Answer<Verdict> {
        Ok(Verdict::Accepted)
    }
    async fn give_up(&self, _: NodeId, assignee: Assignee, _: String) -> Answer<Verdict> {
        self.given_up.lock().push(assignee);
        Ok(Verdict::Accepted)
    }
    async fn put_artifact(
        &self,
        _: NodeId,
        _: Assignee,
        _: String,
        _: Option<String>,
        _: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Answer<Artifact> {
        Err(Refusal::new(ErrorCode::Internal, "not in these tests"))
    }
    async fn get_artifact(
        &self,
        _: NodeId,
        _: Assignee,
        _: ArtifactId,
    ) -> Answer<BoxStream<'static, std::io::Result<Bytes>>> {
        Err(Refusal::new(ErrorCode::Internal, "not in these tests"))
    }
    fn wake(&self, _: &[PartitionId]) {}
}

fn assignee(number: u64) -> Assignee {
    let partition = PartitionId::default();
    Assignee {
        tenant: TenantId::nil(),
        workflow: WorkflowId::new(1, partition, 1),
        task: TaskId::new(1, partition, number),
        fence: 1,
        step: 0,
        attempt: 1,
    }
}

async fn after(codes: &[ErrorCode]) -> (Arc<Script>, Option<server_to_node::Kind>) {
    let script = Arc::new(Script::default());
    script.output.lock().extend(codes.iter().copied());
    let port: Arc<dyn NodePort> = script.clone();
    let (work, messages) = mpsc::channel(4);
    let (orders, mut answers) = mpsc::channel(4);
    let session = CancellationToken::new();
    let lane = lane(port, NodeId::nil(), messages, orders, session.clone());
    let output = StepOutput {
        assignee: assignee(1),
        ..StepOutput::default()
    };
    work.send(Kind::StepOutput(output)).await.unwrap();
    drop(work);
    lane.await;
    assert!(!session.is_cancelled(), "the session goes on");
    (script, answers.recv().await.and_then(|answer| answer.kind))
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_recorded_now_is_tried_again() {
    let (script, answer) = after(&[ErrorCode::StorageUnavailable, ErrorCode::Overloaded]).await;
    assert!(
        matches!(answer, Some(server_to_node::Kind::OutputAccepted(_))),
        "{answer:?}"
    );
    assert!(script.given_up.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_can_never_be_recorded_costs_its_attempt_and_not_the_session() {
    let (script, answer) = after(&[ErrorCode::Conflict]).await;
    assert!(
        matches!(&answer, Some(server_to_node::Kind::Cancel(cancel)) if cancel.assignee == assignee(1)),
        "{answer:?}"
    );
    assert_eq!(*script.given_up.lock(), [assignee(1)]);
}

#[tokio::test(start_paused = true)]
async fn output_that_stays_unstorable_costs_its_attempt_and_not_the_session() {
    let (script, answer) = after(&[ErrorCode::StorageUnavailable; 100]).await;
    assert!(
        matches!(&answer, Some(server_to_node::Kind::Cancel(cancel)) if cancel.assignee == assignee(1)),
        "{answer:?}"
    );
    assert_eq!(*script.given_up.lock(), [assignee(1)]);
}
