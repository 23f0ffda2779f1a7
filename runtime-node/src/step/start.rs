//! From a plan to what the supervisor is told to start.

use gantry_fleet_manager::{Image, SLOT_IN_SANDBOX};
use gantry_proto::limits::{STEP_ATTRS_BYTES_MAX, STEP_OUTPUTS_BYTES_MAX, STEP_PROGRESS_BYTES_MAX};
use gantry_proto::v1::{Assignment, EnvVar, ReportKind, StartProcess, WatchedFile};

/// Where the workspace is seen from inside.
pub(crate) fn workspace_in_sandbox() -> String {
    format!("{SLOT_IN_SANDBOX}/w")
}

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Report files: kind, variable, path in the sandbox, limit.
const REPORTS: [(ReportKind, &str, &str, u64); 3] = [
    (
        ReportKind::Output,
        "GANTRY_OUTPUT",
        "/tmp/gantry-output",
        STEP_OUTPUTS_BYTES_MAX,
    ),
    (
        ReportKind::Attrs,
        "GANTRY_ATTRS",
        "/tmp/gantry-attrs",
        STEP_ATTRS_BYTES_MAX,
    ),
    (
        ReportKind::Progress,
        "GANTRY_PROGRESS",
        "/tmp/gantry-progress",
        STEP_PROGRESS_BYTES_MAX,
    ),
];

/// The run's number at its supervisor, which never has another one.
pub(crate) fn run_number(assignment: &Assignment) -> u64 {
    u64::from(assignment.assignee.attempt)
}

/// What the supervisor is told. The same for the same assignment and image, so that it may be sent again.
pub(crate) fn start_process(assignment: &Assignment, image: &Image, uid: u32, gid: u32) -> StartProcess {
    let plan = &assignment.plan;
    let argv = match &plan.command.shell {
        Some(shell) => ["/bin/sh", "-eu", "-c", shell].map(str::to_owned).to_vec(),
        None => plan.command.argv.clone(),
    };
    StartProcess {
        run: run_number(assignment),
        argv,
        env: environment(assignment, image),
        cwd: working_dir(plan.workdir.as_deref()),
        uid,
        gid,
        groups: Vec::new(),
        timeout_ms: plan.timeout_ms,
        grace_ms: plan.grace_ms,
        deadman_ms: assignment.deadman_ms,
        output_limit_bytes: plan.output_limit_bytes,
        reports: REPORTS
            .iter()
            .map(|(kind, _, path, limit_bytes)| WatchedFile {
                kind: (*kind).into(),
                path: (*path).to_owned(),
                limit_bytes: *limit_bytes,
            })
            .collect(),
        files: Vec::new(),
        image_env: image.env.iter().map(|(name, value)| variable(name, value)).collect(),
        umask: Some(0o002),
    }
}

fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: value.into(),
    }
}

fn working_dir(asked: Option<&str>) -> String {
    match asked {
        Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
        Some(relative) if !relative.is_empty() => format!("{}/{relative}", workspace_in_sandbox()),
        _ => workspace_in_sandbox(),
    }
}

fn environment(assignment: &Assignment, image: &Image) -> Vec<EnvVar> {
    let (plan, assignee) = (&assignment.plan, &assignment.assignee);
    let asked = |name: &str| plan.env.iter().any(|var| var.name == name);
    let of_image = |name: &str| image.env.iter().any(|(key, _)| key == name);
    let mut env = Vec::with_capacity(plan.env.len() + 16);
    // The uid has no home of its own, and only /tmp is writable besides the workspace.
    if !asked("HOME") {
        env.push(variable("HOME", "/tmp"));
    }
    if !asked("PATH") && !of_image("PATH") {
        env.push(variable("PATH", PATH_DEFAULT));
    }
    if !asked("GIT_CONFIG_COUNT") && !of_image("GIT_CONFIG_COUNT") {
        // Files belong to the uid of the step that made them; git would take the workspace for a stranger's.
        env.push(variable("GIT_CONFIG_COUNT", "1"));
        env.push(variable("GIT_CONFIG_KEY_0", "safe.directory"));
        env.push(variable("GIT_CONFIG_VALUE_0", "*"));
    }
    env.extend(plan.env.iter().cloned());
    // Last, so that they win over anything of the same name.
    env.extend(REPORTS.iter().map(|(_, name, path, _)| variable(name, *path)));
    env.push(variable("GANTRY_WORKSPACE", workspace_in_sandbox()));
    env.push(variable("GANTRY_IDEMPOTENCY_KEY", plan.idempotency_key.clone()));
    env.push(variable("GANTRY_ATTEMPT", assignee.attempt.to_string()));
    env.push(variable("GANTRY_TASK", plan.task_name.clone()));
    env.push(variable("GANTRY_STEP", plan.step_key.clone()));
    env.push(variable("GANTRY_WORKFLOW", assignee.workflow.to_string()));
    if let Some(traceparent) = &plan.traceparent {
        env.push(variable("TRACEPARENT", traceparent.clone()));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_fleet_manager::ImageId;
    use gantry_proto::v1::{Command, Plan};

    fn image(env: &[(&str, &str)]) -> Image {
        Image {
            id: ImageId("sha256:0".into()),
            env: env.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            workdir: String::new(),
            arch: "amd64".into(),
        }
    }

    fn last<'a>(start: &'a StartProcess, name: &str) -> Option<&'a str> {
        start
            .env
            .iter()
            .rev()
            .find(|var| var.name == name)
            .map(|var| var.value.as_str())
    }

    #[test]
    fn the_nodes_variables_win_and_defaults_yield() {
        let env = vec![variable("GANTRY_ATTEMPT", "99"), variable("HOME", "/home/me")];
        let command = Command {
            shell: Some("echo hi".into()),
            argv: Vec::new(),
        };
        let plan = Plan {
            command,
            env,
            workdir: Some("sub".into()),
            ..Plan::default()
        };
        let mut assignment = Assignment {
            plan,
            ..Assignment::default()
        };
        assignment.assignee.attempt = 2;
        let start = start_process(&assignment, &image(&[("PATH", "/opt")]), 200_000, 300_000);
        assert_eq!(start.argv, ["/bin/sh", "-eu", "-c", "echo hi"]);
        assert_eq!(start.cwd, "/gantry/w/sub");
        assert_eq!(last(&start, "GANTRY_ATTEMPT"), Some("2"));
        assert_eq!(last(&start, "HOME"), Some("/home/me"));
        assert_eq!(last(&start, "PATH"), None, "the image's own applies");
        let bare = start_process(&assignment, &image(&[]), 1, 1);
        assert_eq!(last(&bare, "PATH"), Some(PATH_DEFAULT));
        assert_eq!(bare.reports.len(), 3);
        assert_eq!(working_dir(Some("/srv")), "/srv");
        assert_eq!(working_dir(None), "/gantry/w");
    }
}
