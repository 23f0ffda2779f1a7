//! Signals for workflows, and decisions on tasks.

use axum::response::Response;
use gantry_directory::Scope;
use gantry_engine::api::{DeciderScope, DecisionRequest, Reassignment, Requires, SignalRequest, TaskDecision};
use gantry_proto::WorkflowId;
use gantry_proto::limits::{CHANGES_BYTES_MAX, COMMENT_BYTES_MAX, SIGNAL_BYTES_MAX};
use http::StatusCode;

use super::json;
use crate::call::GuardedCall;
use crate::dto::CancelAnswer;
use crate::dto::decisions::{
    AssessBody, CommentBody, DecisionAnswer, PauseBody, ReassignBody, ResolveBody, RetryBody, SignalAnswer, SignalBody,
};
use crate::problem::Problem;

/// Escapes make a text up to six times longer in JSON; what is within comes under its own limit.
const SIGNAL_BODY_BYTES_MAX: usize = 2 * SIGNAL_BYTES_MAX;
const DECISION_BODY_BYTES_MAX: usize = 2 * (CHANGES_BYTES_MAX + COMMENT_BYTES_MAX);

pub(crate) async fn signal(mut call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let body: SignalBody = call.call.json(SIGNAL_BODY_BYTES_MAX).await?;
    let request = SignalRequest {
        name: body.name,
        id: body.id,
        payload: body.payload,
    };
    let receipt = call.shared.backend.signal(call.caller(), id, request).await?;
    json(
        StatusCode::ACCEPTED,
        &SignalAnswer {
            duplicate: receipt.duplicate,
        },
    )
}

pub(crate) async fn pause(mut call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let body: PauseBody = call.call.json_or_default(DECISION_BODY_BYTES_MAX).await?;
    let backend = &call.shared.backend;
    let state = backend.pause(call.caller(), id, body.interrupt, body.comment).await?;
    json(StatusCode::OK, &CancelAnswer { state })
}

pub(crate) async fn resume(call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let state = call.shared.backend.resume(call.caller(), id).await?;
    json(StatusCode::OK, &CancelAnswer { state })
}

async fn decide(call: GuardedCall, decision: TaskDecision, comment: Option<String>) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let request = DecisionRequest {
        task: call.text(1).to_owned(),
        scope: match call.key.scope {
            Scope::Admin => DeciderScope::Admin,
            // The permission table lets nobody below come here.
            Scope::Operate | Scope::Read => DeciderScope::Operate,
        },
        decision,
        comment,
    };
    let state = call.shared.backend.decide(call.caller(), id, request).await?;
    json(StatusCode::OK, &DecisionAnswer { state })
}

async fn plain(mut call: GuardedCall, decision: TaskDecision) -> Result<Response, Problem> {
    let body: CommentBody = call.call.json_or_default(DECISION_BODY_BYTES_MAX).await?;
    decide(call, decision, body.comment).await
}

pub(crate) async fn approve(call: GuardedCall) -> Result<Response, Problem> {
    plain(call, TaskDecision::Approve).await
}

pub(crate) async fn reject(call: GuardedCall) -> Result<Response, Problem> {
    plain(call, TaskDecision::Reject).await
}

pub(crate) async fn accept(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: AssessBody = call.call.json_or_default(DECISION_BODY_BYTES_MAX).await?;
    decide(call, TaskDecision::Accept { round: body.round }, body.comment).await
}

pub(crate) async fn rework(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: AssessBody = call.call.json_or_default(DECISION_BODY_BYTES_MAX).await?;
    decide(call, TaskDecision::Rework { round: body.round }, body.comment).await
}

pub(crate) async fn reassign(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: ReassignBody = call.call.json_or_default(DECISION_BODY_BYTES_MAX).await?;
    let to = Reassignment {
        node: body.node,
        away: body.away,
        requires: body.requires.map(|requires| Requires {
            capabilities: requires.capabilities,
            labels: requires.labels.into_iter().collect(),
            arch: requires.arch,
        }),
        restart: body.restart,
    };
    decide(call, TaskDecision::Reassign(to), body.comment).await
}

pub(crate) async fn skip(call: GuardedCall) -> Result<Response, Problem> {
    plain(call, TaskDecision::Skip).await
}

pub(crate) async fn fail(call: GuardedCall) -> Result<Response, Problem> {
    plain(call, TaskDecision::Fail).await
}

pub(crate) async fn retry(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: RetryBody = call.call.json_or_default(DECISION_BODY_BYTES_MAX).await?;
    let decision = TaskDecision::Retry {
        env: body.env.into_iter().collect(),
        params: body.params,
    };
    decide(call, decision, body.comment).await
}

pub(crate) async fn resolve(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: ResolveBody = call.call.json_or_default(SIGNAL_BODY_BYTES_MAX).await?;
    let decision = TaskDecision::Resolve { outputs: body.outputs };
    decide(call, decision, body.comment).await
}
