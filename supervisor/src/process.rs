//! Starting the step's process, with everything taken from it that the supervisor has.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_proto::v1::StartProcess;
use rustix::fs::Mode;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use tokio::net::unix::pipe::Receiver;

use crate::identity::Identity;
use crate::start_error::StartError;
use crate::{command, files};

/// Open files a step may have. Programs that walk all possible descriptors take minutes with the million that Docker gives.
const OPEN_FILES: u64 = 65_536;
/// What a step prints, reads and makes is for its group: the workspace's group moves from step to step.
const UMASK_DEFAULT: u32 = 0o002;
/// The kernel's choice when memory runs out: the step's processes before the supervisor.
const OOM_SCORE_ADJ: &[u8] = b"500";
/// Errors of the child before `execve` travel as `step * STAGE + errno`: std passes nothing but a number.
const STAGE: i32 = 10_000;
/// What the child does before `execve`, in this order; the number is the index + 1.
const STAGES: [&str; 8] = [
    "lead a session of its own",
    "set resource limits",
    "drop the bounding capabilities",
    "set the step's groups",
    "set the step's user",
    "drop all capabilities",
    "forbid new privileges",
    "enter the working directory",
];

/// A started process and the read ends of its pipes.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) stdout: Receiver,
    pub(crate) stderr: Receiver,
}

/// The user a request asks for. Never root.
pub(crate) fn identity(start: &StartProcess) -> Result<Identity, StartError> {
    if start.uid == 0 || start.uid == u32::MAX || start.gid == u32::MAX {
        return Err(StartError::Root);
    }
    Ok(Identity {
        uid: Uid::from_raw(start.uid),
        gid: Gid::from_raw(start.gid),
        groups: start.groups.iter().copied().map(Gid::from_raw).collect(),
    })
}

/// Writes the injected files and starts the command. The file of each report must exist already.
pub(crate) fn spawn(start: &StartProcess, identity: &Identity) -> Result<Started, StartError> {
    let (name, arguments) = start.argv.split_first().ok_or(StartError::NoCommand)?;
    for argument in &start.argv {
        command::check_text(argument, "an argument")?;
    }
    let env = command::merge_env(&start.image_env, &start.env)?;
    let cwd = command::open_cwd(&start.cwd, identity)?;
    let program = command::resolve(name, &env, &cwd, identity)?;
    inject(start, identity)?;

    let (stdout, stdout_child) = pipe(identity)?;
    let (stderr, stderr_child) = pipe(identity)?;
    let null = File::open("/dev/null").map_err(|source| StartError::Setup {
        what: "open /dev/null",
        source,
    })?;
    let mut command = Command::new(&program);
    command.arg0(name).args(arguments).env_clear().envs(&env);
    command
        .stdin(Stdio::from(null))
        .stdout(Stdio::from(stdout_child))
        .stderr(Stdio::from(stderr_child));
    let harden = Harden {
        cwd: cwd.as_raw_fd(),
        umask: Mode::from_raw_mode(start.umask.unwrap_or(UMASK_DEFAULT) & 0o777),
        identity: identity.clone(),
    };
    // SAFETY: the closure makes system calls on values prepared before the fork; it allocates nothing, takes no lock and cannot panic. The
    // descriptor of the working directory is open until spawn returns.
    unsafe { command.pre_exec(move || harden.apply()) };
    let child = command
        .spawn()
        .map_err(|error| cannot_start(&program, &cwd, identity, error))?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    // `child` is forgotten here: PID 1 collects whatever ends by itself (reap.rs).
    Ok(Started { pid, stdout, stderr })
}

fn cannot_start(program: &Path, cwd: &OwnedFd, identity: &Identity, error: io::Error) -> StartError {
    match error.raw_os_error() {
        Some(code) if code > STAGE => {
            let stage = usize::try_from(code / STAGE - 1)
                .ok()
                .and_then(|index| STAGES.get(index));
            let source = io::Error::from_raw_os_error(code % STAGE);
            StartError::Setup {
                what: stage.copied().unwrap_or("prepare the process"),
                source,
            }
        }
        _ => command::explain(program, cwd, identity, error),
    }
}

