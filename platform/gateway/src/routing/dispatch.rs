//! Which operation a request means, whether the caller may, and how long it may take.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use gantry_proto::ErrorCode;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;

use super::path::{self, Matched};
use crate::auth;
use crate::call::{Call, GuardedCall, short};
use crate::operation::{Handler, Operation};
use crate::problem::Problem;
use crate::serve::Shared;

/// Longest query that is read: a definition's parameters fit.
const QUERY_BYTES_MAX: usize = 64 << 10;

/// Every operation of one path.
pub(super) struct Route {
    template: &'static str,
    actions: Vec<&'static str>,
    operations: Vec<Operation>,
}

impl Route {
    pub(super) fn new(template: &'static str, operations: Vec<Operation>) -> Self {
        let actions = operations.iter().filter_map(|operation| operation.action).collect();
        Self {
            template,
            actions,
            operations,
        }
    }

    pub(super) fn actions(&self) -> &[&'static str] {
        &self.actions
    }

    pub(super) async fn answer(&self, shared: Arc<Shared>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let found = path::take_apart(self.template, parts.uri.path(), &self.actions)
            .ok_or_else(|| Problem::not_found(&format!("path `{}`", short(parts.uri.path()))))
            .and_then(|Matched { params, action }| Ok((self.find(&parts.method, action)?, params)));
        let (operation, params) = match found {
            Ok(found) => found,
            Err(problem) => return problem.into_response(),
        };
        let limit = operation.time_limit.unwrap_or(shared.config.request_timeout);
        // For a stream this is the time until it begins: its body is not polled here.
        match tokio::time::timeout(limit, Self::answer_in_time(operation, params, shared, parts, body)).await {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.into_response(),
            Err(_) => Problem::overloaded(format!("the request was not answered within {} s", limit.as_secs()))
                .into_response(),
        }
    }

    async fn answer_in_time(
        operation: &Operation,
        params: Vec<String>,
        shared: Arc<Shared>,
        parts: Parts,
        body: Body,
    ) -> Result<Response, Problem> {
        let query = read_query(operation, parts.uri.query().unwrap_or_default())?;
        let call = Call {
            shared,
            parts,
            body: Mutex::new(body),
            path: params,
            query,
        };
        match &operation.handler {
            Handler::Public(handler) => handler(call).await,
            Handler::Guarded(needs, handler) => {
                let key = auth::authorise(&*call.shared.directory, call.headers(), *needs).await?;
                handler(GuardedCall { call, key }).await
            }
        }
    }

    /// The operation for a method; HEAD is GET without the body, which hyper leaves out.
    fn find(&self, method: &Method, action: Option<&str>) -> Result<&Operation, Problem> {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let here = || self.operations.iter().filter(|operation| operation.action == action);
        here().find(|operation| operation.method == *wanted).ok_or_else(|| {
            let mut allowed: Vec<&str> = here().map(|operation| operation.method.as_str()).collect();
            if allowed.contains(&"GET") {
                allowed.push("HEAD");
            }
            let problem = if allowed.is_empty() {
                // The path exists only with an action.
                Problem::not_found("such operation on this path")
            } else {
                Problem::new(
                    ErrorCode::InvalidRequest,
                    format!("this path does not take {}", short(method.as_str())),
                )
                .status(StatusCode::METHOD_NOT_ALLOWED)
            };
            match HeaderValue::from_str(&allowed.join(", ")) {
                Ok(value) if !allowed.is_empty() => problem.header(header::ALLOW, value),
                _ => problem,
            }
        })
    }
}

/// Undeclared parameters are refused: a misspelt filter must not read as no filter.
fn read_query(operation: &Operation, raw: &str) -> Result<Vec<(String, String)>, Problem> {
    if raw.len() > QUERY_BYTES_MAX {
        return Err(Problem::new(
            ErrorCode::TooLarge,
            format!("the query is longer than {QUERY_BYTES_MAX} bytes"),
        )
        .status(StatusCode::URI_TOO_LONG));
    }
    let mut pairs = Vec::new();
    for (name, value) in url::form_urlencoded::parse(raw.as_bytes()) {
        if !operation.query.iter().any(|known| known.name == name) {
            let known: Vec<&str> = operation.query.iter().map(|known| known.name).collect();
            let known = if known.is_empty() {
                "it takes none".to_owned()
            } else {
                format!("it takes: {}", known.join(", "))
            };
            return Err(Problem::invalid(format!(
                "there is no query parameter `{}` here; {known}",
                short(&name)
            )));
        }
        pairs.push((name.into_owned(), value.into_owned()));
    }
    Ok(pairs)
}
