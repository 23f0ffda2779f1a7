//! The roles of the binary and how each is wired. Only this folder knows all crates.

mod archive;
mod core;
pub(crate) mod dev;
mod installation;
mod local_node;
mod local_uplink;
pub(crate) mod maintenance;
pub(crate) mod node;
mod playbooks;
mod query;
pub(crate) mod server;
mod signals;
