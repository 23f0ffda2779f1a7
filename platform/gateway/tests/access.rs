//! Who may do what: every operation, with every kind of credential, against expectations written down by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

mod support;

use std::collections::BTreeSet;

use axum::body::Body;
use gantry_gateway::{OperationInfo, Permission, openapi_document, operation_list};
use http::Request;
use serde_json::{Value, json};
use support::*;

/// The least scope that each operation needs, decided by a person. An operation that is missing here fails the test.
const EXPECTED: &[(&str, &str)] = &[
    ("submit_workflow", "operate"),
    ("validate_workflow", "read"),
    ("list_workflows", "read"),
    ("get_workflow", "read"),
    ("trace_workflow", "read"),
    ("query", "read"),
    ("get_definition", "read"),
    ("cancel_workflow", "operate"),
    ("run_component", "operate"),
    ("get_result", "read"),
    ("watch_workflow", "read"),
    ("list_artifacts", "read"),
    ("download_artifact", "read"),
    ("list_tasks", "read"),
    ("get_task", "read"),
    ("list_steps", "read"),
    ("get_step", "read"),
    ("read_logs", "read"),
    ("signal_workflow", "operate"),
    ("pause_workflow", "operate"),
    ("resume_workflow", "operate"),
    ("approve_task", "operate"),
    ("reject_task", "operate"),
    ("accept_task", "operate"),
    ("rework_task", "operate"),
    ("reassign_task", "operate"),
    ("retry_task", "operate"),
    ("skip_task", "operate"),
    ("resolve_task", "operate"),
    ("fail_task", "operate"),
    ("list_playbooks", "read"),
    ("create_playbook_version", "operate"),
    ("validate_playbook", "read"),
    ("export_playbooks", "read"),
    ("import_playbooks", "operate"),
    ("get_playbook", "read"),
    ("archive_playbook", "operate"),
    ("restore_playbook", "operate"),
    ("list_playbook_versions", "read"),
    ("get_playbook_version", "read"),
    ("get_playbook_definition", "read"),
    ("get_playbook_outline", "read"),
    ("diff_playbook", "read"),
    ("create_upload", "operate"),
    ("list_uploads", "read"),
    ("get_upload", "read"),
    ("download_upload", "read"),
    ("delete_upload", "operate"),
    ("list_schedules", "read"),
    ("set_schedule", "operate"),
    ("restart_workflow", "operate"),
    ("fork_workflow", "operate"),
    ("list_bulk", "read"),
    ("get_bulk", "read"),
    ("start_bulk", "operate"),
    ("cancel_bulk", "operate"),
    ("get_schedule", "read"),
    ("delete_schedule", "operate"),
    ("pause_schedule", "operate"),
    ("resume_schedule", "operate"),
    ("run_schedule", "operate"),
    ("backfill_schedule", "operate"),
    ("list_limits", "read"),
    ("get_limit", "read"),
    ("list_pauses", "read"),
    ("pause_tenant", "operate"),
    ("pause_definition", "operate"),
    ("resume_tenant", "operate"),
    ("resume_definition", "operate"),
    ("list_tenants", "admin"),
    ("weigh_tenant", "admin"),
    ("list_nodes", "read"),
    ("get_node", "read"),
    ("drain_node", "operate"),
    ("hold_workflow", "admin"),
    ("release_workflow", "admin"),
    ("erase_workflow", "admin"),
    ("erase_tenant", "admin"),
    ("list_keys", "admin"),
    ("create_key", "admin"),
    ("revoke_key", "admin"),
    ("list_node_tokens", "admin"),
    ("create_node_token", "admin"),
    ("revoke_node_token", "admin"),
    ("create_backup", "admin"),
    ("whoami", "read"),
    ("status", "read"),
    ("workflow_schema", "public"),
    ("openapi", "public"),
    ("healthz", "public"),
    ("readyz", "public"),
    ("error_page", "public"),
    ("root", "public"),
];

fn rank(scope: &str) -> usize {
    ["public", "read", "operate", "admin"]
        .iter()
        .position(|known| *known == scope)
        .unwrap()
}

