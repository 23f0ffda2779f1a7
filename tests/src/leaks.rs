//! What must not be left after a run: containers, mounts, processes, sockets, directories of sandboxes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{docker, wait};

/// Removal of the last sandbox follows the workflow's end; this is how long it may take on a busy machine.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(60);

/// Waits until an installation has no container.
pub async fn no_containers(installation: &str) -> Result<()> {
    wait::until(
        "all containers of the installation to be removed",
        REMOVAL_DEADLINE,
        async || Ok(docker::containers(installation).await?.is_empty().then_some(())),
    )
    .await
}

/// Fails if a stopped installation under `root` left anything behind. Containers are checked apart.
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
    left.extend(
        sandbox_directories(Path::new(&*root))?
            .into_iter()
            .map(|entry| format!("directory entry {entry}")),
    );
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

/// Entries of directories that exist per sandbox, per claim or per running step. Their parents stay; workspaces are kept until the workflow's end.
const TRANSIENT: [&str; 6] = ["sandboxes", "slots", "claims", "sockets", "workspaces", "spool"];

fn sandbox_directories(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)?.flatten() {
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if TRANSIENT.iter().any(|name| entry.file_name() == *name) {
                found.extend(
                    fs::read_dir(entry.path())?
                        .flatten()
                        .map(|inner| inner.path().display().to_string()),
                );
            } else {
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}
