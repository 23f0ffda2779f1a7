//! Where the checkout, the built binaries and the scratch space are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Root of the checkout.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory: the running executable is in `<target>/<profile>/` or `<target>/<profile>/deps/`.
fn profile_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("find the running executable")?;
    let mut directory = executable.parent().context("the executable has no directory")?;
    if directory.file_name().is_some_and(|name| name == "deps") {
        directory = directory.parent().context("deps has no parent")?;
    }
    Ok(directory.to_path_buf())
}

/// The `gantry` binary under test: `GANTRY_BIN`, else the one beside this executable.
pub fn gantry() -> Result<PathBuf> {
    let path = match std::env::var_os("GANTRY_BIN") {
        Some(path) => PathBuf::from(path),
        None => profile_directory()?.join("gantry"),
    };
    existing(path, "cargo build -p gantry-daemon")
}

/// The static supervisor: `GANTRY_SUPERVISOR`, else where `deploy/lib/build.sh supervisor` puts it.
pub fn supervisor() -> Result<PathBuf> {
    let path = match std::env::var_os("GANTRY_SUPERVISOR") {
        Some(path) => PathBuf::from(path),
        None => profile_directory()?
            .parent()
            .context("no target directory")?
            .join("gantry-bin/gantry-supervisor"),
    };
    existing(path, "deploy/lib/build.sh supervisor")
}

fn existing(path: PathBuf, remedy: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!(
            "{} is missing; run `{remedy}` (or ./tests/run, which does)",
            path.display()
        );
    }
    Ok(path)
}

/// Where installations of tests live. Not in the checkout: overlay mounts want a plain file system, sockets a short path.
#[must_use]
pub fn scratch() -> PathBuf {
    std::env::var_os("GANTRY_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp/gantry-tests"), PathBuf::from)
}

/// Where the logs of a failed test are kept.
#[must_use]
pub fn kept_logs(test: &str) -> PathBuf {
    repository().join("tests/out").join(test)
}