fn path(world: &World, operation: &OperationInfo) -> String {
    let id = match operation.id {
        "get_node" | "drain_node" => node_id().to_string(),
        "get_bulk" | "cancel_bulk" => support::bulk::bulk_id().to_string(),
        "get_upload" | "download_upload" | "delete_upload" => upload_id().to_string(),
        "get_limit" => "000102030405060708090a0b0c0d0e0f".to_owned(),
        "erase_tenant" | "weigh_tenant" => world.engine.0.lock().tenant.to_string(),
        // Revoking something that exists would change the world under the test's feet.
        "revoke_key" => "key_00000000000070008000000000000000".to_owned(),
        "revoke_node_token" => "ntok_00000000000070008000000000000000".to_owned(),
        _ => world.workflow().to_string(),
    };
    operation
        .path
        .replace("{id}", &id)
        .replace("{name}", "deploy")
        .replace("{version}", "latest")
        .replace("{component}", "greet")
        .replace("{task}", "build")
        .replace("{step}", "compile")
        .replace("{artifact}", &artifact_id().to_string())
        .replace("{code}", "not-found")
        + if operation.id == "create_upload" {
            "?name=data.csv"
        } else {
            ""
        }
}

fn body(operation: &OperationInfo) -> Value {
    match operation.id {
        "submit_workflow" | "validate_workflow" => json!({ "definition": "name: x" }),
        "create_playbook_version" | "validate_playbook" => json!({ "definition": "name: made" }),
        "set_schedule" => json!({ "playbook": "deploy", "cron": "0 6 * * *" }),
        "backfill_schedule" => json!({ "from_ms": 1, "to_ms": 2 }),
        "import_playbooks" => json!({ "format": 1, "playbooks": [] }),
        "query" => json!({ "sql": "SELECT 1" }),
        "start_bulk" => json!({ "operation": "pause", "where": "true" }),
        "weigh_tenant" => json!({ "weight": 2 }),
        "drain_node" => json!({ "drain": true }),
        "signal_workflow" => json!({ "name": "go" }),
        "create_key" => json!({ "name": "x", "scope": "read" }),
        "create_node_token" => json!({ "name": "x" }),
        _ => Value::Null,
    }
}

async fn ask(world: &World, operation: &OperationInfo, token: Option<&str>) -> (u16, Option<String>) {
    let mut request = Request::builder()
        .method(operation.method.clone())
        .uri(path(world, operation));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = match body(operation) {
        Value::Null => Body::empty(),
        body => {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        }
    };
    let response = world.send(request.body(body).unwrap()).await;
    let status = response.status().as_u16();
    let code = if response
        .headers()
        .get("content-type")
        .is_some_and(|media| media == "application/problem+json")
    {
        Some(problem(response).await.1)
    } else {
        None
    };
    (status, code)
}

#[tokio::test]
async fn every_operation_is_allowed_to_exactly_those_who_may() {
    let world = World::new().await;
    world.change(|script| {
        script.assign(1);
        script.print(1, b"x");
        script.end(1, "completed");
    });
    world.playbook("deploy").await;
    let operations = operation_list();
    let known: BTreeSet<&str> = EXPECTED.iter().map(|(id, _)| *id).collect();
    let real: BTreeSet<&str> = operations.iter().map(|operation| operation.id).collect();
    assert_eq!(known, real, "expectations and operations are the same set");
    let mut asked = 0;
    for operation in &operations {
        let needed = EXPECTED.iter().find(|(id, _)| *id == operation.id).unwrap().1;
        let public = needed == "public";
        assert_eq!(public, operation.permission == Permission::Public, "{}", operation.id);
        for token in [
            None,
            Some(world.revoked.as_str()),
            Some(world.node_token.as_str()),
            Some("nonsense"),
            Some("ab_x_y"),
        ] {
            let (status, code) = ask(&world, operation, token).await;
            let refused = (status, code.as_deref()) == (401, Some("unauthenticated"));
            assert_eq!(refused, !public, "{} with {token:?}: {status} {code:?}", operation.id);
            asked += 1;
        }
        for (scope, token) in [
            ("read", &world.read),
            ("operate", &world.operate),
            ("admin", &world.admin),
        ] {
            let (status, code) = ask(&world, operation, Some(token)).await;
            let allowed = rank(scope) >= rank(needed);
            let forbidden = (status, code.as_deref()) == (403, Some("forbidden"));
            assert_eq!(
                forbidden, !allowed,
                "{} with scope {scope}: {status} {code:?}",
                operation.id
            );
            let missing_on_purpose = ["revoke_key", "revoke_node_token", "error_page"].contains(&operation.id);
            if allowed && !missing_on_purpose {
                assert!(
                    (200..300).contains(&status),
                    "{} with scope {scope}: {status} {code:?}",
                    operation.id
                );
            }
            asked += 1;
        }
        let (status, code) = ask(&world, operation, Some(&world.other)).await;
        // It is about all tenants: an admin of one of them is not enough.
        let of_all = ["create_backup", "list_tenants", "weigh_tenant"].contains(&operation.id);
        // Whatever a definition is called, it may be paused before it is there.
        let any_name = ["pause_definition", "resume_definition"].contains(&operation.id);
        if of_all {
            assert_eq!((status, code.as_deref()), (403, Some("forbidden")), "{}", operation.id);
        } else if !any_name && (operation.path.contains("{id}") || operation.path.contains("{name}")) {
            assert_eq!(
                (status, code.as_deref()),
                (404, Some("not-found")),
                "{} by another tenant",
                operation.id
            );
        } else if operation.id != "error_page" {
            assert!(
                (200..300).contains(&status),
                "{} by another tenant: {status}",
                operation.id
            );
        }
        asked += 1;
    }
    println!("{asked} cells of {} operations", operations.len());
}

