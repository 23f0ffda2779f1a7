//! Which tables and objects a query needs. What is left out is never missed: a table counts as needed when its name stands anywhere in the statement.

use gantry_journal::archive::{Day, SealedObject, Snapshot, Table};

use crate::api::Query;

/// Functions that read tables whose names are texts, put together at will.
const READS_BY_TEXT: [&str; 2] = ["query", "query_table"];

/// Names of the tables that the statement may read.
pub(crate) fn tables(sql: &str, tables: &[&'static Table]) -> Vec<&'static str> {
    let words: Vec<String> = sql
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let has = |name: &str| words.iter().any(|word| word == name);
    let all = READS_BY_TEXT.iter().any(|name| has(name));
    tables
        .iter()
        .map(|table| table.name)
        .filter(|name| all || has(name))
        .collect()
}

/// Objects of these tables, of the days that the query asks for.
pub(crate) fn objects<'a>(snapshot: &'a Snapshot, tables: &[&str], query: &Query) -> Vec<&'a SealedObject> {
    let since = query.since_ms.map(Day::of_ms);
    let until = query.until_ms.map(Day::of_ms);
    snapshot
        .objects
        .iter()
        .filter(|object| tables.contains(&object.table))
        .filter(|object| since.is_none_or(|since| object.day >= since) && until.is_none_or(|until| object.day <= until))
        .collect()
}

#[cfg(test)]
mod tests {
    use gantry_journal::archive::Schema;
    use gantry_proto::TenantId;

    use super::*;

    static TASKS: Table = Table {
        id: 1,
        name: "tasks",
        about: "",
        schema: Schema(&[]),
    };
    static STEPS: Table = Table {
        id: 2,
        name: "steps",
        about: "",
        schema: Schema(&[]),
    };

    #[test]
    fn a_table_is_needed_when_it_is_named() {
        let picked = |sql| tables(sql, &[&TASKS, &STEPS]);
        assert_eq!(picked("SELECT count(*) FROM tasks"), ["tasks"]);
        assert_eq!(
            picked("select * from \"TASKS\" join main.Steps using (x)"),
            ["tasks", "steps"]
        );
        assert_eq!(picked("SELECT 1"), Vec::<&str>::new());
        assert_eq!(picked("SELECT my_tasks, tasks2"), Vec::<&str>::new());
        assert_eq!(picked("FROM query_table('ta' || 'sks')"), ["tasks", "steps"]);
    }

    #[test]
    fn days_outside_of_the_range_are_left_out() {
        let object = |table, day| SealedObject {
            table,
            name: String::new(),
            day: Day(day),
            rows: 1,
            size_bytes: 1,
            digest: bytes::Bytes::new(),
        };
        let snapshot = Snapshot {
            tenant: TenantId::default(),
            objects: vec![
                object("tasks", 1),
                object("tasks", 2),
                object("tasks", 3),
                object("steps", 2),
            ],
            through: std::collections::BTreeMap::new(),
        };
        let day = gantry_journal::archive::name::DAY_MS;
        let days = |since_ms, until_ms| {
            let query = Query {
                tenant: TenantId::default(),
                sql: String::new(),
                parameters: Vec::new(),
                rows_max: 1,
                timeout_ms: 1,
                since_ms,
                until_ms,
            };
            objects(&snapshot, &["tasks"], &query)
                .iter()
                .map(|object| object.day.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(days(None, None), [1, 2, 3]);
        assert_eq!(days(Some(2 * day + 5), None), [2, 3]);
        assert_eq!(days(Some(day), Some(3 * day - 1)), [1, 2]);
        assert_eq!(days(Some(4 * day), None), Vec::<u32>::new());
    }
}
