//! Bulk operations.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::BulkView;
use http::Method;

use super::PAGE;
use crate::dto::Paged;
use crate::dto::bulk::{BulkAnswer, BulkBody};
use crate::handlers::bulk;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

pub(super) fn operations() -> Vec<Operation> {
    const MANY: &str = "/api/v1/bulk";
    const ONE: &str = "/api/v1/bulk/{id}";
    vec![
        Operation::guarded(Method::POST, MANY, "start_bulk", (R::Bulk, V::Create), "Cancel, pause, resume, signal, retry, hold, release or erase every workflow that a filter fits, or with `dry_run` count them; `Idempotency-Key` makes a repetition harmless", bulk::start)
            .body(Json(of::<BulkBody>()))
            .returns(202, &[Json(of::<BulkAnswer>())])
            .returns(200, &[Json(of::<BulkAnswer>())]),
        Operation::guarded(Method::GET, MANY, "list_bulk", (R::Bulk, V::List), "Bulk operations, newest first; ended ones are kept for a week", bulk::list)
            .query(PAGE)
            .returns(200, &[Json(list_of::<Paged<BulkView>, BulkView>())]),
        Operation::guarded(Method::GET, ONE, "get_bulk", (R::Bulk, V::Get), "How far a bulk operation is", bulk::get)
            .returns(200, &[Json(of::<BulkView>())]),
        Operation::guarded(Method::POST, ONE, "cancel_bulk", (R::Bulk, V::Cancel), "Take no further workflows; what was done stays done", bulk::cancel)
            .action("cancel")
            .returns(202, &[Json(of::<BulkView>())]),
    ]
}
