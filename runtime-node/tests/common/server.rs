//! The coordinator, played by the test.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use gantry_proto::v1::{
    Artifact, ArtifactHeader, Assignee, GetArtifactRequest, Heartbeat, HeldVerdict, LeasesRenewed, NodeToServer,
    OutputAccepted, Register, Registered, ResultAccepted, ServerToNode, StepResult, node_to_server,
    server_to_node::Kind,
};
use gantry_proto::{ArtifactId, NODE_PROTOCOL};
use gantry_runtime_node::{ByteStream, Connection, Uplink, UplinkError};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

type End = (mpsc::Receiver<NodeToServer>, mpsc::Sender<ServerToNode>);

/// Channels to the test.
pub struct TestUplink {
    sessions: mpsc::Sender<End>,
    pub artifacts: Mutex<BTreeMap<String, Vec<u8>>>,
    pub away: AtomicBool,
    /// How the next uploads are refused.
    pub refusals: Mutex<Vec<UplinkError>>,
}

#[async_trait::async_trait]
impl Uplink for TestUplink {
    async fn connect(&self) -> Result<Connection, UplinkError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(UplinkError::Unreachable("away".into()));
        }
        let (up, from_node) = mpsc::channel(16);
        let (to_node, down) = mpsc::channel(16);
        self.sessions
            .send((from_node, to_node))
            .await
            .map_err(|_| UplinkError::Unreachable("closed".into()))?;
        Ok((up, down))
    }

    async fn put_artifact(&self, header: ArtifactHeader, mut data: ByteStream) -> Result<Artifact, UplinkError> {
        if let Some(refusal) = self.refusals.lock().pop() {
            return Err(refusal);
        }
        let mut content = Vec::new();
        while let Some(chunk) = data.next().await {
            content.extend_from_slice(&chunk.unwrap());
        }
        let sha256 = Sha256::digest(&content).to_vec().into();
        let size_bytes = content.len() as u64;
        self.artifacts.lock().insert(header.name.clone(), content);
        let (id, content_type) = (ArtifactId::from_bytes([1; 16]), header.content_type);
        Ok(Artifact {
            id,
            name: header.name,
            size_bytes,
            sha256,
            content_type,
        })
    }

    async fn get_artifact(&self, _: GetArtifactRequest) -> Result<ByteStream, UplinkError> {
        Err(UplinkError::Unreachable("none".into()))
    }
}

/// What the test does as the server.
pub struct Server {
    sessions: mpsc::Receiver<End>,
    session: Option<End>,
    pub uplink: Arc<TestUplink>,
    /// Durable output by attempt, and the highest sequence.
    pub output: HashMap<Assignee, (u64, Vec<u8>)>,
    pub credits: Option<u32>,
    pub started: Vec<Assignee>,
    /// Answers to give output and heartbeats by themselves.
    pub accept_output: bool,
    pub heartbeat_ms: u64,
}

