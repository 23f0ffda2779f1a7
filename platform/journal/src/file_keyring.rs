//! The master key in a file that only its owner can read.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;
use gantry_proto::{TenantId, WorkflowId};
use zeroize::Zeroizing;

use crate::data_key::{DataKey, KEY_BYTES, random_key};
use crate::durable_fs;
use crate::keyring::{KeyRing, SealError, WrappedKey};

const WRAPPED_FORMAT: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const MODE: u32 = 0o600;

/// A [`KeyRing`] over a file of 32 random bytes with mode 0600.
pub struct FileKeyRing {
    master: DataKey,
    id: [u8; KEY_ID_BYTES],
}

impl fmt::Debug for FileKeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeyRing")
            .field("id", &hex::encode(self.id))
            .finish_non_exhaustive()
    }
}

impl FileKeyRing {
    /// Opens the master key file, or makes it durably when there is none. Several processes may do so at once: all end up with the same key.
    ///
    /// A key made beside existing data cannot open that data; callers that know that data exists use [`Self::open`].
    ///
    /// # Errors
    /// [`SealError::MasterKey`] says what is wrong with the file and what to do.
    pub fn open_or_create(path: &Path) -> Result<Self, SealError> {
        match fs::symlink_metadata(path) {
            Ok(_) => Self::open(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                Self::open(path)
            }
            Err(error) => Err(refuse(path, format!("{error}"))),
        }
    }

    /// Opens an existing master key file.
    ///
    /// # Errors
    /// As [`Self::open_or_create`], and when the file is missing.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        // Not through a link: whoever may replace the link would choose the key.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0))
            .open(path)
            .map_err(|error| {
                refuse(
                    path,
                    format!("{error}; restore the file from its backup, without it sealed data cannot be read"),
                )
            })?;
        let meta = file.metadata().map_err(|error| refuse(path, error.to_string()))?;
        let mode = meta.mode() & 0o7777;
        if !meta.is_file() || mode != MODE {
            return Err(refuse(
                path,
                format!("its mode is {mode:04o}, it must be a file of mode 0600: run `chmod 600` on it"),
            ));
        }
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        if meta.len() != KEY_BYTES as u64 {
            return Err(refuse(
                path,
                format!(
                    "it has {} bytes instead of {KEY_BYTES}; restore it from its backup",
                    meta.len()
                ),
            ));
        }
        (&file)
            .read_exact(bytes.as_mut())
            .map_err(|error| refuse(path, error.to_string()))?;
        let digest = Zeroizing::new(blake3::derive_key("gantry 2026 master key id v1", bytes.as_ref()));
        let mut id = [0u8; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Ok(Self {
            master: DataKey::from_bytes(&bytes),
            id,
        })
    }

    /// Which master key this is: 16 hexadecimal digits that reveal nothing of it.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }
}

fn refuse(path: &Path, reason: String) -> SealError {
    SealError::MasterKey {
        path: path.display().to_string(),
        reason,
    }
}

/// Writes the file aside and links it into place, so that it is never seen half-written and never replaces another one.
fn create(path: &Path) -> Result<(), SealError> {
    let refuse = |error: io::Error| refuse(path, format!("cannot create it: {error}"));
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    durable_fs::create_dir_all(dir).map_err(refuse)?;
    let bytes = random_key()?;
    let mut suffix = [0u8; 8];
    getrandom::fill(&mut suffix).map_err(|error| SealError::Random {
        reason: error.to_string(),
    })?;
    let aside = dir.join(format!(".master-key-{}", hex::encode(suffix)));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&aside)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        match fs::hard_link(&aside, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    let written = write();
    let removed = fs::remove_file(&aside);
    written
        .and(removed)
        .and_then(|()| durable_fs::sync_dir(dir))
        .map_err(refuse)
}

fn context(tenant: TenantId, workflow: WorkflowId) -> Vec<u8> {
    let mut context = b"gantry data key v1".to_vec();
    context.extend_from_slice(tenant.as_bytes());
    context.extend_from_slice(workflow.as_bytes());
    context
}

