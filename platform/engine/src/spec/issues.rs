//! Places and complaints.

use crate::api::Issue;

/// Issues that are reported of one definition; after that, one says that there are more.
pub(super) const ISSUES_MAX: usize = 100;

/// Line and column from 1; 0 where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Mark {
    pub(super) const UNKNOWN: Self = Self { line: 0, column: 0 };

    pub(super) fn is_known(self) -> bool {
        self.line > 0
    }

    /// Place of a byte offset. The text before it has to be UTF-8.
    pub(super) fn of_offset(source: &[u8], offset: usize) -> Self {
        let before = &source[..offset.min(source.len())];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |position| position + 1);
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let columns = String::from_utf8_lossy(&before[line_start..]).chars().count();
        let number = |value: usize| u32::try_from(value.saturating_add(1)).unwrap_or(u32::MAX);
        Self {
            line: number(lines),
            column: number(columns),
        }
    }
}

/// An issue at a place.
pub(super) fn at(message: String, path: &[String], mark: Mark) -> Issue {
    Issue {
        message,
        path: (!path.is_empty()).then(|| pointer(path)),
        line: mark.is_known().then_some(mark.line),
        column: (mark.is_known() && mark.column > 0).then_some(mark.column),
    }
}

/// JSON pointer of a path.
pub(super) fn pointer(path: &[String]) -> String {
    path.iter()
        .map(|segment| format!("/{}", segment.replace('~', "~0").replace('/', "~1")))
        .collect()
}

/// Sorts by place, drops repeated ones, and bounds their number.
pub(super) fn tidy(mut issues: Vec<Issue>) -> Vec<Issue> {
    issues.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
    issues.dedup();
    if issues.len() > ISSUES_MAX {
        let more = issues.len() - ISSUES_MAX;
        issues.truncate(ISSUES_MAX);
        issues.push(at(format!("{more} more issues are not shown"), &[], Mark::UNKNOWN));
    }
    issues
}

/// The candidate that a misspelt word may have meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(word, candidates).into_iter().next()
}

/// Candidates that a misspelt word may have meant, likeliest first, at most three.
pub(super) fn near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // Distance is quadratic in length; no name of ours is longer.
    if word.len() > 128 {
        return Vec::new();
    }
    let allowed = (word.chars().count() / 3).max(1);
    let lower = word.to_lowercase();
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 128)
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= allowed || (lower.len() >= 3 && candidate.to_lowercase().starts_with(&lower))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

/// ": did you mean `x`?" or nothing.
pub(super) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates)
        .map(|candidate| format!("; did you mean `{candidate}`?"))
        .unwrap_or_default()
}
