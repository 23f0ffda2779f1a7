//! What it answers.

use gantry_proto::v1::QueryFault;
use gantry_proto::v1::query_parameter::Value as Given;
use serde_json::json;

use crate::support::{ask, failure, rows};

#[test]
fn sealed_rows_and_the_tail_are_one_table() {
    assert_eq!(
        rows("SELECT id, size, made, doc, raw, good, share FROM things ORDER BY id"),
        [
            json!(["sealed-0", 0, "2026-11-20T10:00:00Z", null, null, null, null]),
            json!(["sealed-1", 1, "2026-11-20T10:00:00Z", null, null, null, null]),
            json!([
                "tail-0",
                null,
                "2026-11-21T00:00:00.123Z",
                "{\"a\": [1, 2]}",
                "cmF3",
                true,
                0.5
            ]),
            json!(["tail-1", 70, "1970-01-01T00:00:00Z", "null", "", false, "NaN"]),
        ]
    );
}

#[test]
fn columns_have_their_names_and_types() {
    let answer = ask("SELECT *, size::DECIMAL(9,2) AS d, [1, 2] AS l, {'a': 1} AS s, MAP {'k': 1} AS m, count(*) OVER () AS size FROM things")
        .run()
        .unwrap();
    let columns: Vec<(&str, &str)> = answer
        .columns
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "VARCHAR"),
            ("size", "BIGINT"),
            ("made", "TIMESTAMP WITH TIME ZONE"),
            ("doc", "JSON"),
            ("raw", "BLOB"),
            ("good", "BOOLEAN"),
            ("share", "DOUBLE"),
            ("d", "DECIMAL(9,2)"),
            ("l", "INTEGER[]"),
            ("s", "STRUCT(a INTEGER)"),
            ("m", "MAP(VARCHAR, INTEGER)"),
            ("size", "BIGINT"),
        ]
    );
}

#[test]
fn values_of_every_sort_are_json() {
    assert_eq!(
        ask(
            "SELECT 170141183460469231731687303715884105727::HUGEINT, 1.50::DECIMAL(9,2), 'NaN'::FLOAT, DATE '2026-11-21', TIME '10:11:12', \
             TIMESTAMP '2026-11-21 10:11:12.5', INTERVAL 90 MINUTE IS NOT NULL, [1, NULL], {'a': {'b': 'x\"y'}}, MAP {1: 'one'}, \
             'ff'::BLOB, 18446744073709551615::UBIGINT, NULL, true, 'e'::ENUM('e', 'f')"
        )
        .run()
        .unwrap()
        .raw,
        [concat!(
            r#"[170141183460469231731687303715884105727,1.50,"NaN","2026-11-21","10:11:12","2026-11-21T10:11:12.5",true,[1,null],{"a":{"b":"x\"y"}},"#,
            r#"[[1,"one"]],"ZmY=",18446744073709551615,null,true,"e"]"#
        )]
    );
}

#[test]
fn whatever_reads_may_be_asked() {
    for sql in [
        "WITH big AS (SELECT * FROM things WHERE size > 0) SELECT count(*) FROM big",
        "FROM things",
        "TABLE things",
        "VALUES (1), (2)",
        "DESCRIBE things",
        "DESCRIBE SELECT 1",
        "SHOW TABLES",
        "SUMMARIZE SELECT id, size FROM things",
        "EXPLAIN SELECT * FROM things",
        "EXPLAIN ANALYZE SELECT count(*) FROM things",
        "SELECT doc->'$.a[0]' FROM things",
        "SELECT time_bucket(INTERVAL 1 HOUR, made), count(*) FROM things GROUP BY ALL",
        "SELECT * FROM information_schema.columns",
        "SELECT 1; -- and no more",
    ] {
        assert!(!rows(sql).is_empty(), "{sql}");
    }
    assert_eq!(
        rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'"),
        [json!(["things"])]
    );
    assert_eq!(
        rows("SELECT id FROM things WHERE made >= TIMESTAMPTZ '2026-11-21' ORDER BY 1"),
        [json!(["tail-0"])]
    );
    assert_eq!(
        rows("SELECT id FROM things WHERE false"),
        Vec::<serde_json::Value>::new()
    );
}

