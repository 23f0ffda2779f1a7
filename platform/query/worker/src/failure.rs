//! What goes wrong with a query, sorted by whose matter it is.

use duckdb::Error;
use gantry_proto::v1::{QueryFailure, QueryFault};
use serde_json::Value;

/// A query that has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) fault: QueryFault,
    pub(crate) message: String,
    /// Byte of the statement.
    pub(crate) position: Option<u64>,
}

/// Messages name candidates and repeat the statement; more than this helps nobody.
const MESSAGE_CHARS_MAX: usize = 2_000;

impl Failure {
    pub(crate) fn new(fault: QueryFault, message: impl Into<String>) -> Self {
        Self {
            fault,
            message: message.into(),
            position: None,
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(QueryFault::Internal, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(QueryFault::Refused, message)
    }

    pub(crate) fn into_message(self) -> QueryFailure {
        QueryFailure {
            fault: self.fault as i32,
            message: self.message.chars().take(MESSAGE_CHARS_MAX).collect(),
            position: self.position,
        }
    }

    /// What DuckDB says about a statement. It is told to say it as JSON (`errors_as_json`), sometimes with words before it.
    pub(crate) fn of_duckdb(text: &str) -> Self {
        let json = text
            .find('{')
            .and_then(|start| serde_json::from_str::<Value>(&text[start..]).ok());
        let Some(json) = json else {
            return Self::new(fault_of_words(text), without_remedies(text));
        };
        let field = |name: &str| json.get(name).and_then(Value::as_str);
        let kind = field("exception_type").unwrap_or_default();
        let message = without_remedies(field("exception_message").unwrap_or(text));
        let fault = match fault_of(kind) {
            // A name in the statement that is no file of the caller's.
            QueryFault::Internal if message.starts_with("No files found") => QueryFault::Invalid,
            fault => fault,
        };
        let message = match fault {
            QueryFault::Refused => format!("a query reads its tables, and nothing else: {message}"),
            QueryFault::Timeout => "it ran longer than it may".to_owned(),
            _ if kind.is_empty() => message,
            _ => format!("{kind} error: {message}"),
        };
        Self {
            fault,
            message,
            position: field("position").and_then(|position| position.parse().ok()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DuckDBFailure(_, Some(text)) => Self::of_duckdb(&text),
            Error::FromSqlConversionFailure(column, _, why) => Self::new(
                QueryFault::Invalid,
                format!(
                    "column {} of the answer cannot be sent: {why}; cast it to VARCHAR",
                    column + 1
                ),
            ),
            other => Self::new(fault_of_words(&other.to_string()), other.to_string()),
        }
    }
}

fn fault_of(kind: &str) -> QueryFault {
    match kind {
        "Permission" => QueryFault::Refused,
        "Parser" | "Syntax" | "Binder" | "Catalog" | "Not implemented" | "Parameter Not Resolved" => {
            QueryFault::Invalid
        }
        "INTERRUPT" | "Interrupt" => QueryFault::Timeout,
        "Out of Memory" => QueryFault::Memory,
        "IO" | "INTERNAL" | "Internal" | "FATAL" | "Fatal" | "Serialization" => QueryFault::Internal,
        _ => QueryFault::Failed,
    }
}

/// The few messages that come without JSON.
fn fault_of_words(text: &str) -> QueryFault {
    if text.contains("Interrupt") || text.contains("INTERRUPT") {
        QueryFault::Timeout
    } else if text.contains("Out of Memory") || text.contains("bad_alloc") || text.contains("failed to allocate") {
        QueryFault::Memory
    } else {
        QueryFault::Failed
    }
}

/// DuckDB's advice is for whoever may change its settings.
fn without_remedies(text: &str) -> String {
    let end = [
        "\nDatabase is launched in in-memory mode",
        "\n\nPossible solutions:",
        "\nSee https://",
    ]
    .iter()
    .filter_map(|start| text.find(start))
    .min()
    .unwrap_or(text.len());
    text[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_position_and_loses_its_wrapping() {
        let failure = Failure::of_duckdb(
            r#"Parser Error: {"exception_type":"Parser","exception_message":"syntax error at or near \"selec\"","position":"0"}"#,
        );
        assert_eq!(
            failure,
            Failure {
                fault: QueryFault::Invalid,
                message: "Parser error: syntax error at or near \"selec\"".to_owned(),
                position: Some(0),
            }
        );
    }

    #[test]
    fn faults_are_sorted_by_whose_matter_they_are() {
        let fault =
            |kind: &str| Failure::of_duckdb(&format!(r#"{{"exception_type":"{kind}","exception_message":"x"}}"#)).fault;
        assert_eq!(fault("Permission"), QueryFault::Refused);
        assert_eq!(fault("Conversion"), QueryFault::Failed);
        assert_eq!(fault("Out of Memory"), QueryFault::Memory);
        assert_eq!(fault("IO"), QueryFault::Internal);
        assert_eq!(
            Failure::of_duckdb("INTERRUPT Error: Interrupted!").fault,
            QueryFault::Timeout
        );
        assert_eq!(Failure::of_duckdb("std::bad_alloc").fault, QueryFault::Memory);
    }

    #[test]
    fn advice_that_nobody_can_follow_is_left_out() {
        let text = "failed to allocate data of size 16.0 MiB (50.2 MiB/61.0 MiB used)\nDatabase is launched in in-memory mode and no temporary";
        assert_eq!(
            without_remedies(text),
            "failed to allocate data of size 16.0 MiB (50.2 MiB/61.0 MiB used)"
        );
    }
}
