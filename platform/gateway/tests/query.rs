//! Queries and traces over HTTP: what is asked of the engine behind them, and the forms of the answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

mod support;

use axum::body::Body;
use gantry_query::Parameter;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::*;
use tower::ServiceExt as _;

async fn ask(
    world: &World,
    body: &Value,
    accept: Option<&str>,
) -> (StatusCode, Option<String>, Option<String>, String) {
    let mut request = Request::post("/api/v1/query")
        .header("authorization", format!("Bearer {}", world.read))
        .header("content-type", "application/json");
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response: Response<Body> = world.router.clone().oneshot(request).await.unwrap();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let (status, media, truncated) = (response.status(), header("content-type"), header("gantry-truncated"));
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, media, truncated, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn the_tenant_comes_from_the_key_and_the_limits_from_the_body() {
    let world = World::new().await;
    let body = json!({
        "sql": "select 1", "parameters": ["x", 1, 0.5, true, null], "max_rows": 7, "timeout_ms": 99, "since_ms": 5, "until_ms": 6
    });
    assert_eq!(ask(&world, &body, None).await.0, StatusCode::OK);
    assert_eq!(
        ask(&world, &json!({"sql": "select 2", "parameters": {"who": "me"}}), None)
            .await
            .0,
        StatusCode::OK
    );
    let asked = world.queries.0.lock().clone();
    assert_eq!((asked[0].tenant, asked[0].sql.as_str()), (world.tenant, "select 1"));
    assert_eq!((asked[0].rows_max, asked[0].timeout_ms), (7, 99));
    assert_eq!((asked[0].since_ms, asked[0].until_ms), (Some(5), Some(6)));
    let name = |name: &str, value| (name.to_owned(), value);
    assert_eq!(
        asked[0].parameters,
        [
            name("1", Parameter::Text("x".to_owned())),
            name("2", Parameter::I64(1)),
            name("3", Parameter::F64(0.5)),
            name("4", Parameter::Bool(true)),
            name("5", Parameter::Null),
        ]
    );
    assert_eq!(asked[1].parameters, [name("who", Parameter::Text("me".to_owned()))]);
    assert_eq!((asked[1].rows_max, asked[1].timeout_ms), (1_000, 10_000));
    for wrong in [
        json!({}),
        json!({"sql": 1}),
        json!({"sql": "x", "tenant": "other"}),
        json!({"sql": "x", "parameters": "x"}),
        json!({"sql": "x", "parameters": [[1]]}),
    ] {
        assert_eq!(ask(&world, &wrong, None).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn answers_have_the_form_that_was_asked_for() {
    let world = World::new().await;
    let body = json!({"sql": "select"});
    let (status, media, _, text) = ask(&world, &body, None).await;
    assert_eq!((status, media.as_deref()), (StatusCode::OK, Some("application/json")));
    // Every digit of it, which a parser may not keep.
    assert!(
        text.contains(r#"["a \"b\", c",170141183460469231731687303715884105727]"#),
        "{text}"
    );
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        answer["columns"],
        json!([{"name": "name", "type": "VARCHAR"}, {"name": "n,o", "type": "HUGEINT"}])
    );
    assert_eq!(
        (&answer["rows"][1], &answer["truncated"]),
        (&json!([null, [1, "x"]]), &json!("rows"))
    );

    let (_, media, truncated, text) = ask(&world, &body, Some("text/csv")).await;
    assert_eq!(
        (media.as_deref(), truncated.as_deref()),
        (Some("text/csv; charset=utf-8"), Some("rows"))
    );
    assert_eq!(
        text,
        "name,\"n,o\"\r\n\"a \"\"b\"\", c\",170141183460469231731687303715884105727\r\n,\"[1,\"\"x\"\"]\"\r\n"
    );
    let (_, media, _, text) = ask(&world, &body, Some("application/x-ndjson;q=1, */*")).await;
    assert_eq!(media.as_deref(), Some("application/x-ndjson"));
    assert_eq!(
        text,
        "{\"name\":\"a \\\"b\\\", c\",\"n,o\":170141183460469231731687303715884105727}\n{\"name\":null,\"n,o\":[1,\"x\"]}\n"
    );
}

#[tokio::test]
async fn errors_have_codes_and_places() {
    let world = World::new().await;
    for (sql, status, code) in [
        ("refused\n to do", 403, "query-refused"),
        ("invalid\n is it", 422, "invalid-query"),
        ("limit", 422, "query-limit"),
        ("busy", 503, "overloaded"),
        ("unavailable", 503, "query-unavailable"),
        ("request", 400, "invalid-request"),
        ("internal", 500, "internal"),
    ] {
        let (got, _, _, text) = ask(&world, &json!({"sql": sql}), Some("text/csv")).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((got.as_u16(), problem["code"].as_str()), (status, Some(code)), "{text}");
        assert!(!text.contains("/a/place"), "{text}");
        if matches!(code, "query-refused" | "invalid-query") {
            assert_eq!(
                (&problem["issues"][0]["line"], &problem["issues"][0]["column"]),
                (&json!(2), &json!(2))
            );
        }
    }
}

#[tokio::test]
async fn a_trace_is_otlp() {
    let world = World::new().await;
    let id = world.engine.0.lock().workflow;
    let request = Request::get(format!("/api/v1/workflows/{id}/trace"))
        .header("authorization", format!("Bearer {}", world.read))
        .body(Body::empty())
        .unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let trace: Value = serde_json::from_slice(&bytes).unwrap();
    let resource = &trace["resourceSpans"][0];
    assert_eq!(
        resource["resource"]["attributes"],
        json!([{"key": "service.name", "value": {"stringValue": "gantry"}}])
    );
    let spans = &resource["scopeSpans"][0]["spans"];
    assert_eq!(
        spans[1],
        json!({
            "traceId": "0a".repeat(16), "spanId": "02".repeat(8), "parentSpanId": "01".repeat(8), "name": "build", "kind": 1,
            "startTimeUnixNano": "1795219200123000000", "endTimeUnixNano": "1795219200124000000",
            "attributes": [
                {"key": "gantry.kind", "value": {"stringValue": "attempt"}},
                {"key": "gantry.attempt", "value": {"intValue": "2"}},
                {"key": "gantry.cause", "value": {"stringValue": "exited"}},
            ],
            "status": {"code": 2, "message": "step-exit"},
        })
    );
    assert!(
        spans[0].get("endTimeUnixNano").is_none() && spans[0].get("parentSpanId").is_none(),
        "{}",
        spans[0]
    );
}
