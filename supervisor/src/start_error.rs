//! Why a step cannot be started, in words that its author can act on.

use std::io;

use gantry_proto::ErrorCode;
use gantry_proto::v1::Fault;

/// Something in the request, or in the image, keeps the command from starting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the command is empty")]
    NoCommand,
    #[error("the step would run as root (uid 0), which a sandbox refuses")]
    Root,
    #[error("{what} contains a NUL byte, or is no valid name")]
    BadText { what: &'static str },
    #[error("the report files may hold {got_bytes} bytes together, more than one message can carry ({max_bytes})")]
    ReportsTooLarge { got_bytes: u64, max_bytes: u64 },
    #[error("working directory `{path}` {why}")]
    Cwd { path: String, why: String },
    #[error("command `{command}` was not found in PATH ({path})")]
    NotInPath { command: String, path: String },
    #[error("command `{path}` does not exist")]
    Missing { path: String },
    #[error("command `{path}` is a directory or special file, not a program")]
    NotAFile { path: String },
    #[error("command `{path}` is not executable for the step's user")]
    NotExecutable { path: String },
    #[error("command `{path}` needs the interpreter `{interpreter}`, which does not exist in the image")]
    NoInterpreter { path: String, interpreter: String },
    #[error("command `{path}` is neither a program for this machine nor a script with a `#!` line")]
    BadFormat { path: String },
    #[error("arguments and environment are larger than the kernel allows")]
    TooLong,
    #[error("file `{path}` cannot be written")]
    File { path: String, source: io::Error },
    #[error("command `{path}` cannot be executed")]
    Exec { path: String, source: io::Error },
    #[error("cannot {what}")]
    Setup { what: &'static str, source: io::Error },
}

impl StartError {
    /// As it is reported to the node.
    pub(crate) fn to_fault(&self) -> Fault {
        use std::error::Error as _;
        let mut message = self.to_string();
        if let Some(source) = self.source() {
            message = format!("{message}: {source}");
        }
        let fault = Fault::new(ErrorCode::StepCannotStart, message);
        match self.hint() {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotInPath { .. } | Self::Missing { .. } => {
                Some("use an image that contains the command, or give its full path")
            }
            Self::NotExecutable { .. } => Some(
                "set the executable bit (chmod +x), name the interpreter in front, and check that the file system is not mounted noexec",
            ),
            Self::NoInterpreter { .. } => Some("install the interpreter in the image, or use a static program"),
            Self::BadFormat { .. } => Some("add a `#!` line, or build the program for this machine's architecture"),
            Self::Cwd { .. } => Some("`workdir` must be an existing directory that the step's user may enter"),
            Self::TooLong => Some("pass large values in a file"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_says_what_why_and_what_to_do() {
        let error = StartError::Exec {
            path: "/x".into(),
            source: io::Error::from_raw_os_error(libc::EIO),
        };
        let fault = error.to_fault();
        assert_eq!(fault.code, "step-cannot-start");
        assert!(
            fault
                .message
                .starts_with("command `/x` cannot be executed: Input/output error"),
            "{}",
            fault.message
        );
        let fault = StartError::NotInPath {
            command: "nope".into(),
            path: "/bin".into(),
        }
        .to_fault();
        assert!(fault.message.contains("nope") && fault.message.contains("/bin") && fault.hint.is_some());
    }
}
