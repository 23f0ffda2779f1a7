//! What the durable core needs of the process around it, beside time: randomness for ids, and threads for what blocks.
//!
//! With the cargo feature `simulation` a thread can put a [`Host`] of its own in place of the machine, so that everything which runs on that thread is
//! decided by a seed. Without the feature, which nothing that is shipped has, there is no such place.

#[cfg(feature = "simulation")]
use std::{cell::RefCell, rc::Rc};

use tokio::task::JoinError;

/// 64 random bits.
///
/// # Errors
/// When the system gives none.
pub fn entropy() -> Result<u64, getrandom::Error> {
    #[cfg(feature = "simulation")]
    if let Some(host) = simulated() {
        return Ok(host.entropy());
    }
    getrandom::u64()
}

/// Runs what blocks off the async threads. Dropping the future does not end the work.
///
/// # Errors
/// When the work panicked, or the runtime ended before it began.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if simulated().is_some() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// The process of a simulation: one thread, no chance.
#[cfg(feature = "simulation")]
pub trait Host {
    /// 64 bits that follow from the seed.
    fn entropy(&self) -> u64;
    /// Runs the loop of a committer as a task of the simulation's runtime.
    fn drive(&self, commits: crate::committer::CommitLoop);
}

#[cfg(feature = "simulation")]
thread_local! {
    static HOST: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
}

/// The host of this thread, if it is a simulation's.
#[cfg(feature = "simulation")]
pub(crate) fn simulated() -> Option<Rc<dyn Host>> {
    HOST.with_borrow(Clone::clone)
}

/// Whether blocking work runs in the calling thread, because it is a simulation's.
pub(crate) fn runs_inline() -> bool {
    #[cfg(feature = "simulation")]
    let inline = simulated().is_some();
    #[cfg(not(feature = "simulation"))]
    let inline = false;
    inline
}

/// Puts `host` in the place of the machine on this thread, or takes it away.
#[cfg(feature = "simulation")]
pub fn simulate(host: Option<Rc<dyn Host>>) {
    HOST.with_borrow_mut(|place| *place = host);
}
