//! Panics inside the runtime's tasks would be swallowed: the first of a thread is kept here.

use std::cell::RefCell;

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics instead of printing them.
pub(crate) fn keep() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let what = info
            .payload_as_str()
            .map_or_else(|| "a panic".to_owned(), str::to_owned);
        FIRST.with_borrow_mut(|first| {
            first.get_or_insert(format!("{place}: {what}"));
        });
    }));
}

pub(crate) fn take() -> Option<String> {
    FIRST.with_borrow_mut(Option::take)
}
