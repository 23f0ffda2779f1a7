//! Mirrors are a cache: bounded by number and size, the least recently used go first, and one that is in use stays.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_proto::time::{Clock as _, SystemClock};

use super::{Locks, Mirrors};
use crate::tree;

/// Of a mirror that is being made.
pub(super) const NEW: &str = "new";
/// Of one that is being removed: half of a mirror must not be taken for one.
const OLD: &str = "old";

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) count: usize,
    pub(super) bytes: u64,
}

struct Kept {
    key: String,
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(SystemClock.now_ms())
}

/// Notes that a mirror was used. Its directory's own time says so, across restarts; that it cannot be set only makes it look older.
pub(super) fn used(mirror: &Path) {
    let noted = fs::File::open(mirror).and_then(|dir| dir.set_modified(now()));
    match noted {
        Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::debug!(%error, "note the use of a mirror"),
        _ => {}
    }
}

/// Removes what a crash left of mirrors that were being made or removed.
pub(super) fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == NEW || kind == OLD) {
            tree::remove_path(&path)?;
        }
    }
    Ok(())
}

fn bytes_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0u64;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes = bytes.saturating_add(if meta.is_dir() {
            bytes_of(&entry.path())?
        } else {
            meta.len()
        });
    }
    Ok(bytes)
}

/// Mirrors by name: 32 hexadecimal digits. What else is in the directory is ours too, and no mirror.
fn mirrors(dir: &Path) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(key) = entry.file_name().into_string() else {
            continue;
        };
        if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let path = entry.path();
        let used = entry.metadata()?.modified()?;
        // One that another task changes at the moment is in use, and is not removed whatever its size.
        let bytes = bytes_of(&path).unwrap_or(0);
        found.push(Kept { key, path, used, bytes });
    }
    found.sort_by_key(|mirror| Reverse(mirror.used));
    Ok(found)
}

fn prune(dir: &Path, keep: Keep, locks: &Locks) -> io::Result<()> {
    let (mut count, mut bytes) = (0, 0u64);
    for mirror in mirrors(dir)? {
        count += 1;
        bytes = bytes.saturating_add(mirror.bytes);
        // The newest one stays however large it is: the next step of the same repository would only fetch it again.
        if count == 1 || (count <= keep.count && bytes <= keep.bytes) {
            continue;
        }
        let lock = locks.lock().entry(mirror.key.clone()).or_default().clone();
        let Ok(_guard) = lock.try_lock() else { continue };
        let aside = mirror.path.with_extension(OLD);
        tree::remove_path(&aside)?;
        fs::rename(&mirror.path, &aside)?;
        tree::remove_path(&aside)?;
        tracing::info!(
            mirror = mirror.key,
            bytes = mirror.bytes,
            "git mirror removed: others were used since"
        );
        bytes -= mirror.bytes;
        count -= 1;
    }
    // Nobody waits for a lock that only the table has.
    locks.lock().retain(|_, lock| Arc::strong_count(lock) > 1);
    Ok(())
}

impl Mirrors {
    /// Removes what is too much. That it cannot is no fault of whoever used a mirror.
    pub(super) async fn prune(&self) {
        let (dir, keep, locks) = (self.dir.clone(), self.keep, Arc::clone(&self.locks));
        match tokio::task::spawn_blocking(move || prune(&dir, keep, &locks)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "prune the git mirrors"),
            Err(error) => tracing::error!(%error, "prune the git mirrors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GitConfig;

    fn open(dir: &Path, count: usize, bytes: u64) -> Mirrors {
        let options = GitConfig {
            mirrors_max: count,
            mirrors_bytes_max: bytes,
            ..GitConfig::default()
        };
        Mirrors::open(dir.to_owned(), &options).unwrap()
    }

    /// A mirror of 1000 bytes that was last used so many minutes ago.
    fn mirror(dir: &Path, name: char, minutes: u64) -> String {
        let key: String = std::iter::repeat_n(name, 32).collect();
        let path = dir.join(&key);
        fs::create_dir_all(path.join("objects")).unwrap();
        fs::write(path.join("HEAD"), [0; 400]).unwrap();
        fs::write(path.join("objects/pack"), [0; 600]).unwrap();
        let then = now() - Duration::from_mins(minutes);
        fs::File::open(&path).unwrap().set_modified(then).unwrap();
        key
    }

    fn left(dir: &Path) -> String {
        let mut names: Vec<char> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "home" && name != "gitconfig")
            .filter_map(|name| name.chars().next())
            .collect();
        names.sort_unstable();
        names.into_iter().collect()
    }

    #[tokio::test]
    async fn the_least_recently_used_go_by_number_and_by_size() {
        for (count, bytes, expected) in [(4, 9_999, "abcd"), (3, 9_999, "abd"), (4, 2_500, "ab"), (1, 1, "a")] {
            let dir = tempfile::tempdir().unwrap();
            let mirrors = open(dir.path(), count, bytes);
            for (name, minutes) in [('c', 40), ('a', 10), ('d', 30), ('b', 20)] {
                mirror(dir.path(), name, minutes);
            }
            mirrors.prune().await;
            assert_eq!(left(dir.path()), expected, "{count} mirrors, {bytes} bytes");
        }
    }

    #[tokio::test]
    async fn one_in_use_stays_and_use_makes_it_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = open(dir.path(), 1, 9_999);
        let oldest = mirror(dir.path(), 'f', 40);
        let older = mirror(dir.path(), 'e', 30);
        mirror(dir.path(), 'a', 10);
        let lock = mirrors.locks.lock().entry(oldest).or_default().clone();
        let guard = lock.lock_owned().await;
        used(&dir.path().join(older));
        mirrors.prune().await;
        assert_eq!(left(dir.path()), "ef");
        drop(guard);
        mirrors.prune().await;
        assert_eq!(left(dir.path()), "e");
        assert!(mirrors.locks.lock().len() <= 1, "locks of what is gone go too");
    }

    #[test]
    fn what_a_crash_left_is_removed_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let kept = mirror(dir.path(), 'a', 1);
        for kind in [NEW, OLD] {
            let half = dir.path().join(&kept).with_extension(kind);
            fs::create_dir_all(half.join("objects")).unwrap();
        }
        open(dir.path(), 4, 9_999);
        assert_eq!(left(dir.path()), "a");
    }
}
