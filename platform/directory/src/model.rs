//! What the directory keeps and hands out.

use std::fmt;

use gantry_proto::{NodeTokenId, PrincipalId, TenantId};
use secrecy::SecretString;

use crate::scope::Scope;

/// Name of the tenant that exists from the start. Its admins also run the installation.
pub const DEFAULT_TENANT: &str = "default";

/// Names this installation among others that share a machine or a Docker. 16 random bytes, made once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstallationId(pub [u8; 16]);

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The wall that everything stays behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Id, `ten_...`.
    pub id: TenantId,
    /// Unique name.
    pub name: String,
    /// When it was made.
    pub created_at_ms: u64,
    /// What it weighs when tenants share nodes, 1 to `TENANT_WEIGHT_MAX`.
    pub weight: u32,
}

/// Who a valid API key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedKey {
    /// The key, which is also the principal in records.
    pub id: PrincipalId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it stops working.
    pub expires_at_ms: Option<u64>,
}

/// An API key as a list shows it: no secret, no hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key.
    pub id: PrincipalId,
    /// First part of the token, `ab_<id>`, to recognise it by.
    pub prefix: String,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at_ms: u64,
    /// By whom; absent for the first one.
    pub created_by: Option<PrincipalId>,
    /// When it stops working.
    pub expires_at_ms: Option<u64>,
    /// When it was revoked.
    pub revoked_at_ms: Option<u64>,
    /// Last use, written with a delay of up to a minute.
    pub last_used_at_ms: Option<u64>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its tenant.
    pub tenant: TenantId,
    /// What it is for; 1 to `NAME_BYTES_MAX` bytes.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it stops working; in the future.
    pub expires_at_ms: Option<u64>,
    /// Who makes it.
    pub created_by: Option<PrincipalId>,
}

/// Whose work a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Every tenant's (a shared node).
    All,
    /// One tenant's.
    Tenant(TenantId),
}

/// Who a valid node token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The token.
    pub token: NodeTokenId,
    /// Whose work nodes with this token take.
    pub serves: Serves,
    /// The token's name.
    pub name: String,
}

/// A node token as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeToken {
    /// The token.
    pub id: NodeTokenId,
    /// First part of the token, `gn_<id>`, to recognise it by.
    pub prefix: String,
    /// The tenant that administers it, and whose work its nodes take unless `shared`.
    pub tenant: TenantId,
    /// Its nodes take every tenant's work.
    pub shared: bool,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at_ms: u64,
    /// When it was revoked.
    pub revoked_at_ms: Option<u64>,
    /// Last time a node joined with it.
    pub last_used_at_ms: Option<u64>,
}

/// A node token to be made.
#[derive(Debug, Clone)]
pub struct NewNodeToken {
    /// The tenant that administers it.
    pub tenant: TenantId,
    /// What it is for; 1 to `NAME_BYTES_MAX` bytes.
    pub name: String,
    /// Its nodes take every tenant's work. Only the default tenant may make such a token.
    pub shared: bool,
    /// Who makes it.
    pub created_by: Option<PrincipalId>,
}

/// Something new with its secret, which exists nowhere else.
#[derive(Debug)]
pub struct Issued<T> {
    /// What was made.
    pub record: T,
    /// The whole token. Show it once.
    pub token: SecretString,
}

/// What a start found or made.
#[derive(Debug)]
pub struct Bootstrap {
    /// The default tenant.
    pub tenant: TenantId,
    /// The first admin key, when there was no usable one.
    pub admin: Option<Issued<ApiKey>>,
}
