//! `gantry doctor`: what this machine needs to run steps, and what it lacks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use owo_colors::{OwoColorize as _, Stream};
use serde_json::json;

use super::{Exit, Form, output};

/// Arguments of `gantry doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Docker's socket
    #[arg(long, default_value = "/var/run/docker.sock")]
    docker_socket: PathBuf,
}

struct Finding {
    what: &'static str,
    ok: bool,
    detail: String,
    remedy: &'static str,
}

pub(crate) async fn run(args: DoctorArgs, form: Form) -> Result<Exit> {
    let findings = tokio::task::spawn_blocking(move || examine(&args)).await?;
    let healthy = findings.iter().all(|finding| finding.ok);
    match form {
        Form::Json => {
            let findings: Vec<_> = findings
                .iter()
                .map(|finding| json!({"what": finding.what, "ok": finding.ok, "detail": finding.detail, "remedy": finding.remedy}))
                .collect();
            output::json(&json!({"ok": healthy, "findings": findings}))?;
        }
        Form::Text => {
            for finding in &findings {
                let mark = if finding.ok {
                    "ok  "
                        .if_supports_color(Stream::Stdout, |text| text.green())
                        .to_string()
                } else {
                    "FAIL".if_supports_color(Stream::Stdout, |text| text.red()).to_string()
                };
                output::line(&format!("{mark}  {}: {}", finding.what, finding.detail))?;
                if !finding.ok {
                    output::line(&format!("      {}", finding.remedy))?;
                }
            }
        }
    }
    Ok(if healthy { Exit::Ok } else { Exit::Failed })
}

fn examine(args: &DoctorArgs) -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let docker = std::os::unix::net::UnixStream::connect(&args.docker_socket);
    let git = Command::new("git").arg("--version").output();
    let overlay = std::fs::read_to_string("/proc/filesystems")
        .unwrap_or_default()
        .lines()
        .any(|line| line.ends_with("\toverlay"));
    let supervisor = std::env::current_exe()
        .map(|own| own.with_file_name("gantry-supervisor"))
        .unwrap_or_default();
    vec![
        Finding {
            what: "root",
            ok: root,
            detail: if root { "yes".to_owned() } else { "no".to_owned() },
            remedy: "a node mounts workspaces and gives each step a user of its own: run it as root",
        },
        Finding {
            what: "docker",
            ok: docker.is_ok(),
            detail: match docker {
                Ok(_) => format!("{} answers", args.docker_socket.display()),
                Err(error) => format!("{}: {error}", args.docker_socket.display()),
            },
            remedy: "install and start it: apt-get install docker.io && systemctl start docker (or dockerd &)",
        },
        Finding {
            what: "git",
            ok: git.as_ref().is_ok_and(|output| output.status.success()),
            detail: match git {
                Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
                Err(error) => error.to_string(),
            },
            remedy: "git workspaces need it: apt-get install git",
        },
        Finding {
            what: "overlay filesystem",
            ok: overlay,
            detail: if overlay {
                "known to the kernel".to_owned()
            } else {
                "not loaded".to_owned()
            },
            remedy: "modprobe overlay; without it workspaces are copied, which is slower",
        },
        Finding {
            what: "supervisor",
            ok: supervisor.is_file(),
            detail: supervisor.display().to_string(),
            remedy: "build it with deploy/lib/build.sh, or give --supervisor FILE to the node",
        },
    ]
}
