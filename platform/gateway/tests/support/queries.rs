//! Queries, answered as their statements ask for.

use gantry_query::{Answer, Column, Cut, Query, QueryEngine, QueryError, Stats};
use parking_lot::Mutex;

/// Answers every query with the same rows, or with the error that its statement names.
#[derive(Default)]
pub struct Queries(pub Mutex<Vec<Query>>);

#[async_trait::async_trait]
impl QueryEngine for Queries {
    async fn query(&self, query: Query) -> Result<Answer, QueryError> {
        let sql = query.sql.clone();
        self.0.lock().push(query);
        let message = "as the statement wants".to_owned();
        let position = Some(9);
        match sql.split_whitespace().next().unwrap_or_default() {
            "refused" => return Err(QueryError::Refused { message, position }),
            "invalid" => return Err(QueryError::Invalid { message, position }),
            "limit" => return Err(QueryError::Limit(message)),
            "busy" => return Err(QueryError::Busy(message)),
            "unavailable" => return Err(QueryError::Unavailable(message)),
            "request" => return Err(QueryError::Request(message)),
            "internal" => return Err(QueryError::Internal("/a/place".to_owned())),
            _ => {}
        }
        let column = |name: &str, kind: &str| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
        };
        Ok(Answer {
            columns: vec![column("name", "VARCHAR"), column("n,o", "HUGEINT")],
            rows: vec![
                r#"["a \"b\", c",170141183460469231731687303715884105727]"#.to_owned(),
                r#"[null,[1,"x"]]"#.to_owned(),
            ],
            cut: Some(Cut::Rows),
            stats: Stats::default(),
        })
    }
}
