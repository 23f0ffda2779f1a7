//! What can be asked about bulk operations.

mod cancel;
mod page;
mod start;

pub use cancel::CancelBulk;
pub use page::BulkPage;
pub use start::StartBulk;
