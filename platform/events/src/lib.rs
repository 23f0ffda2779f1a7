//! Live fan-out: wake-up hints for readers. Storage is the truth.
//!
//! A hint says "look again", never what there is to see: it may come late, twice, or stand for many changes, and nothing is lost when it is. A reader
//!
//! 1. subscribes,
//! 2. reads from storage behind its cursor until there is nothing more,
//! 3. awaits [`Subscription::changed`], and goes on with 2.
//!
//! What is published after step 1 wakes step 3 at once, so nothing falls between subscribing and the first read. A publisher publishes after its change
//! is durable.

#![warn(clippy::pedantic)]

mod memory;
mod subscription;

use gantry_proto::{TenantId, WorkflowId};

pub use memory::MemoryBus;
pub use subscription::Subscription;

/// What readers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Records or output of one workflow.
    Workflow(TenantId, WorkflowId),
    /// Any workflow of a tenant: lists.
    Tenant(TenantId),
    /// Nodes: sessions and states.
    Nodes,
}

/// Carries hints from those who change to those who read. [`MemoryBus`] within a process; others between processes.
pub trait EventBus: Send + Sync + 'static {
    /// Wakes everybody who waits for exactly this topic. Never waits and never fails: whoever is not there reads storage when it comes.
    fn publish(&self, topic: Topic);

    /// Begins to listen. Ends when the subscription is dropped.
    fn subscribe(&self, topic: Topic) -> Subscription;
}
