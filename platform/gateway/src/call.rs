//! One request as handlers see it, and the helpers that read it.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use gantry_directory::VerifiedKey;
use gantry_engine::api::Caller;
use gantry_proto::ErrorCode;
use gantry_proto::limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::serve::Shared;

/// Bodies of everything but submissions.
pub(crate) const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

/// A request to any operation.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) parts: Parts,
    /// Behind a lock only so that a call can be shared across awaits; it is taken once, by [`Self::bytes`].
    pub(crate) body: Mutex<Body>,
    /// Values of the path template's parameters, decoded, in order.
    pub(crate) path: Vec<String>,
    /// Query pairs, decoded, in order; only declared names are here.
    pub(crate) query: Vec<(String, String)>,
}

/// A request by an authorised caller.
pub(crate) struct GuardedCall {
    pub(crate) call: Call,
    pub(crate) key: VerifiedKey,
}

impl std::ops::Deref for GuardedCall {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl GuardedCall {
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            tenant: self.key.tenant,
            principal: self.key.id,
        }
    }
}

impl Call {
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A header as text, if it is there and readable.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A path parameter that is an id. A text of another form names nothing that exists.
    pub(crate) fn id<T: std::str::FromStr>(&self, index: usize, what: &str) -> Result<T, Problem> {
        self.text(index)
            .parse()
            .map_err(|_| Problem::not_found(&format!("{what} `{}`", short(self.text(index)))))
    }

    /// A path parameter.
    pub(crate) fn text(&self, index: usize) -> &str {
        self.path.get(index).map_or("", String::as_str)
    }

    /// A query parameter that may be given once.
    pub(crate) fn query(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self
            .query
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::invalid(format!("`{name}` is given twice")));
        }
        Ok(first)
    }

    /// A query parameter that may be given often.
    pub(crate) fn query_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A query parameter of another type.
    pub(crate) fn query_as<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        self.query(name)?
            .map(|text| {
                text.parse()
                    .map_err(|_| Problem::invalid(format!("`{name}` must be {expected}, not `{}`", short(text))))
            })
            .transpose()
    }

    /// `limit`, with its default and bound.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        let limit = self.query_as::<u32>("limit", "a number")?.unwrap_or(PAGE_ITEMS_DEFAULT);
        if limit == 0 || limit > PAGE_ITEMS_MAX {
            return Err(Problem::invalid(format!("`limit` must be from 1 to {PAGE_ITEMS_MAX}")));
        }
        Ok(limit)
    }

    /// Whether the client asks for a stream of server-sent events.
    pub(crate) fn wants_events(&self) -> bool {
        self.headers()
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|media| {
                media
                    .split(';')
                    .next()
                    .is_some_and(|name| name.trim().eq_ignore_ascii_case("text/event-stream"))
            })
    }

    /// The media type of the body, lower case, without parameters.
    pub(crate) fn content_type(&self) -> Option<String> {
        let value = self.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
        Some(value.split(';').next()?.trim().to_ascii_lowercase())
    }

    /// The whole body, at most `max` bytes.
    pub(crate) async fn bytes(&mut self, max: usize) -> Result<Bytes, Problem> {
        let too_large = || Problem::new(ErrorCode::TooLarge, format!("the body is larger than {max} bytes"));
        let announced = self.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let body = std::mem::replace(self.body.get_mut(), Body::empty());
        if announced.is_some_and(|length| length > max as u64) {
            drain(body).await;
            return Err(too_large());
        }
        match Limited::new(body, max).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
            Err(error) => Err(Problem::invalid(format!("the body cannot be read: {error}"))),
        }
    }

    /// A JSON body.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self, max: usize) -> Result<T, Problem> {
        if self.content_type().is_none_or(|media| media != "application/json") {
            return Err(unsupported("application/json"));
        }
        from_json(&self.bytes(max).await?)
    }

    /// A JSON body, or the default when there is none.
    pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(&mut self, max: usize) -> Result<T, Problem> {
        let media = self.content_type();
        let bytes = self.bytes(max).await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        if media.is_none_or(|media| media != "application/json") {
            return Err(unsupported("application/json"));
        }
        from_json(&bytes)
    }
}

/// Reads what comes and forgets it: a client that is still sending when the connection closes sees a broken pipe instead of the answer. Only so much; who
/// sends more has to live with it.
async fn drain(mut body: Body) {
    const DRAIN_BYTES_MAX: usize = 32 << 20;
    let mut seen = 0;
    while seen < DRAIN_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        seen += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Reads a JSON object; the message has line and column. An array is refused: serde would take its items for the fields in their order.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid("the body must be a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| Problem::invalid(format!("the body is not as expected: {error}")))
}

/// The body has another type than the operation takes.
pub(crate) fn unsupported(expected: &str) -> Problem {
    Problem::invalid(format!("the Content-Type must be {expected}"))
        .status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .hint(format!("send `Content-Type: {expected}`"))
}

/// What a message may repeat of what the client sent.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
