//! What can be asked of a schedule: one command, one file.

mod backfill;
mod delete;
mod pause;
mod set;
mod start;

pub use backfill::OweRuns;
pub use delete::DeleteSchedule;
pub use pause::PauseSchedule;
pub use set::SetSchedule;
pub use start::StartRun;
