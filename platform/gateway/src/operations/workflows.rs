//! Workflows, their events and artifacts.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::{ArtifactView, EventView, WorkflowSummary, WorkflowView};
use http::Method;

use super::q;
use crate::dto::trace::TraceAnswer;
use crate::dto::{
    CancelAnswer, CancelBody, ForkBody, Items, Paged, RestartBody, SubmitAnswer, SubmitBody, ValidateAnswer,
};
use crate::handlers::{again, artifacts, events, trace, workflows};
use crate::operation::Content::{Json, Other};
use crate::operation::{Operation, QueryParam};
use crate::schema::{list as list_of, of};

const SUBMIT: &[QueryParam] = &[
    q(
        "p",
        "with a YAML body, may repeat: `p=name=value`, a parameter; JSON if it reads as JSON, else text",
    ),
    q("label", "with a YAML body, may repeat: `label=name=value`"),
    q("priority", "with a YAML body: 0 to 9"),
    q(
        "attribute",
        "with a YAML body, may repeat: `attribute=name=value`, a search attribute; JSON if it reads as JSON, else text",
    ),
];

pub(super) fn operations() -> Vec<Operation> {
    const MANY: &str = "/api/v1/workflows";
    const ONE: &str = "/api/v1/workflows/{id}";
    vec![
        Operation::guarded(Method::POST, MANY, "submit_workflow", (R::Workflow, V::Create), "Start a workflow; `Idempotency-Key` makes a repetition harmless for a day, or for `Idempotency-TTL-Ms`", workflows::submit)
            .query(SUBMIT)
            .body(Json(of::<SubmitBody>()))
            .body(Other("application/yaml"))
            .returns(201, &[Json(of::<SubmitAnswer>())])
            .returns(200, &[Json(of::<SubmitAnswer>())]),
        Operation::guarded(Method::POST, MANY, "validate_workflow", (R::Workflow, V::Validate), "Check a definition without starting it", workflows::validate)
            .action("validate")
            .query(SUBMIT)
            .body(Json(of::<SubmitBody>()))
            .body(Other("application/yaml"))
            .returns(200, &[Json(of::<ValidateAnswer>())]),
        Operation::guarded(Method::GET, MANY, "list_workflows", (R::Workflow, V::List), "List workflows, newest first", workflows::list)
            .query(const { &[
                q("state", "only these states, separated by commas"),
                q("name", "only workflows of this name"),
                q("playbook", "only runs of this playbook, any version"),
                q("schedule", "only runs of this schedule"),
                q("parent", "only workflows that this one started"),
                q("label", "only with this label, may repeat: `label=name=value`"),
                q("created_from", "only submitted at this time or later: milliseconds since 1970, or RFC 3339"),
                q("created_before", "only submitted before this time"),
                q("ended_from", "only ended at this time or later"),
                q("ended_before", "only ended before this time"),
                q("where", "only those that this filter fits: `state == 'failed' && attr.customer == 'acme'`"),
                q("cursor", "`next_cursor` of the page before"),
                q("limit", "items of a page, 1 to 500, default 50"),
            ] })
            .returns(200, &[Json(list_of::<Paged<WorkflowSummary>, WorkflowSummary>())]),
        Operation::guarded(Method::GET, ONE, "get_workflow", (R::Workflow, V::Get), "One workflow with its tasks, steps and attempts", workflows::get)
            .returns(200, &[Json(of::<WorkflowView>())])
            .returns(304, &[]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/trace", "trace_workflow", (R::Workflow, V::Get), "A workflow as OpenTelemetry spans (OTLP as JSON): tasks, steps, attempts, queue time apart from run time", trace::get)
            .returns(200, &[Json(of::<TraceAnswer>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/definition", "get_definition", (R::Workflow, V::Get), "The definition as it was submitted", workflows::definition)
            .returns(200, &[Other("text/plain")]),
        Operation::guarded(Method::POST, ONE, "cancel_workflow", (R::Workflow, V::Cancel), "End a workflow: steps get a polite signal, then SIGKILL", workflows::cancel)
            .action("cancel")
            .optional_body(Json(of::<CancelBody>()))
            .returns(202, &[Json(of::<CancelAnswer>())]),
        Operation::guarded(Method::POST, ONE, "restart_workflow", (R::Workflow, V::Create), "Start an ended workflow again, under a new id, with the results of what need not run again; `Idempotency-Key` makes a repetition harmless", again::restart)
            .action("restart")
            .optional_body(Json(of::<RestartBody>()))
            .returns(201, &[Json(of::<SubmitAnswer>())])
            .returns(200, &[Json(of::<SubmitAnswer>())]),
        Operation::guarded(Method::POST, ONE, "fork_workflow", (R::Workflow, V::Create), "The same with other parameters, also of a workflow that still runs", again::fork)
            .action("fork")
            .optional_body(Json(of::<ForkBody>()))
            .returns(201, &[Json(of::<SubmitAnswer>())])
            .returns(200, &[Json(of::<SubmitAnswer>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/events", "watch_workflow", (R::Event, V::Watch), "Records of a workflow: a page, or with `Accept: text/event-stream` all of them and live output; resume with `Last-Event-ID`", events::events)
            .query(const { &[
                q("after", "JSON: records after this position"),
                q("cursor", "JSON: `next_cursor` of the page before"),
                q("limit", "JSON: records of a page, 1 to 500, default 50"),
                q("output", "events: `false` leaves live output out"),
            ] })
            .returns(200, &[Json(list_of::<Paged<EventView>, EventView>()), Other("text/event-stream")]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/artifacts", "list_artifacts", (R::Artifact, V::List), "Artifacts of a workflow", artifacts::list)
            .returns(200, &[Json(list_of::<Items<ArtifactView>, ArtifactView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/artifacts/{artifact}", "download_artifact", (R::Artifact, V::Get), "Bytes of an artifact, with ranges", artifacts::get)
            .returns(200, &[Other("application/octet-stream")])
            .returns(206, &[Other("application/octet-stream")])
            .returns(304, &[]),
    ]
}
