//! One reader's ear.

use std::future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Topic;
use crate::memory::Topics;

/// Listens to a topic. Holds at most one pending hint, however slow its reader is.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    /// `None` only while it is dropped.
    hints: Option<watch::Receiver<()>>,
    topics: Arc<Topics>,
}

impl Subscription {
    pub(crate) fn new(topic: Topic, hints: watch::Receiver<()>, topics: Arc<Topics>) -> Self {
        Self {
            topic,
            hints: Some(hints),
            topics,
        }
    }

    /// What it listens to.
    #[must_use]
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// Returns once something was published since the subscription began or since this returned last; many publications are one return.
    ///
    /// Cancel safe: when the future is dropped before it is ready, the hint stays pending.
    pub async fn changed(&mut self) {
        let heard = match self.hints.as_mut() {
            Some(hints) => hints.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            // The topic lives as long as a subscription to it, so this does not happen; a hint that never comes is still right.
            future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(hints) = self.hints.take() {
            self.topics.leave(self.topic, hints);
        }
    }
}
