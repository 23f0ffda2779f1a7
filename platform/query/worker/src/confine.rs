//! Gives up every right that answering a query does not need: memory, files, the network, other programs, and a way back.
//!
//! DuckDB is told the same (`database::lock`). This holds when DuckDB has a fault.

use std::collections::BTreeMap;
use std::env;

use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::failure::Failure;

/// Nobody's user and group.
const NOBODY: u32 = 65_534;
/// Other work goes first.
const NICENESS: i32 = 10;
/// Open files: every sealed object that a query may read, and a few of its own.
const FILES_MAX: u64 = gantry_proto::limits::QUERY_OBJECTS_MAX as u64 + 64;
/// Processor time above the query's own limit, for the beginning.
const STARTING_SECONDS: u64 = 5;

/// Confines this process. `memory_bytes` is all that it may allocate, `timeout_ms` how long it may compute.
pub(crate) fn confine(memory_bytes: u64, timeout_ms: u64) -> Result<(), Failure> {
    // Best effort, in this order: a kernel short of memory ends this process first, and others are scheduled before it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = rustix::process::setpriority_process(None, NICENESS);
    limit(Resource::Data, memory_bytes)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, FILES_MAX)?;
    limit(Resource::Cpu, timeout_ms.div_ceil(1_000) + STARTING_SECONDS)?;
    if let Err(error) = leave() {
        // DuckDB's own walls and the limits above still stand.
        eprintln!("the file system cannot be left ({error}); user namespaces or root's rights would allow it");
    }
    rustix::thread::set_no_new_privs(true).map_err(refusing("set no_new_privs"))?;
    filter().map_err(|error| Failure::internal(format!("the process cannot be confined: {error}")))?;
    // The kernel forgets this when the user changes, so it comes last. When the daemon dies, so does the query.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(refusing("set the signal of the daemon's end"))
}

fn refusing(what: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |error| Failure::internal(format!("the process cannot be confined: {what}: {error}"))
}

/// At most `most`, and never more than it may have already.
fn limit(resource: Resource, most: u64) -> Result<(), Failure> {
    let most = rustix::process::getrlimit(resource)
        .maximum
        .map_or(most, |maximum| maximum.min(most));
    rustix::process::setrlimit(
        resource,
        Rlimit {
            current: Some(most),
            maximum: Some(most),
        },
    )
    .map_err(refusing("set a limit"))
}

/// Makes the working directory all that there is, and this nobody's process.
fn leave() -> rustix::io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // A user namespace of its own lets it change its root; it has one thread yet, as the kernel demands.
        // SAFETY: no file table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER)? };
    }
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    if root {
        let (user, group) = (
            rustix::process::Uid::from_raw(NOBODY),
            rustix::process::Gid::from_raw(NOBODY),
        );
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
    }
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// No network, no other program, no process besides this one, nothing of other processes, and nothing that only administrators do.
fn filter() -> seccompiler::Result<()> {
    let architecture: TargetArch = env::consts::ARCH.try_into()?;
    let install = |rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32| -> seccompiler::Result<()> {
        let answer = SeccompAction::Errno(error.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture)?;
        let program: seccompiler::BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)
    };
    // The C library then uses clone, whose flags a filter can see.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let new_process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    refused.insert(libc::SYS_clone, vec![SeccompRule::new(vec![new_process])?]);
    install(refused, libc::EPERM)
}

const REFUSED: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];
