//! Live streams: what they share. Storage is the truth; the bus only says when to read it again.

pub(crate) mod cursor;
pub(crate) mod line;
pub(crate) mod output;
pub(crate) mod workflow;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use gantry_directory::VerifiedKey;
use gantry_events::{Subscription, Topic};
use gantry_proto::{ErrorCode, WorkflowId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::problem::Problem;
use crate::serve::Shared;

/// Bytes of output that one read brings: what a reader holds in memory.
pub(crate) const OUTPUT_PAGE_BYTES: usize = 64 << 10;

/// How soon a client whose stream broke comes back.
const RECONNECT: Duration = Duration::from_secs(1);

/// Why a stream ends although there may be more.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    /// The process ends; another answers soon.
    Shutdown,
    /// Something failed, or the key ended.
    Problem(Problem),
}

/// The right to stream: one of a bounded number, as long as the key lives and the process runs.
pub(crate) struct Watch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: VerifiedKey,
    subscription: Subscription,
    key_checked: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// Subscribes, before anything is read: what happens in between is not missed.
    pub(crate) fn open(shared: Arc<Shared>, key: VerifiedKey, workflow: WorkflowId) -> Result<Self, Problem> {
        let permit = Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| {
            Problem::overloaded("too many streams are open").hint("close streams that nobody reads, or come back later")
        })?;
        let subscription = shared.bus.subscribe(Topic::Workflow(key.tenant, workflow));
        Ok(Self {
            shared,
            key,
            subscription,
            key_checked: Instant::now(),
            _permit: permit,
        })
    }

    /// Between two reads.
    pub(crate) async fn check(&mut self) -> Result<(), Stop> {
        if self.shared.shutdown.is_cancelled() {
            return Err(Stop::Shutdown);
        }
        if self.key_checked.elapsed() >= self.shared.config.recheck_key {
            self.key_checked = Instant::now();
            match self.shared.directory.key_lives(self.key.id).await {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Stop::Problem(Problem::new(
                        ErrorCode::Unauthenticated,
                        "the key of this stream was revoked or has expired",
                    )));
                }
                // Not a reason to cut everybody off: the next check asks again.
                Err(error) => tracing::warn!(%error, "cannot check whether a stream's key lives"),
            }
        }
        Ok(())
    }

    /// Until there may be something new to read.
    pub(crate) async fn wait(&mut self) -> Result<(), Stop> {
        let reread = self.shared.config.reread;
        tokio::select! {
            () = self.shared.shutdown.cancelled() => return Err(Stop::Shutdown),
            () = self.subscription.changed() => {}
            () = tokio::time::sleep(reread) => {}
        }
        self.check().await
    }
}

/// The last event of a stream that was cut short.
pub(crate) fn stop_event(stop: Stop) -> Event {
    match stop {
        Stop::Shutdown => Event::default().event("shutdown").data("{}"),
        Stop::Problem(problem) => {
            let data = serde_json::json!({ "code": problem.code().as_str(), "detail": problem.detail() });
            Event::default().event("problem").data(data.to_string())
        }
    }
}

/// The first bytes: they open the connection and say how soon to come back.
pub(crate) fn opening_event() -> Event {
    Event::default().comment("gantry").retry(RECONNECT)
}

/// A response of server-sent events.
pub(crate) fn response(shared: &Shared, stream: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures_util::StreamExt;
    let keep_alive = KeepAlive::new().interval(shared.config.heartbeat).text("heartbeat");
    let mut response = Sse::new(stream.map(Ok::<_, Infallible>))
        .keep_alive(keep_alive)
        .into_response();
    let headers = response.headers_mut();
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    // nginx buffers otherwise.
    headers.insert(
        http::HeaderName::from_static("x-accel-buffering"),
        http::HeaderValue::from_static("no"),
    );
    response
}
