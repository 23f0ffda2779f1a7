//! What must not be left after a run: containers, mounts, processes, sockets, directories of sandboxes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{docker, wait};

/// Removal of the last sandbox follows the workflow's end; this is how long it may take on a busy machine.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(60);

/// Waits until an installation has no container, and no directory of a sandbox, claim or workspace under `state`.
pub async fn all_given_back(installation: &str, state: &[PathBuf]) -> Result<()> {
    let mut left = Vec::new();
    let given_back = wait::until(
        "all sandboxes and workspaces to be given back",
        REMOVAL_DEADLINE,
        async || {
            left = docker::containers(installation).await?;
            for directory in state {
                left.extend(transient_entries(directory));
            }
            Ok(left.is_empty().then_some(()))
        },
    )
    .await;
    given_back.with_context(|| format!("left are {left:?}"))
}

/// Fails if a stopped installation under `root` left a mount, process or socket behind.
pub fn nothing_left(root: &Path) -> Result<()> {
    let root = root.to_string_lossy();
    let mut left = Vec::new();
    left.extend(mounts(&root)?.into_iter().map(|mount| format!("mount {mount}")));
    left.extend(
        processes(&root)?
            .into_iter()
            .map(|process| format!("process {process}")),
    );
    left.extend(sockets(&root)?.into_iter().map(|socket| format!("socket {socket}")));
    if !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    Ok(())
}

/// Mount points at or below a directory.
pub fn mounts(root: &str) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points
        .filter(|point| point.starts_with(root))
        .map(str::to_owned)
        .collect())
}

/// Processes whose command line or working directory names a directory.
fn processes(root: &str) -> Result<Vec<String>> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that ends while we look is no leak.
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let directory = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if command.contains(root) || directory.starts_with(root) {
            found.push(format!("{name}: {command}"));
        }
    }
    Ok(found)
}

/// Unix sockets bound at or below a directory.
fn sockets(root: &str) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/net/unix")?;
    let paths = table.lines().filter_map(|line| line.split_whitespace().nth(7));
    Ok(paths.filter(|path| path.starts_with(root)).map(str::to_owned).collect())
}

/// Directories whose entries belong to one sandbox, claim or workspace each. They stay themselves.
const TRANSIENT: [&str; 4] = ["slots", "sock", "claims", "ws"];

fn transient_entries(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![state.to_path_buf()];
    while let Some(directory) = open.pop() {
        // What is removed while we look is as good as gone.
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().is_dir()) {
            if TRANSIENT.iter().any(|name| entry.file_name() == *name) {
                found.extend(contents(&entry.path()));
            } else {
                open.push(entry.path());
            }
        }
    }
    found
}

/// Everything in a directory, except the place for claims set aside as damaged when there are none.
fn contents(directory: &Path) -> Vec<String> {
    let empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut inner| inner.next().is_none());
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| !(path.ends_with("damaged") && empty(path)))
        .map(|path| path.display().to_string())
        .collect()
}
