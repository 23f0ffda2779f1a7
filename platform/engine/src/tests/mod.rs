//! Tests of the crate: scenarios of the core, the engine end to end on the model store, and a seeded random walk.

mod again;
mod archive;
mod assess;
mod bulks;
mod children;
mod code;
mod end_to_end;
mod endings;
mod idempotency;
mod items;
mod limits;
mod lists;
mod mail;
mod pauses;
mod post;
mod queue;
mod random;
mod reassign;
mod scenario;
mod schedules;
mod scopes;
mod table;
mod unlucky;
mod uploads;
mod waits;
mod world;
