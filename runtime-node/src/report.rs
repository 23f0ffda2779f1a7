//! What a step writes to `$GANTRY_OUTPUT` and `$GANTRY_ATTRS`.
//!
//! Lines `name=value`; or `name<<WORD`, lines, `WORD` for a value of several lines; or, when the file starts with `{`, one JSON object. A name that
//! is set twice keeps the last value.

use serde_json::{Map, Value};

const NAME_BYTES_MAX: usize = gantry_proto::limits::NAME_BYTES_MAX;

/// Why a report file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Longer than its limit.
    #[error("it is larger than its limit of {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Not text.
    #[error("it is not valid UTF-8 (byte {at})")]
    NotText {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Starts with `{` but is no JSON object.
    #[error("it starts with `{{` but is not one JSON object: {reason}")]
    BadJson {
        /// What the parser said.
        reason: String,
    },
    /// A line that is neither form.
    #[error("line {line} is neither `name=value` nor `name<<WORD`")]
    BadLine {
        /// From 1.
        line: usize,
    },
    /// A name with other characters than letters, digits, `_`, `-` and `.`, or too long.
    #[error("line {line}: `{name}` is not a name (letters, digits, `_`, `-`, `.`; at most {NAME_BYTES_MAX} bytes)")]
    BadName {
        /// From 1; 0 in a JSON object.
        line: usize,
        /// The name, shortened.
        name: String,
    },
    /// The closing word of a value of several lines never comes.
    #[error("line {line}: the value is not closed by a line `{word}`")]
    Unclosed {
        /// Where the value begins, from 1.
        line: usize,
        /// The word.
        word: String,
    },
}

/// Parses a report file.
///
/// # Errors
/// [`ReportError`] with the place.
pub fn parse_report(content: &[u8]) -> Result<Map<String, Value>, ReportError> {
    let text = std::str::from_utf8(content).map_err(|error| ReportError::NotText {
        at: error.valid_up_to(),
    })?;
    if text.trim_start().starts_with('{') {
        parse_json(text)
    } else {
        parse_lines(text)
    }
}

fn parse_json(text: &str) -> Result<Map<String, Value>, ReportError> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| ReportError::BadJson {
        reason: error.to_string(),
    })?;
    for name in object.keys() {
        check_name(name, 0)?;
    }
    Ok(object)
}

fn parse_lines(text: &str) -> Result<Map<String, Value>, ReportError> {
    let mut values = Map::new();
    let mut lines = text
        .split('\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.strip_suffix('\r').unwrap_or(line)));
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let equals = line.find('=').unwrap_or(usize::MAX);
        let heredoc = line.find("<<").unwrap_or(usize::MAX);
        if equals == usize::MAX && heredoc == usize::MAX {
            return Err(ReportError::BadLine { line: number });
        }
        if equals < heredoc {
            let (name, value) = (&line[..equals], &line[equals + 1..]);
            check_name(name, number)?;
            values.insert(name.to_owned(), Value::String(value.to_owned()));
            continue;
        }
        let (name, word) = (&line[..heredoc], line[heredoc + 2..].trim());
        check_name(name, number)?;
        if word.is_empty() {
            return Err(ReportError::BadLine { line: number });
        }
        let mut value = Vec::new();
        loop {
            match lines.next() {
                Some((_, line)) if line == word => break,
                Some((_, line)) => value.push(line),
                None => {
                    return Err(ReportError::Unclosed {
                        line: number,
                        word: word.to_owned(),
                    });
                }
            }
        }
        values.insert(name.to_owned(), Value::String(value.join("\n")));
    }
    Ok(values)
}

fn check_name(name: &str, line: usize) -> Result<(), ReportError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(ReportError::BadName {
        line,
        name: name.chars().take(48).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(content: &str) -> Result<Map<String, Value>, ReportError> {
        parse_report(content.as_bytes())
    }

    #[test]
    fn all_three_forms() {
        let values = text("a=1=2\n\nb<<EOF\nx\n\n y=z\nEOF\na=last\r\nc=").unwrap();
        assert_eq!(values["a"], "last");
        assert_eq!(values["b"], "x\n\n y=z");
        assert_eq!(values["c"], "");
        assert_eq!(text(" {\"n\": [1, 2]}\n").unwrap()["n"][1], 2);
        assert!(text("").unwrap().is_empty());
    }

    #[test]
    fn faults_say_where() {
        assert_eq!(text("a=1\nnothing"), Err(ReportError::BadLine { line: 2 }));
        assert_eq!(
            text("a b=1"),
            Err(ReportError::BadName {
                line: 1,
                name: "a b".into()
            })
        );
        assert_eq!(
            text("=1"),
            Err(ReportError::BadName {
                line: 1,
                name: String::new()
            })
        );
        assert_eq!(text("x\na<<E\nb"), Err(ReportError::BadLine { line: 1 }));
        assert_eq!(
            text("a<<E\nb"),
            Err(ReportError::Unclosed {
                line: 1,
                word: "E".into()
            })
        );
        assert!(matches!(text("{\"a\": 1"), Err(ReportError::BadJson { .. })));
        assert!(matches!(text("{\"a/b\": 1}"), Err(ReportError::BadName { .. })));
        assert_eq!(parse_report(b"a=\xff"), Err(ReportError::NotText { at: 2 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(content in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_report(&content);
        }

        #[test]
        fn values_come_back_as_written(values in proptest::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_.-]{0,20}", "[^\r]{0,60}", 0..8)) {
            let mut file = String::new();
            for (name, value) in &values {
                // A word that no value holds.
                file.push_str(&format!("{name}<<GANTRY-END-7c1\n{value}\nGANTRY-END-7c1\n"));
            }
            let parsed = text(&file).unwrap();
            prop_assert_eq!(parsed.len(), values.len());
            for (name, value) in &values {
                prop_assert_eq!(parsed[name].as_str().unwrap(), value);
            }
        }
    }
}
