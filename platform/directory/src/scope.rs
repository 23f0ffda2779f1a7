//! Which scope may do what: one resource × verb table, kept as data, default deny.

use std::fmt;
use std::str::FromStr;

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$vdoc])* $variant,)* }

        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As written in the API and in documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// What a key may do at most: a set of verbs per resource.
    Scope {
        /// Looks at everything of the tenant except credentials.
        Read = "read",
        /// Also starts and ends work, and drains nodes.
        Operate = "operate",
        /// Also manages keys and node tokens.
        Admin = "admin",
    }
}

names! {
    /// What is acted upon.
    Resource {
        /// Workflows with their tasks, steps and definitions.
        Workflow = "workflow",
        /// Journal records of workflows, and live output.
        Event = "event",
        /// What steps printed.
        Log = "log",
        /// Files that steps left.
        Artifact = "artifact",
        /// Versioned definitions.
        Playbook = "playbook",
        /// Files that clients store for workflows to come.
        Upload = "upload",
        /// What starts playbooks by the calendar.
        Schedule = "schedule",
        /// One command for many workflows.
        Bulk = "bulk",
        /// Concurrency keys and rates.
        Limit = "limit",
        /// Pauses of definitions and of the tenant.
        Pause = "pause",
        /// Container hosts.
        Node = "node",
        /// Tenants of the installation.
        Tenant = "tenant",
        /// API keys.
        Key = "key",
        /// Tokens with which nodes join.
        NodeToken = "node_token",
        /// Backups of the whole installation.
        Backup = "backup",
        /// History as tables, by SQL.
        Query = "query",
        /// The caller's own identity.
        Identity = "identity",
        /// State of the installation as a tenant may see it.
        Status = "status",
    }
}

names! {
    /// What is done.
    Verb {
        /// Reads one.
        Get = "get",
        /// Reads many.
        List = "list",
        /// Follows live.
        Watch = "watch",
        /// Makes one.
        Create = "create",
        /// Checks a request without doing it.
        Validate = "validate",
        /// Ends running work.
        Cancel = "cancel",
        /// Tells running work something that it waits for.
        Signal = "signal",
        /// Holds, or lets go on.
        Pause = "pause",
        /// Decides on a task: approves, retries, skips.
        Decide = "decide",
        /// Keeps against retention and erasure, or no longer.
        Hold = "hold",
        /// Destroys what users wrote.
        Erase = "erase",
        /// Retires, or takes back.
        Archive = "archive",
        /// Sets or lifts draining.
        Drain = "drain",
        /// Ends a credential.
        Revoke = "revoke",
        /// Erases one.
        Delete = "delete",
        /// Sets what one weighs.
        Weigh = "weigh",
    }
}

const EVERYBODY: &[Scope] = &[Scope::Read, Scope::Operate, Scope::Admin];
const OPERATORS: &[Scope] = &[Scope::Operate, Scope::Admin];
const ADMINS: &[Scope] = &[Scope::Admin];

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// What is acted upon.
    pub resource: Resource,
    /// What is done.
    pub verb: Verb,
    /// Scopes that may.
    pub scopes: &'static [Scope],
}

const fn grant(resource: Resource, verb: Verb, scopes: &'static [Scope]) -> Grant {
    Grant { resource, verb, scopes }
}

