//! Whose content: what a data key, and the objects that are sealed under it, belong to.

use std::fmt;

use gantry_proto::{PartitionId, UploadId, WorkflowId};

/// The owner of a data key and of the objects under it. Destroying the key erases everything of the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentOwner {
    /// A workflow: artifacts, output, payloads of its records.
    Workflow(WorkflowId),
    /// An upload, until it expires.
    Upload(UploadId),
}

impl ContentOwner {
    /// The 16 bytes of the id. Ids of both kinds are random, so that they differ between kinds too.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        match self {
            Self::Workflow(id) => id.as_bytes(),
            Self::Upload(id) => id.as_bytes(),
        }
    }

    /// The id that the key ring binds the owner's key to, and under which the wrapped key is stored.
    #[must_use]
    pub fn key_id(&self) -> WorkflowId {
        WorkflowId::from_bytes(*self.as_bytes())
    }

    /// The partition that owns it.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.key_id().partition()
    }
}

impl fmt::Display for ContentOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workflow(id) => id.fmt(f),
            Self::Upload(id) => id.fmt(f),
        }
    }
}

impl From<WorkflowId> for ContentOwner {
    fn from(id: WorkflowId) -> Self {
        Self::Workflow(id)
    }
}

impl From<UploadId> for ContentOwner {
    fn from(id: UploadId) -> Self {
        Self::Upload(id)
    }
}
