//! What every sandbox is created from. Whatever Docker would take from the image or from its own defaults is said explicitly, so that
//! [`super::compare`] can hold it against what Docker made of it.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use gantry_proto::{ErrorCode, SandboxId};
use rustix::process::{Resource, getrlimit};

use super::seccomp;
use crate::api::{FleetError, Image, Profile, SLOT_IN_SANDBOX};
use crate::docker::Labels;

/// What the supervisor needs to become other uids and to end their processes; what it starts has none of it.
pub(super) const SUPERVISOR_CAPABILITIES: [&str; 4] = ["CAP_KILL", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"];
/// Where the supervisor's binary is seen from inside.
const SUPERVISOR_IN_SANDBOX: &str = "/.gantry/supervisor";
/// Where the socket's directory is seen from inside.
const SOCKET_DIR_IN_SANDBOX: &str = "/.gantry/sock";

/// The supervisor and a shell must fit beside Docker's own minimum of 6 MiB.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// The supervisor, a shell, and something to run.
const PIDS_MIN: u32 = 8;
/// Docker's own minimum is 10.
const CPU_MILLIS_MIN: u64 = 10;
/// One page; 0 would mean "half the machine's memory" to tmpfs.
const TMP_BYTES_MIN: u64 = 4 << 10;
/// /dev/shm, which Python's multiprocessing and browsers need; its pages count against the container's memory.
const SHM_BYTES: i64 = 64 << 20;
/// Descriptors per process: enough for a build, too few to exhaust the machine's file table.
const OPEN_FILES_MAX: u64 = 16_384;

/// Hidden: what tells about the host or reaches its firmware and keys.
const MASKED_PATHS: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel",
];
/// Settings of the machine, which root inside could otherwise write.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Image and limits of a kind of sandbox, checked.
#[derive(Debug, Clone)]
pub(crate) struct HardenedProfile {
    image: Image,
    profile: Profile,
}

/// What differs from container to container of one profile.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) labels: Labels,
    pub(crate) slot: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) supervisor: PathBuf,
    pub(crate) hosts_file: PathBuf,
    pub(crate) resolv_file: PathBuf,
}

/// A container to be created. Only [`HardenedProfile::container`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct HardenedContainer {
    sandbox: SandboxId,
    body: ContainerCreateBody,
}

impl HardenedContainer {
    pub(crate) fn sandbox(&self) -> SandboxId {
        self.sandbox
    }

    pub(crate) fn body(&self) -> &ContainerCreateBody {
        &self.body
    }
}