/// Everything that can be done at all, and who may. A pair that is not here is allowed to nobody.
pub const TABLE: &[Grant] = &[
    grant(Resource::Workflow, Verb::Get, EVERYBODY),
    grant(Resource::Workflow, Verb::List, EVERYBODY),
    grant(Resource::Workflow, Verb::Validate, EVERYBODY),
    grant(Resource::Workflow, Verb::Create, OPERATORS),
    grant(Resource::Workflow, Verb::Cancel, OPERATORS),
    grant(Resource::Workflow, Verb::Signal, OPERATORS),
    grant(Resource::Workflow, Verb::Pause, OPERATORS),
    grant(Resource::Workflow, Verb::Decide, OPERATORS),
    grant(Resource::Workflow, Verb::Hold, ADMINS),
    grant(Resource::Workflow, Verb::Erase, ADMINS),
    grant(Resource::Event, Verb::Watch, EVERYBODY),
    grant(Resource::Log, Verb::Watch, EVERYBODY),
    grant(Resource::Artifact, Verb::List, EVERYBODY),
    grant(Resource::Artifact, Verb::Get, EVERYBODY),
    grant(Resource::Playbook, Verb::Get, EVERYBODY),
    grant(Resource::Playbook, Verb::List, EVERYBODY),
    grant(Resource::Playbook, Verb::Validate, EVERYBODY),
    grant(Resource::Playbook, Verb::Create, OPERATORS),
    grant(Resource::Playbook, Verb::Archive, OPERATORS),
    grant(Resource::Upload, Verb::List, EVERYBODY),
    grant(Resource::Upload, Verb::Get, EVERYBODY),
    grant(Resource::Upload, Verb::Create, OPERATORS),
    grant(Resource::Upload, Verb::Delete, OPERATORS),
    grant(Resource::Bulk, Verb::Get, EVERYBODY),
    grant(Resource::Bulk, Verb::List, EVERYBODY),
    grant(Resource::Bulk, Verb::Create, OPERATORS),
    grant(Resource::Bulk, Verb::Cancel, OPERATORS),
    grant(Resource::Schedule, Verb::Get, EVERYBODY),
    grant(Resource::Schedule, Verb::List, EVERYBODY),
    grant(Resource::Schedule, Verb::Create, OPERATORS),
    grant(Resource::Schedule, Verb::Pause, OPERATORS),
    grant(Resource::Limit, Verb::Get, EVERYBODY),
    grant(Resource::Limit, Verb::List, EVERYBODY),
    grant(Resource::Pause, Verb::List, EVERYBODY),
    grant(Resource::Pause, Verb::Create, OPERATORS),
    grant(Resource::Pause, Verb::Delete, OPERATORS),
    grant(Resource::Node, Verb::List, EVERYBODY),
    grant(Resource::Node, Verb::Get, EVERYBODY),
    grant(Resource::Node, Verb::Drain, OPERATORS),
    grant(Resource::Tenant, Verb::List, ADMINS),
    grant(Resource::Tenant, Verb::Weigh, ADMINS),
    grant(Resource::Key, Verb::List, ADMINS),
    grant(Resource::Key, Verb::Create, ADMINS),
    grant(Resource::Key, Verb::Revoke, ADMINS),
    grant(Resource::NodeToken, Verb::List, ADMINS),
    grant(Resource::NodeToken, Verb::Create, ADMINS),
    grant(Resource::NodeToken, Verb::Revoke, ADMINS),
    grant(Resource::Backup, Verb::Create, ADMINS),
    grant(Resource::Query, Verb::Get, EVERYBODY),
    grant(Resource::Identity, Verb::Get, EVERYBODY),
    grant(Resource::Status, Verb::Get, EVERYBODY),
];

/// The line for a pair, if the pair exists.
#[must_use]
pub fn find(resource: Resource, verb: Verb) -> Option<&'static Grant> {
    TABLE
        .iter()
        .find(|grant| grant.resource == resource && grant.verb == verb)
}

impl Scope {
    /// Whether a key of this scope may do it. Pairs that are not in [`TABLE`]: no.
    #[must_use]
    pub fn allows(self, resource: Resource, verb: Verb) -> bool {
        find(resource, verb).is_some_and(|grant| grant.scopes.contains(&self))
    }
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope: use read, operate or admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_stands_once_and_admin_is_in_every_line() {
        for (index, line) in TABLE.iter().enumerate() {
            assert!(
                !TABLE[..index]
                    .iter()
                    .any(|other| other.resource == line.resource && other.verb == line.verb),
                "{} {} stands twice",
                line.resource,
                line.verb
            );
            assert!(line.scopes.contains(&Scope::Admin));
        }
    }

    #[test]
    fn scopes_grow() {
        for line in TABLE {
            if line.scopes.contains(&Scope::Read) {
                assert!(line.scopes.contains(&Scope::Operate));
            }
        }
        assert!(Scope::Read.allows(Resource::Workflow, Verb::Get));
        assert!(!Scope::Read.allows(Resource::Workflow, Verb::Create));
        assert!(Scope::Operate.allows(Resource::Workflow, Verb::Cancel));
        assert!(!Scope::Operate.allows(Resource::Key, Verb::Create));
    }

    #[test]
    fn what_is_not_in_the_table_is_denied_to_everybody() {
        for scope in Scope::ALL {
            assert!(!scope.allows(Resource::Artifact, Verb::Drain));
        }
    }
}
