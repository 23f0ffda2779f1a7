//! A node's id: made once, kept in its state directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_proto::time::Clock;
use gantry_proto::{NodeId, PartitionId};

use crate::atomic;

/// Why a node's id could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("node id file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else. Never replaced by itself: containers carry the id.
    #[error("node id file {path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: gantry_proto::ids::ParseIdError,
    },
}

/// Reads the node's id from `state_dir/node-id`, or makes one.
///
/// # Errors
/// [`IdentityError`]
pub fn load_or_create(state_dir: &Path, clock: &dyn Clock) -> Result<NodeId, IdentityError> {
    let path = state_dir.join("node-id");
    let failed = |source| IdentityError::Io {
        path: path.clone(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|source| IdentityError::Damaged {
            path: path.clone(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(state_dir).map_err(failed)?;
            let id = NodeId::new(clock.now_ms(), PartitionId::default(), entropy().map_err(failed)?);
            atomic::write(&path, format!("{id}\n").as_bytes(), 0o600).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Randomness for an id.
pub(crate) fn entropy() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::time::SystemClock;

    #[test]
    fn id_is_made_once_and_a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path(), &SystemClock).unwrap();
        assert_eq!(load_or_create(dir.path(), &SystemClock).unwrap(), first);
        fs::write(dir.path().join("node-id"), "task_00").unwrap();
        assert!(matches!(
            load_or_create(dir.path(), &SystemClock),
            Err(IdentityError::Damaged { .. })
        ));
    }
}
