//! Workspaces from a git remote: refs, what changed on the remote, and what a hostile repository tries.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use gantry_tests::repositories::{self, git};
use gantry_tests::wait;
use gantry_tests::world::Scenario;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::SOON;

/// Serves every repository under a directory over git's own protocol; ends when dropped.
async fn serve(directory: &Path) -> Result<(Child, String)> {
    // git daemon cannot choose a port itself; nobody else takes this one in the meantime, as ports are handed out in turn.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // Not through `git`, which would put a process of its own between us and the daemon.
    let programs = git(directory, &["--exec-path"]).await?;
    let daemon = Command::new(Path::new(programs.trim()).join("git-daemon"))
        .args([
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
            &format!("--port={port}"),
        ])
        .arg(format!("--base-path={}", directory.display()))
        .arg(directory)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("git daemon")?;
    wait::until("git daemon", SOON, async || {
        Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok())
    })
    .await?;
    Ok((daemon, format!("git://127.0.0.1:{port}/remote")))
}

fn definition(reference: Option<&str>) -> String {
    let mut workspace = json!({ "git": "{{ params.url }}" });
    if let Some(reference) = reference {
        workspace["ref"] = json!(reference);
    }
    let parameters = json!({ "url": { "type": "string" } });
    json!({ "name": "remote", "parameters": parameters, "tasks": { "t": { "workspace": workspace, "run": "cat version; git log -1 --format=%s" } } })
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_has_the_ref_that_was_asked_for_as_the_remote_has_it_now() -> Result<()> {
    Scenario::dev("remote")
        .run(async |world| {
            let served = world.root().join("served");
            let remote = served.join("remote");
            repositories::create(&remote, &[("version", b"one\n")]).await?;
            git(&remote, &["tag", "v1"]).await?;
            let (_daemon, url) = serve(&served).await?;
            let shows = async |reference: Option<&str>| -> Result<String> {
                let workflow = world
                    .api
                    .complete(&definition(reference), json!({ "url": url }), SOON)
                    .await?;
                let step = &workflow.tasks[0].steps[0].key;
                world.api.log(&workflow.id, "t", step, 1, "stdout").await
            };
            assert_eq!(shows(None).await?, "one\nInitial content\n");

            std::fs::write(remote.join("version"), "two\n")?;
            git(&remote, &["commit", "--quiet", "--all", "--message", "Second"]).await?;
            let commit = git(&remote, &["rev-parse", "HEAD"]).await?;
            assert_eq!(
                shows(None).await?,
                "two\nSecond\n",
                "the node's mirror is brought up to date"
            );
            assert_eq!(shows(Some("v1")).await?, "one\nInitial content\n");
            assert_eq!(shows(Some("main")).await?, "two\nSecond\n");
            assert_eq!(shows(Some(commit.trim())).await?, "two\nSecond\n");

            let id = world
                .api
                .submit(&definition(Some("no-such-branch")), json!({ "url": url }))
                .await?;
            let workflow = world.api.ended(&id, SOON).await?;
            assert!(workflow.codes().contains(&"workspace-fetch-failed"), "{workflow:#?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_repository_runs_nothing_on_the_node() -> Result<()> {
    Scenario::dev("remote-hostile")
        .run(async |world| {
            let served = world.root().join("served");
            let remote = served.join("remote");
            let canary = world.root().join("executed");
            let run = format!("touch {}", canary.display());
            let modules = format!("[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c \"{run}\"\n\tupdate = !{run}\n");
            let attributes = b"* filter=evil diff=evil\n";
            let files: [(&str, &[u8]); 3] = [
                ("version", b"hostile\n"),
                (".gitmodules", modules.as_bytes()),
                (".gitattributes", attributes),
            ];
            repositories::create(&remote, &files).await?;
            git(&remote, &["config", "core.fsmonitor", &run]).await?;
            git(&remote, &["config", "filter.evil.smudge", &run]).await?;
            std::fs::write(remote.join(".git/hooks/post-checkout"), format!("#!/bin/sh\n{run}\n"))?;
            let (_daemon, url) = serve(&served).await?;
            // Refused or checked out, but nothing of it runs.
            let id = world.api.submit(&definition(None), json!({ "url": url })).await?;
            let workflow = world.api.ended(&id, SOON).await?;
            assert!(
                workflow.state == "completed" || workflow.codes().contains(&"workspace-fetch-failed"),
                "{workflow:#?}"
            );
            assert!(!canary.exists(), "something of the repository ran on the node");
            Ok(())
        })
        .await
}

/// The same with a repository that the node reads itself: its configuration and hooks are under the user's control too.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_local_repository_runs_nothing_on_the_node() -> Result<()> {
    Scenario::dev("remote-local")
        .run(async |world| {
            use std::os::unix::fs::PermissionsExt;
            let local = world.sources().join("local");
            let canary = world.root().join("executed");
            repositories::create(
                &local,
                &[("version", b"local\n"), (".gitattributes", b"* filter=evil\n")],
            )
            .await?;
            let script = world.root().join("evil.sh");
            std::fs::write(&script, format!("#!/bin/sh\ntouch {}\ncat\n", canary.display()))?;
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
            let evil = script.to_string_lossy().into_owned();
            for variable in [
                "core.fsmonitor",
                "filter.evil.smudge",
                "filter.evil.clean",
                "core.sshCommand",
                "uploadpack.packObjectsHook",
                "core.hooksPath",
            ] {
                git(&local, &["config", variable, &evil]).await?;
            }
            std::fs::remove_file(&canary).or_else(|error| {
                if error.kind() == std::io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
            world
                .api
                .complete(&definition(None), json!({ "url": local }), SOON)
                .await?;
            assert!(!canary.exists(), "something of the repository ran on the node");
            Ok(())
        })
        .await
}
