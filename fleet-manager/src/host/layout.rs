//! The state directory: what lies where, made and removed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_proto::SandboxId;
use rustix::fs::{FlockOperation, flock};

use super::mounts;

/// Length of a sandbox's nonce.
pub(crate) const NONCE_BYTES: usize = 32;
/// A static binary of ours; anything past it is the wrong file.
const SUPERVISOR_BYTES_MAX: u64 = 256 << 20;

/// Names of every host that a sandbox knows: itself.
const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n";
/// No name server: a lookup fails at once instead of asking one that the image was built with.
const RESOLV: &str = "# A sandbox has no network.\noptions timeout:1 attempts:1\n";

/// What went wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("another process has the state directory {0} open")]
    Busy(PathBuf),
    #[error("the state directory {0} is not valid UTF-8")]
    Name(PathBuf),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} still has mounts beneath it and is not removed, so that nothing under them is lost")]
    StillMounted(PathBuf),
    #[error("supervisor {0} is not a plain file of a sensible size")]
    Supervisor(PathBuf),
}

trait At<T> {
    fn at(self, path: &Path) -> Result<T, StateError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, StateError> {
        self.map_err(|source| StateError::Io {
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// The opened state directory; one process at a time has it.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    supervisor: PathBuf,
    generation: u64,
    /// Held as long as this lives.
    _lock: File,
}

impl StateDir {
    /// Makes what is missing, takes the lock, installs the supervisor, and makes `slots/` a shared mount.
    pub(crate) fn open(path: &Path, supervisor: &Path) -> Result<Self, StateError> {
        make_dir(path)?;
        let root = path.canonicalize().at(path)?;
        if root.to_str().is_none() {
            return Err(StateError::Name(root));
        }
        let lock_path = root.join("fleet.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path);
        let lock = lock.at(&lock_path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::Busy(root)),
            Err(error) => return Err(error).at(&lock_path),
        }
        for name in ["slots", "sock", "bin", "etc"] {
            make_dir(&root.join(name))?;
        }
        // Read by every uid inside.
        write_once(&root.join("etc/hosts"), HOSTS.as_bytes(), 0o444)?;
        write_once(&root.join("etc/resolv.conf"), RESOLV.as_bytes(), 0o444)?;
        let supervisor = install(&root.join("bin"), supervisor)?;
        let slots = root.join("slots");
        mounts::make_shared(&slots).at(&slots)?;
        let generation = next_generation(&root.join("generation"))?;
        Ok(Self {
            root,
            supervisor,
            generation,
            _lock: lock,
        })
    }

    /// How often this directory was opened; in labels, for people.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn supervisor(&self) -> &Path {
        &self.supervisor
    }

    pub(crate) fn hosts_file(&self) -> PathBuf {
        self.root.join("etc/hosts")
    }

    pub(crate) fn resolv_file(&self) -> PathBuf {
        self.root.join("etc/resolv.conf")
    }

    pub(crate) fn slot(&self, sandbox: SandboxId) -> PathBuf {
        self.root.join("slots").join(sandbox.to_string())
    }

    pub(crate) fn socket_dir(&self, sandbox: SandboxId) -> PathBuf {
        self.root.join("sock").join(sandbox.to_string())
    }

    /// Makes a sandbox's two directories, empty, and its nonce. Directories of an earlier try are removed first.
    pub(crate) fn make_sandbox(&self, sandbox: SandboxId) -> Result<[u8; NONCE_BYTES], StateError> {
        self.remove_sandbox(sandbox)?;
        let slot = self.slot(sandbox);
        make_dir(&slot)?;
        // Every uid inside passes through it to what is mounted beneath.
        fs::set_permissions(&slot, Permissions::from_mode(0o755)).at(&slot)?;
        let socket_dir = self.socket_dir(sandbox);
        make_dir(&socket_dir)?;
        let mut nonce = [0; NONCE_BYTES];
        let path = socket_dir.join("nonce");
        getrandom::fill(&mut nonce)
            .map_err(|error| io::Error::other(error.to_string()))
            .at(&path)?;
        let file = OpenOptions::new().create_new(true).write(true).mode(0o400).open(&path);
        file.and_then(|mut file| file.write_all(&nonce)).at(&path)?;
        Ok(nonce)
    }

    /// Removes a sandbox's directories with what is still mounted beneath them. Idempotent.
    pub(crate) fn remove_sandbox(&self, sandbox: SandboxId) -> Result<(), StateError> {
        for dir in [self.slot(sandbox), self.socket_dir(sandbox)] {
            mounts::unmount_beneath(&dir).at(&dir)?;
            // A removal that crossed a mount would delete a workspace.
            if !mounts::mounts_beneath(&dir).at(&dir)?.is_empty() {
                return Err(StateError::StillMounted(dir));
            }
            match fs::remove_dir_all(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StateError::Io { path: dir, source }),
            }
        }
        Ok(())
    }

    /// Sandboxes that have a directory, in whatever state.
    pub(crate) fn sandboxes(&self) -> Result<Vec<SandboxId>, StateError> {
        let mut found = Vec::new();
        for kind in ["slots", "sock"] {
            let dir = self.root.join(kind);
            for entry in fs::read_dir(&dir).at(&dir)? {
                let name = entry.at(&dir)?.file_name();
                match name.to_str().and_then(|name| name.parse().ok()) {
                    Some(sandbox) => found.push(sandbox),
                    None => tracing::warn!(?name, ?dir, "left alone what is not a sandbox's"),
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Takes the shared mount away when no slot is left, so that a stopped node leaves nothing mounted.
    pub(crate) fn release(&self) -> Result<(), StateError> {
        let slots = self.root.join("slots");
        if fs::read_dir(&slots).at(&slots)?.next().is_none() {
            mounts::release(&slots).at(&slots)?;
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).at(path)
}

/// Puts `content` at `path` by renaming, unless it is there already: running containers have the file mounted.
fn write_once(path: &Path, content: &[u8], mode: u32) -> Result<(), StateError> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&fresh)
        .at(&fresh)?;
    file.write_all(content).and_then(|()| file.sync_all()).at(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(mode)).at(&fresh)?;
    drop(file);
    fs::rename(&fresh, path).at(path)
}

/// Copies the supervisor to a name that is its hash.
fn install(bin: &Path, source: &Path) -> Result<PathBuf, StateError> {
    let mut file = File::open(source).at(source)?;
    let about = file.metadata().at(source)?;
    if !about.is_file() || about.len() == 0 || about.len() > SUPERVISOR_BYTES_MAX {
        return Err(StateError::Supervisor(source.to_owned()));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).at(source)?;
    let path = bin.join(format!("supervisor-{}", &blake3::hash(&content).to_hex()[..32]));
    write_once(&path, &content, 0o555)?;
    Ok(path)
}

fn next_generation(path: &Path) -> Result<u64, StateError> {
    let last = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0);
    let next = last.saturating_add(1);
    write_once(path, format!("{next}\n").as_bytes(), 0o600)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use gantry_proto::PartitionId;

    use super::*;

    #[test]
    fn the_directory_has_one_owner_and_keeps_what_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = dir.path().join("supervisor");
        fs::write(&supervisor, b"binary").unwrap();
        let state = StateDir::open(&dir.path().join("state"), &supervisor).unwrap();
        assert!(matches!(
            StateDir::open(&dir.path().join("state"), &supervisor),
            Err(StateError::Busy(_))
        ));
        assert_eq!(state.generation(), 1);
        assert_eq!(
            fs::metadata(state.supervisor()).unwrap().permissions().mode() & 0o777,
            0o555
        );

        let sandbox = SandboxId::new(1, PartitionId::new(0).unwrap(), 3);
        let nonce = state.make_sandbox(sandbox).unwrap();
        assert_eq!(fs::read(state.socket_dir(sandbox).join("nonce")).unwrap(), nonce);
        assert_ne!(
            state.make_sandbox(sandbox).unwrap(),
            nonce,
            "a second try has a nonce of its own"
        );

        let workspace = dir.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        fs::write(workspace.join("kept"), b"").unwrap();
        let point = state.slot(sandbox).join("w");
        fs::create_dir(&point).unwrap();
        rustix::mount::mount_bind(&workspace, &point).unwrap();
        assert_eq!(state.sandboxes().unwrap(), [sandbox]);
        state.remove_sandbox(sandbox).unwrap();
        assert!(workspace.join("kept").exists(), "what was mounted is not deleted");
        assert!(state.sandboxes().unwrap().is_empty());

        state.release().unwrap();
        drop(state);
        let again = StateDir::open(&dir.path().join("state"), &supervisor).unwrap();
        assert_eq!(again.generation(), 2);
        again.release().unwrap();
    }

    #[test]
    fn a_directory_in_the_place_of_the_supervisor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let failed = StateDir::open(&dir.path().join("state"), dir.path());
        assert!(matches!(failed, Err(StateError::Supervisor(_))), "{failed:?}");
    }
}
