//! Engine, coordinator and gateway on embedded stores: what `gantry dev` and `gantry server` share.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use gantry_coordinator::{Coordinator, CoordinatorConfig, NodeServer, WorkerServer};
use gantry_directory::{Directory, SqliteDirectory};
use gantry_engine::api::Observer;
use gantry_engine::archive::Keeper;
use gantry_engine::core::Settings;
use gantry_engine::{Engine, EngineConfig, Parts};
use gantry_events::{EventBus, MemoryBus, Topic};
use gantry_gateway::{Gateway, GatewayConfig, QueryEngine};
use gantry_journal::{BlobStore, FileKeyRing, RocksOptions, RocksStore, SegmentStore};
use gantry_proto::time::SystemClock;
use gantry_proto::{NodeId, TenantId, WorkflowId, limits};
use gantry_runtime_node::identity;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::archive::ArchiveArgs;
use super::maintenance::Backups;
use super::playbooks::DirectoryPlaybooks;
use super::query;
use crate::data_dir::stamp::PARTS;
use crate::data_dir::{DataDir, Endpoints};

/// What every role with an engine takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CoreArgs {
    /// Directory for everything durable
    #[arg(long, env = "GANTRY_DATA_DIR", default_value = "/var/lib/gantry")]
    data_dir: PathBuf,
    /// Where the REST API listens
    #[arg(long, default_value = "127.0.0.1:7410")]
    listen: SocketAddr,
    /// Lease of a task; heartbeats come six times as often
    #[arg(long, default_value_t = limits::LEASE_MS_DEFAULT)]
    lease_ms: u64,
    /// What a tenant weighs when tenants share nodes (may be given several times), instead of what `gantry tenant weigh` set
    #[arg(long = "tenant-weight", value_name = "TENANT=WEIGHT", value_parser = tenant_weight)]
    tenant_weights: Vec<(TenantId, u32)>,
    #[command(flatten)]
    archive: ArchiveArgs,
}

fn tenant_weight(text: &str) -> Result<(TenantId, u32), String> {
    let wrong = || {
        format!(
            "`{text}` is not TENANT=WEIGHT with a weight from 1 to {}",
            limits::TENANT_WEIGHT_MAX
        )
    };
    let (tenant, weight) = text.split_once('=').ok_or_else(wrong)?;
    let tenant = tenant.trim().parse().map_err(|error| format!("{error}"))?;
    let weight = weight.trim().parse().ok();
    let weight = weight.filter(|weight| (1..=limits::TENANT_WEIGHT_MAX).contains(weight));
    Ok((tenant, weight.ok_or_else(wrong)?))
}

/// A running core.
pub(crate) struct Core {
    data: DataDir,
    directory: Arc<SqliteDirectory>,
    engine: Arc<Engine>,
    coordinator: Arc<Coordinator>,
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    backups: Arc<Backups>,
    /// Ends the listeners.
    stop: CancellationToken,
    /// Set when a listener ended by itself, or storage failed for good.
    failed: CancellationToken,
    listeners: JoinSet<Result<()>>,
    keeper: Keeper,
}

impl Core {
    pub(crate) async fn start(args: &CoreArgs, grpc: Option<SocketAddr>) -> Result<Self> {
        let data = DataDir::open(&args.data_dir)?;
        let directory = Arc::new(
            SqliteDirectory::open(data.directory())
                .await
                .context("open the directory")?,
        );
        first_key(&directory, &args.data_dir).await?;
        let keyring = FileKeyRing::open_or_create(&data.master_key())?;
        let options = RocksOptions {
            partitions: limits::PARTITIONS_DEFAULT,
        };
        let path = data.journal();
        let store = tokio::task::spawn_blocking(move || RocksStore::open(&path, options))
            .await?
            .context("open the journal")?;
        let segments = Arc::new(SegmentStore::open(&data.segments()).context("open the output segments")?);
        let blobs = Arc::new(BlobStore::local(&data.blobs()).context("open the blob store")?);

        let archive = args.archive.clone();
        let (archive, data) =
            tokio::task::spawn_blocking(move || archive.open(&data).map(|archive| (archive, data))).await??;
        // From now on a part that is missing or another one is damage, and not a new installation.
        data.note(&PARTS, &directory.installation().to_string(), &keyring.id())?;
        let store = Arc::new(store);
        let stop = CancellationToken::new();
        let backups = Arc::new(Backups::new(
            Arc::clone(&store),
            Arc::clone(&directory),
            &data,
            keyring.id(),
            stop.clone(),
        ));

        let bus: Arc<dyn EventBus> = Arc::new(MemoryBus::default());
        let coordinator = Coordinator::new(CoordinatorConfig {
            heartbeat_ms: args.lease_ms / 6,
            lease_ms: args.lease_ms,
        });
        let settings = Settings {
            lease_ms: args.lease_ms,
            ..Settings::default()
        };
        let parts = Parts {
            store,
            keyring: Arc::new(keyring),
            segments,
            blobs,
            dispatcher: Arc::clone(&coordinator) as _,
            observer: Arc::new(BusObserver(Arc::clone(&bus))),
            clock: Arc::new(SystemClock),
            playbooks: Arc::new(DirectoryPlaybooks(Arc::clone(&directory) as _)),
        };
        let config = EngineConfig {
            partitions: limits::PARTITIONS_DEFAULT,
            settings,
        };
        let engine = Engine::start(config, parts).await.context("start the engine")?;
        let tenants = directory.tenants().await.context("read the directory")?;
        let stored = tenants.into_iter().map(|tenant| (tenant.id, tenant.weight));
        engine.weigh_tenants(stored.chain(args.tenant_weights.iter().copied()).collect());
        coordinator.attach(Arc::clone(&engine) as _);
        coordinator.attach_workers(Arc::clone(&engine) as _);
        let query = query::open(&data, &engine, archive.objects.clone()).await?;
        engine.attach_archive(archive);
        let keeper = Keeper::start(Arc::clone(&engine));

        let mut core = Self {
            data,
            directory,
            engine,
            coordinator,
            http: args.listen,
            grpc,
            backups,
            stop,
            failed: CancellationToken::new(),
            listeners: JoinSet::new(),
            keeper,
        };
        core.listen(bus, query).await?;
        Ok(core)
    }

