//! Numbers (user and group ids) that belong to one user at a time.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use parking_lot::Mutex;

/// Hands out numbers of a range. One that was given back is used again as late as possible.
#[derive(Debug)]
pub(crate) struct IdPool {
    range: RangeInclusive<u32>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u32,
    used: HashSet<u32>,
}

impl IdPool {
    /// A pool over `range`, which never holds 0: root is nobody's.
    pub(crate) fn new(range: &RangeInclusive<u32>) -> Self {
        let range = (*range.start()).max(1)..=*range.end();
        let next = *range.start();
        Self {
            range,
            state: Mutex::new(State {
                next,
                used: HashSet::new(),
            }),
        }
    }

    /// A free number, or `None` when all are in use.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut state = self.state.lock();
        let size = u64::from(self.range.end().saturating_sub(*self.range.start())) + 1;
        for _ in 0..size {
            let candidate = state.next;
            state.next = if candidate >= *self.range.end() {
                *self.range.start()
            } else {
                candidate + 1
            };
            if self.range.contains(&candidate) && state.used.insert(candidate) {
                return Some(candidate);
            }
        }
        None
    }

    /// Marks a number as in use: it is written in a claim or manifest from before.
    pub(crate) fn reserve(&self, id: u32) {
        self.state.lock().used.insert(id);
    }

    /// Gives a number back.
    pub(crate) fn release(&self, id: u32) {
        self.state.lock().used.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_never_zero_and_reused_last() {
        let pool = IdPool::new(&(0..=3));
        assert_eq!((pool.take(), pool.take()), (Some(1), Some(2)));
        pool.release(1);
        assert_eq!(pool.take(), Some(3));
        assert_eq!(pool.take(), Some(1));
        assert_eq!(pool.take(), None);
        pool.release(2);
        pool.reserve(2);
        assert_eq!(pool.take(), None);
    }
}
