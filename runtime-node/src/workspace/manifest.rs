//! What a task's workspace consists of. A layer that is not named here does not exist.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_proto::TaskId;
use serde::{Deserialize, Serialize};

use super::error::WorkspaceError;
use crate::atomic;

const FORMAT: u32 = 1;

/// A sealed layer: what one step changed, or with `full` the whole tree as of that step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) step: u32,
    pub(super) attempt: u32,
    /// Name under `layers/`.
    pub(super) dir: String,
    /// Nothing lies beneath it.
    pub(super) full: bool,
}

/// The file `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    pub(super) task: TaskId,
    pub(super) gid: u32,
    /// The last step is sealed: the tree may be copied.
    pub(super) complete: bool,
    pub(super) layers: Vec<Layer>,
    /// Inputs that are in the base, by path, with their SHA-256.
    pub(super) inputs: Vec<(String, String)>,
    #[serde(default)]
    checksum: String,
}

impl Manifest {
    pub(super) fn new(task: TaskId, gid: u32) -> Self {
        Self {
            format: FORMAT,
            task,
            gid,
            complete: false,
            layers: Vec::new(),
            inputs: Vec::new(),
            checksum: String::new(),
        }
    }

    fn digest(&self) -> String {
        let bare = Self {
            checksum: String::new(),
            ..self.clone()
        };
        // Numbers and strings only: always serialisable.
        blake3::hash(&serde_json::to_vec(&bare).unwrap_or_default())
            .to_hex()
            .to_string()
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("manifest.json")
    }

    /// Reads the manifest of a workspace directory; `None` when there is none (its base was never finished).
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, WorkspaceError> {
        let path = Self::path(dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WorkspaceError::io(&path, error)),
        };
        let damaged = |reason: String| WorkspaceError::Damaged {
            path: path.clone(),
            reason,
        };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.format > FORMAT {
            return Err(damaged(format!(
                "its format {} is newer than {FORMAT}",
                manifest.format
            )));
        }
        if manifest.checksum != manifest.digest() {
            return Err(damaged("its checksum does not fit".to_owned()));
        }
        Ok(Some(manifest))
    }

    /// Writes it; durable on return.
    pub(super) fn save(&mut self, dir: &Path) -> Result<(), WorkspaceError> {
        self.checksum = self.digest();
        let path = Self::path(dir);
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        atomic::write(&path, &bytes, 0o600).map_err(|error| WorkspaceError::io(&path, error))
    }

    /// Directories of the tree as of the start of `step`, newest first; the base last unless a full layer lies over it.
    pub(super) fn below(&self, dir: &Path, step: u32) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut below: Vec<&Layer> = self.layers.iter().filter(|layer| layer.step < step).collect();
        below.sort_by_key(|layer| std::cmp::Reverse(layer.step));
        if below.first().map(|layer| layer.step) != step.checked_sub(1) {
            return Err(WorkspaceError::gone(format!(
                "this node does not have the workspace as of step {step}"
            )));
        }
        let mut paths = Vec::with_capacity(below.len() + 1);
        for layer in below {
            paths.push(dir.join("layers").join(&layer.dir));
            if layer.full {
                return Ok(paths);
            }
        }
        paths.push(dir.join("base"));
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(step: u32, full: bool) -> Layer {
        Layer {
            step,
            attempt: 1,
            dir: format!("{step}-1"),
            full,
        }
    }

    #[test]
    fn layers_stack_down_to_the_base_or_a_full_one() {
        let mut manifest = Manifest::new(TaskId::nil(), 1);
        let dir = Path::new("/w");
        assert_eq!(manifest.below(dir, 0).unwrap(), [dir.join("base")]);
        manifest.layers = vec![layer(0, false), layer(1, false), layer(2, false)];
        let paths = manifest.below(dir, 2).unwrap();
        assert_eq!(
            paths,
            [dir.join("layers/1-1"), dir.join("layers/0-1"), dir.join("base")]
        );
        manifest.layers[1].full = true;
        assert_eq!(manifest.below(dir, 2).unwrap(), [dir.join("layers/1-1")]);
        assert!(manifest.below(dir, 5).is_err(), "a step that was never sealed here");
    }

    #[test]
    fn damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), None);
        let mut manifest = Manifest::new(TaskId::nil(), 300_001);
        manifest.save(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), Some(manifest));
        let path = dir.path().join("manifest.json");
        let text = fs::read_to_string(&path).unwrap().replace("300001", "300002");
        fs::write(&path, text).unwrap();
        assert!(matches!(
            Manifest::load(dir.path()),
            Err(WorkspaceError::Damaged { .. })
        ));
    }
}
