//! Live streams: replay from any id, nothing lost, nothing twice, bounded in number, ended when they must.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

mod support;

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NOT_TEXT: &[u8] = &[0xff, 0xfe];

fn events_path(world: &World) -> String {
    format!("/api/v1/workflows/{}/events", world.workflow())
}

fn logs_path(world: &World) -> String {
    format!("/api/v1/workflows/{}/tasks/build/steps/compile/logs", world.workflow())
}

/// Two attempts, the first lost after it printed.
fn whole_life(script: &mut Script) {
    script.record("workflow_submitted", json!({ "name": "demo" }));
    script.assign(1);
    script.print(1, b"one ");
    script.print(1, b"two ");
    script.end(1, "lost");
    script.assign(2);
    script.print(2, b"alpha\n");
    script.print(2, NOT_TEXT);
    script.print(2, "gr\u{fc}n".as_bytes());
    script.end(2, "completed");
    script.end_workflow();
}

fn shape(events: &[Sent]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            if event.event == "output" {
                format!("output {} {}", data["attempt"], data["seq"])
            } else {
                event.event.clone()
            }
        })
        .collect()
}

#[tokio::test]
async fn a_workflow_that_has_ended_is_replayed_whole_and_in_order() {
    let world = World::new().await;
    world.change(whole_life);
    let events = Events::new(world.sse(&events_path(&world), None).await).all().await;
    assert_eq!(
        shape(&events),
        [
            "workflow_submitted",
            "step_assigned",
            "output 1 1",
            "output 1 2",
            "step_ended",
            "step_assigned",
            "output 2 1",
            "output 2 2",
            "output 2 3",
            "step_ended",
            "workflow_ended",
            "end"
        ]
    );
    let output: Value = serde_json::from_str(&events[2].data).unwrap();
    assert_eq!(
        output,
        json!({ "task": "build", "step": "compile", "attempt": 1, "seq": 1, "stream": "stdout", "at_ms": 1, "text": "one " })
    );
    let binary: Value = serde_json::from_str(&events[7].data).unwrap();
    assert_eq!((binary["base64"].as_str(), binary.get("text")), (Some("//4="), None));
    let end: Value = serde_json::from_str(&events[11].data).unwrap();
    assert_eq!(end["state"], "completed");

    let without = Events::new(world.sse(&format!("{}?output=false", events_path(&world)), None).await)
        .all()
        .await;
    assert!(without.iter().all(|event| event.event != "output"));
    assert_eq!(without.len(), 7);
}

#[tokio::test]
async fn from_every_id_exactly_the_rest_comes() {
    let world = World::new().await;
    world.change(whole_life);
    let path = events_path(&world);
    let all = Events::new(world.sse(&path, None).await).all().await;
    for (index, event) in all.iter().enumerate() {
        let id = event.id.as_deref().expect("every event has an id");
        let rest = Events::new(world.sse(&path, Some(id)).await).all().await;
        if event.event == "end" {
            assert_eq!(
                shape(&rest),
                ["end"],
                "a client that comes back after the end is told so"
            );
        } else {
            assert_eq!(rest, all[index + 1..], "after {}", event.event);
        }
    }
}

#[tokio::test]
async fn what_happens_is_sent_when_it_happens() {
    let world = World::new().await;
    let mut events = Events::new(world.sse(&events_path(&world), None).await);
    world.change(|script| script.record("workflow_submitted", json!({})));
    assert_eq!(events.next().await.unwrap().event, "workflow_submitted");
    world.change(|script| script.assign(1));
    assert_eq!(events.next().await.unwrap().event, "step_assigned");
    world.change(|script| script.print(1, b"a"));
    let first = events.next().await.unwrap();
    assert_eq!(shape(std::slice::from_ref(&first)), ["output 1 1"]);
    drop(events);

    // While nobody reads, more happens; the reader goes on in the middle of the attempt's output.
    world.change(|script| {
        script.print(1, b"b");
        script.print(1, b"c");
    });
    let mut events = Events::new(world.sse(&events_path(&world), first.id.as_deref()).await);
    assert_eq!(
        shape(&[events.next().await.unwrap(), events.next().await.unwrap()]),
        ["output 1 2", "output 1 3"]
    );
    world.change(|script| {
        script.print(1, b"d");
        script.end(1, "completed");
        script.end_workflow();
    });
    assert_eq!(
        shape(&events.all().await),
        ["output 1 4", "step_ended", "workflow_ended", "end"]
    );
}

#[tokio::test]
async fn a_lost_hint_only_costs_time() {
    let mut config = config();
    config.reread = Duration::from_millis(20);
    let world = World::with(config).await;
    let mut events = Events::new(world.sse(&events_path(&world), None).await);
    world.engine.0.lock().record("workflow_submitted", json!({}));
    assert_eq!(events.next().await.unwrap().event, "workflow_submitted");
}

#[tokio::test]
async fn ids_that_are_not_of_this_stream_are_refused() {
    let world = World::new().await;
    world.change(whole_life);
    let path = events_path(&world);
    let all = Events::new(world.sse(&path, None).await).all().await;
    let newest = all.last().unwrap().id.clone().unwrap();
    for bad in ["0", "%%%", &newest[1..], &format!("{newest}AA")] {
        assert_eq!(
            problem(world.sse(&path, Some(bad)).await).await,
            (400, "invalid-request".into()),
            "{bad}"
        );
    }
    world.change(|script| {
        script.records.truncate(2);
    });
    assert_eq!(
        problem(world.sse(&path, Some(&newest)).await).await.0,
        400,
        "newer than the newest record"
    );
}

