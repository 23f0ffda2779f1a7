//! `gantry node`: takes assignments from a coordinator and runs each step attempt in a sandbox of its own.
//!
//! Three authorities (design §5) meet here: the engine owns leases, the node's claim files say what a sandbox is for, Docker says whether it lives. A
//! node that is killed and started again takes up its sandboxes where they are; with no coordinator reachable it keeps everything.
//!
//! - [`Node`] owns all tasks; [`Node::shutdown`] leaves sandboxes running for adoption.
//! - [`Uplink`] is the way to the coordinator: [`GrpcUplink`], or channels within one process.
//! - [`gantry_fleet_manager::Fleet`](gantry_fleet_manager::Fleet) is the way to Docker.

mod atomic;
mod board;
mod capture;
mod claims;
mod config;
mod id_pool;
pub mod identity;
mod node;
mod report;
mod retry;
mod session;
mod step;
mod tree;
mod uplink;
pub mod workspace;

pub use claims::{Claim, ClaimError, ClaimStore, Phase, Place};
pub use config::{GitConfig, NodeConfig, StrategyChoice};
pub use node::{Node, StartError};
pub use report::{ReportError, parse_report};
pub use uplink::{ByteStream, Connection, GrpcUplink, GrpcUplinkError, Uplink, UplinkError};
