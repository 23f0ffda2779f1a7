//! Playbooks through HTTP, on a real directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

mod support;

use serde_json::{Value, json};
use support::*;

async fn create(world: &World, definition: &str, more: Value) -> (u16, Value) {
    let mut body = json!({ "definition": definition });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let response = world.post("/api/v1/playbooks", body).await;
    (response.status().as_u16(), value(response).await)
}

async fn get(world: &World, path: &str) -> Value {
    let response = world.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    value(response).await
}

#[tokio::test]
async fn a_version_is_made_looked_at_and_run() {
    let world = World::new().await;
    let (status, first) = create(&world, "name: build\ntask: a 1", json!({ "note": "first" })).await;
    assert_eq!(
        (status, &first["version"], &first["created"]),
        (201, &json!(1), &json!(true))
    );
    let (status, again) = create(&world, "name: build\ntask: a 1", json!({})).await;
    assert_eq!(
        (status, &again["version"], &again["created"]),
        (200, &json!(1), &json!(false))
    );
    let (_, second) = create(&world, "name: build\ntask: a 2\ntask: b 1", json!({ "expected": 1 })).await;
    assert_eq!(second["version"], 2);
    let (status, late) = create(&world, "name: build\ntask: c 2", json!({ "expected": 1 })).await;
    assert_eq!((status, &late["code"]), (409, &json!("conflict")));

    let list = get(&world, "/api/v1/playbooks").await;
    assert_eq!(
        (&list["items"][0]["name"], &list["items"][0]["latest"]),
        (&json!("build"), &json!(2))
    );
    let versions = get(&world, "/api/v1/playbooks/build/versions?limit=1").await;
    assert_eq!(
        (&versions["items"][0]["version"], &versions["next_cursor"]),
        (&json!(2), &json!("2"))
    );
    let rest = get(&world, "/api/v1/playbooks/build/versions?cursor=2").await;
    assert_eq!(rest["items"][0]["note"], "first");
    let outline = get(&world, "/api/v1/playbooks/build/versions/latest/outline").await;
    assert_eq!(outline["tasks"][1]["name"], "b");
    let source = text(world.get("/api/v1/playbooks/build/versions/1/definition").await).await;
    assert_eq!(source, "name: build\ntask: a 1");

    let diff = get(&world, "/api/v1/playbooks/build/diff").await;
    assert_eq!(
        (&diff["tasks_added"], &diff["tasks_removed"], &diff["tasks_changed"]),
        (&json!(["b"]), &json!([]), &json!(["a"]))
    );
    let patch = diff["text"].as_str().unwrap();
    assert!(patch.contains("--- build@1") && patch.contains("+task: b 1"), "{patch}");

    for (reference, version, asked) in [("build", 2, None), ("build@1", 1, Some(1))] {
        let response = world.post("/api/v1/workflows", json!({ "playbook": reference })).await;
        assert_eq!(response.status(), 201);
        world.change(|script| {
            let pin = script.submitted.pop().unwrap().playbook.unwrap();
            assert_eq!((pin.name.as_str(), pin.version, pin.asked), ("build", version, asked));
        });
    }
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_its_reason() {
    let world = World::new().await;
    world.playbook("build").await;
    for (body, status, code) in [
        (json!({ "playbook": "none" }), 404, "not-found"),
        (json!({ "playbook": "build@7" }), 404, "not-found"),
        (json!({ "playbook": "build@x" }), 400, "invalid-request"),
        (json!({ "playbook": "build@0" }), 400, "invalid-request"),
        (
            json!({ "playbook": "build", "definition": "name: x" }),
            400,
            "invalid-request",
        ),
        (json!({}), 400, "invalid-request"),
    ] {
        let response = world.post("/api/v1/workflows", body.clone()).await;
        assert_eq!(problem(response).await, (status, code.to_owned()), "{body}");
    }
    let (status, refused) = create(&world, "bad", json!({})).await;
    assert_eq!((status, &refused["issues"][0]["line"]), (422, &json!(3)));
    let (status, _) = create(&world, "name: x", json!({ "name": "a@1" })).await;
    assert_eq!(status, 400);

    assert_eq!(
        world.post("/api/v1/playbooks/build:archive", json!({})).await.status(),
        200
    );
    let response = world.post("/api/v1/workflows", json!({ "playbook": "build" })).await;
    assert_eq!(problem(response).await, (409, "conflict".to_owned()));
    assert_eq!(get(&world, "/api/v1/playbooks").await["items"], json!([]));
    assert_eq!(
        get(&world, "/api/v1/playbooks?archived=true").await["items"][0]["name"],
        "build"
    );
    assert_eq!(
        world.post("/api/v1/playbooks/build:restore", json!({})).await.status(),
        200
    );
    assert_eq!(
        world
            .post("/api/v1/workflows", json!({ "playbook": "build" }))
            .await
            .status(),
        201
    );
}

#[tokio::test]
async fn a_bundle_carries_playbooks_to_another_installation() {
    let (here, there) = (World::new().await, World::new().await);
    create(&here, "name: build\ntask: a 1", json!({ "note": "first" })).await;
    create(&here, "name: build\ntask: a 2", json!({})).await;
    here.playbook("deploy").await;
    let bundle = get(&here, "/api/v1/playbooks:export").await;
    for added in [3, 0] {
        let response = there.post("/api/v1/playbooks:import", bundle.clone()).await;
        assert_eq!(value(response).await["versions_added"], added);
    }
    let version = get(&there, "/api/v1/playbooks/build/versions/1").await;
    assert_eq!((&version["note"], &version["version"]), (&json!("first"), &json!(1)));
    let only = get(&here, "/api/v1/playbooks:export?name=deploy").await;
    assert_eq!(only["playbooks"].as_array().unwrap().len(), 1);

    let response = there
        .post("/api/v1/playbooks:import", json!({ "format": 2, "playbooks": [] }))
        .await;
    assert_eq!(problem(response).await, (400, "invalid-request".to_owned()));
    let mut other = bundle;
    other["playbooks"][0]["versions"][0]["definition"] = json!("name: build\ntask: other 1");
    let response = there.post("/api/v1/playbooks:import", other).await;
    assert_eq!(problem(response).await, (409, "conflict".to_owned()));
}
