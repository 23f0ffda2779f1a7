//! The one type through which anything is reachable.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::response::Response;
use gantry_directory::{Resource, Verb};
use http::Method;

use crate::call::{Call, GuardedCall};
use crate::problem::Problem;
use crate::schema::Schema;

/// What a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: anybody who reaches the port.
    Public,
    /// A key whose scope allows this.
    Needs(Resource, Verb),
}

pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// The kind of handler follows from the permission: a guarded one receives a caller, a public one cannot.
pub(crate) enum Handler {
    Public(Box<dyn Fn(Call) -> Answer + Send + Sync>),
    Guarded((Resource, Verb), Box<dyn Fn(GuardedCall) -> Answer + Send + Sync>),
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryParam {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
}

/// What a request's body or a response's body is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content {
    Json(Schema),
    /// Another media type, described in words.
    Other(&'static str),
}

/// One operation: everything that is known about it.
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// Path template, `/api/v1/workflows/{id}`.
    pub(crate) path: &'static str,
    /// For `{id}:cancel`: `cancel`.
    pub(crate) action: Option<&'static str>,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) query: &'static [QueryParam],
    pub(crate) body: Vec<Content>,
    pub(crate) body_required: bool,
    pub(crate) responses: Vec<(u16, Vec<Content>)>,
    /// Instead of the gateway's own limit: for requests whose body takes its time.
    pub(crate) time_limit: Option<Duration>,
    pub(crate) handler: Handler,
}

/// What others may know of an operation: for tests and printed tables.
#[derive(Debug, Clone)]
pub struct OperationInfo {
    /// HTTP method.
    pub method: Method,
    /// Path template with its action.
    pub path: String,
    /// Unique name.
    pub id: &'static str,
    /// What a caller needs.
    pub permission: Permission,
}

impl Operation {
    /// An operation that needs a key with this permission.
    pub(crate) fn guarded<F, A>(
        method: Method,
        path: &'static str,
        id: &'static str,
        needs: (Resource, Verb),
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        F: Fn(GuardedCall) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let handler = Handler::Guarded(needs, Box::new(move |call| Box::pin(handler(call))));
        Self::new(method, path, id, summary, handler)
    }

    /// An operation for everybody. Say so only where nothing of a tenant can be seen.
    pub(crate) fn public<F, A>(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let handler = Handler::Public(Box::new(move |call| Box::pin(handler(call))));
        Self::new(method, path, id, summary, handler)
    }

    fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str, handler: Handler) -> Self {
        Self {
            method,
            path,
            action: None,
            id,
            summary,
            query: &[],
            body: Vec::new(),
            body_required: false,
            responses: Vec::new(),
            time_limit: None,
            handler,
        }
    }

    pub(crate) fn action(mut self, action: &'static str) -> Self {
        self.action = Some(action);
        self
    }

    pub(crate) fn query(mut self, query: &'static [QueryParam]) -> Self {
        self.query = query;
        self
    }

    pub(crate) fn body(mut self, content: Content) -> Self {
        self.body.push(content);
        self.body_required = true;
        self
    }

    pub(crate) fn optional_body(mut self, content: Content) -> Self {
        self.body.push(content);
        self
    }

    pub(crate) fn returns(mut self, status: u16, content: &[Content]) -> Self {
        self.responses.push((status, content.to_vec()));
        self
    }

    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    pub(crate) fn permission(&self) -> Permission {
        match &self.handler {
            Handler::Public(_) => Permission::Public,
            Handler::Guarded((resource, verb), _) => Permission::Needs(*resource, *verb),
        }
    }

    /// The path as documented, action included.
    pub(crate) fn full_path(&self) -> String {
        self.action
            .map_or_else(|| self.path.to_owned(), |action| format!("{}:{action}", self.path))
    }

    pub(crate) fn info(&self) -> OperationInfo {
        OperationInfo {
            method: self.method.clone(),
            path: self.full_path(),
            id: self.id,
            permission: self.permission(),
        }
    }
}