#[tokio::test]
async fn records_as_json_have_pages() {
    let world = World::new().await;
    world.change(whole_life);
    let mut kinds = Vec::new();
    let mut query = "limit=4".to_owned();
    loop {
        let page = value(world.get(&format!("{}?{query}", events_path(&world))).await).await;
        kinds.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| record["kind"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("limit=4&cursor={cursor}");
    }
    assert_eq!(
        kinds,
        [
            "workflow_submitted",
            "step_assigned",
            "step_ended",
            "step_assigned",
            "step_ended",
            "workflow_ended"
        ]
    );
    let after = value(world.get(&format!("{}?after=9", events_path(&world))).await).await;
    assert_eq!(after["items"][0]["position"], 12);
}

#[tokio::test]
async fn streams_are_bounded_in_number_and_give_their_place_back() {
    let mut config = config();
    config.streams_max = 2;
    let world = World::with(config).await;
    let path = events_path(&world);
    let first = world.sse(&path, None).await;
    let second = world.sse(&path, None).await;
    let refused = world.sse(&path, None).await;
    assert_eq!(refused.headers()["retry-after"], "2");
    assert_eq!(problem(refused).await, (503, "overloaded".into()));
    assert_eq!(world.get("/healthz").await.status(), 200);
    drop(first);
    assert_eq!(world.sse(&path, None).await.status(), 200);
    drop(second);
}

#[tokio::test]
async fn a_revoked_key_loses_its_streams() {
    let mut config = config();
    config.recheck_key = Duration::ZERO;
    let world = World::with(config).await;
    let request = http::Request::get(events_path(&world))
        .header("accept", "text/event-stream")
        .header("x-api-key", &world.read);
    let mut events = Events::new(world.send(request.body(Body::empty()).unwrap()).await);
    world.change(|script| script.record("workflow_submitted", json!({})));
    assert_eq!(events.next().await.unwrap().event, "workflow_submitted");
    let keys = value(world.get("/api/v1/keys").await).await;
    let id = keys["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["scope"] == "read")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.post(&format!("/api/v1/keys/{id}:revoke"), Value::Null).await;
    world.change(|script| script.record("workflow_activated", json!({})));
    let last = events.next().await.unwrap();
    assert_eq!(last.event, "problem");
    assert!(last.data.contains("unauthenticated"));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_a_word() {
    let world = World::new().await;
    let mut events = Events::new(world.sse(&events_path(&world), None).await);
    world.shutdown.cancel();
    assert_eq!(events.next().await.unwrap().event, "shutdown");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn logs_as_text_json_and_events() {
    let world = World::new().await;
    world.change(whole_life);
    let path = logs_path(&world);
    assert_eq!(text(world.get(&format!("{path}?attempt=1")).await).await, "one two ");
    let raw = world.get(&path).await;
    assert_eq!(raw.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(
        raw.into_body().collect().await.unwrap().to_bytes().as_ref(),
        [b"alpha\n".as_slice(), NOT_TEXT, "gr\u{fc}n".as_bytes()].concat()
    );
    assert_eq!(
        text(world.get(&format!("{path}?stream=stderr")).await).await,
        "gr\u{fc}n"
    );
    let json = text(world.get(&format!("{path}?format=json&follow=true")).await).await;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines
            .iter()
            .map(|line| line["seq"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        lines[0],
        json!({ "seq": 1, "stream": "stdout", "at_ms": 1, "text": "alpha\n" })
    );
    assert_eq!(lines[1]["base64"], "//4=");

    let all = Events::new(world.sse(&path, None).await).all().await;
    assert_eq!(
        all.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(),
        ["output", "output", "output", "end"]
    );
    let rest = Events::new(world.sse(&path, Some("1")).await).all().await;
    assert_eq!(rest, all[1..]);
    assert_eq!(problem(world.sse(&path, Some("x")).await).await.0, 400);
    for bad in ["format=xml", "stream=stdin", "attempt=x", "follow=maybe"] {
        assert_eq!(problem(world.get(&format!("{path}?{bad}")).await).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn followed_logs_end_with_the_attempt_and_unfollowed_ones_at_once() {
    let world = World::new().await;
    assert_eq!(
        problem(world.get(&logs_path(&world)).await).await.0,
        404,
        "nothing has begun"
    );
    world.change(|script| {
        script.assign(1);
        script.print(1, b"a");
    });
    assert_eq!(text(world.get(&logs_path(&world)).await).await, "a");
    let mut followed = world
        .get(&format!("{}?follow=true", logs_path(&world)))
        .await
        .into_body();
    assert_eq!(followed.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    world.change(|script| script.print(1, b"b"));
    assert_eq!(followed.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    world.change(|script| script.end(1, "completed"));
    assert!(followed.frame().await.is_none());

    world.change(|script| script.assign(2));
    let mut cut = world
        .get(&format!("{}?follow=true", logs_path(&world)))
        .await
        .into_body();
    world.shutdown.cancel();
    assert!(
        cut.frame().await.unwrap().is_err(),
        "a part must not look like the whole"
    );
}

#[tokio::test]
async fn over_a_socket_a_shutdown_lets_streams_end_and_returns() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let parts = gantry_gateway::Gateway {
        backend: world.engine.clone(),
        directory: world.directory.clone(),
        bus: world.bus.clone(),
        maintenance: None,
        query: None,
        config: config(),
    };
    let server = tokio::spawn(gantry_gateway::serve(listener, parts, world.shutdown.clone()));
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        events_path(&world),
        world.read
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("retry: 1000") {
        assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0);
    }
    world.shutdown.cancel();
    socket.read_to_end(&mut seen).await.unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("event: shutdown"));
    tokio::time::timeout(Duration::from_secs(10), server)
        .await
        .expect("serve returns")
        .unwrap()
        .unwrap();
}
