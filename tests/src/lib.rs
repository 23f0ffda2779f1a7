//! The harness of the cross-crate suites: real daemons on ports of their own, real Docker, real files.
//!
//! A test is a scenario: [`world::Scenario`] starts an installation of its own, hands the test a [`world::World`] to act on, and afterwards checks that
//! nothing is left behind. There is no mock in here; what a scenario needs and the machine does not have is a failure, not a skip.

pub mod alone;
pub mod api;
pub mod cli;
pub mod docker;
pub mod leaks;
pub mod paths;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod repositories;
pub mod seed;
pub mod sse;
pub mod views;
pub mod wait;
pub mod world;
