//! The command line's side of the REST API.

pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod model;

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;

use model::Problem;

/// Deadline of a request that is not a stream. Submissions wait for one commit; everything else is a read.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection to one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: SecretString,
}

/// The server said no, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.in_words())]
pub(crate) struct Refused(pub(crate) Problem);

impl Client {
    pub(crate) fn new(connection: config::Connection) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("set up the HTTP client")?;
        Ok(Self {
            http,
            base: connection.url.trim_end_matches('/').to_owned(),
            key: connection.key,
        })
    }

    /// The daemon's address, for people to open.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/api/v1{path}", self.base))
            .bearer_auth(self.key.expose_secret())
    }

    /// Sends a request that is answered at once.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        self.checked(request.timeout(REQUEST_DEADLINE)).await
    }

    /// Sends a request whose body is a stream: no deadline on the whole.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<Response> {
        self.checked(request).await
    }

    async fn checked(&self, request: RequestBuilder) -> Result<Response> {
        let response = request
            .send()
            .await
            .with_context(|| format!("reach {} (is the daemon running?)", self.base))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem::bare(status.as_u16(), text));
        Err(Refused(problem).into())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.send(self.request(Method::GET, path)).await?;
        response.json().await.context("read the answer")
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> Result<T> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        response.json().await.context("read the answer")
    }
}
