//! Pages of errors, embedded at build time.

use axum::response::Response;
use http::StatusCode;

use super::typed;
use crate::call::{Call, short};
use crate::problem::Problem;

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// The page of an error code.
pub(crate) fn page(code: &str) -> Option<&'static str> {
    PAGES
        .binary_search_by(|(name, _)| (*name).cmp(code))
        .ok()
        .map(|index| PAGES[index].1)
}

#[allow(clippy::unused_async)] // handlers are async
pub(crate) async fn error_page(call: Call) -> Result<Response, Problem> {
    let code = call.text(0);
    let text = page(code).ok_or_else(|| Problem::not_found(&format!("page for error code `{}`", short(code))))?;
    Ok(typed(StatusCode::OK, "text/markdown; charset=utf-8", text))
}
