//! Looking at a journal from outside of the engine: digests, records as JSON, counts. Works on any [`gantry_journal::Store`], also a snapshot of a
//! running one, and writes nothing.

mod digest;
mod records;
mod render;
mod stats;

pub use digest::{installation_digest, state_digest};
pub use records::{Filter, RecordView, Unsealer, records};
pub use stats::{Stats, Tally, stats};
