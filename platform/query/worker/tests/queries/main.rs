//! Queries over a real archive on disk, answered by the real process.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod history;
mod limits;
mod world;
