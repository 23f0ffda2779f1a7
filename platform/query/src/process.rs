//! One `gantry-query` process: started, fed, listened to, ended.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use bytes::{Bytes, BytesMut};
use gantry_proto::frame;
use gantry_proto::limits::QUERY_FRAME_BYTES_MAX;
use gantry_proto::v1::query_output::Kind as Output;
use gantry_proto::v1::{QueryFailure, QueryFault, QueryOutput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::api::{Answer, Column, Cut, QueryError, Stats};

/// What it may say on standard error that we look at.
const TALK_BYTES_MAX: u64 = 4 << 10;

/// A running process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    talk: ChildStderr,
}

impl Process {
    /// Starts it in a directory, with an empty environment.
    pub(crate) fn start(program: &Path, directory: &Path) -> Result<Self, QueryError> {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            QueryError::Unavailable(format!(
                "gantry-query cannot be started ({error}); it belongs beside `gantry`"
            ))
        })?;
        let (Some(input), Some(output), Some(talk)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(QueryError::Internal("a process without streams".to_owned()));
        };
        Ok(Self {
            child,
            input: Some(input),
            output,
            talk,
        })
    }

    /// Sends a frame. `false`: the process no longer reads; what it says about that is its answer.
    pub(crate) async fn send(&mut self, frame: &Bytes) -> bool {
        match &mut self.input {
            Some(input) => input.write_all(frame).await.is_ok(),
            None => false,
        }
    }

    /// Takes the answer, and the process's end.
    pub(crate) async fn answer(mut self) -> Result<Answer, QueryError> {
        self.input = None;
        let mut talk = Vec::new();
        let answered = {
            let listen = async {
                let _ = (&mut self.talk).take(TALK_BYTES_MAX).read_to_end(&mut talk).await;
                // More than that is read and forgotten, so that it never waits for us.
                let _ = tokio::io::copy(&mut self.talk, &mut tokio::io::sink()).await;
            };
            let (answered, ()) = tokio::join!(read(&mut self.output), listen);
            answered
        };
        let status = self
            .child
            .wait()
            .await
            .map_err(|error| QueryError::Internal(format!("wait for gantry-query: {error}")))?;
        let talk = String::from_utf8_lossy(&talk);
        if !talk.is_empty() {
            tracing::warn!(talk = %talk.trim(), "gantry-query says");
        }
        answered?.map_or_else(|| Err(died(status, &talk)), Ok)
    }
}

/// `None`: the process ended in the middle.
async fn read(output: &mut ChildStdout) -> Result<Option<Answer>, QueryError> {
    let mut unread = BytesMut::new();
    let mut answer = Answer {
        columns: Vec::new(),
        rows: Vec::new(),
        cut: None,
        stats: Stats::default(),
    };
    loop {
        let message: Option<QueryOutput> = frame::decode_within(QUERY_FRAME_BYTES_MAX, &mut unread)
            .map_err(|error| QueryError::Internal(format!("gantry-query: {error}")))?;
        match message.and_then(|message| message.kind) {
            Some(Output::Head(head)) => {
                let columns = head.columns.into_iter().map(|column| Column {
                    name: column.name,
                    kind: column.r#type,
                });
                answer.columns = columns.collect();
            }
            Some(Output::Rows(rows)) => answer.rows.extend(rows.rows),
            Some(Output::End(end)) => {
                answer.cut = match (end.more_rows, end.more_bytes) {
                    (true, _) => Some(Cut::Rows),
                    (_, true) => Some(Cut::Bytes),
                    _ => None,
                };
                return Ok(Some(answer));
            }
            Some(Output::Failure(failure)) => return Err(of_failure(failure)),
            None => {
                let read = output
                    .read_buf(&mut unread)
                    .await
                    .map_err(|error| QueryError::Internal(format!("gantry-query: {error}")))?;
                if read == 0 {
                    return Ok(None);
                }
            }
        }
    }
}

fn of_failure(failure: QueryFailure) -> QueryError {
    let position = failure.position.and_then(|position| usize::try_from(position).ok());
    let fault = failure.fault();
    let message = failure.message;
    match fault {
        QueryFault::Refused => QueryError::Refused { message, position },
        QueryFault::Invalid | QueryFault::Failed => QueryError::Invalid { message, position },
        QueryFault::Timeout => QueryError::Limit(message),
        QueryFault::Memory => QueryError::Limit(format!("it needs more memory than a query may have: {message}")),
        QueryFault::Internal => QueryError::Internal(message),
    }
}

/// What its end without an answer means. Its allocators end it when the kernel gives them no more memory.
fn died(status: ExitStatus, talk: &str) -> QueryError {
    const ABORTED: i32 = 6;
    const KILLED: i32 = 9;
    const TOO_LONG: i32 = 24;
    match status.signal() {
        Some(TOO_LONG) => QueryError::Limit("it computed longer than it may".to_owned()),
        Some(ABORTED | KILLED) => QueryError::Limit("it needs more memory than a query may have".to_owned()),
        _ if talk.contains("libduckdb") => {
            QueryError::Unavailable("gantry-query does not find libduckdb.so, which belongs beside it".to_owned())
        }
        _ => QueryError::Invalid {
            message: format!("the statement broke the process that answered it ({status}); nothing else was harmed"),
            position: None,
        },
    }
}
