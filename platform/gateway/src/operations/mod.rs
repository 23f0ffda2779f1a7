//! The list of everything that can be reached, one file for each kind of resource. Nothing else is.

mod backup;
mod bulk;
mod decisions;
mod keep;
mod keys;
mod limits;
mod nodes;
mod pauses;
mod playbooks;
mod query;
mod runs;
mod schedules;
mod system;
mod tasks;
mod tenants;
mod uploads;
mod workflows;

use crate::operation::{Operation, OperationInfo, QueryParam};

const fn q(name: &'static str, about: &'static str) -> QueryParam {
    QueryParam { name, about }
}

const PAGE: &[QueryParam] = &[
    q("cursor", "`next_cursor` of the page before"),
    q("limit", "items of a page, 1 to 500, default 50"),
];

/// Every operation, for tests and printed tables.
#[must_use]
pub fn list() -> Vec<OperationInfo> {
    all().iter().map(Operation::info).collect()
}

pub(crate) fn all() -> Vec<Operation> {
    [
        workflows::operations(),
        runs::operations(),
        tasks::operations(),
        decisions::operations(),
        playbooks::operations(),
        uploads::operations(),
        schedules::operations(),
        bulk::operations(),
        limits::operations(),
        pauses::operations(),
        query::operations(),
        nodes::operations(),
        keep::operations(),
        keys::operations(),
        tenants::operations(),
        backup::operations(),
        system::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
