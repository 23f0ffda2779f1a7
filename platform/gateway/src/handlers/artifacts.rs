//! Artifacts: bytes that a sandbox made. They are never shown as a page of ours: always a download, no sniffing, sandboxed.

use std::ops::Range;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use bytes::Bytes;
use gantry_engine::api::{ArtifactView, WorkflowView};
use gantry_proto::ErrorCode;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::tasks::workflow;
use super::{has, json};
use crate::call::{GuardedCall, short};
use crate::dto::Items;
use crate::problem::Problem;

fn of(view: WorkflowView) -> impl Iterator<Item = ArtifactView> {
    view.tasks
        .into_iter()
        .flat_map(|task| task.steps)
        .flat_map(|step| step.artifacts)
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let (_, view) = workflow(&call).await?;
    json(
        StatusCode::OK,
        &Items {
            items: of(view).collect(),
        },
    )
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Unsatisfiable,
}

/// One range of bytes; anything else that is valid HTTP (several ranges, other units) may be answered with the whole.
fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = range.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, false) => match number(last) {
            Ok(0) => Wanted::Unsatisfiable,
            Ok(_) if size == 0 => Wanted::Unsatisfiable,
            Ok(length) => Wanted::Part(size.saturating_sub(length)..size),
            Err(_) => Wanted::All,
        },
        (false, true) => match number(first) {
            Ok(first) if first < size => Wanted::Part(first..size),
            Ok(_) => Wanted::Unsatisfiable,
            Err(_) => Wanted::All,
        },
        (false, false) => match (number(first), number(last)) {
            (Ok(first), Ok(last)) if first > last => Wanted::All,
            (Ok(first), Ok(last)) if first < size => Wanted::Part(first..last.saturating_add(1).min(size)),
            (Ok(_), Ok(_)) => Wanted::Unsatisfiable,
            _ => Wanted::All,
        },
        (true, true) => Wanted::All,
    }
}

/// RFC 8187 `attr-char` besides letters and digits.
const ATTR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// RFC 6266: an ASCII name for old clients, the real one encoded. The name was chosen inside a sandbox, so only its last part is used.
fn disposition(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let base: String = base
        .chars()
        .filter(|c| {
            !c.is_control() && !"\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}".contains(*c)
        })
        .collect();
    let base = match base.as_str() {
        "" | "." | ".." => "artifact",
        base => base,
    };
    let ascii: String = base
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_. ()+".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!(
        "attachment; filename=\"{ascii}\"; filename*=UTF-8''{}",
        utf8_percent_encode(base, ATTR)
    )
}

/// What keeps a browser from doing anything with bytes of others but saving them.
pub(crate) fn inert(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
}

/// Under which name it is saved.
pub(crate) fn attachment(headers: &mut HeaderMap, name: &str) {
    if let Ok(value) = HeaderValue::from_str(&disposition(name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
}

/// What every answer about an artifact has.
fn describe(headers: &mut HeaderMap, artifact: &ArtifactView, etag: &HeaderValue) {
    let media = artifact
        .content_type
        .as_deref()
        .and_then(|text| HeaderValue::from_str(text).ok());
    headers.insert(
        header::CONTENT_TYPE,
        media.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    headers.insert(header::ETAG, etag.clone());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    inert(headers);
    attachment(headers, &artifact.name);
    let digest = hex::decode(&artifact.sha256).map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes));
    if let Ok(digest) = digest {
        for (name, value) in [
            ("repr-digest", format!("sha-256=:{digest}:")),
            ("digest", format!("sha-256={digest}")),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let id = call.id(1, "artifact")?;
    let (workflow, view) = workflow(&call).await?;
    let artifact = of(view)
        .find(|artifact| artifact.id == call.text(1))
        .ok_or_else(|| Problem::not_found(&format!("artifact `{}` in this workflow", short(call.text(1)))))?;
    let etag = HeaderValue::from_str(&format!("\"{}\"", artifact.sha256))
        .map_err(|_| Problem::new(ErrorCode::Internal, "the artifact's digest is unreadable"))?;
    let etag_text = format!("\"{}\"", artifact.sha256);

    if has(call.header("if-none-match"), &etag_text) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        describe(response.headers_mut(), &artifact, &etag);
        return Ok(response);
    }
    // A part of another version would be worse than the whole of this one.
    let same = call.header("if-range").is_none_or(|tag| tag.trim() == etag_text);
    let range = match wanted(call.header("range").filter(|_| same), artifact.size_bytes) {
        Wanted::All => None,
        Wanted::Part(range) => Some(range),
        Wanted::Unsatisfiable => {
            let problem = Problem::invalid(format!("the artifact has {} bytes", artifact.size_bytes))
                .status(StatusCode::RANGE_NOT_SATISFIABLE);
            let value = HeaderValue::from_str(&format!("bytes */{}", artifact.size_bytes));
            return Err(value.map_or(problem.clone(), |value| problem.header(header::CONTENT_RANGE, value)));
        }
    };

    let body = if call.parts.method == http::Method::HEAD || artifact.size_bytes == 0 {
        Body::from(Bytes::new())
    } else {
        Body::from_stream(
            call.shared
                .backend
                .artifact(call.key.tenant, workflow, id, range.clone())
                .await?
                .stream,
        )
    };
    let mut response = Response::new(body);
    describe(response.headers_mut(), &artifact, &etag);
    let length = range
        .as_ref()
        .map_or(artifact.size_bytes, |range| range.end - range.start);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(range) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(value) = HeaderValue::from_str(&format!(
            "bytes {}-{}/{}",
            range.start,
            range.end - 1,
            artifact.size_bytes
        )) {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(wanted(None, 10), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-3"), 10), Wanted::Part(0..4));
        assert_eq!(wanted(Some("bytes=4-"), 10), Wanted::Part(4..10));
        assert_eq!(wanted(Some("bytes=-3"), 10), Wanted::Part(7..10));
        assert_eq!(wanted(Some("bytes=-30"), 10), Wanted::Part(0..10));
        assert_eq!(wanted(Some("bytes=5-99"), 10), Wanted::Part(5..10));
        assert_eq!(wanted(Some("bytes=0-18446744073709551615"), 10), Wanted::Part(0..10));
        assert_eq!(wanted(Some("bytes=10-"), 10), Wanted::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=-0"), 10), Wanted::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
        for odd in [
            "bytes=3-1",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=a-b",
            "bytes=-",
            "bytes=",
        ] {
            assert_eq!(wanted(Some(odd), 10), Wanted::All, "{odd}");
        }
    }

    #[test]
    fn names_from_a_sandbox_cannot_break_the_header() {
        assert_eq!(
            disposition("out/report.md"),
            "attachment; filename=\"report.md\"; filename*=UTF-8''report.md"
        );
        assert_eq!(
            disposition("a\"b;c\r\nX: y"),
            "attachment; filename=\"a_b_cX_ y\"; filename*=UTF-8''a%22b%3BcX%3A%20y"
        );
        assert_eq!(
            disposition("../.."),
            "attachment; filename=\"artifact\"; filename*=UTF-8''artifact"
        );
        assert_eq!(
            disposition("bericht ü.pdf"),
            "attachment; filename=\"bericht _.pdf\"; filename*=UTF-8''bericht%20%C3%BC.pdf"
        );
    }
}
