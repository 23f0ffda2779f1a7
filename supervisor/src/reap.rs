//! What PID 1 owes everybody: collecting the dead, and ending those that should be.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal};

/// CPU time and memory of processes that were collected, their own collected children included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) user_cpu_us: u64,
    pub(crate) system_cpu_us: u64,
    pub(crate) max_rss_bytes: u64,
}

impl Usage {
    /// Adds another process's: times add up, the peak is the greater one.
    pub(crate) fn add(&mut self, other: Self) {
        self.user_cpu_us += other.user_cpu_us;
        self.system_cpu_us += other.system_cpu_us;
        self.max_rss_bytes = self.max_rss_bytes.max(other.max_rss_bytes);
    }
}

/// A process that was collected.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) pid: i32,
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
}

/// Outcome of one look.
#[derive(Debug)]
pub(crate) enum Reaped {
    Dead(Dead),
    /// Children live, none has ended.
    NoneReady,
    /// Nothing lives in here but the supervisor. (What an operator started from outside has its parent outside.)
    NoChildren,
}

/// Collects one dead child, without waiting.
pub(crate) fn reap_one() -> Reaped {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain C struct, and it is only written to.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, properly typed locals for the length of the call.
        let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
        return match pid {
            0 => Reaped::NoneReady,
            1.. => Reaped::Dead(Dead {
                pid,
                status: ExitStatus::from_raw(status),
                usage: convert(&usage),
            }),
            _ => match std::io::Error::last_os_error().kind() {
                std::io::ErrorKind::Interrupted => continue,
                _ => Reaped::NoChildren,
            },
        };
    }
}

fn convert(usage: &libc::rusage) -> Usage {
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Usage {
        user_cpu_us: micros(usage.ru_utime),
        system_cpu_us: micros(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// SIGKILL to every process of this pid namespace but the supervisor.
///
/// For PID 1, `kill(-1)` is exactly that, and the kernel does it in one sweep that no fork escapes: it holds the lock that a new process needs to
/// become visible, and a fork with a fatal signal pending fails. So a fork bomb ends like everything else.
pub(crate) fn kill_everything() {
    // Anywhere else than in a pid namespace of its own this would end the whole machine; main refuses to run there.
    assert_eq!(std::process::id(), 1, "only PID 1 may end everything");
    // SAFETY: takes two integers. It fails only when nobody is left, which is what is wanted.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// The polite signal to the process group that `leader` leads.
pub(crate) fn terminate_group(leader: i32) {
    if let Some(pid) = Pid::from_raw(leader) {
        // Fails only when the group is gone.
        let _gone = rustix::process::kill_process_group(pid, Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_adds_times_and_keeps_the_peak() {
        let mut usage = Usage {
            user_cpu_us: 1,
            system_cpu_us: 2,
            max_rss_bytes: 30,
        };
        usage.add(Usage {
            user_cpu_us: 10,
            system_cpu_us: 20,
            max_rss_bytes: 3,
        });
        assert_eq!(
            usage,
            Usage {
                user_cpu_us: 11,
                system_cpu_us: 22,
                max_rss_bytes: 30
            }
        );
    }
}
