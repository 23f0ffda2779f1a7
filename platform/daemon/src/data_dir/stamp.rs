//! `format.json`: what a data directory is, which parts it has, and how an older one becomes one of today.
//!
//! The stamp is what tells a missing part from one that never was. Without it a lost master key would be replaced by a fresh one, a lost journal by an
//! empty one, and nobody would be told.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DataDirError;

/// Layout of a data directory. Raised by every change that an older version would misread; each raise has a step in [`UPGRADES`].
pub(crate) const DATA_FORMAT: u32 = 1;
const FILE: &str = "format.json";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Everything durable that an installation has.
pub(crate) const PARTS: [&str; 6] = [
    "master.key",
    "directory.db",
    "journal",
    "segments",
    "blobs",
    "erasures.jsonl",
];

/// The content of the file. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// See [`DATA_FORMAT`].
    pub(crate) format: u32,
    /// The version that last opened the directory.
    pub(crate) gantry: String,
    /// A restore has begun and not ended: nothing in here may be used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) restoring: bool,
    /// Parts that were made, and must therefore be there.
    #[serde(default)]
    pub(crate) parts: BTreeSet<String>,
    /// Id of the installation, as the directory has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) installation: Option<String>,
    /// Id of the master key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) master_key: Option<String>,
}

/// Enough of a stamp to refuse one of a newer version, whatever else it holds.
#[derive(Deserialize)]
struct Head {
    format: u32,
    #[serde(default)]
    gantry: String,
}

/// One step of an upgrade: from the format before to `to`. Run again from its beginning when it was interrupted, so it must bear that.
struct Upgrade {
    to: u32,
    run: fn(&Path, &mut Stamp) -> io::Result<()>,
}

/// In order, without gap.
const UPGRADES: &[Upgrade] = &[Upgrade { to: 1, run: list_parts }];

/// Directories of before the stamp: what is there is what was made.
fn list_parts(root: &Path, stamp: &mut Stamp) -> io::Result<()> {
    stamp.parts = PARTS
        .iter()
        .filter(|part| root.join(part).exists())
        .map(|part| (*part).to_owned())
        .collect();
    Ok(())
}

impl Stamp {
    fn of_format(format: u32) -> Self {
        Self {
            format,
            gantry: VERSION.to_owned(),
            restoring: false,
            parts: BTreeSet::new(),
            installation: None,
            master_key: None,
        }
    }

    /// A directory into which a restore writes.
    pub(crate) fn restoring() -> Self {
        Self {
            restoring: true,
            ..Self::of_format(DATA_FORMAT)
        }
    }

    /// Reads the file; `None` when there is none.
    fn read(root: &Path) -> Result<Option<Self>, DataDirError> {
        let text = match fs::read(root.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(DataDirError::Io {
                    path: root.to_owned(),
                    source,
                });
            }
        };
        let damaged = |error: serde_json::Error| DataDirError::Damaged {
            path: root.to_owned(),
            what: FILE.to_owned(),
            detail: error.to_string(),
        };
        let head: Head = serde_json::from_slice(&text).map_err(damaged)?;
        if head.format > DATA_FORMAT {
            return Err(DataDirError::Newer {
                path: root.to_owned(),
                stored: head.format,
                writer: head.gantry,
            });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Replaces the file: whole or not at all, durable when this returns.
    pub(crate) fn write(&self, root: &Path) -> Result<(), DataDirError> {
        let partial = root.join("format.json.part");
        let replace = || -> io::Result<()> {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&partial, root.join(FILE))?;
            File::open(root)?.sync_all()
        };
        replace().map_err(|source| DataDirError::Io {
            path: root.to_owned(),
            source,
        })
    }

    /// Brings a directory to today's format, checks that every part it had is there, and notes that this version opened it.
    pub(super) fn settle(root: &Path) -> Result<Self, DataDirError> {
        Self::settle_with(root, UPGRADES)
    }

