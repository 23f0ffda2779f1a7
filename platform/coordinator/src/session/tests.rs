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
    /// Storing output waits for this, if it is there.
    stuck: Option<Arc<tokio::sync::Semaphore>>,
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
        if let Some(stuck) = &self.stuck {
            stuck.acquire().await.unwrap().forget();
        }
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
    let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    work.send((Kind::StepOutput(output), room)).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn heartbeats_are_answered_while_a_task_s_output_is_stuck() {
    let stuck = Arc::new(Semaphore::new(0));
    let script = Arc::new(Script {
        stuck: Some(stuck.clone()),
        ..Script::default()
    });
    let coordinator = Coordinator::new(crate::CoordinatorConfig {
        heartbeat_ms: 1_000,
        lease_ms: 6_000,
    });
    coordinator.attach(script);
    let (up, mut down) = coordinator.open_session(Serves::All);
    let send = async |kind| up.send(NodeToServer { kind: Some(kind) }).await.unwrap();
    let register = Register {
        protocol: NODE_PROTOCOL,
        node: NodeId::new(1, PartitionId::default(), 9),
        name: "n".to_owned(),
        ..Register::default()
    };
    send(Kind::Register(register)).await;
    // One task's messages, all in one lane, and none of them comes through.
    for _ in 0..500 {
        let chunk = ProcessOutput {
            data: vec![0; 10_000].into(),
            ..ProcessOutput::default()
        };
        let output = StepOutput {
            assignee: assignee(1),
            chunks: vec![chunk],
        };
        send(Kind::StepOutput(output)).await;
    }
    let heartbeat = Heartbeat {
        holding: vec![assignee(1)],
        ..Heartbeat::default()
    };
    send(Kind::Heartbeat(heartbeat)).await;
    loop {
        match down.recv().await.expect("the session lives").kind {
            Some(server_to_node::Kind::Renewed(renewed)) => {
                assert_eq!(renewed.live, [assignee(1)]);
                break;
            }
            Some(server_to_node::Kind::OutputAccepted(_)) => panic!("output came through that is stuck"),
            _ => {}
        }
    }
    stuck.add_permits(500);
    for _ in 0..500 {
        let next = down.recv().await.expect("the session lives").kind;
        assert!(
            matches!(next, Some(server_to_node::Kind::OutputAccepted(_))),
            "{next:?}"
        );
    }
    drop(up);
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_stops_sending_fills_its_backlog_and_no_more() {
    let script = Arc::new(Script {
        stuck: Some(Arc::new(Semaphore::new(0))),
        ..Script::default()
    });
    let coordinator = Coordinator::new(crate::CoordinatorConfig {
        heartbeat_ms: 1_000,
        lease_ms: 6_000,
    });
    coordinator.attach(script);
    let (up, _down) = coordinator.open_session(Serves::All);
    let register = Register {
        protocol: NODE_PROTOCOL,
        node: NodeId::new(1, PartitionId::default(), 9),
        name: "n".to_owned(),
        ..Register::default()
    };
    let mut next = Kind::Register(register);
    let mut sent = 0;
    let data = bytes::Bytes::from(vec![0; 1 << 20]);
    // Ended by the session, which was silent for too long.
    while up.send(NodeToServer { kind: Some(next) }).await.is_ok() {
        sent += 1;
        let chunk = ProcessOutput {
            data: data.clone(),
            ..ProcessOutput::default()
        };
        next = Kind::StepOutput(StepOutput {
            assignee: assignee(1),
            chunks: vec![chunk],
        });
    }
    let backlog = (BACKLOG_UNITS as usize * BACKLOG_UNIT) >> 20;
    assert!(sent <= backlog + limits::SESSION_QUEUE_MAX + 2, "{sent} MiB were taken");
    coordinator.shutdown().await;
}
