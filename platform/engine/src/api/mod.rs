//! What the engine offers and what it needs, as traits: direct calls in one process, gRPC when apart.
//!
//! - [`Backend`]: what gateways call.
//! - [`Uploads`]: the part of it that is about files for workflows to come.
//! - [`Keeping`]: what gateways call to keep, and to destroy.
//! - [`NodePort`]: what the coordinator calls on behalf of nodes.
//! - [`WorkerPort`]: what it calls on behalf of workers, which run code.
//! - [`Dispatcher`]: what the engine calls to borrow credits and to send out durable decisions; the coordinator implements it.
//! - [`Observer`]: told after each durable change; the daemon connects it to the event bus.

mod again;
pub mod backend;
mod bulk;
pub mod decisions;
pub mod dispatch;
pub mod keep;
mod limits;
pub mod node_port;
mod node_view;
mod pauses;
pub mod runs;
mod schedules;
pub mod trace;
pub mod uploads;
pub mod view;
pub mod worker_port;

pub use again::*;
pub use backend::*;
pub use bulk::*;
pub use decisions::*;
pub use dispatch::*;
pub use keep::*;
pub use limits::*;
pub use node_port::*;
pub use node_view::*;
pub use pauses::*;
pub use runs::*;
pub use schedules::*;
pub use trace::*;
pub use uploads::*;
pub use view::*;
pub use worker_port::*;
