//! From an HTTP request to an operation and back.

mod dispatch;
mod frame;
mod path;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::any;

use crate::operation::Operation;
use crate::problem::Problem;
use crate::serve::Shared;
use dispatch::Route;

/// One axum route per path; what a path can do is decided in [`Route`].
pub(crate) fn router(operations: Vec<Operation>, shared: &Arc<Shared>) -> Router {
    let mut by_path: BTreeMap<&'static str, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_path.entry(operation.path).or_default().push(operation);
    }
    let mut router = Router::new();
    for (path, operations) in by_path {
        let route = Arc::new(Route::new(path, operations));
        let shared = Arc::clone(shared);
        let answer = any({
            let route = Arc::clone(&route);
            move |request: Request| {
                let (route, shared) = (Arc::clone(&route), Arc::clone(&shared));
                async move { route.answer(shared, request).await }
            }
        });
        // A parameter at the end takes its action along; after a fixed segment the action makes another path.
        if !path.ends_with('}') {
            for action in route.actions() {
                router = router.route(&format!("{path}:{action}"), answer.clone());
            }
        }
        router = router.route(path, answer);
    }
    router
        .fallback(|request: Request| async move {
            Problem::not_found(&format!("path `{}`", crate::call::short(request.uri().path())))
                .hint("GET /api/v1/openapi.json lists every path")
        })
        .layer(middleware::from_fn(frame::frame))
}