    async fn listen(&mut self, bus: Arc<dyn EventBus>, query: Option<Arc<dyn QueryEngine>>) -> Result<()> {
        let listener = TcpListener::bind(self.http)
            .await
            .with_context(|| format!("listen on {}", self.http))?;
        self.http = listener.local_addr()?;
        let gateway = Gateway {
            backend: Arc::clone(&self.engine) as _,
            directory: Arc::clone(&self.directory) as Arc<dyn Directory>,
            bus,
            maintenance: Some(Arc::clone(&self.backups) as _),
            query,
            config: GatewayConfig::new(env!("CARGO_PKG_VERSION"), gantry_engine::spec::schema()),
        };
        let stop = self.stop.clone();
        let failed = self.failed.clone().drop_guard();
        self.listeners.spawn(async move {
            let _failed = failed;
            gantry_gateway::serve(listener, gateway, stop)
                .await
                .context("serve the API")
        });

        let (engine, stop) = (Arc::clone(&self.engine), self.stop.clone());
        let failed = self.failed.clone().drop_guard();
        self.listeners.spawn(async move {
            let _failed = failed;
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                reason = engine.failed() => {
                    Err(anyhow!("{reason}; start Gantry again once the disk is well: nothing that was acknowledged is lost"))
                }
            }
        });

        if let Some(address) = self.grpc {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("listen on {address}"))?;
            self.grpc = Some(listener.local_addr()?);
            // Small messages that somebody waits for: they must not wait for company.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let service = NodeServer::service(Arc::clone(&self.coordinator), Arc::clone(&self.directory) as _);
            let workers = WorkerServer::service(Arc::clone(&self.coordinator), Arc::clone(&self.directory) as _);
            let stop = self.stop.clone();
            let failed = self.failed.clone().drop_guard();
            self.listeners.spawn(async move {
                let _failed = failed;
                tonic::transport::Server::builder()
                    .http2_keepalive_interval(Some(KEEPALIVE))
                    .add_service(service)
                    .add_service(workers)
                    .serve_with_incoming_shutdown(incoming, stop.cancelled())
                    .await
                    .context("serve nodes")
            });
        }
        Ok(())
    }

    pub(crate) fn data(&self) -> &DataDir {
        &self.data
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    pub(crate) fn coordinator(&self) -> Arc<Coordinator> {
        Arc::clone(&self.coordinator)
    }

    /// Makes the node in this process the installation's own: no token can ever speak for it.
    pub(crate) async fn adopt_local_node(&self) -> Result<()> {
        let node = identity::load_or_create(&self.data.node(), &SystemClock).context("read the node's identity")?;
        self.directory
            .bind_node(None, node)
            .await
            .context("bind the node of this process")
    }

    /// Label of this installation's containers.
    pub(crate) fn installation(&self) -> String {
        self.directory.installation().to_string()
    }

    /// Cancelled when the core cannot go on.
    pub(crate) fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// Tells the world where to find it.
    pub(crate) fn publish(&self) -> Result<()> {
        let endpoints = Endpoints {
            http: format!("http://{}", self.http),
            grpc: self.grpc.map(|address| format!("http://{address}")),
            pid: std::process::id(),
            installation: self.installation(),
        };
        self.data.publish(&endpoints)?;
        tracing::info!(http = %endpoints.http, grpc = endpoints.grpc.as_deref(), "ready");
        Ok(())
    }

    /// Ends in the order in which nobody misses anything: no new requests, sessions say goodbye, the engine commits what it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.data.unpublish();
        self.stop.cancel();
        self.coordinator.shutdown().await;
        let mut outcome = Ok(());
        while let Some(ended) = self.listeners.join_next().await {
            let ended = ended.context("a listener panicked").and_then(|ended| ended);
            outcome = outcome.and(ended);
        }
        self.backups.finish().await;
        self.keeper.stop().await;
        self.engine.shutdown().await;
        self.directory.close().await;
        outcome
    }
}

/// Makes the first tenant and key of a new data directory, if somebody sits there to read the key: it is shown once and nowhere else, least of all in a
/// log file.
async fn first_key(directory: &SqliteDirectory, data_dir: &Path) -> Result<()> {
    if !std::io::stdout().is_terminal() {
        let tenants = directory.tenants().await.context("read the directory")?;
        if tenants.is_empty() {
            bail!(
                "{0} has no admin key yet: run `gantry init --data-dir {0}` first, which shows it once",
                data_dir.display()
            );
        }
        return Ok(());
    }
    let bootstrap = directory
        .ensure_bootstrap()
        .await
        .context("create the first tenant and key")?;
    if let Some(admin) = bootstrap.admin {
        println!("first admin key, shown once: {}", admin.token.expose_secret());
    }
    Ok(())
}

/// How often an idle connection of a node is probed.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(10);

/// Passes the engine's hints on to the bus.
struct BusObserver(Arc<dyn EventBus>);

impl Observer for BusObserver {
    fn workflow_changed(&self, tenant: TenantId, workflow: WorkflowId) {
        self.0.publish(Topic::Workflow(tenant, workflow));
        self.0.publish(Topic::Tenant(tenant));
    }

    fn node_changed(&self, _node: NodeId) {
        self.0.publish(Topic::Nodes);
    }
}
