//! What can go wrong with Docker, by what it means for us.

use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use gantry_proto::ErrorCode;

use crate::api::FleetError;

/// Trouble with one call.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Trouble {
    /// 404.
    #[error("Docker knows no such thing: {0}")]
    NotFound(String),
    /// 409: name taken, not running, removal in progress.
    #[error("Docker reports a conflict: {0}")]
    Conflict(String),
    /// Another 4xx: the request is at fault.
    #[error("Docker refused the request: {0}")]
    Refused(String),
    /// 5xx: it tried and failed; state must be inspected.
    #[error("Docker failed: {0}")]
    Failed(String),
    /// The connection could not be made or broke: nothing is known about the effect of the call.
    #[error("Docker is not reachable: {0}")]
    Lost(String),
    /// No answer in time: nothing is known about the effect of the call.
    #[error("Docker did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// A container of that name exists, and it is not this node's.
    #[error("container {0} does not carry this node's labels and is left alone")]
    NotOurs(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => match status_code {
                404 => Self::NotFound(message),
                409 => Self::Conflict(message),
                400..=499 => Self::Refused(message),
                _ => Self::Failed(message),
            },
            Error::DockerStreamError { error } => Self::Refused(error),
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => Self::Failed(error.to_string()),
            Error::RequestTimeoutError => Self::Lost("no answer".to_owned()),
            other => Self::Lost(chain(&other)),
        }
    }
}

/// An error with its causes: the client's own words for a refused connection are only "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl Trouble {
    /// Whether Docker was not there, so that waiting is the remedy.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TimedOut(_))
    }

    /// As the error of an operation; `doing` completes "while ...".
    pub(crate) fn while_doing(self, doing: &str, socket: &Path) -> FleetError {
        if self.is_absence() {
            return unavailable(&self, doing, socket);
        }
        FleetError {
            code: ErrorCode::DockerRefused,
            message: format!("{self} (while {doing})"),
            hint: None,
        }
    }
}

fn unavailable(trouble: &Trouble, doing: &str, socket: &Path) -> FleetError {
    let path = socket.display();
    let text = trouble.to_string();
    let hint = if text.to_lowercase().contains("permission denied") {
        format!("let the node's user open {path}: run the node as root, or add its user to the group `docker`")
    } else if matches!(trouble, Trouble::TimedOut(_)) {
        "the daemon accepts connections but does not answer: look at its log (`journalctl -u docker`) and the machine's load".to_owned()
    } else {
        format!(
            "start the Docker daemon (`systemctl start docker`, or `dockerd &`) and check that {path} is its socket"
        )
    };
    FleetError {
        code: ErrorCode::DockerUnavailable,
        message: format!("{trouble} (while {doing})"),
        hint: Some(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status_code: u16) -> Trouble {
        Error::DockerResponseServerError {
            status_code,
            message: "words".to_owned(),
        }
        .into()
    }

    #[test]
    fn statuses_and_lost_connections_are_told_apart() {
        assert!(matches!(status(404), Trouble::NotFound(_)));
        assert!(matches!(status(409), Trouble::Conflict(_)));
        assert!(matches!(status(400), Trouble::Refused(_)));
        assert!(matches!(status(500), Trouble::Failed(_)));
        let lost = Trouble::from(Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert!(
            lost.is_absence(),
            "a broken connection says nothing about the container"
        );
        assert!(!status(500).is_absence());
    }

    #[test]
    fn absence_has_a_hint_that_fits() {
        let socket = Path::new("/run/d.sock");
        let gone = Trouble::Lost("connection refused".to_owned()).while_doing("x", socket);
        assert_eq!(gone.code, ErrorCode::DockerUnavailable);
        assert!(gone.hint.unwrap().contains("start the Docker daemon"));
        let denied = Trouble::Lost("Permission denied (os error 13)".to_owned()).while_doing("x", socket);
        assert!(denied.hint.unwrap().contains("group `docker`"));
    }
}
