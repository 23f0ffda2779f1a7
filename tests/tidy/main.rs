//! House rules that no compiler checks. Each failure says what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod dependencies;
mod documents;
mod primitives;
mod sources;
