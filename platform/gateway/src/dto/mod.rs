//! Bodies that are the gateway's own; everything else is a view of the engine.

pub(crate) mod bulk;
pub(crate) mod decisions;
pub(crate) mod keep;
pub(crate) mod playbooks;
pub(crate) mod query;
pub(crate) mod tenants;
pub(crate) mod trace;

use std::collections::BTreeMap;

use gantry_directory::{ApiKey, NodeToken, VerifiedKey};
use gantry_engine::api::{Overlap, WorkflowState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A submission.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitBody {
    /// The definition: YAML or JSON as text, or a JSON object.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) definition: Option<serde_json::Value>,
    /// Instead of a definition: a playbook, `name` (its newest version) or `name@version`.
    #[serde(default)]
    pub(crate) playbook: Option<String>,
    /// Values for the definition's parameters.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) parameters: Option<serde_json::Map<String, serde_json::Value>>,
    /// Free labels.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// How soon its tasks get nodes among those of the tenant, 0 (last) to 9; the definition's, or 4, when absent.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 9)]
    pub(crate) priority: Option<u32>,
    /// What it is found by, in the clear, beside what the definition says and winning over that: texts, numbers, true, false, times as `{"time": "..."}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) attributes: serde_json::Map<String, serde_json::Value>,
}

/// What became of a submission.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubmitAnswer {
    /// Id of the workflow, `wf_...`; durable by now.
    pub(crate) id: String,
    /// The idempotency key was known: this is the first submission's workflow.
    pub(crate) replayed: bool,
}

/// A call of a component.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunBody {
    /// What the code is given.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) input: serde_json::Value,
    /// Wait so long for the end, at most 25 s; without it the answer comes as soon as the run is durable.
    #[serde(default)]
    pub(crate) wait_ms: u64,
    /// Free labels.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Nothing is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidateAnswer {
    /// Always true; what is invalid is answered by a problem.
    pub(crate) valid: bool,
}

/// How to cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelBody {
    /// Time between the polite signal and SIGKILL.
    #[serde(default)]
    pub(crate) grace_ms: Option<u64>,
}

/// A task from which on things are done again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FromBody {
    /// Name or id of the task.
    pub(crate) task: String,
    /// Key or position of the step; the first one when absent.
    #[serde(default)]
    pub(crate) step: Option<String>,
}

impl From<FromBody> for gantry_engine::api::AgainFrom {
    fn from(from: FromBody) -> Self {
        Self {
            task: from.task,
            step: from.step,
        }
    }
}

/// How to restart.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestartBody {
    /// This task and all that need it run again. Absent: what did not complete, and what needs that.
    #[serde(default)]
    pub(crate) from: Option<FromBody>,
}

/// How to fork.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForkBody {
    /// This task and all that need it run again. Absent: what did not complete, and what needs that.
    #[serde(default)]
    pub(crate) from: Option<FromBody>,
    /// Parameters that win over the old ones. What is carried over stays as it came out with the old ones.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) parameters: serde_json::Map<String, serde_json::Value>,
    /// Labels that win over the old ones.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Search attributes that win over the old ones.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) attributes: serde_json::Map<String, serde_json::Value>,
    /// Instead of the old one.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 9)]
    pub(crate) priority: Option<u32>,
}

/// Where the workflow stands now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelAnswer {
    /// Lifecycle state.
    pub(crate) state: WorkflowState,
}

/// How to run a schedule now.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunNowBody {
    /// Instead of the schedule's own policy.
    #[serde(default)]
    pub(crate) overlap: Option<Overlap>,
}

/// Which times of a schedule to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackfillBody {
    /// First time, in milliseconds since 1970.
    pub(crate) from_ms: u64,
    /// Last time.
    pub(crate) to_ms: u64,
    /// Instead of the schedule's own policy.
    #[serde(default)]
    pub(crate) overlap: Option<Overlap>,
}

/// Whether a node drains.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainBody {
    /// True: finish what runs, take nothing new. False: work again.
    pub(crate) drain: bool,
}

/// A whole list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Items<T: ToSchema> {
    /// The items.
    pub(crate) items: Vec<T>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Paged<T: ToSchema> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// Pass as `cursor` to get the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
    /// The page was cut short, because very many did not match: everything made at this time or later has been looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) searched_to_ms: Option<u64>,
}

impl<T: ToSchema> Paged<T> {
    /// A page of a list in which nothing is searched.
    pub(crate) fn new(items: Vec<T>, next_cursor: Option<String>) -> Self {
        Self {
            items,
            next_cursor,
            searched_to_ms: None,
        }
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScopeName {
    /// Looks at everything of the tenant except credentials.
    Read,
    /// Also starts and ends work, and drains nodes.
    Operate,
    /// Also manages keys and node tokens.
    Admin,
}

impl From<ScopeName> for gantry_directory::Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Read => Self::Read,
            ScopeName::Operate => Self::Operate,
            ScopeName::Admin => Self::Admin,
        }
    }
}

