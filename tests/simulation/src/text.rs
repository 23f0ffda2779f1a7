//! What a trace shows.

use gantry_engine::api::{TaskView, WaitingView};
use gantry_proto::v1::event::Kind;

pub(crate) fn record(kind: &Kind) -> String {
    let mut text = format!("{kind:?}");
    let end = text.char_indices().nth(220).map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    text
}

/// Whether a task may wait for this though nothing is broken: for something that nobody offers, or for a task that does.
/// `lost`: its workspace, or a child's, is on a node that is gone.
pub(crate) fn may_wait(task: &TaskView, lost: bool) -> bool {
    match task.waiting {
        Some(WaitingView::Unplaceable { .. } | WaitingView::Needs { .. }) => true,
        Some(
            WaitingView::WorkspaceNode { .. }
            | WaitingView::Standby { .. }
            | WaitingView::Child { .. }
            | WaitingView::Items { .. }
            | WaitingView::Parallelism { .. },
        ) => lost,
        _ => false,
    }
}
