//! The router, and serving it.

use std::future::IntoFuture;
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt as _;
use gantry_directory::Directory;
use gantry_engine::api::Backend;
use gantry_events::EventBus;
use gantry_query::QueryEngine;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::GatewayConfig;
use crate::maintenance::Maintenance;
use crate::{operations, routing};

/// What a gateway is made of.
pub struct Gateway {
    /// The engine.
    pub backend: Arc<dyn Backend>,
    /// Keys and tokens.
    pub directory: Arc<dyn Directory>,
    /// Wake-ups for streams.
    pub bus: Arc<dyn EventBus>,
    /// Work on the installation as a whole, where this process has its storage.
    pub maintenance: Option<Arc<dyn Maintenance>>,
    /// SQL over history; absent where it is not built in.
    pub query: Option<Arc<dyn QueryEngine>>,
    /// Settings.
    pub config: GatewayConfig,
}

/// What every request can reach.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) maintenance: Option<Arc<dyn Maintenance>>,
    pub(crate) query: Option<Arc<dyn QueryEngine>>,
    pub(crate) config: GatewayConfig,
    pub(crate) openapi: bytes::Bytes,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
}

/// The router with every operation. When `shutdown` is cancelled, streams say so and end, so that clients connect again.
pub fn gateway(gateway: Gateway, shutdown: CancellationToken) -> Router {
    let operations = operations::all();
    let openapi = crate::openapi::render(&operations, &gateway.config.version);
    let streams = Arc::new(Semaphore::new(gateway.config.streams_max));
    let shared = Shared {
        backend: gateway.backend,
        directory: gateway.directory,
        bus: gateway.bus,
        maintenance: gateway.maintenance,
        query: gateway.query,
        config: gateway.config,
        openapi: serde_json::to_vec(&openapi).unwrap_or_default().into(),
        streams,
        shutdown,
    };
    routing::router(operations, &Arc::new(shared))
}

/// Answers are small and somebody waits for them: they must not wait for company.
fn prompt(listener: TcpListener) -> impl axum::serve::Listener<Addr = std::net::SocketAddr> {
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be made prompt");
        }
    })
}

/// Serves until `shutdown` is cancelled and the requests under way are answered, or the drain time is over. Dropping the future ends it at once.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, parts: Gateway, shutdown: CancellationToken) -> std::io::Result<()> {
    let drain = parts.config.drain;
    let router = gateway(parts, shutdown.clone());
    let serving = axum::serve(prompt(listener), router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => {
            tracing::warn!("some requests were still being answered when the drain time was over");
            Ok(())
        }
    }
}
