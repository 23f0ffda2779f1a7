//! Workflow definitions: from the text that people write to the checked form that the engine runs, and the templates in it.
//!
//! The way of a definition: `document` parses YAML or JSON into a tree with places; `shape` checks the tree against the schema of `source`; `compile`
//! checks what no schema can (needs, cycles, templates, limits) and builds a [`definition::Definition`]. Everything wrong is reported at once, each with
//! line and column.

mod assess_def;
mod assess_source;
mod attributes;
mod compile;
pub(crate) mod condition;
pub mod definition;
mod document;
mod handler_source;
mod issues;
mod parameters;
mod retry_source;
mod scalars;
mod shape;
mod source;
mod source_limits;
mod source_waits;
mod template;
mod uploads;

pub use attributes::{attribute_json, attributes};
pub use compile::{Compiled, compile};
pub use parameters::check_parameters;
pub use scalars::time_ms;
pub(crate) use scalars::{env_name, name as check_name};
pub use shape::schema;
pub use template::{RenderError, fill, render};
pub use uploads::{upload_of, uploads};

#[cfg(test)]
mod tests;
