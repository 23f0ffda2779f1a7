//! An upload is not wanted any more.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};
use gantry_proto::{PrincipalId, TenantId, UploadId};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// Delete an upload. Workflows that took it keep their copies.
#[derive(Debug, Clone, Copy)]
pub struct DeleteUpload {
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
    /// Which.
    pub upload: UploadId,
}

impl DeleteUpload {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let known = batch.state.uploads.get(&self.upload);
        if known.is_none_or(|row| row.tenant != self.tenant) {
            return Ok(Err(Rejection::NotFound));
        }
        let event = v1::UploadDeleted {
            upload: self.upload,
            by: self.by,
        };
        batch.emit(self.tenant, None, Kind::UploadDeleted(event), None)?;
        Ok(Ok(Reply::Done))
    }
}
