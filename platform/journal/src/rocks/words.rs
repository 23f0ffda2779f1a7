//! Which words the log was ever written with, kept in the store itself: opening costs nothing, however long the log is, and a binary that does not know
//! all of them is kept out before it folds half of a history.

use gantry_proto::vocabulary::{Vocabulary, Words};

use super::OpenError;
use crate::keys::{self, Parsed};
use crate::store::{Batch, Write};

/// The words of a store.
pub(super) struct WrittenWords {
    words: Words,
    /// There are some that the store does not list yet.
    grown: bool,
}

impl WrittenWords {
    /// Reads what the store lists; nothing in a new store, or in one of before the list.
    pub(super) fn read(path: &str, stored: Option<&[u8]>) -> Result<Self, OpenError> {
        let text = stored
            .map_or(Ok(""), std::str::from_utf8)
            .map_err(|_| super::open::damaged(path, "the vocabulary", "it is no text"))?;
        let words = text.split_once('\n').map_or("", |(_, words)| words);
        let words = Words::from_text(words).map_err(|unknown| OpenError::Newer {
            path: path.into(),
            word: unknown.to_string(),
            writer: writer(stored),
        })?;
        Ok(Self { words, grown: false })
    }

    /// Looks at the log entries of a batch that is about to be written. What is no entry is not judged here: reading does that.
    pub(super) fn note(&mut self, batch: &Batch) {
        for write in &batch.writes {
            if let Write::Put(key, value) = write
                && matches!(keys::parse(key), Some(Parsed::Log { .. }))
            {
                self.grown |= Vocabulary::known().read(value, &mut self.words).unwrap_or(false);
            }
        }
    }

    /// The list as it must be written with this batch, if it grew. After a failed write the store takes no further one, so nothing is forgotten.
    pub(super) fn due(&mut self) -> Option<String> {
        std::mem::take(&mut self.grown).then(|| format!("{}\n{}", env!("CARGO_PKG_VERSION"), self.words.to_text()))
    }
}

/// The version that wrote the newest words.
pub(super) fn writer(stored: Option<&[u8]>) -> String {
    let text = stored.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.lines().next())
        .filter(|line| !line.is_empty())
        .map_or_else(|| "of the version that wrote it".to_owned(), str::to_owned)
}
