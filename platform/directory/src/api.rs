//! What gateway, coordinator and daemon call.

use gantry_proto::{NodeId, NodeTokenId, PrincipalId, TenantId};

use crate::error::{AuthError, ManageError};
use crate::model::{
    ApiKey, Bootstrap, InstallationId, Issued, NewKey, NewNodeToken, NodeIdentity, NodeToken, Tenant, VerifiedKey,
};
use crate::playbooks::Playbooks;

/// Identity and configuration. Writes return when they are durable. Dropping a call's future may or may not have had its effect, never half of it.
#[async_trait::async_trait]
pub trait Directory: Playbooks + Send + Sync + 'static {
    /// Names this installation; the same for ever.
    fn installation(&self) -> InstallationId;

    /// Whether the directory answers.
    async fn ready(&self) -> Result<(), ManageError>;

    /// Makes what a fresh installation needs: the default tenant, and an admin key when that tenant has none that works.
    async fn ensure_bootstrap(&self) -> Result<Bootstrap, ManageError>;

    /// Makes a tenant. [`ManageError::Conflict`] when the name is taken.
    async fn create_tenant(&self, name: &str) -> Result<Tenant, ManageError>;

    /// All tenants, oldest first.
    async fn tenants(&self) -> Result<Vec<Tenant>, ManageError>;

    /// Sets what a tenant weighs when tenants share nodes. `None`: there is no such tenant. [`ManageError::Invalid`] past the limit.
    async fn weigh_tenant(&self, tenant: TenantId, weight: u32) -> Result<Option<Tenant>, ManageError>;

    /// Who presents this API key. Unknown ids take as long as wrong secrets.
    async fn authenticate_key(&self, token: &str) -> Result<VerifiedKey, AuthError>;

    /// Whether a key that was accepted before still is: for long-lived streams.
    async fn key_lives(&self, key: PrincipalId) -> Result<bool, ManageError>;

    /// Makes a key and returns its secret, once.
    async fn create_key(&self, new: NewKey) -> Result<Issued<ApiKey>, ManageError>;

    /// Keys of a tenant, newest first, after `after` (exclusive), at most `limit`; revoked ones too.
    async fn keys(&self, tenant: TenantId, after: Option<PrincipalId>, limit: u32) -> Result<Vec<ApiKey>, ManageError>;

    /// Ends a key, at once. Repeating it changes nothing.
    async fn revoke_key(
        &self,
        tenant: TenantId,
        key: PrincipalId,
        by: Option<PrincipalId>,
    ) -> Result<ApiKey, ManageError>;

    /// Which nodes present this token. Asked once per connection.
    async fn authenticate_node(&self, token: &str) -> Result<NodeIdentity, AuthError>;

    /// Whether a token that was accepted before still is: for long-lived connections.
    async fn node_token_lives(&self, token: NodeTokenId) -> Result<bool, ManageError>;

    /// Lets a token speak for a node: the first one that does is the only one, until it is revoked. `None` is the daemon's own process, which may always.
    /// [`ManageError::Forbidden`] when another token speaks for the node. Repeating it changes nothing.
    async fn bind_node(&self, token: Option<NodeTokenId>, node: NodeId) -> Result<(), ManageError>;

    /// Makes a node token and returns its secret, once.
    async fn create_node_token(&self, new: NewNodeToken) -> Result<Issued<NodeToken>, ManageError>;

    /// Node tokens that a tenant administers, newest first, after `after` (exclusive), at most `limit`; revoked ones too.
    async fn node_tokens(
        &self,
        tenant: TenantId,
        after: Option<NodeTokenId>,
        limit: u32,
    ) -> Result<Vec<NodeToken>, ManageError>;

    /// Ends a node token. Repeating it changes nothing.
    async fn revoke_node_token(
        &self,
        tenant: TenantId,
        token: NodeTokenId,
        by: Option<PrincipalId>,
    ) -> Result<NodeToken, ManageError>;
}
