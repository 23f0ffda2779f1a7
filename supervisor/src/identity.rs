//! The user a step runs as, and file access with that user's rights.
//!
//! The supervisor is root without the capabilities that let root pass file permissions, and it must not: what it writes and reads on behalf of a
//! step, it writes and reads with the step's rights, so that no path a step prepares leads to something the step could not reach itself.

use std::io;

use rustix::process::{Gid, Uid};

/// User, group and supplementary groups of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
}

impl Identity {
    /// Runs `work` with this identity's file-system rights. Only this thread changes, and the program has one.
    ///
    /// # Errors
    /// When the rights cannot be taken; `work` was not called then.
    pub(crate) fn with_file_rights<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let guard = FileRights::take(self)?;
        let value = work();
        drop(guard);
        Ok(value)
    }

    /// Whether the mode bits let this identity execute a file.
    pub(crate) fn may_execute(&self, mode: u32, owner: u32, group: u32) -> bool {
        let shift = if owner == self.uid.as_raw() {
            6
        } else if group == self.gid.as_raw() || self.groups.iter().any(|gid| gid.as_raw() == group) {
            3
        } else {
            0
        };
        mode >> shift & 1 == 1
    }
}

/// Gives the supervisor's own rights back when dropped.
struct FileRights {
    own_uid: Uid,
    own_gid: Gid,
    own_groups: Vec<Gid>,
}

impl FileRights {
    fn take(identity: &Identity) -> io::Result<Self> {
        let own = Self {
            own_uid: rustix::process::geteuid(),
            own_gid: rustix::process::getegid(),
            own_groups: rustix::process::getgroups()?,
        };
        rustix::thread::set_thread_groups(&identity.groups)?;
        // From here on the guard undoes what was done, whichever step fails.
        if set_fsgid(identity.gid) && set_fsuid(identity.uid) {
            Ok(own)
        } else {
            Err(io::Error::other("the file rights of the step's user cannot be taken"))
        }
    }
}

impl Drop for FileRights {
    fn drop(&mut self) {
        let back = set_fsuid(self.own_uid)
            && set_fsgid(self.own_gid)
            && rustix::thread::set_thread_groups(&self.own_groups).is_ok();
        // Going on with a step's rights would be a supervisor that cannot read its own nonce; the container ends instead.
        assert!(back, "the supervisor cannot take its own file rights back");
    }
}

fn set_fsuid(uid: Uid) -> bool {
    #[allow(clippy::cast_sign_loss)] // the kernel returns the id in an int
    // SAFETY: setfsuid takes an integer and changes the calling thread's credentials only. It reports no error, so the second call, with an
    // id that is never valid, asks what is set now.
    unsafe {
        libc::setfsuid(uid.as_raw());
        libc::setfsuid(u32::MAX) as u32 == uid.as_raw()
    }
}

fn set_fsgid(gid: Gid) -> bool {
    #[allow(clippy::cast_sign_loss)]
    // SAFETY: as in `set_fsuid`.
    unsafe {
        libc::setfsgid(gid.as_raw());
        libc::setfsgid(u32::MAX) as u32 == gid.as_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execute_bits_are_those_of_the_first_class_that_matches() {
        let identity = Identity {
            uid: Uid::from_raw(7),
            gid: Gid::from_raw(8),
            groups: vec![Gid::from_raw(9)],
        };
        assert!(identity.may_execute(0o100, 7, 0));
        assert!(
            !identity.may_execute(0o011, 7, 8),
            "the owner's bits count although others may"
        );
        assert!(identity.may_execute(0o010, 0, 8));
        assert!(identity.may_execute(0o010, 0, 9));
        assert!(identity.may_execute(0o001, 0, 0));
        assert!(!identity.may_execute(0o110, 0, 0));
    }
}
