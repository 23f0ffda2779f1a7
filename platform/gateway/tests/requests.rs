//! Requests and answers: what is taken, what is refused, and how.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

mod support;

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use support::*;

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_problems() {
    let world = World::new().await;
    for path in [
        "/api/v1/nothing",
        "/api/v1/workflows/",
        "/api/v2/workflows",
        "/api/v1/workflows/%ff",
        "/api//v1/workflows",
        "/docs/errors/none",
    ] {
        assert_eq!(
            problem(world.get(path).await).await,
            (404, "not-found".into()),
            "{path}"
        );
    }
    let response = world
        .send(
            world
                .request("DELETE", "/api/v1/workflows")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(response.headers()["allow"], "POST, GET, HEAD");
    assert_eq!(problem(response).await, (405, "invalid-request".into()));
    let one = format!("/api/v1/workflows/{}", world.workflow());
    let response = world
        .send(
            world
                .request("GET", &format!("{one}:cancel"))
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(problem(response).await.0, 405);
    assert_eq!(
        problem(world.post(&format!("{one}%3Acancel"), Value::Null).await)
            .await
            .0,
        405,
        "an encoded colon is part of the id"
    );
    assert_eq!(problem(world.get(&format!("{one}:explode")).await).await.0, 404);
    assert_eq!(problem(world.get(&one.replace("wf_", "task_")).await).await.0, 404);
    assert_eq!(
        world
            .send(world.request("HEAD", &one).body(Body::empty()).unwrap())
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_request_id_is_kept_when_it_is_harmless() {
    let world = World::new().await;
    let ask = |id: &str| {
        world
            .request("GET", "/healthz")
            .header("x-request-id", id)
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(
        world.send(ask("abc-1.2_3")).await.headers()["x-request-id"],
        "abc-1.2_3"
    );
    for bad in ["a b", "<script>", &"x".repeat(65)] {
        let response = world.send(ask(bad)).await;
        assert_ne!(response.headers()["x-request-id"], bad);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn submissions_come_as_json_or_yaml() {
    let world = World::new().await;
    let response = world.post("/api/v1/workflows", json!({ "definition": { "name": "x", "b": 1, "a": 2 }, "parameters": { "n": 1 }, "labels": { "team": "a" } })).await;
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.headers()["location"],
        format!("/api/v1/workflows/{}", world.workflow())
    );
    assert_eq!(
        value(response).await,
        json!({ "id": world.workflow().to_string(), "replayed": false })
    );

    let yaml = |key: &str| {
        world
            .request("POST", "/api/v1/workflows?p=n=3&p=v=1.2.3&p=q=%22007%22&label=a=b")
            .header("content-type", "application/yaml; charset=utf-8")
            .header("idempotency-key", key)
            .header("traceparent", "00-1-2-01")
            .body(Body::from("name: y"))
            .unwrap()
    };
    assert_eq!(world.send(yaml("k1")).await.status(), 201);
    let again = world.send(yaml("k1")).await;
    assert_eq!(again.status(), 200);
    assert_eq!(value(again).await["replayed"], true);

    let script = world.engine.0.lock();
    assert_eq!(
        std::str::from_utf8(&script.submitted[0].source).unwrap(),
        "{\n  \"name\": \"x\",\n  \"b\": 1,\n  \"a\": 2\n}",
        "in the order it was sent"
    );
    let sent = &script.submitted[1];
    assert_eq!(sent.source.as_ref(), b"name: y");
    assert_eq!(
        Value::Object(sent.parameters.clone()),
        json!({ "n": 3, "v": "1.2.3", "q": "007" })
    );
    assert_eq!(
        (sent.labels.clone(), sent.traceparent.as_deref()),
        (vec![("a".into(), "b".into())], Some("00-1-2-01"))
    );
    assert_eq!(sent.caller.tenant, world.tenant);
}

#[tokio::test]
async fn bad_submissions_are_refused_with_the_reason() {
    let world = World::new().await;
    let path = "/api/v1/workflows";
    let send = |media: &str, body: Vec<u8>| {
        world
            .request("POST", path)
            .header("content-type", media)
            .body(Body::from(body))
            .unwrap()
    };
    assert_eq!(
        problem(
            world
                .send(send("application/x-www-form-urlencoded", b"a".to_vec()))
                .await
        )
        .await,
        (415, "invalid-request".into())
    );
    assert_eq!(
        problem(world.send(send("application/json", b"{".to_vec())).await).await,
        (400, "invalid-request".into())
    );
    assert_eq!(
        problem(world.send(send("application/json", vec![b'['; 100_000])).await).await,
        (400, "invalid-request".into())
    );
    assert_eq!(
        problem(world.send(send("application/yaml", vec![b'a'; 10 << 20])).await).await,
        (413, "too-large".into())
    );
    assert_eq!(
        problem(world.send(send("application/yaml", vec![b'a'; (1 << 20) + 1])).await).await,
        (413, "too-large".into())
    );
    for bad in [
        json!({}),
        json!(["name: x"]),
        json!({ "definition": 5 }),
        json!({ "definition": "x", "tenant": "ten_1" }),
        json!({ "definition": "x", "parameters": [] }),
        json!({ "definition": "x", "labels": { "": "v" } }),
        json!({ "definition": "x", "labels": { "k": "a\nb" } }),
    ] {
        assert_eq!(
            problem(world.post(path, bad.clone()).await).await,
            (400, "invalid-request".into()),
            "{bad}"
        );
    }
    let large = json!({ "definition": "x", "parameters": { "p": "y".repeat(300 << 10) } });
    assert_eq!(problem(world.post(path, large).await).await, (413, "too-large".into()));
    let key = world
        .request("POST", path)
        .header("content-type", "application/yaml")
        .header("idempotency-key", "k".repeat(256))
        .body(Body::from("x"))
        .unwrap();
    assert_eq!(problem(world.send(key).await).await.0, 400);
    assert!(world.engine.0.lock().submitted.is_empty());

    let response = world
        .post("/api/v1/workflows:validate", json!({ "definition": "bad" }))
        .await;
    assert_eq!(response.status(), 422);
    let body = value(response).await;
    assert_eq!(
        (
            body["issues"][0]["line"].as_u64(),
            body["issues"][0]["column"].as_u64(),
            body["hint"].as_str()
        ),
        (Some(3), Some(5), Some("change it"))
    );
    assert_eq!(
        value(
            world
                .post("/api/v1/workflows:validate", json!({ "definition": "ok" }))
                .await
        )
        .await,
        json!({ "valid": true })
    );
}

#[tokio::test]
async fn a_body_without_announced_length_is_bounded_too() {
    let world = World::new().await;
    let endless =
        futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b'a'; 1 << 16])));
    let request = world
        .request("POST", "/api/v1/workflows")
        .header("content-type", "application/yaml")
        .body(Body::from_stream(endless))
        .unwrap();
    assert_eq!(problem(world.send(request).await).await, (413, "too-large".into()));
}

#[tokio::test]
async fn bulk_requests_say_what_they_are_about() {
    let world = World::new().await;
    let path = "/api/v1/bulk";
    for bad in [
        json!({ "operation": "pause" }),
        json!({ "operation": "remove", "where": "true" }),
        json!({ "operation": "pause", "where": "true", "dry_runn": true }),
        json!({ "operation": "pause", "where": "true", "grace_ms": 5 }),
        json!({ "operation": "signal", "where": "true" }),
    ] {
        assert_eq!(
            problem(world.post(path, bad.clone()).await).await,
            (400, "invalid-request".into()),
            "{bad}"
        );
    }
    let started = world.post(path, json!({ "operation": "pause", "where": "true" })).await;
    assert_eq!(started.status(), 202);
    assert!(started.headers().contains_key("location"));
    let counted = world
        .post(path, json!({ "operation": "pause", "where": "true", "dry_run": true }))
        .await;
    assert_eq!(counted.status(), 200);
}

#[tokio::test]
async fn misspelt_and_odd_queries_are_refused() {
    let world = World::new().await;
    for query in [
        "stat=active",
        "state=activ",
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=abc",
        "limit=1&limit=2",
    ] {
        assert_eq!(
            problem(world.get(&format!("/api/v1/workflows?{query}")).await).await,
            (400, "invalid-request".into()),
            "{query}"
        );
    }
    let listed = value(world.get("/api/v1/workflows?state=active,completed&limit=500").await).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert!(listed.get("next_cursor").is_none());
}

#[tokio::test]
async fn faults_of_ours_are_answered_too() {
    let mut config = config();
    config.request_timeout = Duration::from_millis(200);
    let world = World::with(config).await;
    let submit = |text: &str| {
        world
            .request("POST", "/api/v1/workflows")
            .header("content-type", "application/yaml")
            .body(Body::from(text.to_owned()))
            .unwrap()
    };
    assert_eq!(
        problem(world.send(submit("panic")).await).await,
        (500, "internal".into())
    );
    let late = world.send(submit("hang")).await;
    assert_eq!(late.headers()["retry-after"], "2");
    assert_eq!(problem(late).await, (503, "overloaded".into()));
    assert_eq!(
        world.get("/healthz").await.status(),
        200,
        "and the next request is served"
    );
}

#[tokio::test]
async fn views_are_found_by_name_id_key_and_index() {
    let world = World::new().await;
    world.change(|script| script.assign(1));
    let one = format!("/api/v1/workflows/{}", world.workflow());
    let task = world.engine.0.lock().task;
    assert_eq!(
        value(world.get(&format!("{one}/tasks")).await).await["items"][0]["name"],
        "build"
    );
    assert_eq!(
        value(world.get(&format!("{one}/tasks/{task}")).await).await["name"],
        "build"
    );
    assert_eq!(
        value(world.get(&format!("{one}/tasks/build/steps/compile")).await).await["index"],
        0
    );
    assert_eq!(
        value(world.get(&format!("{one}/tasks/build/steps/0")).await).await["key"],
        "compile"
    );
    for missing in [
        "tasks/none",
        "tasks/build/steps/1",
        "tasks/build/steps/none",
        "tasks/build/steps/0/logs?attempt=2",
    ] {
        assert_eq!(
            problem(world.get(&format!("{one}/{missing}")).await).await.0,
            404,
            "{missing}"
        );
    }
    assert_eq!(text(world.get(&format!("{one}/definition")).await).await, "name: demo");

    let response = world.get(&one).await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(etag, "W/\"3\"");
    let same = world
        .send(
            world
                .request("GET", &one)
                .header("if-none-match", &etag)
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(same.status(), 304);
    world.change(|script| script.end(1, "completed"));
    let newer = world
        .send(
            world
                .request("GET", &one)
                .header("if-none-match", &etag)
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(newer.status(), 200);
}

#[tokio::test]
async fn cancelling_takes_a_grace_or_nothing() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}:cancel", world.workflow());
    let bare = world
        .send(world.request("POST", &path).body(Body::empty()).unwrap())
        .await;
    assert_eq!(bare.status(), 202);
    assert_eq!(value(bare).await, json!({ "state": "active" }));
    assert_eq!(world.post(&path, json!({ "grace_ms": 5 })).await.status(), 202);
    assert_eq!(problem(world.post(&path, json!({ "grace": 5 })).await).await.0, 400);
    assert_eq!(world.engine.0.lock().cancelled, [None, Some(5)]);
}

#[tokio::test]
async fn workflows_are_held_released_and_erased() {
    let world = World::new().await;
    let one = format!("/api/v1/workflows/{}", world.workflow());
    let held = world.post(&format!("{one}:hold"), json!({ "reason": "case 17" })).await;
    assert_eq!(
        (held.status(), value(held).await),
        (http::StatusCode::OK, json!({ "held": true }))
    );
    let (status, refused) = problem(world.post(&format!("{one}:erase"), json!({})).await).await;
    assert_eq!((status, refused.as_str()), (409, "legal-hold"));
    let released = world.post(&format!("{one}:release"), json!({})).await;
    assert_eq!(value(released).await, json!({ "held": false }));
    assert_eq!(world.engine.0.lock().kept, ["hold case 17", "release"]);
    let erased = world.post(&format!("{one}:erase"), json!({})).await;
    assert_eq!(value(erased).await, json!({ "workflows": 1 }));
    let tenant = world.engine.0.lock().tenant;
    let all = world.post(&format!("/api/v1/tenants/{tenant}:erase"), json!({})).await;
    assert_eq!(value(all).await, json!({ "workflows": 3 }));
}

#[tokio::test]
async fn artifacts_are_downloads_with_ranges() {
    let world = World::new().await;
    let one = format!("/api/v1/workflows/{}/artifacts", world.workflow());
    assert_eq!(
        value(world.get(&one).await).await["items"][0]["id"],
        artifact_id().to_string()
    );
    let path = format!("{one}/{}", artifact_id());
    let response = world.get(&path).await;
    let headers = response.headers().clone();
    assert_eq!(text(response).await.as_bytes(), ARTIFACT);
    assert_eq!(headers["content-length"], "10");
    assert_eq!(headers["content-type"], "text/html");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("sandbox")
    );
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"re_port.txt\"; filename*=UTF-8''re%22port.txt"
    );
    assert_eq!(
        headers["repr-digest"],
        "sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:"
    );

    let range = |value: &str| {
        world
            .request("GET", &path)
            .header("range", value)
            .body(Body::empty())
            .unwrap()
    };
    let part = world.send(range("bytes=2-5")).await;
    assert_eq!(
        (
            part.status().as_u16(),
            part.headers()["content-range"].to_str().unwrap()
        ),
        (206, "bytes 2-5/10")
    );
    assert_eq!(part.headers()["content-length"], "4");
    assert_eq!(text(part).await, "2345");
    assert_eq!(text(world.send(range("bytes=-3")).await).await, "789");
    let beyond = world.send(range("bytes=10-")).await;
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
    assert_eq!(problem(beyond).await.0, 416);
    let stale = world
        .request("GET", &path)
        .header("range", "bytes=2-5")
        .header("if-range", "\"old\"")
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(stale).await.status(), 200);
    let same = world
        .request("GET", &path)
        .header("if-none-match", headers["etag"].clone())
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(same).await.status(), 304);
    assert_eq!(
        problem(world.get(&format!("{one}/art_00000000000070008000000000000000")).await)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn status_and_health() {
    let world = World::new().await;
    let status = value(world.get("/api/v1/status").await).await;
    assert_eq!(
        (
            status["version"].as_str(),
            status["ready"].as_bool(),
            status["nodes"]["by_state"]["online"].as_u64()
        ),
        (Some("9.9.9"), Some(true), Some(1))
    );
    assert_eq!(status["installation"].as_str().unwrap().len(), 32);
    let open = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(world.send(open("/readyz")).await.status(), 200);
    assert_eq!(
        value(world.send(open("/api/v1/schemas/workflow")).await).await,
        json!({ "title": "workflow" })
    );
    assert_eq!(value(world.send(open("/")).await).await["name"], "gantry");
    world.shutdown.cancel();
    assert_eq!(problem(world.send(open("/readyz")).await).await.0, 503);
    assert_eq!(world.send(open("/healthz")).await.status(), 200);
}

#[tokio::test]
async fn a_backup_is_a_stream_that_nobody_on_the_way_keeps() {
    let world = World::new().await;
    let ask = async |query: &str| {
        let request = Request::post(format!("/api/v1/backups{query}"))
            .header("x-api-key", &world.admin)
            .body(Body::empty())
            .unwrap();
        world.send(request).await
    };
    let response = ask("?artifacts=true").await;
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(text(response).await, "artifacts: true");
    assert_eq!(text(ask("").await).await, "artifacts: false");
    assert_eq!(problem(ask("?artifacts=maybe").await).await.1, "invalid-request");
}
