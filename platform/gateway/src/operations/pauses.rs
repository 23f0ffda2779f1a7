//! Pauses of definitions and of the tenant.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::HeldView;
use http::Method;

use crate::dto::Paged;
use crate::dto::decisions::CommentBody;
use crate::handlers::pauses;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

const TENANT: &str = "/api/v1/pauses/tenant";
const DEFINITION: &str = "/api/v1/pauses/definitions/{name}";

pub(super) fn operations() -> Vec<Operation> {
    let set = |operation: Operation| {
        operation
            .optional_body(Json(of::<CommentBody>()))
            .returns(200, &[Json(of::<HeldView>())])
    };
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/pauses",
            "list_pauses",
            (R::Pause, V::List),
            "What is paused: the tenant itself, and definitions by name",
            pauses::list,
        )
        .returns(200, &[Json(list_of::<Paged<HeldView>, HeldView>())]),
        set(Operation::guarded(
            Method::PUT,
            TENANT,
            "pause_tenant",
            (R::Pause, V::Create),
            "Let nothing new of the tenant start; what runs ends by itself",
            pauses::pause_tenant,
        )),
        set(Operation::guarded(
            Method::PUT,
            DEFINITION,
            "pause_definition",
            (R::Pause, V::Create),
            "Let nothing new of a workflow's or playbook's name start; what runs ends by itself",
            pauses::pause_definition,
        )),
        Operation::guarded(
            Method::DELETE,
            TENANT,
            "resume_tenant",
            (R::Pause, V::Delete),
            "Let the tenant go on",
            pauses::resume_tenant,
        )
        .returns(204, &[]),
        Operation::guarded(
            Method::DELETE,
            DEFINITION,
            "resume_definition",
            (R::Pause, V::Delete),
            "Let a definition go on",
            pauses::resume_definition,
        )
        .returns(204, &[]),
    ]
}