#[tokio::test]
async fn one_tenant_cannot_end_or_see_the_keys_of_another() {
    let world = World::new().await;
    let mine = value(world.get("/api/v1/keys").await).await["items"]
        .as_array()
        .unwrap()
        .clone();
    assert!(mine.len() >= 3);
    for key in &mine {
        let path = format!("/api/v1/keys/{}:revoke", key["id"].as_str().unwrap());
        let request = Request::post(path)
            .header("x-api-key", &world.other)
            .body(Body::empty())
            .unwrap();
        assert_eq!(problem(world.send(request).await).await, (404, "not-found".into()));
    }
    let request = Request::get("/api/v1/keys")
        .header("x-api-key", &world.other)
        .body(Body::empty())
        .unwrap();
    let theirs = value(world.send(request).await).await;
    assert_eq!(theirs["items"].as_array().unwrap().len(), 1);
    assert!(!theirs.to_string().contains("hash"), "{theirs}");
}

#[tokio::test]
async fn a_key_is_shown_once_works_and_ends_at_once() {
    let world = World::new().await;
    let response = world
        .post("/api/v1/keys", json!({ "name": "ci", "scope": "read" }))
        .await;
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["cache-control"].to_str().unwrap()
        ),
        (201, "no-store")
    );
    let made = value(response).await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(key.starts_with("ab_") && key.starts_with(made["prefix"].as_str().unwrap()));
    let whoami = || {
        Request::get("/api/v1/whoami")
            .header("x-api-key", key)
            .body(Body::empty())
            .unwrap()
    };
    let me = value(world.send(whoami()).await).await;
    assert_eq!((me["id"].as_str(), me["scope"].as_str()), (Some(id), Some("read")));
    assert!(!text(world.get("/api/v1/keys").await).await.contains(key));
    let revoked = value(world.post(&format!("/api/v1/keys/{id}:revoke"), Value::Null).await).await;
    assert!(revoked["revoked_at_ms"].is_u64());
    assert_eq!(problem(world.send(whoami()).await).await.0, 401);
    for bad in [
        json!({ "name": "", "scope": "read" }),
        json!({ "name": "x", "scope": "root" }),
        json!({ "name": "x", "scope": "read", "tenant": "t" }),
    ] {
        assert_eq!(problem(world.post("/api/v1/keys", bad).await).await.0, 400);
    }
}

#[tokio::test]
async fn the_openapi_document_has_every_operation_and_no_loose_end() {
    let world = World::new().await;
    let served = value(
        world
            .send(Request::get("/api/v1/openapi.json").body(Body::empty()).unwrap())
            .await,
    )
    .await;
    assert_eq!(served, openapi_document("9.9.9"));
    assert_eq!(served["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for operation in operation_list() {
        let entry = &served["paths"][&operation.path][operation.method.as_str().to_lowercase()];
        assert_eq!(entry["operationId"], operation.id);
        assert!(ids.insert(operation.id), "{} stands twice", operation.id);
        let documented = entry["x-gantry-permission"].is_object();
        assert_eq!(
            documented,
            operation.permission != Permission::Public,
            "{}",
            operation.id
        );
        for name in operation
            .path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.split('}').next())
        {
            assert!(
                entry["parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["name"] == name && one["in"] == "path"),
                "{} {name}",
                operation.id
            );
        }
    }
    let documented: usize = served["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum();
    assert_eq!(documented, ids.len());
    check_refs(&served, &served);
}

fn check_refs(document: &Value, value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                let pointer = target.strip_prefix('#').expect("references stay inside the document");
                assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
            }
            map.values().for_each(|inner| check_refs(document, inner));
        }
        Value::Array(items) => items.iter().for_each(|inner| check_refs(document, inner)),
        _ => {}
    }
}