fn inject(start: &StartProcess, identity: &Identity) -> Result<(), StartError> {
    identity
        .with_file_rights(|| {
            for file in &start.files {
                files::create(Path::new(&file.path), &file.content, file.mode.unwrap_or(0o600)).map_err(|source| {
                    StartError::File {
                        path: file.path.clone(),
                        source,
                    }
                })?;
            }
            Ok(())
        })
        .map_err(|source| StartError::Setup {
            what: "take the step's file rights",
            source,
        })?
}

/// A pipe whose read end is ours, not blocking, and whose write end is the child's. It belongs to the step's user, who may open it again by name
/// (`echo problem > /dev/stderr`).
fn pipe(identity: &Identity) -> Result<(Receiver, OwnedFd), StartError> {
    let make = || -> io::Result<(Receiver, OwnedFd)> {
        let (read, write) = identity.with_file_rights(io::pipe)??;
        // Sets the read end alone to non-blocking; the write end's flags are the child's.
        Ok((Receiver::from_owned_fd(read.into())?, write.into()))
    };
    make().map_err(|source| StartError::Setup {
        what: "make a pipe",
        source,
    })
}

/// What the child does to itself between fork and exec.
struct Harden {
    cwd: i32,
    umask: Mode,
    identity: Identity,
}

impl Harden {
    fn apply(&self) -> io::Result<()> {
        raise_oom_score();
        rustix::process::umask(self.umask);
        at(1, rustix::process::setsid().map(drop))?;
        at(2, limits())?;
        at(3, drop_bounding_set())?;
        at(4, self.set_groups())?;
        // From root to another user: the kernel empties the permitted, effective and ambient sets.
        let uid = self.identity.uid;
        at(5, rustix::thread::set_thread_res_uid(uid, uid, uid))?;
        // Once more by name, and the inheritable set with them; nothing here rests on a side effect.
        at(6, drop_capabilities())?;
        at(7, rustix::thread::set_no_new_privs(true))?;
        // Last, so that it is the step's user who must be able to enter it.
        // SAFETY: the descriptor belongs to `spawn`'s caller frame, copied by the fork, and is open until exec closes it.
        let cwd = unsafe { rustix::fd::BorrowedFd::borrow_raw(self.cwd) };
        at(8, rustix::process::fchdir(cwd))
    }

    fn set_groups(&self) -> rustix::io::Result<()> {
        let gid = self.identity.gid;
        rustix::thread::set_thread_groups(&self.identity.groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)
    }
}

fn at(stage: i32, result: rustix::io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::from_raw_os_error(stage * STAGE + error.raw_os_error()))
}

fn limits() -> rustix::io::Result<()> {
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    let hard = rustix::process::getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(OPEN_FILES)
        .min(OPEN_FILES);
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(hard),
            maximum: Some(hard),
        },
    )
}

fn drop_bounding_set() -> rustix::io::Result<()> {
    for capability in 0..64 {
        // SAFETY: prctl with integers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            // Past the last capability that this kernel knows.
            return match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINVAL) if capability > 0 => Ok(()),
                Some(code) => Err(rustix::io::Errno::from_raw_os_error(code)),
                None => Err(rustix::io::Errno::INVAL),
            };
        }
    }
    Ok(())
}

fn drop_capabilities() -> rustix::io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// Best effort: an image may hide /proc, and the supervisor is small enough to be no candidate anyway.
fn raise_oom_score() {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _best_effort = rustix::io::write(&file, OOM_SCORE_ADJ);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused() {
        assert!(matches!(
            identity(&StartProcess {
                uid: 0,
                ..Default::default()
            }),
            Err(StartError::Root)
        ));
        assert!(matches!(
            identity(&StartProcess {
                uid: u32::MAX,
                ..Default::default()
            }),
            Err(StartError::Root)
        ));
        assert!(
            identity(&StartProcess {
                uid: 1000,
                ..Default::default()
            })
            .is_ok()
        );
    }

    #[test]
    fn stages_travel_through_one_number() {
        let error = at(3, Err(rustix::io::Errno::PERM)).unwrap_err();
        let cwd = rustix::fs::open("/", rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        let me = Identity {
            uid: Uid::from_raw(1),
            gid: Gid::from_raw(1),
            groups: Vec::new(),
        };
        let explained = cannot_start(Path::new("/x"), &cwd, &me, error).to_fault().message;
        assert_eq!(
            explained,
            "cannot drop the bounding capabilities: Operation not permitted (os error 1)"
        );
    }
}
