//! The installation, its documents, its health.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use crate::dto::{Health, StatusView, WhoAmI};
use crate::handlers::{docs, system};
use crate::operation::Content::{Json, Other};
use crate::operation::Operation;
use crate::schema::of;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/whoami",
            "whoami",
            (R::Identity, V::Get),
            "Who the caller is",
            system::whoami,
        )
        .returns(200, &[Json(of::<WhoAmI>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/status",
            "status",
            (R::Status, V::Get),
            "State of the installation",
            system::status,
        )
        .returns(200, &[Json(of::<StatusView>())]),
        Operation::public(
            Method::GET,
            "/api/v1/schemas/workflow",
            "workflow_schema",
            "JSON Schema of workflow definitions",
            system::workflow_schema,
        )
        .returns(200, &[Other("application/json")]),
        Operation::public(
            Method::GET,
            "/api/v1/openapi.json",
            "openapi",
            "This document",
            system::openapi,
        )
        .returns(200, &[Other("application/json")]),
        Operation::public(Method::GET, "/healthz", "healthz", "The process lives", system::healthz)
            .returns(200, &[Json(of::<Health>())]),
        Operation::public(
            Method::GET,
            "/readyz",
            "readyz",
            "The process accepts work",
            system::readyz,
        )
        .returns(200, &[Json(of::<Health>())]),
        Operation::public(
            Method::GET,
            "/docs/errors/{code}",
            "error_page",
            "What an error code means and what to do about it",
            docs::error_page,
        )
        .returns(200, &[Other("text/markdown")]),
        Operation::public(Method::GET, "/", "root", "Where things are", system::root)
            .returns(200, &[Other("application/json")]),
    ]
}