impl KeyRing for FileKeyRing {
    fn generate(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(DataKey, WrappedKey), SealError> {
        let bytes = random_key()?;
        let sealed = self.master.seal(&context(tenant, workflow), bytes.as_ref())?;
        let mut wrapped = vec![WRAPPED_FORMAT];
        wrapped.extend_from_slice(&self.id);
        wrapped.extend_from_slice(&sealed);
        Ok((DataKey::from_bytes(&bytes), WrappedKey(Bytes::from(wrapped))))
    }

    fn unwrap(&self, tenant: TenantId, workflow: WorkflowId, wrapped: &WrappedKey) -> Result<DataKey, SealError> {
        let (&format, rest) = wrapped.0.split_first().ok_or(SealError::Unwrap)?;
        let (id, sealed) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::Unwrap)?;
        if format != WRAPPED_FORMAT || *id != self.id {
            return Err(SealError::Unwrap);
        }
        let plain = self
            .master
            .open(&context(tenant, workflow), sealed)
            .map_err(|_| SealError::Unwrap)?;
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        if plain.len() != KEY_BYTES {
            return Err(SealError::Unwrap);
        }
        bytes.copy_from_slice(&plain);
        // Overwrite the copy that the cipher returned; nobody else holds it.
        if let Ok(mut copy) = plain.try_into_mut() {
            zeroize::Zeroize::zeroize(copy.as_mut());
        }
        Ok(DataKey::from_bytes(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use gantry_proto::PartitionId;

    use super::*;

    fn ids(n: u64) -> (TenantId, WorkflowId) {
        let partition = PartitionId::new(1).unwrap();
        (TenantId::new(1, partition, n), WorkflowId::new(1, partition, n))
    }

    #[test]
    fn a_wrapped_key_opens_after_reopening_and_only_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/master.key");
        let ring = FileKeyRing::open_or_create(&path).unwrap();
        let (tenant, workflow) = ids(1);
        let (key, wrapped) = ring.generate(tenant, workflow).unwrap();
        let sealed = key.seal(b"c", b"plain").unwrap();

        let again = FileKeyRing::open_or_create(&path).unwrap();
        assert_eq!(again.id(), ring.id());
        let opened = again.unwrap(tenant, workflow, &wrapped).unwrap();
        assert_eq!(opened.open(b"c", &sealed).unwrap(), "plain");
        assert!(matches!(
            again.unwrap(ids(2).0, workflow, &wrapped),
            Err(SealError::Unwrap)
        ));
        assert!(matches!(
            again.unwrap(tenant, ids(2).1, &wrapped),
            Err(SealError::Unwrap)
        ));
        let other = FileKeyRing::open_or_create(&dir.path().join("other.key")).unwrap();
        assert!(matches!(
            other.unwrap(tenant, workflow, &wrapped),
            Err(SealError::Unwrap)
        ));
        for index in 0..wrapped.0.len() {
            let mut damaged = wrapped.0.to_vec();
            damaged[index] ^= 0x10;
            assert!(
                again.unwrap(tenant, workflow, &WrappedKey(damaged.into())).is_err(),
                "byte {index}"
            );
        }
    }

    #[test]
    fn the_file_is_private_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        FileKeyRing::open_or_create(&path).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
        assert_eq!(meta.len(), 32);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_modes_lengths_links_and_absence_are_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let missing = FileKeyRing::open(&path).unwrap_err().to_string();
        assert!(missing.contains("backup"), "{missing}");
        FileKeyRing::open_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o4600] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = FileKeyRing::open_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link.key");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(FileKeyRing::open_or_create(&link).is_err());
        fs::write(&path, [1; 31]).unwrap();
        let error = FileKeyRing::open_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("31 bytes"), "{error}");
    }

    #[test]
    fn concurrent_creation_agrees_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| FileKeyRing::open_or_create(&path).unwrap().id()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }
}