impl HardenedProfile {
    /// Checks the limits: zero means "no limit" to Docker.
    pub(crate) fn new(image: Image, profile: Profile) -> Result<Self, FleetError> {
        let resources = &profile.resources;
        let limits = [
            ("memory_bytes", resources.memory_bytes, MEMORY_BYTES_MIN),
            ("pids", u64::from(resources.pids), u64::from(PIDS_MIN)),
            ("cpu_millis", resources.cpu_millis, CPU_MILLIS_MIN),
            ("tmp_bytes", resources.tmp_bytes, TMP_BYTES_MIN),
        ];
        for (name, asked, least) in limits {
            let fits = asked >= least
                && i64::try_from(asked)
                    .is_ok_and(|asked| asked.checked_mul(1_000_000).is_some() || name != "cpu_millis");
            if !fits {
                return Err(FleetError {
                    code: ErrorCode::StepCannotStart,
                    message: format!("a sandbox with {name} = {asked} cannot be made"),
                    hint: Some(format!("ask for at least {least}")),
                });
            }
        }
        Ok(Self { image, profile })
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// A short name of the profile, for the label.
    pub(crate) fn digest(&self) -> String {
        let resources = &self.profile.resources;
        let text = format!(
            "{}\n{}\n{}\n{}\n{}\n{}",
            self.image.id.0,
            resources.cpu_millis,
            resources.memory_bytes,
            resources.pids,
            resources.tmp_bytes,
            self.profile.runtime.as_deref().unwrap_or_default()
        );
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }

    /// The container at `place`.
    pub(crate) fn container(&self, place: &Place) -> HardenedContainer {
        let mut labels = place.labels.to_map();
        // Labels of the image come on top; they cannot be ours (see image.rs).
        labels.retain(|_, value| !value.is_empty());
        let body = ContainerCreateBody {
            image: Some(self.image.id.0.clone()),
            hostname: Some("sandbox".to_owned()),
            domainname: Some(String::new()),
            // The supervisor alone is root; it starts everything else under another uid with empty capability sets.
            user: Some("0:0".to_owned()),
            entrypoint: Some(vec![SUPERVISOR_IN_SANDBOX.to_owned()]),
            cmd: Some(Vec::new()),
            // A name without `=` takes the variable away. The supervisor applies the image's environment to what it starts, not to itself.
            env: Some(self.image.env.iter().map(|(name, _)| name.clone()).collect()),
            working_dir: Some("/".to_owned()),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..Default::default()
            }),
            volumes: Some(Vec::new()),
            attach_stdin: Some(false),
            attach_stdout: Some(false),
            attach_stderr: Some(false),
            tty: Some(false),
            open_stdin: Some(false),
            stdin_once: Some(false),
            // No network controller at all: the runtime makes an empty network namespace with loopback. That halves the start (the daemon runs
            // itself again as a hook otherwise), at the price of bringing our own /etc/hosts and /etc/resolv.conf.
            network_disabled: Some(true),
            stop_signal: Some("SIGTERM".to_owned()),
            labels: Some(labels),
            host_config: Some(self.host_config(place)),
            ..Default::default()
        };
        HardenedContainer {
            sandbox: place.labels.sandbox,
            body,
        }
    }

    fn host_config(&self, place: &Place) -> HostConfig {
        let resources = &self.profile.resources;
        // `new` has checked that they fit.
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let memory = signed(resources.memory_bytes);
        let tmp = format!("rw,nosuid,nodev,exec,size={},mode=1777", resources.tmp_bytes);
        HostConfig {
            network_mode: Some("none".to_owned()),
            ipc_mode: Some("private".to_owned()),
            pid_mode: Some(String::new()),
            uts_mode: Some(String::new()),
            userns_mode: Some(String::new()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            cgroup_parent: Some(String::new()),
            privileged: Some(false),
            publish_all_ports: Some(false),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(SUPERVISOR_CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec![
                "no-new-privileges".to_owned(),
                format!("seccomp={}", seccomp::profile()),
            ]),
            masked_paths: Some(MASKED_PATHS.map(str::to_owned).to_vec()),
            readonly_paths: Some(READONLY_PATHS.map(str::to_owned).to_vec()),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
            mounts: Some(mounts(place)),
            shm_size: Some(SHM_BYTES),
            memory: Some(memory),
            // Equal to memory: no swap.
            memory_swap: Some(memory),
            oom_kill_disable: Some(false),
            pids_limit: Some(i64::from(resources.pids)),
            nano_cpus: Some(signed(resources.cpu_millis).saturating_mul(1_000_000)),
            ulimits: Some(vec![ulimit("core", 0), ulimit("nofile", open_files())]),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            // The supervisor is PID 1 and reaps.
            init: Some(false),
            runtime: self.profile.runtime.clone(),
            ..Default::default()
        }
    }
}

/// A daemon that itself runs under a lower limit, without the capability to exceed it, cannot start a container with more. Its limit is not shown
/// anywhere; ours comes from the same machine.
fn open_files() -> i64 {
    let ours = getrlimit(Resource::Nofile).maximum.unwrap_or(OPEN_FILES_MAX);
    i64::try_from(ours.min(OPEN_FILES_MAX)).unwrap_or(i64::MAX)
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    }
}

fn mounts(place: &Place) -> Vec<Mount> {
    let bind = |source: &PathBuf, target: &str, propagation| Mount {
        typ: Some(MountType::BIND),
        // The state directory is checked to be UTF-8 when the fleet is opened.
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        // The slot is an empty directory of root's; what the node mounts beneath it brings its own flags.
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            ..Default::default()
        }),
        ..Default::default()
    };
    let private = MountBindOptionsPropagationEnum::RPRIVATE;
    vec![
        bind(&place.supervisor, SUPERVISOR_IN_SANDBOX, private),
        bind(&place.socket_dir, SOCKET_DIR_IN_SANDBOX, private),
        bind(&place.hosts_file, "/etc/hosts", private),
        bind(&place.resolv_file, "/etc/resolv.conf", private),
        bind(&place.slot, SLOT_IN_SANDBOX, MountBindOptionsPropagationEnum::RSLAVE),
    ]
}
