//! Uploads over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

mod support;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use support::*;

#[tokio::test]
async fn a_file_is_taken_as_it_comes_and_known_by_its_key() {
    let world = World::new().await;
    let send = || {
        let parts = ["one ", "two ", "three"].map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())));
        world
            .request("POST", "/api/v1/uploads?name=a%20b.csv&ttl_ms=5000")
            .header("content-type", "text/csv")
            .header("idempotency-key", "k1")
            .body(Body::from_stream(stream::iter(parts)))
            .unwrap()
    };
    let first = world.send(send()).await;
    assert_eq!(first.status(), 201);
    assert_eq!(first.headers()["location"], format!("/api/v1/uploads/{}", upload_id()));
    let first = value(first).await;
    assert_eq!(
        (first["name"].as_str(), first["size_bytes"].as_u64()),
        (Some("a b.csv"), Some(13))
    );
    assert_eq!(world.send(send()).await.status(), 200, "known by its key");
    let script = world.engine.0.lock();
    let (new, content) = &script.uploaded[0];
    assert_eq!(content, b"one two three");
    assert_eq!(
        (new.ttl_ms, new.content_type.as_deref()),
        (Some(5_000), Some("text/csv"))
    );
    assert_eq!(new.caller.tenant, world.tenant);
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_before_it_comes() {
    let world = World::new().await;
    let too_large = ((1u64 << 30) + 1).to_string();
    for (path, length, expected) in [
        ("/api/v1/uploads", "4", (400, "invalid-request")),
        ("/api/v1/uploads?name=x&ttl_ms=soon", "4", (400, "invalid-request")),
        ("/api/v1/uploads?name=x", too_large.as_str(), (413, "too-large")),
    ] {
        let request = world.request("POST", path).header("content-length", length);
        let (status, code) = problem(world.send(request.body(Body::from("text")).unwrap()).await).await;
        assert_eq!((status, code.as_str()), expected, "{path}");
    }
    assert!(world.engine.0.lock().uploaded.is_empty());
}

#[tokio::test]
async fn a_download_is_never_a_page_and_a_deletion_says_nothing() {
    let world = World::new().await;
    let path = format!("/api/v1/uploads/{}", upload_id());
    let response = world.get(&format!("{path}/content")).await;
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(
        response.headers()["content-security-policy"],
        "sandbox; default-src 'none'"
    );
    assert_eq!(response.headers()["content-length"], UPLOAD.len().to_string());
    let disposition = response.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(
        disposition.starts_with("attachment; filename=\"da_ta.csv\""),
        "{disposition}"
    );
    assert_eq!(text(response).await.as_bytes(), UPLOAD);
    let gone = world
        .send(world.request("DELETE", &path).body(Body::empty()).unwrap())
        .await;
    assert_eq!(gone.status(), 204);
}
