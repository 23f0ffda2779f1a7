//! The network: a stream per session, in order in each direction, slow, interrupted, or cut.

use gantry_engine::api::Serves;
use gantry_proto::v1::node_to_server::Kind;
use gantry_proto::v1::{Assignee, NodeToServer, ServerToNode, server_to_node};
use tokio::sync::mpsc;

use crate::oracle::{Broken, Told};
use crate::world::{Event, World};

/// One session's stream.
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) node: usize,
    pub(crate) to_server: mpsc::Sender<NodeToServer>,
    pub(crate) from_server: mpsc::Receiver<ServerToNode>,
    /// The server has ended it.
    pub(crate) ended: bool,
    /// When the last message sent arrives: the next one not before it.
    up_ms: u64,
    down_ms: u64,
    /// Nothing passes until then.
    pub(crate) blocked_until_ms: u64,
    /// Heartbeats that the server has and has not answered.
    heard: std::collections::VecDeque<(u64, Vec<Assignee>)>,
}

impl World {
    /// A node opens a stream; `None` when no server listens.
    pub(crate) fn open_link(&mut self, node: usize) -> Option<u64> {
        let server = self.server.as_ref()?;
        let (to_server, from_server) = server.coordinator.open_session(Serves::All);
        let number = self.next_link;
        self.next_link += 1;
        let link = Link {
            number,
            node,
            to_server,
            from_server,
            ended: false,
            up_ms: 0,
            down_ms: 0,
            blocked_until_ms: self.nodes[node].partitioned_until_ms,
            heard: Default::default(),
        };
        self.links.insert(number, link);
        Some(number)
    }

    fn way_ms(&self) -> u64 {
        if self.dice.chance(900) {
            self.dice.between(0, 2)
        } else {
            self.dice.between(0, self.climate.net_ms_max)
        }
    }

    /// A node says something on its stream.
    pub(crate) fn send(&mut self, number: u64, kind: Kind) {
        let way_ms = self.way_ms();
        let now = self.now;
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        link.up_ms = link.up_ms.max(now + way_ms).max(link.blocked_until_ms);
        let at_ms = link.up_ms;
        self.at(
            at_ms,
            Event::ToServer(number, Box::new(NodeToServer { kind: Some(kind) })),
        );
    }

    /// A node hangs up: what it said before still arrives, or is lost with it.
    pub(crate) fn hang_up(&mut self, number: u64) {
        if self.dice.chance(500) {
            self.links.remove(&number);
        } else if let Some(link) = self.links.get(&number) {
            let at_ms = link.up_ms;
            self.at(at_ms, Event::NodeHungUp(number));
        }
    }

    pub(crate) fn arrive_at_server(&mut self, number: u64, message: Box<NodeToServer>) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        if now < link.blocked_until_ms {
            let at_ms = link.blocked_until_ms;
            return self.at(at_ms, Event::ToServer(number, message));
        }
        let holding = match &message.kind {
            Some(Kind::Heartbeat(heartbeat)) => Some(heartbeat.holding.clone()),
            _ => None,
        };
        if link.to_server.try_send(*message).is_ok()
            && let Some(holding) = holding
        {
            link.heard.push_back((now, holding));
        }
    }

    /// The server has written a line, or ended the stream.
    pub(crate) fn server_said(&mut self, number: u64, message: Option<Box<ServerToNode>>) -> Result<(), Broken> {
        let way_ms = self.way_ms();
        let now = self.now;
        let Some(link) = self.links.get_mut(&number) else {
            return Ok(());
        };
        link.down_ms = link.down_ms.max(now + way_ms).max(link.blocked_until_ms);
        let at_ms = link.down_ms;
        let Some(message) = message else {
            self.at(at_ms, Event::ServerHungUp(number));
            return Ok(());
        };
        match &message.kind {
            Some(server_to_node::Kind::Assign(assignment)) => {
                self.oracle.told(now, &Told::Assigned(assignment))?;
            }
            Some(server_to_node::Kind::Renewed(renewed)) => {
                let named = renewed.live.len() + renewed.refused.len();
                let answers = |holding: &Vec<Assignee>| {
                    holding.len() == named
                        && holding
                            .iter()
                            .all(|each| renewed.live.contains(each) || renewed.refused.contains(each))
                };
                // A heartbeat that could not be recorded has no answer.
                while let Some((heard_ms, holding)) = link.heard.pop_front() {
                    if answers(&holding) {
                        if self.trace {
                            let tasks: Vec<_> = renewed.live.iter().map(|each| each.task).collect();
                            println!("{now:>9} node {} was heard at {heard_ms} with {tasks:?}", link.node);
                        }
                        for assignee in &renewed.live {
                            self.oracle.told(now, &Told::Renewed(assignee, heard_ms))?;
                        }
                        break;
                    }
                }
            }
            _ => {}
        }
        self.at(at_ms, Event::ToNode(number, message));
        Ok(())
    }

    pub(crate) fn arrive_at_node(&mut self, number: u64, message: ServerToNode) -> Result<(), Broken> {
        let Some(link) = self.links.get(&number) else {
            return Ok(());
        };
        let (node, blocked) = (link.node, link.blocked_until_ms);
        let later = blocked.max(self.nodes[node].stopped_until_ms);
        if self.now < later {
            self.at(later, Event::ToNode(number, Box::new(message)));
            return Ok(());
        }
        if self.nodes[node].link != Some(number) {
            return Ok(());
        }
        match message.kind {
            Some(kind) => self.node_hears(node, number, kind),
            None => Ok(()),
        }
    }

    pub(crate) fn node_hears_end(&mut self, number: u64) {
        let Some(link) = self.links.get(&number) else { return };
        let (node, later) = (link.node, link.blocked_until_ms);
        let later = later.max(self.nodes[node].stopped_until_ms);
        if self.now < later {
            return self.at(later, Event::ServerHungUp(number));
        }
        self.links.remove(&number);
        self.lose_link(node, number);
    }
}
