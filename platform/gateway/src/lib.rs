//! The outside face: REST and SSE under `/api/v1`.
//!
//! Every operation is declared once, as an [`operation::Operation`]: method, path, permission, documentation and handler together. Routing, authorisation
//! and the OpenAPI document all come from that list ([`operations`]), so none of them can miss one. Reads go to storage through the engine's `Backend`;
//! the event bus only wakes readers up.

#![warn(clippy::pedantic)]
// Names of products are no code.
#![allow(clippy::module_name_repetitions, clippy::doc_markdown)]

mod auth;
mod call;
mod config;
mod dto;
mod handlers;
mod maintenance;

mod openapi;
mod operation;
mod operations;
mod problem;
mod routing;
mod schema;
mod serve;
mod sse;

pub use config::GatewayConfig;
pub use gantry_query::QueryEngine;
pub use maintenance::{BackupOptions, BackupStream, Maintenance};
pub use openapi::document as openapi_document;
pub use operation::{OperationInfo, Permission};
pub use operations::list as operation_list;
pub use problem::{Problem, status_of};
pub use serve::{Gateway, gateway, serve};
