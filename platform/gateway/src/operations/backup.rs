//! The installation as a whole.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use super::q;
use crate::handlers::backup;
use crate::operation::Content::Other;
use crate::operation::{Operation, QueryParam};

const BACKUP: &[QueryParam] = &[q("artifacts", "true: artifacts themselves, and not only their list")];

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::POST,
            "/api/v1/backups",
            "create_backup",
            (R::Backup, V::Create),
            "Back the whole installation up: a tar stream; `gantry backup` checks and stores it",
            backup::backup,
        )
        .query(BACKUP)
        .returns(200, &[Other("application/x-tar")]),
    ]
}
