//! Git repositories that scenarios work on.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Runs git in a directory, untouched by the caller's configuration.
pub async fn git(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.invalid",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .await
        .context("run git")?;
    if !output.status.success() {
        bail!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes files and commits them.
pub async fn create(directory: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    git(directory, &["init", "--quiet"]).await?;
    for (name, content) in files {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, content)?;
    }
    git(directory, &["add", "--all"]).await?;
    git(directory, &["commit", "--quiet", "--message", "Initial content"]).await?;
    Ok(())
}

/// A clone of this very repository, as committed: a real one of a few hundred files.
pub async fn clone_of_this(directory: &Path) -> Result<()> {
    let source = crate::paths::repository();
    let parent = directory.parent().context("the clone needs a parent directory")?;
    std::fs::create_dir_all(parent)?;
    git(
        parent,
        &[
            "-c",
            "safe.directory=*",
            "clone",
            "--quiet",
            "--no-hardlinks",
            &source.to_string_lossy(),
            &directory.to_string_lossy(),
        ],
    )
    .await?;
    Ok(())
}
