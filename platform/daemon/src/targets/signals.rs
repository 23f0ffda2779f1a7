//! The signals that end a role.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// SIGINT and SIGTERM, caught from [`Ends::listen`] until this is dropped. A role listens before it starts anything: who starts it may end it in the
/// moment in which it says that it is ready, and an uncaught signal would kill it without an orderly end. A second one ends the process at once, also
/// while it starts: an operator who asks twice does not want to wait.
#[derive(Debug)]
pub(crate) struct Ends {
    asked: CancellationToken,
    _listener: AbortOnDropHandle<()>,
}

impl Ends {
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) fn listen() -> std::io::Result<Ends> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let asked = CancellationToken::new();
        let first = asked.clone();
        let listener = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if first.is_cancelled() {
                    std::process::exit(130);
                }
                tracing::info!("shutting down; work in sandboxes goes on");
                first.cancel();
            }
        });
        Ok(Ends {
            asked,
            _listener: AbortOnDropHandle::new(listener),
        })
    }

    /// Waits for the first of them.
    pub(crate) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Waits for the first of them, or until `also` is cancelled.
    pub(crate) async fn asked_or(&self, also: &CancellationToken) {
        tokio::select! {
            () = self.asked() => {}
            () = also.cancelled() => {}
        }
    }
}
