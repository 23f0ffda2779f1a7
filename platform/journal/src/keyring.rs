//! Keys that payloads and segments are sealed with: one data key per tenant and workflow, wrapped under a master key. Erasing a workflow is destroying
//! its wrapped key.

use bytes::Bytes;
use gantry_proto::{TenantId, WorkflowId};

/// A data key in its stored form: sealed under the master key, bound to tenant and workflow, with the id of the master key in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey(pub Bytes);

/// Why a key could not be used or text not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    /// The master key file is missing, unreadable, of the wrong mode or length.
    #[error("master key `{path}`: {reason}")]
    MasterKey {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The wrapped key belongs to another master key, tenant or workflow, or is damaged.
    #[error("the data key cannot be unwrapped with this master key")]
    Unwrap,
    /// The sealed bytes are damaged, or belong elsewhere.
    #[error("sealed bytes do not open")]
    Open,
    /// The system gave no randomness, or the text is past what one seal holds (64 GiB).
    #[error("cannot seal: {reason}")]
    Random {
        /// What the system said.
        reason: String,
    },
    /// The key was destroyed: the payload is erased for good.
    #[error("the payload was erased")]
    Erased,
}

/// Makes and opens data keys. The one implementation today is a master key file; a KMS fits behind it.
pub trait KeyRing: Send + Sync + 'static {
    /// A fresh random data key and its wrapped form, to be stored in the batch that first uses it.
    ///
    /// # Errors
    /// When there is no usable master key or no randomness.
    fn generate(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(crate::DataKey, WrappedKey), SealError>;

    /// Opens a wrapped key.
    ///
    /// # Errors
    /// [`SealError::Unwrap`].
    fn unwrap(&self, tenant: TenantId, workflow: WorkflowId, wrapped: &WrappedKey)
    -> Result<crate::DataKey, SealError>;
}
