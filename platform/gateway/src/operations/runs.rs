//! Runs of code on workers.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::RunView;
use http::Method;

use super::q;
use crate::dto::RunBody;
use crate::handlers::runs;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::of;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::POST,
            "/api/v1/components/{component}",
            "run_component",
            (R::Workflow, V::Create),
            "Run a component that workers registered, durably; with `wait_ms` the answer has its result, or says what keeps it",
            runs::run,
        )
        .action("run")
        .optional_body(Json(of::<RunBody>()))
        .returns(200, &[Json(of::<RunView>())])
        .returns(201, &[Json(of::<RunView>())])
        .returns(202, &[Json(of::<RunView>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/workflows/{id}/result",
            "get_result",
            (R::Workflow, V::Get),
            "How a workflow ended, and what it returned; 202 while it has not",
            runs::result,
        )
        .query(const { &[q("wait_ms", "wait so long for the end, at most 25000")] })
        .returns(200, &[Json(of::<RunView>())])
        .returns(202, &[Json(of::<RunView>())]),
    ]
}
