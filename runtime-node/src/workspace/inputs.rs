//! Artifacts of other tasks and uploads, put into the tree before a step.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use futures_util::StreamExt as _;
use gantry_proto::ErrorCode;
use gantry_proto::v1::InputPlan;
use rustix::fs::{Gid, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::WorkspaceError;
use super::store::FetchInput;
use crate::retry::Patience;
use crate::tree::{self, BENEATH};
use crate::uplink::UplinkError;

/// Parts of a path under the workspace, or why it is none.
pub(super) fn parts(path: &str) -> Result<Vec<&OsStr>, WorkspaceError> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => {
                return Err(WorkspaceError::refused(format!(
                    "the input path {path} leads out of the workspace"
                )));
            }
        }
    }
    if parts.is_empty() || path.contains('\0') {
        return Err(WorkspaceError::refused(format!(
            "the input path {path:?} names no file"
        )));
    }
    Ok(parts)
}

/// Why one try to fetch an input failed.
enum Trouble {
    /// A file of ours.
    Ours(WorkspaceError),
    /// The server said no, or is not there.
    Uplink(UplinkError),
    /// It broke off.
    Broken(io::Error),
    /// It sent something else.
    Wrong(String),
}

/// Fetches one input into a file of ours and checks what came. While the server is away it is waited for, and what broke off begins anew: neither is the
/// step's fault. Dropping the future ends it.
pub(super) async fn fetch(input: &InputPlan, into: &Path, source: &dyn FetchInput) -> Result<(), WorkspaceError> {
    let source_name = || format!("input {}", input.path);
    let mut patience = Patience::new();
    loop {
        let (reason, again) = match fetch_once(input, into, source).await {
            Ok(()) => return Ok(()),
            Err(Trouble::Ours(error)) => return Err(error),
            Err(Trouble::Uplink(error)) if error.code() == Some(ErrorCode::StaleFence) => {
                return Err(WorkspaceError::Stale);
            }
            Err(Trouble::Uplink(error)) if !error.is_passing() => {
                return Err(WorkspaceError::Fetch {
                    source_name: source_name(),
                    reason: error.to_string(),
                });
            }
            Err(Trouble::Uplink(error @ UplinkError::Unreachable(_))) => (error.to_string(), true),
            Err(Trouble::Uplink(error)) => (error.to_string(), patience.refused()),
            Err(Trouble::Broken(error)) => (error.to_string(), patience.refused()),
            Err(Trouble::Wrong(reason)) => (reason, patience.wrong()),
        };
        if !again {
            return Err(WorkspaceError::Unavailable {
                source_name: source_name(),
                reason,
            });
        }
        tracing::info!(input = input.path, reason, "input waits");
        patience.pause().await;
    }
}

async fn fetch_once(input: &InputPlan, into: &Path, source: &dyn FetchInput) -> Result<(), Trouble> {
    let ours = |error: io::Error| Trouble::Ours(WorkspaceError::io(into, error));
    let mut stream = source.fetch(input).await.map_err(Trouble::Uplink)?;
    let mut file = File::create(into).map_err(ours)?;
    let (mut hash, mut size) = (Sha256::new(), 0u64);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(Trouble::Broken)?;
        size += chunk.len() as u64;
        if size > input.size_bytes {
            return Err(Trouble::Wrong(format!(
                "more came than the {} bytes that it should have",
                input.size_bytes
            )));
        }
        hash.update(&chunk);
        // Chunks are small and go to the page cache.
        file.write_all(&chunk).map_err(ours)?;
    }
    if size != input.size_bytes || hash.finalize().as_slice() != input.sha256.as_ref() {
        return Err(Trouble::Wrong(format!(
            "{size} bytes came, and they are not the ones that were recorded"
        )));
    }
    Ok(())
}

/// Puts a fetched file into the tree at `root`. Missing directories are made; a link in the way is refused.
pub(super) fn install(fetched: &Path, root: &Path, input: &InputPlan, gid: u32) -> Result<(), WorkspaceError> {
    let parts = parts(&input.path)?;
    let failed = |error: Errno| match error {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            WorkspaceError::refused(format!("the input path {} passes through a link or file", input.path))
        }
        other => WorkspaceError::io(&root.join(&input.path), io::Error::from(other)),
    };
    let group = Some(Gid::from_raw(gid));
    let mut dir: OwnedFd = tree::open_root(root).map_err(|error| WorkspaceError::io(root, error))?;
    let (name, parents) = parts
        .split_last()
        .ok_or_else(|| WorkspaceError::refused("an input without a path"))?;
    for parent in parents {
        match rustix::fs::mkdirat(&dir, *parent, Mode::RWXU) {
            Ok(()) => {
                let made = open_below(&dir, parent).map_err(failed)?;
                rustix::fs::fchown(&made, None, group).map_err(failed)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(tree::dir_mode(0o755))).map_err(failed)?;
                dir = made;
            }
            Err(Errno::EXIST) => dir = open_below(&dir, parent).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        }
    }
    match rustix::fs::unlinkat(&dir, *name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(error)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, *name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let mut from = File::open(fetched).map_err(|error| WorkspaceError::io(fetched, error))?;
    let mut to = File::from(file);
    io::copy(&mut from, &mut to).map_err(|error| WorkspaceError::io(&root.join(&input.path), error))?;
    rustix::fs::fchown(&to, None, group).map_err(failed)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(tree::file_mode(input.mode.unwrap_or(0o644)))).map_err(failed)?;
    fs::remove_file(fetched).map_err(|error| WorkspaceError::io(fetched, error))
}

fn open_below(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(dir, name, tree::DIR_FLAGS, Mode::empty(), BENEATH)
}
