//! What can be asked about bulk operations.

mod cancel;
mod forget;
mod page;
mod start;

pub use cancel::CancelBulk;
pub use forget::ForgetBulks;
pub use page::BulkPage;
pub use start::StartBulk;
