//! Errors as `application/problem+json` (RFC 9457), and the one table of their status codes.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gantry_directory::{AuthError, ManageError};
use gantry_engine::api::{Issue, Refusal};
use gantry_proto::ErrorCode;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

/// HTTP status of each code. Codes of steps and nodes appear in views, not as answers; if one ever is an answer, the request met a state that forbids it.
#[must_use]
pub fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode as C;
    match code {
        C::InvalidRequest => StatusCode::BAD_REQUEST,
        C::InvalidDefinition | C::InvalidParameters | C::InvalidQuery | C::QueryLimit | C::UploadMissing => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        C::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        C::Unauthenticated => StatusCode::UNAUTHORIZED,
        C::Forbidden | C::DecisionForbidden | C::QueryRefused => StatusCode::FORBIDDEN,
        C::NotFound => StatusCode::NOT_FOUND,
        C::ContentErased => StatusCode::GONE,
        C::Overloaded | C::QueryUnavailable | C::StorageUnavailable | C::DockerUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        C::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        // Conflict, IdempotencyMismatch, and what steps and nodes report.
        _ => StatusCode::CONFLICT,
    }
}

/// A refused request. It becomes a response at the very end, where the request id is known.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ErrorCode,
    status: StatusCode,
    detail: String,
    hint: Option<String>,
    issues: Vec<Issue>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of a refused request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Where the code is explained.
    r#type: String,
    /// The same for every occurrence of the code.
    title: String,
    /// HTTP status.
    status: u16,
    /// What programs match on.
    code: String,
    /// What went wrong this time.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Every place found wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issues: Vec<Issue>,
    /// Names the request in the log.
    request_id: String,
}

impl Problem {
    /// A problem with the code's own status.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: status_of(code),
            detail: detail.into(),
            hint: None,
            issues: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// The request is not what the operation takes.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail)
    }

    /// Nothing like that in the caller's tenant.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no {what}"))
    }

    /// Too much at once; the client may come back.
    #[must_use]
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::Overloaded, detail).header(header::RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// The same code under another status, where HTTP has a more exact one.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a place that is wrong.
    #[must_use]
    pub fn issue(mut self, issue: Issue) -> Self {
        self.issues.push(issue);
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What programs match on.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What went wrong, in a sentence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The finished response.
    #[must_use]
    pub fn render(self, request_id: &str) -> Response {
        let body = ProblemBody {
            r#type: format!("/docs/errors/{}", self.code),
            title: self.code.title().to_owned(),
            status: self.status.as_u16(),
            code: self.code.as_str().to_owned(),
            detail: self.detail,
            hint: self.hint,
            issues: self.issues,
            request_id: request_id.to_owned(),
        };
        // Strings and numbers always serialise; an empty body is still a correct status.
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Rendered by the outermost layer, which knows the request id.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        if refusal.code == ErrorCode::Internal {
            tracing::error!(error = %refusal.message, "the engine reports an internal error");
        }
        let mut problem = if refusal.code == ErrorCode::Overloaded {
            Self::overloaded(refusal.message)
        } else {
            Self::new(refusal.code, refusal.message)
        };
        problem.hint = refusal.hint;
        problem.issues = refusal.issues;
        problem
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Busy => Self::overloaded(error.to_string()),
            AuthError::Storage(_) | AuthError::Hash(_) => {
                tracing::error!(%error, "a credential cannot be verified");
                Self::new(ErrorCode::StorageUnavailable, "the directory of keys does not answer")
            }
            AuthError::Malformed
            | AuthError::WrongKind
            | AuthError::Unknown
            | AuthError::Expired
            | AuthError::Revoked => Self::unauthenticated(error.to_string()),
        }
    }
}

impl Problem {
    /// No usable credential.
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, detail)
            .header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"gantry\""),
            )
            .hint("send `Authorization: Bearer ab_<id>_<secret>`; `gantry key create` makes a key")
    }
}

impl From<ManageError> for Problem {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::NotFound => Self::new(ErrorCode::NotFound, "there is no such key or token"),
            ManageError::Invalid(detail) => Self::invalid(detail),
            ManageError::Conflict(detail) => Self::new(ErrorCode::Conflict, detail),
            ManageError::Forbidden(detail) => Self::new(ErrorCode::Forbidden, detail),
            ManageError::Busy => Self::overloaded("too many secrets are being hashed at once"),
            ManageError::Storage(_) | ManageError::Hash(_) => {
                tracing::error!(%error, "the directory fails");
                Self::new(ErrorCode::StorageUnavailable, "the directory of keys does not answer")
            }
        }
    }
}
