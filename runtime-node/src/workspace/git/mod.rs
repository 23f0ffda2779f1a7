//! Git sources: a bare mirror per remote on the node, and work trees cloned from it.
//!
//! Remotes and repositories are hostile: git runs with an environment and a configuration of ours only, speaks https, ssh and git and nothing else,
//! runs no hooks, follows no submodules, and never runs in a tree that a step has touched.

mod command;
mod mirror;
mod source;

pub(crate) use mirror::Mirrors;
pub use source::{GitUrl, GitUrlError, check_ref};