impl From<gantry_directory::Scope> for ScopeName {
    fn from(scope: gantry_directory::Scope) -> Self {
        match scope {
            gantry_directory::Scope::Read => Self::Read,
            gantry_directory::Scope::Operate => Self::Operate,
            gantry_directory::Scope::Admin => Self::Admin,
        }
    }
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKeyBody {
    /// What it is for.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scope: ScopeName,
    /// When it stops working, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) expires_at_ms: Option<u64>,
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Id, `key_...`.
    pub(crate) id: String,
    /// First part of the key, to recognise it by.
    pub(crate) prefix: String,
    /// What it is for.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scope: ScopeName,
    /// When it was made.
    pub(crate) created_at_ms: u64,
    /// By which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_by: Option<String>,
    /// When it stops working.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at_ms: Option<u64>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at_ms: Option<u64>,
    /// Last use, up to a minute late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at_ms: Option<u64>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            prefix: key.prefix,
            name: key.name,
            scope: key.scope.into(),
            created_at_ms: key.created_at_ms,
            created_by: key.created_by.map(|id| id.to_string()),
            expires_at_ms: key.expires_at_ms,
            revoked_at_ms: key.revoked_at_ms,
            last_used_at_ms: key.last_used_at_ms,
        }
    }
}

/// A new key with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    /// The key's record.
    #[serde(flatten)]
    pub(crate) record: KeyView,
    /// The key itself, `ab_<id>_<secret>`. It is shown this once.
    pub(crate) key: String,
}

/// A node token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateNodeTokenBody {
    /// What it is for.
    pub(crate) name: String,
    /// Nodes with it run every tenant's work. Only the default tenant may ask for that.
    #[serde(default)]
    pub(crate) shared: bool,
}

/// A node token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeTokenView {
    /// Id, `ntok_...`.
    pub(crate) id: String,
    /// First part of the token, to recognise it by.
    pub(crate) prefix: String,
    /// What it is for.
    pub(crate) name: String,
    /// Nodes with it run every tenant's work.
    pub(crate) shared: bool,
    /// When it was made.
    pub(crate) created_at_ms: u64,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at_ms: Option<u64>,
    /// Last time a node joined with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at_ms: Option<u64>,
}

impl From<NodeToken> for NodeTokenView {
    fn from(token: NodeToken) -> Self {
        Self {
            id: token.id.to_string(),
            prefix: token.prefix,
            name: token.name,
            shared: token.shared,
            created_at_ms: token.created_at_ms,
            revoked_at_ms: token.revoked_at_ms,
            last_used_at_ms: token.last_used_at_ms,
        }
    }
}

/// A new node token with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedNodeToken {
    /// The token's record.
    #[serde(flatten)]
    pub(crate) record: NodeTokenView,
    /// The token itself, `gn_<id>_<secret>`. It is shown this once.
    pub(crate) token: String,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhoAmI {
    /// The key, `key_...`.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its tenant, `ten_...`.
    pub(crate) tenant: String,
    /// What it may do.
    pub(crate) scope: ScopeName,
    /// When it stops working.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at_ms: Option<u64>,
}

impl From<&VerifiedKey> for WhoAmI {
    fn from(key: &VerifiedKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            tenant: key.tenant.to_string(),
            scope: key.scope.into(),
            expires_at_ms: key.expires_at_ms,
        }
    }
}

/// The installation as a tenant may see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusView {
    /// Version of the daemon.
    pub(crate) version: String,
    /// Names this installation.
    pub(crate) installation: String,
    /// Whether work is accepted.
    pub(crate) ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Nodes that serve the tenant.
    pub(crate) nodes: NodesStatus,
    /// What durability has cost since the daemon started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) journal: Option<JournalStatus>,
}

/// Cost of the journal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JournalStatus {
    /// Times that the write-ahead log was synced.
    pub(crate) syncs: u64,
    /// Bytes written to it.
    pub(crate) bytes: u64,
}

/// Nodes in numbers.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct NodesStatus {
    /// All that are known.
    pub(crate) total: u32,
    /// Nodes by lifecycle state.
    pub(crate) by_state: BTreeMap<String, u32>,
    /// Steps that connected nodes can run at once.
    pub(crate) slots: u32,
    /// Steps that they run.
    pub(crate) running: u32,
}

/// The process lives, or is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    pub(crate) status: &'static str,
}

/// Output of a step as one line of NDJSON, or as data of an `output` event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputLine {
    /// Name of the task; in a workflow's stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// Key of the step; in a workflow's stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    /// Number of the attempt; in a workflow's stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    /// Position in the attempt's output, from 1; the same on every replay.
    pub(crate) seq: u64,
    /// `stdout` or `stderr`.
    pub(crate) stream: &'static str,
    /// When it was printed.
    pub(crate) at_ms: u64,
    /// The bytes, when they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// The bytes in base64, when they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
}
