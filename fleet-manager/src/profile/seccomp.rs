//! The system calls of a sandbox: `seccomp/sandbox.json`, sent inline with every container.

use std::sync::LazyLock;

const SOURCE: &str = include_str!("../../seccomp/sandbox.json");

/// The profile on one line. Docker shows it back byte for byte, which is how it is compared.
pub(super) fn profile() -> &'static str {
    static PROFILE: LazyLock<String> = LazyLock::new(|| {
        // It is part of the binary and parsed by a test: it cannot fail here.
        let mut value: serde_json::Value = serde_json::from_str(SOURCE).unwrap_or_default();
        // Reasons are for readers of the file.
        for rule in value["syscalls"].as_array_mut().into_iter().flatten() {
            if let Some(rule) = rule.as_object_mut() {
                rule.remove("comment");
            }
        }
        value.to_string()
    });
    &PROFILE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn rules() -> Vec<Value> {
        let value: Value = serde_json::from_str(profile()).unwrap();
        assert_eq!(value["defaultAction"], "SCMP_ACT_ERRNO");
        value["syscalls"].as_array().unwrap().clone()
    }

    #[test]
    fn what_must_be_denied_is_not_allowed_by_any_rule() {
        let denied = [
            "add_key",
            "bpf",
            "chroot",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "init_module",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "ioperm",
            "iopl",
            "kexec_load",
            "keyctl",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_by_handle_at",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "reboot",
            "request_key",
            "setns",
            "socketcall",
            "swapon",
            "syslog",
            "umount2",
            "unshare",
            "userfaultfd",
            "vmsplice",
        ];
        let rules = rules();
        let allowed: BTreeSet<&str> = rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        for name in denied {
            assert!(!allowed.contains(name), "{name} must not be allowed");
        }
        assert!(allowed.len() > 250, "the list is whole");
    }

    #[test]
    fn calls_that_need_a_condition_have_one_in_every_rule() {
        for rule in rules().iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW") {
            for name in rule["names"].as_array().unwrap() {
                let conditional = ["socket", "socketpair", "clone", "personality"].contains(&name.as_str().unwrap());
                assert_eq!(
                    conditional,
                    rule["args"].as_array().is_some_and(|args| !args.is_empty()),
                    "{name}"
                );
            }
        }
    }
}
