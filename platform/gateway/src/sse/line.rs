//! Output chunks as JSON.

use base64::Engine as _;
use gantry_engine::api::Chunk;
use gantry_proto::v1::OutputStream;

use crate::dto::OutputLine;

/// Name of an output stream in the API.
pub(crate) const fn stream_name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}

/// A chunk as it is written in NDJSON and events.
pub(crate) fn line(chunk: &Chunk) -> OutputLine {
    let (text, base64) = match std::str::from_utf8(&chunk.data) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (
            None,
            Some(base64::engine::general_purpose::STANDARD.encode(&chunk.data)),
        ),
    };
    OutputLine {
        task: None,
        step: None,
        attempt: None,
        seq: chunk.seq,
        stream: stream_name(chunk.stream),
        at_ms: chunk.at_ms,
        text,
        base64,
    }
}