/// Longest that anything in a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    pub fn new() -> Self {
        let (sender, sessions) = mpsc::channel(4);
        let uplink = TestUplink {
            sessions: sender,
            artifacts: Mutex::default(),
            away: AtomicBool::new(false),
            refusals: Mutex::default(),
        };
        Self {
            sessions,
            session: None,
            uplink: Arc::new(uplink),
            output: HashMap::new(),
            credits: None,
            started: Vec::new(),
            accept_output: true,
            heartbeat_ms: 50,
        }
    }

    /// Takes the next session and lets it keep everything.
    pub async fn accept(&mut self) -> Register {
        self.accept_with(|_| true).await
    }

    pub async fn accept_with(&mut self, keep: impl Fn(&Assignee) -> bool) -> Register {
        let (mut from_node, to_node) = tokio::time::timeout(PATIENCE, self.sessions.recv())
            .await
            .expect("the node dials")
            .unwrap();
        let first = tokio::time::timeout(PATIENCE, from_node.recv())
            .await
            .expect("it registers")
            .unwrap();
        let Some(node_to_server::Kind::Register(register)) = first.kind else {
            panic!("not a registration")
        };
        let verdict = |assignee: &Assignee| HeldVerdict {
            assignee: assignee.clone(),
            keep: keep(assignee),
            output_seq: self.output.get(assignee).map(|output| output.0),
        };
        let verdicts = register.holding.iter().map(|held| verdict(&held.assignee)).collect();
        let registered = Registered {
            protocol: NODE_PROTOCOL,
            heartbeat_ms: self.heartbeat_ms,
            lease_ms: 5_000,
            verdicts,
            installation: None,
        };
        to_node
            .send(ServerToNode {
                kind: Some(Kind::Registered(registered)),
            })
            .await
            .unwrap();
        self.session = Some((from_node, to_node));
        self.credits = None;
        register
    }

    /// Breaks the connection.
    pub fn hang_up(&mut self) {
        self.session = None;
    }

    pub async fn send(&mut self, kind: Kind) {
        let (_, to_node) = self.session.as_ref().unwrap();
        to_node.send(ServerToNode { kind: Some(kind) }).await.unwrap();
    }

    pub async fn accept_result(&mut self, assignee: &Assignee, stale: bool) {
        self.send(Kind::ResultAccepted(ResultAccepted {
            assignee: assignee.clone(),
            stale,
        }))
        .await;
    }

    /// Reads up to the next heartbeat.
    pub async fn heartbeat(&mut self) -> Heartbeat {
        loop {
            let (from_node, _) = self.session.as_mut().unwrap();
            let message = tokio::time::timeout(PATIENCE, from_node.recv()).await;
            if let Some(node_to_server::Kind::Heartbeat(heartbeat)) = message.expect("it beats").unwrap().kind {
                return heartbeat;
            }
        }
    }

    /// The next message that is not answered by itself.
    pub async fn next(&mut self) -> node_to_server::Kind {
        loop {
            let (from_node, to_node) = self.session.as_mut().unwrap();
            let message = tokio::time::timeout(PATIENCE, from_node.recv())
                .await
                .expect("the node speaks");
            let kind = message.expect("the session lives").kind.unwrap();
            let answer = match kind {
                node_to_server::Kind::Heartbeat(heartbeat) => Some(Kind::Renewed(LeasesRenewed {
                    live: heartbeat.holding,
                    refused: Vec::new(),
                    lease_ms: 5_000,
                })),
                node_to_server::Kind::StepOutput(output) if self.accept_output => {
                    let (seq, bytes) = self.output.entry(output.assignee.clone()).or_default();
                    for chunk in &output.chunks {
                        if chunk.seq > *seq {
                            assert_eq!(chunk.seq, *seq + 1, "no gap");
                            *seq = chunk.seq;
                            bytes.extend_from_slice(&chunk.data);
                        }
                    }
                    Some(Kind::OutputAccepted(OutputAccepted {
                        assignee: output.assignee,
                        seq: *seq,
                    }))
                }
                node_to_server::Kind::Credits(credits) => {
                    self.credits = Some(credits.slots);
                    return node_to_server::Kind::Credits(credits);
                }
                node_to_server::Kind::StepStarted(started) => {
                    self.started.push(started.assignee.clone());
                    return node_to_server::Kind::StepStarted(started);
                }
                other => return other,
            };
            if let Some(kind) = answer {
                // The node may be stopping.
                let _ = to_node.send(ServerToNode { kind: Some(kind) }).await;
            }
        }
    }

    pub async fn credits_of(&mut self, wanted: u32) {
        while self.credits != Some(wanted) {
            self.next().await;
        }
    }

    pub async fn finished(&mut self) -> (Assignee, StepResult) {
        loop {
            if let node_to_server::Kind::StepFinished(finished) = self.next().await {
                return (finished.assignee, finished.result);
            }
        }
    }

    pub async fn output_contains(&mut self, assignee: &Assignee, text: &str) {
        let seen = |server: &Self| {
            server
                .output
                .get(assignee)
                .is_some_and(|(_, bytes)| String::from_utf8_lossy(bytes).contains(text))
        };
        while !seen(self) {
            // Output is answered within; a turn of any other message looks again.
            let (from_node, to_node) = self.session.as_mut().unwrap();
            let message = tokio::time::timeout(PATIENCE, from_node.recv())
                .await
                .expect("output")
                .unwrap();
            match message.kind.unwrap() {
                node_to_server::Kind::StepOutput(output) => {
                    let (seq, bytes) = self.output.entry(output.assignee.clone()).or_default();
                    for chunk in output
                        .chunks
                        .iter()
                        .filter(|chunk| chunk.seq > *seq)
                        .cloned()
                        .collect::<Vec<_>>()
                    {
                        *seq = chunk.seq;
                        bytes.extend_from_slice(&chunk.data);
                    }
                    let accepted = OutputAccepted {
                        assignee: output.assignee,
                        seq: *seq,
                    };
                    let _ = to_node
                        .send(ServerToNode {
                            kind: Some(Kind::OutputAccepted(accepted)),
                        })
                        .await;
                }
                node_to_server::Kind::Credits(credits) => self.credits = Some(credits.slots),
                _ => {}
            }
        }
    }
}
