//! Backups: one consistent cut of everything durable, and the way back.
//!
//! A backup is a list of files with their hashes, in a directory or a tar file, and one more tar file with the wrapped data keys, so that keys and content
//! can be kept, and destroyed, apart. The master key is in neither. `docs/formats.md` has the layout.
//!
//! The cut: all commits are held while a snapshot of the journal is taken, the directory is copied, and the lengths of the output files of unfinished
//! workflows are read. Everything else is copied from the snapshot or never changes.

mod error;
mod inventory;
mod manifest;
mod pack;
mod pairs;
mod receive;
mod restore;
mod sink;

pub(crate) use error::BackupError;
pub(crate) use manifest::Summary;
pub(crate) use pack::{Installation, Options, pack};
pub(crate) use receive::receive;
pub(crate) use restore::{Restore, restore};
pub(crate) use sink::{Sink, Split, TarSink, place};

/// Layout of a backup.
const BACKUP_FORMAT: u32 = 1;
const HEADER: &str = "gantry-backup.json";
const MANIFEST: &str = "manifest.json";
/// What a daemon sends in the place of the manifest when a backup cannot be finished.
const FAILURE: &str = "failure.json";
/// Files of this prefix go to the file of keys.
const KEYS_PREFIX: &str = "keys/";
