//! The fleet of one node: the only crate that touches Docker.
//!
//! [`Fleet`] is what a node asks for; [`DockerFleet`] is the one implementation. A sandbox is one container, created from a [`Profile`] and nothing
//! else, hardened in one place, compared with what Docker made of it before it starts, used once and destroyed.
//!
//! What lies where: `docker` is the one door to the daemon (an allow-list of endpoints, guarded by our labels), `profile` the hardened container
//! and its two checks, `image` what may run, `host` directories, sockets and mounts, `link` the line to a supervisor, `fleet` the operations.

mod api;
mod config;
mod docker;
mod fleet;
mod host;
mod image;
mod link;
mod profile;

pub use self::api::{
    Adoptable, Ending, Fleet, FleetError, FleetHealth, Image, ImageId, Link, LinkEvent, Profile, Reconciled,
    SLOT_IN_SANDBOX, Sandbox,
};
pub use self::config::{Deadlines, FleetConfig, PullPolicy};
pub use self::fleet::DockerFleet;
