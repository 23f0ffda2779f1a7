//! Codes of the errors that a user can meet. Each has a page `docs/errors/<code>.md` (checked by `tests/run tidy`).

use std::fmt;
use std::str::FromStr;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $title:literal;)*) => {
        /// What went wrong, in a form that programs can match on. Never renamed once released.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it is written in problem documents and records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// A short title, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownErrorCode;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(UnknownErrorCode(text.to_owned())) }
            }
        }
    };
}

/// A text that is no known error code; written by a newer version, perhaps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an error code of this version")]
pub struct UnknownErrorCode(pub String);

codes! {
    // ---- requests
    /// The request is not what the operation takes.
    InvalidRequest = "invalid-request", "The request is not valid";
    /// A definition does not parse or breaks a rule; the message has line and column.
    InvalidDefinition = "invalid-definition", "The workflow definition is not valid";
    /// Parameters do not match the definition's schema.
    InvalidParameters = "invalid-parameters", "The parameters do not match the definition";
    /// A body, file or field is larger than its limit.
    TooLarge = "too-large", "Larger than the limit";
    /// No credential, or one that is not known, expired or revoked.
    Unauthenticated = "unauthenticated", "A valid API key is needed";
    /// The credential's scope does not allow the operation.
    Forbidden = "forbidden", "The key's scope does not allow this";
    /// No such entity in the caller's tenant.
    NotFound = "not-found", "Not found";
    /// The entity's state does not allow the operation.
    Conflict = "conflict", "The current state does not allow this";
    /// What is asked for needs the tree of a task, and it is not kept any more.
    WorkspaceGone = "workspace-gone", "The workspace is not there any more";
    /// The definition names others to decide on the task.
    DecisionForbidden = "decision-forbidden", "Others are to decide on this";
    /// No task of the workflow waits for a signal of that name.
    SignalUnknown = "signal-unknown", "No task waits for that signal";
    /// The workflow keeps as many signals as it can.
    SignalsFull = "signals-full", "The workflow keeps too many signals already";
    /// The idempotency key was used for another request.
    IdempotencyMismatch = "idempotency-mismatch", "The idempotency key belongs to another request";
    /// What users wrote was destroyed on request; states and times are still there.
    ContentErased = "content-erased", "The content was erased";
    /// A legal hold keeps the workflow.
    LegalHold = "legal-hold", "A legal hold keeps the workflow";
    /// A definition takes an upload that is not there: unknown, expired, deleted, or another tenant's.
    UploadMissing = "upload-missing", "There is no such upload";
    /// The tenant's uploads have reached their number or size.
    UploadQuota = "upload-quota", "No room for further uploads";
    /// The database does not accept a query's statement, or the statement failed on its data.
    InvalidQuery = "invalid-query", "The query is not valid";
    /// A query is none that reads, or reaches for something else than its tables.
    QueryRefused = "query-refused", "The query does more than read its tables";
    /// A query needs more time, memory or history than one may have.
    QueryLimit = "query-limit", "The query needs more than a query may have";
    /// This installation cannot answer queries.
    QueryUnavailable = "query-unavailable", "Queries cannot be answered here";
    /// A queue is full; try again.
    Overloaded = "overloaded", "Too much at once";
    /// The journal cannot be written or read now.
    StorageUnavailable = "storage-unavailable", "The journal is unavailable";
    /// A fault of ours; the log has the details under the request id.
    Internal = "internal", "Internal error";

    // ---- storage
    /// A part of a data directory or backup is missing, cut or changed.
    DataDamaged = "data-damaged", "Stored data is damaged";
    /// A newer version of Gantry wrote it.
    DataFormat = "data-format", "A newer version of Gantry wrote this";
    /// Another process has the data directory.
    DataInUse = "data-in-use", "The data directory is in use";
    /// A backup cannot be made or restored so.
    BackupRefused = "backup-refused", "The backup or restore was refused";

    // ---- steps
    /// The step's process ended with another exit code than 0.
    StepExit = "step-exit", "The step's command failed";
    /// The step's process was ended by a signal.
    StepSignal = "step-signal", "The step's command was ended by a signal";
    /// The step ran longer than its timeout.
    StepTimeout = "step-timeout", "The step ran longer than its timeout";
    /// The step needed more memory than its limit.
    StepOutOfMemory = "step-out-of-memory", "The step ran out of memory";
    /// The step printed more than its limit.
    StepOutputLimit = "step-output-limit", "The step printed more than its limit";
    /// The step was ended because its workflow was cancelled.
    StepCancelled = "step-cancelled", "The step was cancelled";
    /// The command could not be started.
    StepCannotStart = "step-cannot-start", "The step's command could not be started";
    /// A report file or a wanted output breaks its contract.
    StepBadOutput = "step-bad-output", "The step's outputs are not as declared";
    /// A template does not render.
    TemplateError = "template-error", "A template could not be rendered";
    /// An artifact is missing, unsafe or past a limit.
    ArtifactRefused = "artifact-refused", "An artifact was refused";
    /// The workspace could not be built as asked.
    WorkspaceRefused = "workspace-refused", "The workspace was refused";
    /// The workspace's source could not be fetched.
    WorkspaceFetchFailed = "workspace-fetch-failed", "The workspace's source could not be fetched";
    /// No such image on the node, and none could be pulled.
    ImageNotFound = "image-not-found", "The image is not on the node";
    /// The image cannot run hardened.
    ImageRefused = "image-refused", "The image was refused";
    /// The same step was lost to infrastructure too often.
    InfrastructureLost = "infrastructure-lost", "Lost to infrastructure too often";
    /// A worker was lost in the middle of something that must not be done twice.
    OutcomeUnknown = "outcome-unknown", "Nobody knows what became of it";
    /// A worker's code failed without saying how.
    WorkerFailed = "worker-failed", "The worker's code failed";
    /// A replay does not do what the run did before.
    NotDeterministic = "not-deterministic", "The code is not what it was";
    /// A needed task failed, so this one will not run.
    DependencyFailed = "dependency-failed", "A needed task failed";
    /// The workflow was cancelled.
    WorkflowCancelled = "workflow-cancelled", "The workflow was cancelled";
    /// The workflow that a task started did not complete.
    ChildFailed = "child-failed", "A child workflow did not complete";
    /// More items of a task over a list failed than it tolerates.
    ItemsFailed = "items-failed", "Too many items failed";
    /// A limit was reached, and the definition does not wait for it.
    LimitReached = "limit-reached", "A limit is reached";
    /// A newer one took the place under a limit.
    LimitOvertaken = "limit-overtaken", "A newer one took its place";
    /// As many wait for limits as one partition can keep.
    LimitsFull = "limits-full", "Too many wait for limits";
    /// A task of the workflow failed.
    TaskFailed = "task-failed", "A task failed";

    /// A condition has no answer.
    ConditionError = "condition-error", "A condition could not be evaluated";
    /// A signal did not come in time.
    SignalTimeout = "signal-timeout", "The signal did not come in time";
    /// An approval was rejected.
    ApprovalRejected = "approval-rejected", "The approval was rejected";
    /// The result of a task was rejected.
    AssessmentRejected = "assessment-rejected", "The result was rejected";
    /// A result was to be done again once more than it may.
    ReworkExhausted = "rework-exhausted", "The result was reworked too often";
    /// A deadline has passed.
    DeadlineExceeded = "deadline-exceeded", "The deadline has passed";
    /// A person made the task fail.
    FailedOnRequest = "failed-on-request", "The task was failed by a decision";

    // ---- nodes
    /// Docker does not answer on the node.
    DockerUnavailable = "docker-unavailable", "Docker is not reachable";
    /// Docker did something else than asked (a security field differs), or failed.
    DockerRefused = "docker-refused", "Docker refused or changed the request";
    /// The node's disk is full.
    DiskFull = "disk-full", "The disk is full";
    /// The lease's fence is no longer the newest.
    StaleFence = "stale-fence", "The lease has passed to another holder";
    /// Node and server speak no common protocol version.
    ProtocolMismatch = "protocol-mismatch", "No common protocol version";
    /// The supervisor broke its protocol.
    SupervisorFault = "supervisor-fault", "The supervisor failed";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl crate::v1::Fault {
    /// A fault with a code of ours, a sentence that says what went wrong, and nothing to do about it yet.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.as_str().to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_unique_and_parse_back() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert!("nonsense".parse::<ErrorCode>().is_err());
    }
}
