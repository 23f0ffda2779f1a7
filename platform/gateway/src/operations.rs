//! The list of everything that can be reached. Nothing else is.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::{ArtifactView, EventView, NodeView, StepView, TaskView, WorkflowSummary, WorkflowView};
use http::Method;

use crate::dto::{
    CancelAnswer, CancelBody, CreateKeyBody, CreateNodeTokenBody, CreatedKey, CreatedNodeToken, DrainBody, Health,
    Items, KeyView, NodeTokenView, Paged, StatusView, SubmitAnswer, SubmitBody, ValidateAnswer, WhoAmI,
};
use crate::handlers::{artifacts, docs, events, keys, logs, nodes, system, tasks, workflows};
use crate::operation::Content::{Json, Other};
use crate::operation::{Operation, OperationInfo, QueryParam};
use crate::schema::{list as list_of, of};

const fn q(name: &'static str, about: &'static str) -> QueryParam {
    QueryParam { name, about }
}

const PAGE: &[QueryParam] = &[
    q("cursor", "`next_cursor` of the page before"),
    q("limit", "items of a page, 1 to 500, default 50"),
];

const SUBMIT: &[QueryParam] = &[
    q(
        "p",
        "with a YAML body, may repeat: `p=name=value`, a parameter; JSON if it reads as JSON, else text",
    ),
    q("label", "with a YAML body, may repeat: `label=name=value`"),
];

/// Every operation, for tests and printed tables.
#[must_use]
pub fn list() -> Vec<OperationInfo> {
    all().iter().map(Operation::info).collect()
}

pub(crate) fn all() -> Vec<Operation> {
    let mut all = workflow_operations();
    all.extend(task_operations());
    all.extend(node_operations());
    all.extend(key_operations());
    all.extend(system_operations());
    all
}

