//! A server process: the shipped engine and coordinator on the model disk; how it starts, dies and is followed by the next.

use std::sync::Arc;

use gantry_coordinator::{Coordinator, CoordinatorConfig};
use gantry_engine::api::{Dispatcher, NodePort, Observer};
use gantry_engine::{Engine, EngineConfig, Parts, StartError};
use gantry_journal::{BlobStore, SegmentStore};
use gantry_proto::{NodeId, TenantId, WorkflowId};
use tokio_util::sync::CancellationToken;

use crate::disk::Handle;
use crate::host::{DiskPace, OpenKeys};
use crate::oracle::Broken;
use crate::world::{Event, Local, World};

/// Output and artifacts: empty in these runs, and so shared by all of a thread.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) segments: Arc<SegmentStore>,
    pub(crate) blobs: Arc<BlobStore>,
}

pub(crate) type Started = Result<Arc<Engine>, StartError>;

/// A process that recovers.
pub(crate) struct Starting {
    pub(crate) number: u64,
    since_ms: u64,
    pub(crate) future: Local<Started>,
    coordinator: Arc<Coordinator>,
    handle: Arc<Handle>,
    killed: CancellationToken,
}

/// A process that serves.
pub(crate) struct Server {
    pub(crate) number: u64,
    pub(crate) engine: Arc<Engine>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) failed: Option<Local<String>>,
    handle: Arc<Handle>,
    killed: CancellationToken,
}

struct Nobody;

impl Observer for Nobody {
    fn workflow_changed(&self, _: TenantId, _: WorkflowId) {}
    fn node_changed(&self, _: NodeId) {}
}

impl World {
    /// The process that is starting or serves.
    pub(crate) fn current(&self) -> Option<u64> {
        let starting = self.starting.as_ref().map(|starting| starting.number);
        starting.or(self.server.as_ref().map(|server| server.number))
    }

    pub(crate) fn start_server(&mut self) {
        if self.current().is_some() {
            return;
        }
        self.processes += 1;
        let number = self.processes;
        self.say(|| format!("server {number} starts"));
        let handle = self.disk.open(number);
        let killed = CancellationToken::new();
        self.host.set_pace(Arc::new(DiskPace {
            dice: self.dice.clone(),
            disk: Arc::clone(&self.disk),
            killed: killed.clone(),
            process: number,
            die: self.death.clone(),
        }));
        let coordinator = Coordinator::new(CoordinatorConfig {
            heartbeat_ms: self.climate.heartbeat_ms,
            lease_ms: self.climate.lease_ms,
        });
        let config = EngineConfig {
            partitions: self.climate.partitions,
            settings: self.settings,
        };
        let parts = Parts {
            store: handle.clone(),
            keyring: Arc::new(OpenKeys),
            segments: Arc::clone(&self.stores.segments),
            blobs: Arc::clone(&self.stores.blobs),
            dispatcher: Arc::clone(&coordinator) as Arc<dyn Dispatcher>,
            observer: Arc::new(Nobody),
            clock: self.clock.clone(),
            playbooks: Arc::new(crate::operations::schedules::Shelf(self.dice.clone())),
        };
        self.starting = Some(Starting {
            number,
            since_ms: self.now,
            future: Box::pin(Engine::start(config, parts)),
            coordinator,
            handle,
            killed,
        });
    }

    pub(crate) fn server_started(&mut self, number: u64, started: Started) {
        let Some(starting) = self.starting.take_if(|starting| starting.number == number) else {
            return;
        };
        match started {
            Ok(engine) => {
                self.say(|| format!("server {number} serves"));
                starting.coordinator.attach(Arc::clone(&engine) as Arc<dyn NodePort>);
                let watched = Arc::clone(&engine);
                self.server = Some(Server {
                    number,
                    engine,
                    coordinator: starting.coordinator,
                    failed: Some(Box::pin(async move { watched.failed().await })),
                    handle: starting.handle,
                    killed: starting.killed,
                });
                // Leases begin anew somewhere in between.
                self.oracle.serving(self.now, Some(starting.since_ms));
            }
            Err(error) => {
                self.say(|| format!("server {number} does not start: {error}"));
                starting.handle.kill();
                starting.killed.cancel();
                self.restart_later();
            }
        }
    }

    fn restart_later(&mut self) {
        let pause_ms = if self.dice.chance(800) {
            self.dice.between(10, 3_000)
        } else {
            self.dice.between(1_000, 90_000)
        };
        let pause_ms = if self.healed { 100 } else { pause_ms };
        self.after(pause_ms, Event::StartServer);
    }

    /// Kill -9: what is not durable is gone, what was said and not heard is gone, and every stream breaks.
    pub(crate) fn kill_server(&mut self) -> Result<(), Broken> {
        self.oracle.serving(self.now, None);
        if let Some(starting) = self.starting.take() {
            starting.handle.kill();
            starting.killed.cancel();
            let Starting { future, .. } = starting;
            // Its tasks end by themselves, and reach nothing any more.
            self.reaping.push(Box::pin(async move {
                if let Ok(engine) = future.await {
                    engine.shutdown().await;
                }
            }));
        }
        if let Some(server) = self.server.take() {
            self.say(|| format!("server {} is killed", server.number));
            server.handle.kill();
            server.killed.cancel();
            self.cut_all_links();
            let Server {
                engine,
                coordinator,
                failed,
                ..
            } = server;
            drop(failed);
            self.reaping.push(Box::pin(async move {
                coordinator.shutdown().await;
                engine.shutdown().await;
            }));
        }
        self.look()?;
        // What a crash leaves is sound as it is, before anybody recovers.
        self.oracle.verify(&self.disk)?;
        self.restart_later();
        Ok(())
    }

    /// An orderly stop, as the daemon does it: sessions first.
    pub(crate) async fn stop_server(&mut self) {
        self.oracle.serving(self.now, None);
        let Some(server) = self.server.take() else { return };
        self.say(|| format!("server {} stops", server.number));
        let stop = async {
            server.coordinator.shutdown().await;
            server.engine.shutdown().await;
        };
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                // It dies while it stops.
                Some(number) = self.deaths.recv() => {
                    if number == server.number {
                        server.handle.kill();
                        server.killed.cancel();
                    }
                }
            }
        }
        self.now = self.clock.monotonic_ms();
        self.cut_all_links();
        self.restart_later();
    }

    /// Every node finds its stream ended, sooner or later.
    fn cut_all_links(&mut self) {
        let links: Vec<(u64, usize)> = self.links.values().map(|link| (link.number, link.node)).collect();
        for (number, node) in links {
            self.links.remove(&number);
            self.lose_link(node, number);
        }
    }
}
