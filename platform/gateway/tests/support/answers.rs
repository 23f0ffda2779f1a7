//! Answers, read as clients read them.

use axum::body::Body;
use gantry_engine::api::{NodeState, NodeView};
use gantry_proto::NodeId;
use http::Response;
use http_body_util::BodyExt as _;
use serde_json::Value;

pub async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub async fn value(response: Response<Body>) -> Value {
    let text = text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Reads a problem and checks that it is a whole one.
pub async fn problem(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body = value(response).await;
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], id.as_str());
    let code = body["code"].as_str().unwrap().to_owned();
    assert_eq!(body["type"], format!("/docs/errors/{code}"));
    assert!(!body["title"].as_str().unwrap().is_empty() && !body["detail"].as_str().unwrap().is_empty());
    (status, code)
}

/// A node that has nothing wrong with it.
pub fn node(id: NodeId) -> NodeView {
    NodeView {
        id,
        name: "n1".into(),
        state: NodeState::Online,
        fault: None,
        version: "0.1.0".into(),
        slots: 4,
        running: 1,
        cpu_millis: 4000,
        memory_bytes: 1 << 30,
        capabilities: Vec::new(),
        labels: Default::default(),
        arch: "x86_64".into(),
        os: "linux".into(),
        containers: 0,
        registered_at_ms: 1,
        seen_at_ms: 1,
    }
}
