//! The real process, over its real protocol: what it answers, what it refuses, and that nothing gets out.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod answers;
mod refused;
mod runaway;
mod support;
