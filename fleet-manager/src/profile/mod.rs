//! The hardened container: the one place that builds one, and the two that check what came of it.

mod compare;
mod container;
mod running;
mod seccomp;

pub(crate) use self::compare::{Difference, compare};
pub(crate) use self::container::{HardenedContainer, HardenedProfile, Place};
pub(crate) use self::running::check_running;
