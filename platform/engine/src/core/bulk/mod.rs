//! Bulk operations: one command for every workflow that a filter fits. The partition that owns the operation finds them page by page and sends each page out as
//! letters; the partitions of the workflows act and report. A page and its letters are one batch, and a letter has its effect once, so each workflow is acted
//! upon once, whoever crashes.

mod flow;
mod items;
mod row;

pub use row::{BulkReason, BulkRow};
