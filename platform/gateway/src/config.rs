//! What the gateway is told at start.

use std::time::Duration;

use gantry_proto::limits::SSE_READERS_MAX;

/// Settings; the defaults fit every size of installation.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Version of the binary, shown in status and OpenAPI.
    pub version: String,
    /// JSON Schema of workflow definitions, served as it is.
    pub workflow_schema: serde_json::Value,
    /// A request that has not been answered by then is ended; streams only until they begin.
    pub request_timeout: Duration,
    /// Streams (SSE and followed logs) at once; more get `overloaded`.
    pub streams_max: usize,
    /// Pause after which an idle stream sends a comment, so that proxies keep it.
    pub heartbeat: Duration,
    /// How often a stream reads storage although nothing woke it: the bus is only a hint.
    pub reread: Duration,
    /// How often a stream checks that its key still lives.
    pub recheck_key: Duration,
    /// How long a shutdown waits for requests that are being answered.
    pub drain: Duration,
}

impl GatewayConfig {
    /// Defaults for a version and its schema.
    #[must_use]
    pub fn new(version: impl Into<String>, workflow_schema: serde_json::Value) -> Self {
        Self {
            version: version.into(),
            workflow_schema,
            request_timeout: Duration::from_secs(30),
            streams_max: SSE_READERS_MAX,
            heartbeat: Duration::from_secs(15),
            reread: Duration::from_secs(5),
            recheck_key: Duration::from_secs(15),
            drain: Duration::from_secs(10),
        }
    }
}
