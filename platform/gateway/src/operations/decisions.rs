//! What is told to a running workflow: signals, and decisions on its tasks.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use crate::dto::CancelAnswer;
use crate::dto::decisions::{
    AssessBody, CommentBody, DecisionAnswer, PauseBody, ReassignBody, ResolveBody, RetryBody, SignalAnswer, SignalBody,
};
use crate::handlers::decisions;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::of;

const TASK: &str = "/api/v1/workflows/{id}/tasks/{task}";

pub(super) fn operations() -> Vec<Operation> {
    let mut all = of_workflows();
    all.extend(judgements());
    all.extend(of_tasks());
    all
}

fn of_workflows() -> Vec<Operation> {
    const WORKFLOW: &str = "/api/v1/workflows/{id}";
    vec![
        Operation::guarded(
            Method::POST,
            WORKFLOW,
            "signal_workflow",
            (R::Workflow, V::Signal),
            "Give a workflow a signal; with an `id`, a repetition is harmless",
            decisions::signal,
        )
        .action("signal")
        .body(Json(of::<SignalBody>()))
        .returns(202, &[Json(of::<SignalAnswer>())]),
        Operation::guarded(
            Method::POST,
            WORKFLOW,
            "pause_workflow",
            (R::Workflow, V::Pause),
            "Hold a workflow: nothing new starts, running steps end by themselves or, with `interrupt`, run again later",
            decisions::pause,
        )
        .action("pause")
        .optional_body(Json(of::<PauseBody>()))
        .returns(200, &[Json(of::<CancelAnswer>())]),
        Operation::guarded(
            Method::POST,
            WORKFLOW,
            "resume_workflow",
            (R::Workflow, V::Pause),
            "Let a workflow go on",
            decisions::resume,
        )
        .action("resume")
        .returns(200, &[Json(of::<CancelAnswer>())]),
    ]
}

/// Answers to what a task asks, and to its result.
fn judgements() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::POST,
            TASK,
            "approve_task",
            (R::Workflow, V::Decide),
            "Approve what a task asks",
            decisions::approve,
        )
        .action("approve")
        .optional_body(Json(of::<CommentBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "reject_task",
            (R::Workflow, V::Decide),
            "Reject what a task asks, or its result: it fails",
            decisions::reject,
        )
        .action("reject")
        .optional_body(Json(of::<CommentBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "accept_task",
            (R::Workflow, V::Decide),
            "Accept the result of a task: it completes",
            decisions::accept,
        )
        .action("accept")
        .optional_body(Json(of::<AssessBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "rework_task",
            (R::Workflow, V::Decide),
            "Have the result of a task made again, with the comment as feedback",
            decisions::rework,
        )
        .action("rework")
        .body(Json(of::<AssessBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
    ]
}

fn of_tasks() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::POST,
            TASK,
            "reassign_task",
            (R::Workflow, V::Decide),
            "Let a task of steps run on another node; what runs is ended, and runs there",
            decisions::reassign,
        )
        .action("reassign")
        .optional_body(Json(of::<ReassignBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "retry_task",
            (R::Workflow, V::Decide),
            "Let a task that was escalated or backs off try again now, perhaps with other input",
            decisions::retry,
        )
        .action("retry")
        .optional_body(Json(of::<RetryBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "skip_task",
            (R::Workflow, V::Decide),
            "Complete a task that does not run without running it",
            decisions::skip,
        )
        .action("skip")
        .optional_body(Json(of::<CommentBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "resolve_task",
            (R::Workflow, V::Decide),
            "Complete an escalated task with these outputs",
            decisions::resolve,
        )
        .action("resolve")
        .optional_body(Json(of::<ResolveBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
        Operation::guarded(
            Method::POST,
            TASK,
            "fail_task",
            (R::Workflow, V::Decide),
            "Fail a task that does not run",
            decisions::fail,
        )
        .action("fail")
        .optional_body(Json(of::<CommentBody>()))
        .returns(200, &[Json(of::<DecisionAnswer>())]),
    ]
}
