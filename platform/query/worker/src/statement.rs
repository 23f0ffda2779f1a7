//! Which statements may be asked: one that reads.
//!
//! The words at the front are looked at first, for a refusal that says what is wrong before DuckDB does anything. DuckDB's own parser then counts the
//! statements and says what the one is; its word decides. Nothing depends on this alone: the database is fresh, locked, and has nothing to write to.

use std::ffi::{CStr, CString};
use std::ptr;

use duckdb::ffi;

use crate::failure::Failure;

const READING: [&str; 9] = [
    "SELECT",
    "WITH",
    "FROM",
    "VALUES",
    "TABLE",
    "DESCRIBE",
    "DESC",
    "SHOW",
    "SUMMARIZE",
];

/// Refuses what does not begin like a statement that reads.
pub(crate) fn check_words(sql: &str) -> Result<(), Failure> {
    let mut words = Words(sql);
    let first = words.next();
    let mut word = first;
    if word.is_some_and(|word| word.eq_ignore_ascii_case("EXPLAIN")) {
        word = words.after_explain();
    }
    let Some(word) = word else {
        return Err(Failure::refused("there is no statement in it"));
    };
    if READING.iter().any(|reading| word.eq_ignore_ascii_case(reading)) {
        return Ok(());
    }
    let mut failure = Failure::refused(format!(
        "a query begins with SELECT, WITH, FROM, VALUES, TABLE, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN (of one of these), not with `{}`",
        word.chars().take(32).collect::<String>()
    ));
    failure.position = Some((word.as_ptr() as usize - sql.as_ptr() as usize) as u64);
    Err(failure)
}

/// Words and single other characters, without comments.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    /// The next word, past opening parentheses.
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let token = self.token()?;
            if token != "(" {
                return Some(token);
            }
        }
    }

    /// The word after `EXPLAIN`, `EXPLAIN ANALYZE` or `EXPLAIN (options)`.
    fn after_explain(&mut self) -> Option<&'a str> {
        let mut token = self.token()?;
        if token.eq_ignore_ascii_case("ANALYZE") {
            token = self.token()?;
        }
        if token == "(" {
            // Options or a parenthesised statement: either way the words in it are looked at.
            let inner = self.token()?;
            if READING.iter().any(|reading| inner.eq_ignore_ascii_case(reading)) || inner == "(" {
                return if inner == "(" { self.next() } else { Some(inner) };
            }
            while self.token()? != ")" {}
            return self.next();
        }
        Some(token)
    }

    fn token(&mut self) -> Option<&'a str> {
        self.skip_space();
        let text = self.0;
        let first = text.chars().next()?;
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if word(first) {
            text.find(|c| !word(c)).unwrap_or(text.len())
        } else {
            first.len_utf8()
        };
        self.0 = &text[length..];
        Some(&text[..length])
    }

    fn skip_space(&mut self) {
        loop {
            self.0 = self.0.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
            if let Some(comment) = self.0.strip_prefix("--") {
                self.0 = comment.find('\n').map_or("", |end| &comment[end..]);
            } else if let Some(comment) = self.0.strip_prefix("/*") {
                self.0 = comment.find("*/").map_or("", |end| &comment[end + 2..]);
            } else {
                return;
            }
        }
    }
}

/// Asks DuckDB's parser: exactly one statement, and one that reads.
///
/// # Safety
/// `connection` is open.
pub(crate) unsafe fn check_parsed(connection: ffi::duckdb_connection, sql: &str) -> Result<(), Failure> {
    let text = CString::new(sql).map_err(|_| Failure::refused("there is a NUL character in the statement"))?;
    let mut extracted = Extracted(ptr::null_mut());
    // SAFETY: the connection is open, the text ends in NUL and outlives the call, and `extracted` is destroyed by its guard.
    let count = unsafe { ffi::duckdb_extract_statements(connection, text.as_ptr(), &raw mut extracted.0) };
    if count == 0 {
        // SAFETY: the statements were just extracted; the message belongs to them and is copied.
        let message = unsafe { text_of(ffi::duckdb_extract_statements_error(extracted.0)) };
        return Err(message.map_or_else(
            || Failure::refused("there is no statement in it"),
            |message| Failure::of_duckdb(&message),
        ));
    }
    if count > 1 {
        return Err(Failure::refused(format!(
            "{count} statements were sent; a query is one"
        )));
    }
    let mut prepared = Prepared(ptr::null_mut());
    // SAFETY: the statement with index 0 exists, and `prepared` is destroyed by its guard, also after a failure.
    let state = unsafe { ffi::duckdb_prepare_extracted_statement(connection, extracted.0, 0, &raw mut prepared.0) };
    if state != ffi::DuckDBSuccess {
        // SAFETY: as above; the message belongs to the prepared statement and is copied.
        let message = unsafe { text_of(ffi::duckdb_prepare_error(prepared.0)) };
        return Err(Failure::of_duckdb(&message.unwrap_or_default()));
    }
    // SAFETY: it was prepared.
    let kind = unsafe { ffi::duckdb_prepared_statement_type(prepared.0) };
    let reads = [
        ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SELECT,
        ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPLAIN,
        ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_RELATION,
    ];
    if reads.contains(&kind) {
        Ok(())
    } else {
        Err(Failure::refused("the statement does something else than read"))
    }
}

/// Copies a C string.
///
/// # Safety
/// `text` is null or points to a string that ends in NUL.
unsafe fn text_of(text: *const std::ffi::c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by this function's own condition.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

struct Extracted(ffi::duckdb_extracted_statements);

impl Drop for Extracted {
    fn drop(&mut self) {
        // SAFETY: it is null or was made by DuckDB, and is destroyed once.
        unsafe { ffi::duckdb_destroy_extracted(&raw mut self.0) }
    }
}

struct Prepared(ffi::duckdb_prepared_statement);

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: it is null or was made by DuckDB, and is destroyed once.
        unsafe { ffi::duckdb_destroy_prepare(&raw mut self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_read_may_pass() {
        for sql in [
            "select 1",
            " \n-- a comment; drop\n/* and */ WITH x AS (select 1) FROM x",
            "((select 1))",
            "explain select 1",
            "EXPLAIN ANALYZE select 1",
            "explain (format json) select 1",
            "explain (select 1)",
            "explain ((select 1))",
            "describe workflows",
            "VALUES (1)",
            ";select 1",
        ] {
            assert_eq!(check_words(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn others_are_refused_by_name_and_place() {
        for (sql, word, position) in [
            ("COPY x TO 'y'", "COPY", 0),
            ("/* select */ pragma version", "pragma", 13),
            ("explain copy x to 'y'", "copy", 8),
            ("explain analyze (format json) insert into x values (1)", "insert", 30),
            ("(attach 'x')", "attach", 1),
            ("'select'", "'", 0),
        ] {
            let failure = check_words(sql).unwrap_err();
            assert!(
                failure.message.ends_with(&format!("not with `{word}`")),
                "{sql}: {}",
                failure.message
            );
            assert_eq!(failure.position, Some(position), "{sql}");
        }
        for sql in ["", "  -- only a comment", "/* not closed", "explain", ";;"] {
            assert!(check_words(sql).is_err(), "{sql}");
        }
    }
}
