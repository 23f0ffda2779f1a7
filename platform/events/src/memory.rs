//! The bus within one process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{EventBus, Subscription, Topic};

/// Topics that somebody listens to.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    heard: Mutex<HashMap<Topic, watch::Sender<()>>>,
}

impl Topics {
    /// Drops a subscription's end, and the topic with the last of them.
    pub(crate) fn leave(&self, topic: Topic, hints: watch::Receiver<()>) {
        let mut heard = self.heard.lock();
        drop(hints);
        if let Entry::Occupied(entry) = heard.entry(topic)
            && entry.get().receiver_count() == 0
        {
            entry.remove();
        }
    }
}

/// An [`EventBus`] in memory. Its size is that of its subscriptions; a publication nobody listens to costs a look-up. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus {
    topics: Arc<Topics>,
}

impl MemoryBus {
    /// A bus without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Topics that somebody listens to.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.heard.lock().len()
    }
}

impl EventBus for MemoryBus {
    fn publish(&self, topic: Topic) {
        if let Some(sender) = self.topics.heard.lock().get(&topic) {
            sender.send_replace(());
        }
    }

    fn subscribe(&self, topic: Topic) -> Subscription {
        let mut heard = self.topics.heard.lock();
        let hints = heard.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe();
        drop(heard);
        Subscription::new(topic, hints, Arc::clone(&self.topics))
    }
}
