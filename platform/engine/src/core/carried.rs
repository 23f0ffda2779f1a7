//! What a restarted or forked workflow has from the one before.

use gantry_proto::v1::{Payload, TaskEnd};

/// A task that is carried over.
#[derive(Debug, Clone)]
pub struct Carried {
    /// Its position in the definition; of an item, its number in the list.
    pub position: u32,
    /// Results of its completed steps, in order, to be sealed.
    pub steps: Vec<Payload>,
    /// How it ended.
    pub end: TaskEnd,
    /// How it completed, if not by its own work; `ErrorCode` of an item that failed.
    pub code: Option<String>,
    /// Outputs of the task itself, or the reason of its end, to be sealed.
    pub payload: Option<Payload>,
    /// The payload has outputs of the task itself.
    pub outputs: bool,
    /// Of a task over a list: the list, to be sealed, and its items.
    pub items: Option<(Payload, Vec<Carried>)>,
}
