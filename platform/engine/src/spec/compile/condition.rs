//! Checks of conditions.

use super::names::Scope;
use super::{Check, Path};
use crate::spec::condition;

impl Check<'_> {
    /// Parses a condition and checks what it reads.
    pub(super) fn condition(&mut self, path: &Path, text: &str, scope: &Scope<'_>) {
        match condition::parse(text) {
            Err(message) => self.complain(path, message),
            Ok(condition) => {
                for reference in condition.references() {
                    if let Some(message) = scope.refuse_path(reference) {
                        self.complain(path, message);
                    }
                }
            }
        }
    }
}
