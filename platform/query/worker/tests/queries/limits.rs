//! Queries that ask for too much, and what becomes of them.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gantry_journal::archive::Value;
use gantry_proto::limits::{QUERIES_PER_TENANT_MAX, QUERY_ROWS_MAX, QUERY_SQL_BYTES_MAX, QUERY_TIMEOUT_MS_MAX};
use gantry_query::{Cut, QueryEngine as _, QueryError};

use crate::world::{World, query, tenant};

const ENDLESS: &str = "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3";

#[tokio::test]
async fn time_and_memory_end_a_query_and_nothing_else() {
    let world = World::new();
    let begun = Instant::now();
    let mut asked = query(1, ENDLESS);
    asked.timeout_ms = 400;
    let error = world.queries.query(asked).await.unwrap_err();
    assert!(
        matches!(&error, QueryError::Limit(message) if message.contains("longer than")),
        "{error:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    for sql in [
        "SELECT list(i) FROM range(1000000000) t(i)",
        "SELECT length(repeat('x', 4000000000))",
    ] {
        let error = world.ask(1, sql).await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Limit(message) if message.contains("memory")),
            "{sql}: {error:?}"
        );
    }
    assert_eq!(world.ask(1, "SELECT 1").await.unwrap().rows, ["[1]"]);
    assert_eq!(world.runs(), 0);
}

#[tokio::test]
async fn a_tenant_has_its_share_of_the_queries() {
    let world = World::new();
    let mut asked = query(1, ENDLESS);
    asked.timeout_ms = 3_000;
    let mut running: Vec<_> = (0..QUERIES_PER_TENANT_MAX)
        .map(|_| world.queries.query(asked.clone()))
        .collect();
    for query in &mut running {
        // A future takes its place when it is polled first.
        assert!(futures_util::poll!(query).is_pending());
    }
    let error = world.ask(1, "SELECT 1").await.unwrap_err();
    assert!(matches!(error, QueryError::Busy(_)), "{error:?}");
    assert_eq!(
        world.ask(2, "SELECT 1").await.unwrap().rows,
        ["[1]"],
        "another tenant has places of its own"
    );
    drop(running);
    assert_eq!(
        world.ask(1, "SELECT 1").await.unwrap().rows,
        ["[1]"],
        "dropped queries give their places back"
    );
    assert_eq!(world.runs(), 0);
}

#[tokio::test]
async fn unsealed_rows_are_bounded() {
    let world = World::new();
    world.source.endless.store(true, Ordering::SeqCst);
    let row = vec![Value::text("c"), Value::count(1), Value::Bytes(vec![7; 1 << 20].into())];
    world.source.tenants.lock().get_mut(&tenant(1)).unwrap().events = vec![row; 4];
    let error = world.ask(1, "SELECT count(*) FROM events").await.unwrap_err();
    assert!(
        matches!(&error, QueryError::Limit(message) if message.contains("not sealed")),
        "{error:?}"
    );
    assert_eq!(world.runs(), 0);
}

#[tokio::test]
async fn answers_are_cut_where_they_were_asked_to() {
    let world = World::new();
    let mut asked = query(1, "SELECT i FROM range(100) t(i)");
    asked.rows_max = 2;
    let answer = world.queries.query(asked).await.unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (2, Some(Cut::Rows)));
    let mut asked = query(1, "SELECT repeat('x', 1000000) FROM range(100)");
    asked.rows_max = QUERY_ROWS_MAX;
    let answer = world.queries.query(asked).await.unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (16, Some(Cut::Bytes)));
}

#[tokio::test]
async fn requests_past_a_limit_are_refused_before_anything_starts() {
    let world = World::with(|config| config.program = PathBuf::from("/nowhere/gantry-query"));
    let refused = |change: fn(&mut gantry_query::Query)| {
        let mut asked = query(1, "SELECT 1");
        change(&mut asked);
        world.queries.query(asked)
    };
    for asked in [
        refused(|query| query.sql = "x".repeat(QUERY_SQL_BYTES_MAX + 1)),
        refused(|query| query.rows_max = QUERY_ROWS_MAX + 1),
        refused(|query| query.rows_max = 0),
        refused(|query| query.timeout_ms = QUERY_TIMEOUT_MS_MAX + 1),
        refused(|query| (query.since_ms, query.until_ms) = (Some(2), Some(1))),
    ] {
        let error = asked.await.unwrap_err();
        assert!(matches!(error, QueryError::Request(_)), "{error:?}");
    }
    let error = world.ask(1, "SELECT 1").await.unwrap_err();
    assert!(
        matches!(&error, QueryError::Unavailable(message) if message.contains("beside `gantry`")),
        "{error:?}"
    );
}
