//! Files that clients store for workflows to come.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::UploadView;
use http::Method;

use super::q;
use crate::dto::Items;
use crate::handlers::uploads;
use crate::operation::Content::{Json, Other};
use crate::operation::{Operation, QueryParam};
use crate::schema::{list as list_of, of};

const CREATE: &[QueryParam] = &[
    q("name", "what people call it"),
    q("ttl_ms", "how long it is kept, at least 1000; default and most 24 h"),
];

pub(super) fn operations() -> Vec<Operation> {
    const MANY: &str = "/api/v1/uploads";
    const ONE: &str = "/api/v1/uploads/{id}";
    vec![
        Operation::guarded(Method::POST, MANY, "create_upload", (R::Upload, V::Create), "Store a file for workflows to take as input; the body is its bytes. `Idempotency-Key` makes a repetition harmless", uploads::create)
            .within(uploads::WHOLE)
            .query(CREATE)
            .body(Other("application/octet-stream"))
            .returns(201, &[Json(of::<UploadView>())])
            .returns(200, &[Json(of::<UploadView>())]),
        Operation::guarded(Method::GET, MANY, "list_uploads", (R::Upload, V::List), "Uploads that are kept, newest first", uploads::list)
            .returns(200, &[Json(list_of::<Items<UploadView>, UploadView>())]),
        Operation::guarded(Method::GET, ONE, "get_upload", (R::Upload, V::Get), "One upload", uploads::get)
            .returns(200, &[Json(of::<UploadView>())]),
        Operation::guarded(Method::GET, "/api/v1/uploads/{id}/content", "download_upload", (R::Upload, V::Get), "Bytes of an upload", uploads::content)
            .returns(200, &[Other("application/octet-stream")]),
        Operation::guarded(Method::DELETE, ONE, "delete_upload", (R::Upload, V::Delete), "Erase an upload; workflows that took it keep their copies", uploads::delete)
            .returns(204, &[]),
    ]
}
