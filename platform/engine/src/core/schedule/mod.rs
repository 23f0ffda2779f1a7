//! Schedules: which times a calendar has, and what is owed of them.

pub mod calendar;
mod flow;

pub use calendar::{Calendar, CalendarError};
pub(in crate::core) use flow::next_of;