    fn settle_with(root: &Path, upgrades: &[Upgrade]) -> Result<Self, DataDirError> {
        let stored = Self::read(root)?;
        if stored.as_ref().is_some_and(|stamp| stamp.restoring) {
            return Err(DataDirError::HalfRestored { path: root.to_owned() });
        }
        let mut stamp = stored.clone().unwrap_or_else(|| Self::of_format(0));
        for upgrade in upgrades
            .iter()
            .filter(|upgrade| upgrade.to > stored.as_ref().map_or(0, |stamp| stamp.format))
        {
            (upgrade.run)(root, &mut stamp).map_err(|source| DataDirError::Io {
                path: root.to_owned(),
                source,
            })?;
            stamp.format = upgrade.to;
            stamp.write(root)?;
        }
        if let Some(missing) = stamp.parts.iter().find(|part| !root.join(part).exists()) {
            return Err(DataDirError::Damaged {
                path: root.to_owned(),
                what: missing.clone(),
                detail: "it is missing".to_owned(),
            });
        }
        stamp.gantry = VERSION.to_owned();
        if stored.as_ref() != Some(&stamp) {
            stamp.write(root)?;
        }
        Ok(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_before_the_stamp_is_upgraded_with_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("master.key"), [1; 32]).unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        let stamp = Stamp::settle(dir.path()).unwrap();
        assert_eq!(stamp.format, DATA_FORMAT);
        assert_eq!(
            stamp.parts.iter().map(String::as_str).collect::<Vec<_>>(),
            ["journal", "master.key"]
        );
        assert_eq!(Stamp::settle(dir.path()).unwrap(), stamp, "once is enough");

        fs::remove_file(dir.path().join("master.key")).unwrap();
        let error = Stamp::settle(dir.path()).unwrap_err().to_string();
        assert!(error.contains("master.key") && error.contains("backup"), "{error}");
    }

    #[test]
    fn steps_run_in_order_from_where_the_directory_stands_and_again_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        fn second(root: &Path, _: &mut Stamp) -> io::Result<()> {
            let before = fs::read_to_string(root.join("steps")).unwrap_or_default();
            fs::write(root.join("steps"), before + "2")
        }
        fn third(root: &Path, _: &mut Stamp) -> io::Result<()> {
            let before = fs::read_to_string(root.join("steps")).unwrap_or_default();
            fs::write(root.join("steps"), format!("{before}3"))?;
            // As a crash in the middle: the work is done, and not noted.
            if before.contains('3') {
                Ok(())
            } else {
                Err(io::Error::other("cut off"))
            }
        }
        let upgrades = [
            Upgrade { to: 1, run: list_parts },
            Upgrade { to: 2, run: second },
            Upgrade { to: 3, run: third },
        ];
        assert!(Stamp::settle_with(dir.path(), &upgrades).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("steps")).unwrap(), "23");
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains("\"format\": 2"), "what was done is noted: {text}");
    }

    #[test]
    fn a_newer_format_names_the_version_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format": 99, "gantry": "8.1.0", "parts": {"of": "another shape"}}"#;
        fs::write(dir.path().join(FILE), text).unwrap();
        let error = Stamp::settle(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Newer { stored: 99, .. }));
        let said = error.to_string();
        assert!(
            said.contains("run Gantry 8.1.0 or newer") && said.contains("backup"),
            "{said}"
        );
        assert_eq!(
            fs::read_to_string(dir.path().join(FILE)).unwrap(),
            text,
            "it is left as it is"
        );
    }

    #[test]
    fn a_half_restored_or_damaged_directory_does_not_start() {
        let dir = tempfile::tempdir().unwrap();
        Stamp::restoring().write(dir.path()).unwrap();
        assert!(matches!(
            Stamp::settle(dir.path()),
            Err(DataDirError::HalfRestored { .. })
        ));
        fs::write(dir.path().join(FILE), "{\"form").unwrap();
        assert!(matches!(Stamp::settle(dir.path()), Err(DataDirError::Damaged { .. })));
    }
}
