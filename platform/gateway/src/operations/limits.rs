//! Concurrency keys and rates.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::{LimitDetail, LimitView};
use http::Method;

use super::q;
use crate::dto::Paged;
use crate::handlers::limits;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/limits",
            "list_limits",
            (R::Limit, V::List),
            "Concurrency keys and rates that somebody uses",
            limits::list,
        )
        .query(
            const {
                &[
                    q("key", "only those of this key"),
                    q("cursor", "`next_cursor` of the page before"),
                    q("limit", "items of a page, 1 to 500, default 50"),
                ]
            },
        )
        .returns(200, &[Json(list_of::<Paged<LimitView>, LimitView>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/limits/{id}",
            "get_limit",
            (R::Limit, V::Get),
            "One of them, with those who hold it and those who wait",
            limits::get,
        )
        .returns(200, &[Json(of::<LimitDetail>())]),
    ]
}
