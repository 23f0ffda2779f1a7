//! SQL over history.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use crate::dto::query::{QueryAnswer, QueryBody};
use crate::handlers::query;
use crate::operation::Content::{Json, Other};
use crate::operation::Operation;
use crate::schema::of;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::POST,
            "/api/v1/query",
            "query",
            (R::Query, V::Get),
            "Ask the tenant's history by SQL; `Accept: text/csv` or `application/x-ndjson` for other forms than JSON",
            query::query,
        )
        .body(Json(of::<QueryBody>()))
        .returns(
            200,
            &[
                Json(of::<QueryAnswer>()),
                Other("text/csv"),
                Other("application/x-ndjson"),
            ],
        ),
    ]
}
