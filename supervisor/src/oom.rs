//! The memory cgroup's count of processes it killed, as it is seen from inside the container.

use std::path::{Path, PathBuf};

/// Where the counter stands: cgroup v2, then v1.
const PLACES: [&str; 2] = ["memory.events", "memory/memory.oom_control"];

/// Reads the counter of this container's memory cgroup.
#[derive(Debug)]
pub(crate) struct OomCounter {
    file: Option<PathBuf>,
}

impl OomCounter {
    /// Looks for the counter below `root` (`/sys/fs/cgroup`).
    pub(crate) fn find(root: &Path) -> Self {
        let file = PLACES
            .iter()
            .map(|place| root.join(place))
            .find(|path| count(path).is_some());
        Self { file }
    }

    /// Kills so far, or `None` when the counter cannot be read in here.
    pub(crate) fn read(&self) -> Option<u64> {
        self.file.as_deref().and_then(count)
    }
}

fn count(path: &Path) -> Option<u64> {
    parse(&std::fs::read_to_string(path).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions() {
        assert_eq!(
            parse("low 0\nhigh 0\nmax 4\noom 2\noom_kill 3\noom_group_kill 0\n"),
            Some(3)
        );
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"), Some(12));
        assert_eq!(
            parse("oom_kill_disable 0\nunder_oom 0\n"),
            None,
            "kernels before 4.13 do not count"
        );
    }

    #[test]
    fn finds_the_file_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(OomCounter::find(dir.path()).read(), None);
        std::fs::create_dir(dir.path().join("memory")).unwrap();
        let file = dir.path().join("memory/memory.oom_control");
        std::fs::write(&file, "oom_kill 1\n").unwrap();
        let counter = OomCounter::find(dir.path());
        assert_eq!(counter.read(), Some(1));
        std::fs::write(&file, "oom_kill 2\n").unwrap();
        assert_eq!(counter.read(), Some(2));
    }
}