#[test]
fn parameters_go_by_name_and_by_position() {
    let answer = ask("SELECT $name || ?1, $flag, $none IS NULL, $half FROM things LIMIT 1");
    let failure = answer.run().unwrap_err();
    assert_eq!(
        failure.fault(),
        QueryFault::Invalid,
        "names and positions do not mix: {failure:?}"
    );

    let answer = ask("SELECT $name || '!', $flag, $none IS NULL, $half")
        .parameter("name", Some(Given::Text("it's".to_owned())))
        .parameter("flag", Some(Given::Truth(true)))
        .parameter("none", None)
        .parameter("half", Some(Given::Number(0.5)))
        .run()
        .unwrap();
    assert_eq!(answer.rows, [json!(["it's!", true, true, 0.5])]);

    let answer = ask("SELECT id FROM things WHERE size > ? AND size < ?")
        .parameter("1", Some(Given::Whole(0)))
        .parameter("2", Some(Given::Whole(10)))
        .run()
        .unwrap();
    assert_eq!(answer.rows, [json!(["sealed-1"])]);

    for (sql, name, message) in [
        ("SELECT ?", "2", "parameter `1`"),
        ("SELECT $a", "b", "parameter `a`"),
        ("SELECT 1", "b", "given for `b`"),
    ] {
        let failure = ask(sql).parameter(name, None).run().unwrap_err();
        assert_eq!(failure.fault(), QueryFault::Invalid);
        assert!(failure.message.contains(message), "{sql}: {}", failure.message);
    }
}

#[test]
fn an_answer_is_cut_and_says_so() {
    let answer = ask("SELECT i FROM range(100000) t(i)")
        .order(|order| order.rows_max = 3)
        .run()
        .unwrap();
    assert_eq!(
        (answer.rows.len(), answer.end.more_rows, answer.end.more_bytes),
        (3, true, false)
    );
    let answer = ask("SELECT repeat('x', 100) FROM range(100000)")
        .order(|order| order.bytes_max = 1_000)
        .run()
        .unwrap();
    assert_eq!(
        (answer.rows.len(), answer.end.more_rows, answer.end.more_bytes),
        (9, false, true)
    );
    let answer = ask("SELECT i FROM range(3) t(i)")
        .order(|order| order.rows_max = 3)
        .run()
        .unwrap();
    assert_eq!((answer.rows.len(), answer.end.more_rows), (3, false), "nothing was cut");
    let answer = ask("SELECT i FROM range(5000) t(i)")
        .order(|order| order.rows_max = 5_000)
        .run()
        .unwrap();
    assert_eq!(answer.rows.len(), 5_000);
}

#[test]
fn mistakes_are_explained_with_their_place() {
    let failure_of = |sql: &str| ask(sql).run().unwrap_err();
    let wrong = failure_of("SELECT nope FROM things");
    assert_eq!((wrong.fault(), wrong.position), (QueryFault::Invalid, Some(7)));
    assert!(wrong.message.contains("\"nope\" not found"), "{}", wrong.message);
    let wrong = failure_of("SELECT 1 FROM nowhere");
    assert_eq!((wrong.fault(), wrong.position), (QueryFault::Invalid, Some(14)));
    let wrong = failure_of("SELECT 1 +");
    assert_eq!(wrong.fault(), QueryFault::Invalid);
    let (fault, message) = failure("SELECT id::INTEGER FROM things");
    assert_eq!(fault, QueryFault::Failed, "{message}");
    assert!(message.contains("Could not convert string"), "{message}");
}

#[test]
fn a_file_that_is_damaged_is_a_fault_of_ours() {
    let asked = ask("SELECT * FROM things");
    std::fs::write(
        asked.directory.path().join("own/files/things.parquet"),
        b"PAR1 is not all",
    )
    .unwrap();
    let failure = asked.run().unwrap_err();
    assert_eq!(failure.fault(), QueryFault::Internal);
    assert!(failure.message.contains("things.parquet"), "{}", failure.message);
}
