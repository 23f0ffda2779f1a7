//! Identity and configuration: tenants, API keys, node tokens, playbooks.
//!
//! - [`Directory`]: what gateway and coordinator call.
//! - [`SqliteDirectory`]: the embedded back end.
//! - [`scope`]: which scope may do what, as one table.
//!
//! Secrets are made here, returned once, and kept only as argon2id hashes. The tenant of a caller comes from its credential alone.

#![warn(clippy::pedantic)]
// Names of products are no code.
#![allow(clippy::module_name_repetitions, clippy::doc_markdown)]

mod api;
mod cache;
mod error;
mod hash;
mod model;
pub mod playbooks;
pub mod scope;
mod sqlite;
mod token;

pub use api::Directory;
pub use error::{AuthError, HashError, ManageError, OpenError};
pub use model::{
    ApiKey, Bootstrap, DEFAULT_TENANT, InstallationId, Issued, NewKey, NewNodeToken, NodeIdentity, NodeToken, Serves,
    Tenant, VerifiedKey,
};
pub use playbooks::Playbooks;
pub use scope::{Resource, Scope, Verb};
pub use sqlite::{Options, SqliteDirectory};
