//! Legal holds and erasure.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use crate::dto::keep::{ErasedAnswer, HoldAnswer, HoldBody};
use crate::handlers::keep;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::of;

pub(super) fn operations() -> Vec<Operation> {
    const ONE: &str = "/api/v1/workflows/{id}";
    vec![
        Operation::guarded(
            Method::POST,
            ONE,
            "hold_workflow",
            (R::Workflow, V::Hold),
            "Keep a workflow whatever its retention, and refuse to erase it",
            keep::hold,
        )
        .action("hold")
        .optional_body(Json(of::<HoldBody>()))
        .returns(200, &[Json(of::<HoldAnswer>())]),
        Operation::guarded(
            Method::POST,
            ONE,
            "release_workflow",
            (R::Workflow, V::Hold),
            "End a legal hold",
            keep::release,
        )
        .action("release")
        .returns(200, &[Json(of::<HoldAnswer>())]),
        Operation::guarded(
            Method::POST,
            ONE,
            "erase_workflow",
            (R::Workflow, V::Erase),
            "Destroy what users wrote in an ended workflow, for good: in the store, in the archive and for every backup",
            keep::erase,
        )
        .action("erase")
        .returns(200, &[Json(of::<ErasedAnswer>())]),
        Operation::guarded(
            Method::POST,
            "/api/v1/tenants/{id}",
            "erase_tenant",
            (R::Workflow, V::Erase),
            "Destroy what users wrote in every workflow of the caller's tenant; refused while one runs or is held",
            keep::erase_tenant,
        )
        .action("erase")
        .returns(200, &[Json(of::<ErasedAnswer>())]),
    ]
}
