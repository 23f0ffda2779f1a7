//! A Docker that misbehaves: passes requests on to the real one, except where the test says otherwise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// What becomes of a request.
pub enum Action {
    /// As the real one answers.
    Pass,
    /// The real answer, changed.
    Change(Box<dyn FnOnce(&mut Value) + Send>),
    /// This status, and a message.
    Fail(u16),
    /// These bytes.
    Answer(&'static [u8]),
    /// Accepted, and never answered.
    Hang,
    /// Closed without an answer.
    Drop,
}

type Rule = Box<dyn FnMut(&str, &str) -> Action + Send>;

/// The proxy; gone with this value.
pub struct Proxy {
    pub socket: PathBuf,
    rule: Arc<Mutex<Rule>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub fn new(dir: &Path) -> Self {
        let socket = dir.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_, _| Action::Pass)));
        let for_task = rule.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, for_task.clone()));
            }
        });
        Self {
            socket,
            rule,
            _task: task,
        }
    }

    /// From now on, requests go by this rule of method and path.
    pub fn rule(&self, rule: impl FnMut(&str, &str) -> Action + Send + 'static) {
        *self.rule.lock() = Box::new(rule);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self._task.abort();
    }
}

async fn serve(mut client: UnixStream, rule: Arc<Mutex<Rule>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head).unwrap();
    let (line, rest) = text.split_once("\r\n").unwrap();
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let action = (rule.lock())(&method, &path);
    let forwarded = format!("{line}\r\nConnection: close\r\n{rest}");
    match action {
        Action::Hang => std::future::pending().await,
        Action::Drop => {}
        Action::Answer(bytes) => {
            let _ = client.write_all(bytes).await;
        }
        Action::Fail(status) => {
            let _ = client
                .write_all(&answer(status, br#"{"message":"made to fail"}"#))
                .await;
        }
        Action::Pass => {
            let mut real = UnixStream::connect("/var/run/docker.sock").await.unwrap();
            real.write_all(forwarded.as_bytes()).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut real).await;
        }
        Action::Change(change) => {
            let mut real = UnixStream::connect("/var/run/docker.sock").await.unwrap();
            real.write_all(forwarded.as_bytes()).await.unwrap();
            let mut whole = Vec::new();
            real.read_to_end(&mut whole).await.unwrap();
            let (status, body) = parse(&whole);
            let body = match serde_json::from_slice::<Value>(&body) {
                Ok(mut value) if status == 200 => {
                    change(&mut value);
                    value.to_string().into_bytes()
                }
                _ => body,
            };
            let _ = client.write_all(&answer(status, &body)).await;
        }
    }
}

fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Status and body of a whole response.
fn parse(whole: &[u8]) -> (u16, Vec<u8>) {
    let end = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&whole[..end]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &whole[end + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return (status, rest.to_vec());
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return (status, body);
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 4 + length..];
    }
}
