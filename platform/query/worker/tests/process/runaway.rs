//! Statements that would never end, or eat the machine.

use std::time::{Duration, Instant};

use gantry_proto::v1::QueryFault;

use crate::support::{Ask, ask};

/// Runs it; its process may be ended by the kernel, but then quickly, and never with an answer.
fn fault(asked: Ask) -> Option<(QueryFault, String)> {
    let output = asked.spawn(|_| {});
    if output.status.success() {
        let failure = crate::support::read(&output.stdout, asked.directory.path()).unwrap_err();
        return Some((failure.fault(), failure.message));
    }
    None
}

#[test]
fn what_takes_too_long_is_interrupted() {
    for sql in [
        "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3",
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
        "SELECT a.i FROM range(100000) a(i), range(100000) b(i), range(100000) c(i) WHERE a.i + b.i = c.i * 1000003",
    ] {
        let begun = Instant::now();
        let asked = ask(sql).order(|order| order.timeout_ms = 300);
        let (fault, message) = fault(asked).expect("it says so itself");
        assert_eq!(
            (fault, message.as_str()),
            (QueryFault::Timeout, "it ran longer than 300 ms"),
            "{sql}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{sql} took {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn what_needs_too_much_memory_fails_alone() {
    for sql in [
        "SELECT list(i) FROM range(100000000) t(i)",
        "SELECT i, count(*) FROM range(50000000) t(i) GROUP BY i ORDER BY i",
        // DuckDB does not count single values; the kernel does.
        "SELECT length(repeat('x', 4000000000))",
        "SELECT repeat(repeat('x', 100000000), 100)",
    ] {
        // None: ended by the kernel or by its own allocator; the daemon says what that means.
        if let Some((fault, message)) = fault(ask(sql)) {
            assert!(
                // A slow machine may need longer than a query has.
                matches!(fault, QueryFault::Memory | QueryFault::Failed | QueryFault::Timeout),
                "{sql}: {fault:?} {message}"
            );
            assert!(!message.contains("SET temp_directory"), "{message}");
        }
    }
}
