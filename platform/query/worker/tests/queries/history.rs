//! Sealed and unsealed rows of one tenant, and of nobody else.

use gantry_query::{Parameter, QueryEngine as _, QueryError};

use crate::world::{DAY_MS, FIRST_DAY, World, query, tenant};

#[tokio::test]
async fn a_tenant_sees_its_history_once_and_nobody_elses() {
    let world = World::new();
    world.seal(tenant(1), "a", FIRST_DAY).await;
    world.seal(tenant(1), "b", FIRST_DAY + 1).await;
    world.seal(tenant(2), "sealed-of-theirs", FIRST_DAY).await;

    let answer = world
        .ask(
            1,
            "SELECT id, ended_at, labels->>'$.name' AS name, cost, good FROM workflows ORDER BY id",
        )
        .await
        .unwrap();
    assert_eq!(
        answer.rows,
        [
            r#"["a","2024-10-04T00:00:00.001Z","a",1.5,null]"#,
            r#"["b","2024-10-05T00:00:00.001Z","b",1.5,null]"#,
            r#"["c",null,"c",1.5,null]"#,
        ]
    );
    let kinds: Vec<&str> = answer.columns.iter().map(|column| column.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["VARCHAR", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "DOUBLE", "BOOLEAN"]
    );
    assert_eq!((answer.cut, answer.stats.objects, answer.stats.tail_rows), (None, 2, 1));

    assert_eq!(
        world.ask(2, "SELECT id FROM workflows ORDER BY id").await.unwrap().rows,
        [r#"["sealed-of-theirs"]"#, r#"["theirs"]"#]
    );
    assert_eq!(
        world.ask(3, "SELECT count(*) FROM workflows").await.unwrap().rows,
        ["[0]"],
        "a tenant without history"
    );
    assert_eq!(
        world.ask(1, "SELECT position, record FROM events").await.unwrap().rows,
        [r#"[7,"AQID"]"#]
    );

    // By every name that it might have.
    let theirs = format!("archive/{}/2024-10-04/workflows/sealed-of-theirs.parquet", tenant(2));
    let cached = world.directory.path().join(format!(
        "query/objects/{}/2024-10-04_workflows_sealed-of-theirs.parquet",
        tenant(2)
    ));
    for path in [
        world.directory.path().join(&theirs).display().to_string(),
        world
            .directory
            .path()
            .join("archive")
            .join(&theirs)
            .display()
            .to_string(),
        cached.display().to_string(),
        format!(
            "../../objects/{}/2024-10-04_workflows_sealed-of-theirs.parquet",
            tenant(2)
        ),
        "files/2024-10-04_workflows_sealed-of-theirs.parquet".to_owned(),
    ] {
        let error = world
            .ask(1, &format!("SELECT * FROM read_parquet('{path}')"))
            .await
            .unwrap_err();
        // Inside of its own directory there just is no such file.
        assert!(
            matches!(error, QueryError::Refused { .. } | QueryError::Invalid { .. }),
            "{path}: {error:?}"
        );
    }
    let shown = world
        .ask(
            1,
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL",
        )
        .await
        .unwrap();
    assert_eq!(
        shown.rows,
        [
            r#"["main","events"]"#,
            r#"["main","workflows"]"#,
            r#"["tail","events"]"#,
            r#"["tail","workflows"]"#
        ]
    );
    assert!(
        world
            .ask(1, "SELECT * FROM duckdb_views()")
            .await
            .unwrap()
            .rows
            .iter()
            .all(|row| !row.contains("theirs"))
    );
}

#[tokio::test]
async fn objects_are_fetched_once_and_forgotten_when_they_are_gone() {
    let world = World::new();
    world.seal(tenant(1), "a", FIRST_DAY).await;
    world.seal(tenant(1), "b", FIRST_DAY + 1).await;
    let count = "SELECT count(*) FROM workflows";
    let first = world.ask(1, count).await.unwrap().stats;
    assert!(
        first.fetched_bytes == first.object_bytes && first.fetched_bytes > 0,
        "{first:?}"
    );
    let second = world.ask(1, count).await.unwrap().stats;
    assert_eq!((second.fetched_bytes, second.object_bytes), (0, first.object_bytes));
    assert_eq!((world.cached(1), world.runs()), (2, 0));

    // Replaced or erased: the next query removes it from the disk.
    world
        .source
        .tenants
        .lock()
        .get_mut(&tenant(1))
        .unwrap()
        .sealed
        .remove(0);
    assert_eq!(world.ask(1, count).await.unwrap().rows, ["[2]"]);
    assert_eq!(world.cached(1), 1);

    // A statement that reads no table fetches nothing.
    assert_eq!(world.ask(1, "SELECT 1").await.unwrap().stats.objects, 0);
}

#[tokio::test]
async fn a_full_cache_forgets_what_was_used_longest_ago() {
    let world = World::with(|config| config.cache_bytes_max = 4_000);
    for (day, id) in (FIRST_DAY..).zip(["a", "b", "c", "d"]) {
        world.seal(tenant(1), id, day).await;
        let day_ms = u64::from(day) * DAY_MS;
        let mut asked = query(1, "SELECT id FROM workflows WHERE ended_at IS NOT NULL");
        (asked.since_ms, asked.until_ms) = (Some(day_ms), Some(day_ms));
        let answer = world.queries.query(asked).await.unwrap();
        assert_eq!(answer.rows, [format!("[\"{id}\"]")]);
        assert!(answer.stats.object_bytes <= 4_000, "{:?}", answer.stats);
    }
    assert!(world.cached(1) < 4, "{} objects are kept", world.cached(1));
    let all = world.ask(1, "SELECT id FROM workflows").await.unwrap_err();
    assert!(
        matches!(&all, QueryError::Limit(message) if message.contains("since and until")),
        "{all:?}"
    );
}

#[tokio::test]
async fn days_bound_what_is_read_of_the_archive() {
    let world = World::new();
    for (day, id) in (FIRST_DAY..).zip(["d0", "d1", "d2"]) {
        world.seal(tenant(1), id, day).await;
    }
    let mut asked = query(1, "SELECT id FROM workflows WHERE id LIKE $like ORDER BY id");
    asked.parameters = vec![("like".to_owned(), Parameter::Text("d%".to_owned()))];
    asked.since_ms = Some(u64::from(FIRST_DAY + 1) * DAY_MS + 5);
    let answer = world.queries.query(asked).await.unwrap();
    assert_eq!(
        (answer.rows, answer.stats.objects),
        (vec![r#"["d1"]"#.to_owned(), r#"["d2"]"#.to_owned()], 2)
    );
}

#[tokio::test]
async fn a_damaged_object_is_named_and_not_read() {
    let world = World::new();
    world.seal(tenant(1), "a", FIRST_DAY).await;
    let name = world.source.tenants.lock()[&tenant(1)].sealed[0].name.clone();
    world
        .store
        .put(&name, bytes::Bytes::from_static(b"PAR1 something else"))
        .await
        .unwrap();
    let error = world.ask(1, "SELECT * FROM workflows").await.unwrap_err();
    assert!(matches!(&error, QueryError::Object(_)), "{error:?}");
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!((world.cached(1), world.runs()), (0, 0));
}
