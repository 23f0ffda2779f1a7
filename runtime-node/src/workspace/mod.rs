//! The trees that steps work on.
//!
//! A task's tree is built once ([`source`], [`git`]); each step attempt works on a layer of its own over the tree as of the last completed step. Success
//! seals the layer, anything else drops it, so a retry always begins with the tree as of its step's start.
//!
//! On disk, under the node's state directory:
//! `ws/<task>/manifest.json`, `base/`, `layers/<step>-<attempt>/`, `attempts/<step>-<attempt>/{upper,work,view}`.

mod error;
mod git;
mod inputs;
mod local;
mod manifest;
mod mounts;
mod store;
mod strategy;

pub use error::WorkspaceError;
pub use git::{GitUrl, GitUrlError, check_ref};
pub use local::AllowList;
pub use store::{AttemptKey, FetchInput, View, WorkspaceOptions, Workspaces};
pub use strategy::{CopyStrategy, LayerStrategy, OverlayStrategy};