fn workflow_operations() -> Vec<Operation> {
    const MANY: &str = "/api/v1/workflows";
    const ONE: &str = "/api/v1/workflows/{id}";
    vec![
        Operation::guarded(Method::POST, MANY, "submit_workflow", (R::Workflow, V::Create), "Start a workflow; `Idempotency-Key` makes a repetition harmless", workflows::submit)
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
                q("cursor", "`next_cursor` of the page before"),
                q("limit", "items of a page, 1 to 500, default 50"),
            ] })
            .returns(200, &[Json(list_of::<Paged<WorkflowSummary>, WorkflowSummary>())]),
        Operation::guarded(Method::GET, ONE, "get_workflow", (R::Workflow, V::Get), "One workflow with its tasks, steps and attempts", workflows::get)
            .returns(200, &[Json(of::<WorkflowView>())])
            .returns(304, &[]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/definition", "get_definition", (R::Workflow, V::Get), "The definition as it was submitted", workflows::definition)
            .returns(200, &[Other("text/plain")]),
        Operation::guarded(Method::POST, ONE, "cancel_workflow", (R::Workflow, V::Cancel), "End a workflow: steps get a polite signal, then SIGKILL", workflows::cancel)
            .action("cancel")
            .optional_body(Json(of::<CancelBody>()))
            .returns(202, &[Json(of::<CancelAnswer>())]),
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

fn task_operations() -> Vec<Operation> {
    vec![
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks", "list_tasks", (R::Workflow, V::Get), "Tasks of a workflow", tasks::list)
            .returns(200, &[Json(list_of::<Items<TaskView>, TaskView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}", "get_task", (R::Workflow, V::Get), "One task, by name or id", tasks::get)
            .returns(200, &[Json(of::<TaskView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}/steps", "list_steps", (R::Workflow, V::Get), "Steps of a task", tasks::steps)
            .returns(200, &[Json(list_of::<Items<StepView>, StepView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}/steps/{step}", "get_step", (R::Workflow, V::Get), "One step, by key or index", tasks::step)
            .returns(200, &[Json(of::<StepView>())]),
        Operation::guarded(Method::GET, "/api/v1/workflows/{id}/tasks/{task}/steps/{step}/logs", "read_logs", (R::Log, V::Watch), "What a step printed: bytes, NDJSON, or with `Accept: text/event-stream` events whose id is the sequence number", logs::logs)
            .query(const { &[
                q("attempt", "which attempt; default: the newest"),
                q("stream", "only `stdout` or only `stderr`"),
                q("follow", "`true`: go on until the attempt has ended"),
                q("format", "`text` (default) or `json` (one object per line)"),
            ] })
            .returns(200, &[Other("text/plain"), Other("application/x-ndjson"), Other("text/event-stream")]),
    ]
}

fn node_operations() -> Vec<Operation> {
    const ONE: &str = "/api/v1/nodes/{id}";
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/nodes",
            "list_nodes",
            (R::Node, V::List),
            "Nodes that serve the tenant",
            nodes::list,
        )
        .returns(200, &[Json(list_of::<Items<NodeView>, NodeView>())]),
        Operation::guarded(Method::GET, ONE, "get_node", (R::Node, V::Get), "One node", nodes::get)
            .returns(200, &[Json(of::<NodeView>())]),
        Operation::guarded(
            Method::POST,
            ONE,
            "drain_node",
            (R::Node, V::Drain),
            "Let a node finish what it holds and take nothing new, or lift that",
            nodes::drain,
        )
        .action("drain")
        .body(Json(of::<DrainBody>()))
        .returns(200, &[Json(of::<NodeView>())]),
    ]
}

fn key_operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/keys",
            "list_keys",
            (R::Key, V::List),
            "API keys of the tenant, newest first",
            keys::list_keys,
        )
        .query(PAGE)
        .returns(200, &[Json(list_of::<Paged<KeyView>, KeyView>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/keys",
            "create_key",
            (R::Key, V::Create),
            "Make an API key; it is shown this once",
            keys::create_key,
        )
        .body(Json(of::<CreateKeyBody>()))
        .returns(201, &[Json(of::<CreatedKey>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/keys/{id}",
            "revoke_key",
            (R::Key, V::Revoke),
            "End an API key, at once",
            keys::revoke_key,
        )
        .action("revoke")
        .returns(200, &[Json(of::<KeyView>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/node-tokens",
            "list_node_tokens",
            (R::NodeToken, V::List),
            "Node tokens of the tenant, newest first",
            keys::list_node_tokens,
        )
        .query(PAGE)
        .returns(200, &[Json(list_of::<Paged<NodeTokenView>, NodeTokenView>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/node-tokens",
            "create_node_token",
            (R::NodeToken, V::Create),
            "Make a node token; it is shown this once",
            keys::create_node_token,
        )
        .body(Json(of::<CreateNodeTokenBody>()))
        .returns(201, &[Json(of::<CreatedNodeToken>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/node-tokens/{id}",
            "revoke_node_token",
            (R::NodeToken, V::Revoke),
            "End a node token",
            keys::revoke_node_token,
        )
        .action("revoke")
        .returns(200, &[Json(of::<NodeTokenView>())]),
    ]
}

fn system_operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/whoami",
            "whoami",
            (R::Identity, V::Get),
            "Who the caller is",
            system::whoami,
        )
        .returns(200, &[Json(of::<WhoAmI>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/status",
            "status",
            (R::Status, V::Get),
            "State of the installation",
            system::status,
        )
        .returns(200, &[Json(of::<StatusView>())]),
        Operation::public(
            Method::GET,
            "/api/v1/schemas/workflow",
            "workflow_schema",
            "JSON Schema of workflow definitions",
            system::workflow_schema,
        )
        .returns(200, &[Other("application/json")]),
        Operation::public(
            Method::GET,
            "/api/v1/openapi.json",
            "openapi",
            "This document",
            system::openapi,
        )
        .returns(200, &[Other("application/json")]),
        Operation::public(Method::GET, "/healthz", "healthz", "The process lives", system::healthz)
            .returns(200, &[Json(of::<Health>())]),
        Operation::public(
            Method::GET,
            "/readyz",
            "readyz",
            "The process accepts work",
            system::readyz,
        )
        .returns(200, &[Json(of::<Health>())]),
        Operation::public(
            Method::GET,
            "/docs/errors/{code}",
            "error_page",
            "What an error code means and what to do about it",
            docs::error_page,
        )
        .returns(200, &[Other("text/markdown")]),
        Operation::public(Method::GET, "/", "root", "Where things are", system::root)
            .returns(200, &[Other("application/json")]),
    ]
}
