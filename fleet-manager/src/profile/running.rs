//! Looks at PID 1 of a started container in the kernel's own words: the runtime is old code between Docker's promise and the process.

use std::path::Path;

use super::Difference;
use super::container::SUPERVISOR_CAPABILITIES;

/// `CAP_KILL` 5, `CAP_SETGID` 6, `CAP_SETUID` 7, `CAP_SETPCAP` 8.
const SUPERVISOR_CAPABILITY_BITS: u64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
const _: () = assert!(SUPERVISOR_CAPABILITY_BITS.count_ones() as usize == SUPERVISOR_CAPABILITIES.len());
/// `SECCOMP_MODE_FILTER`.
const SECCOMP_FILTER: &str = "2";

/// Checks capabilities, seccomp, no-new-privileges and namespaces of a process that Docker calls PID 1.
///
/// # Errors
/// The field that is not as it must be; `None` when the process is gone, which the watch on its container explains better.
pub(crate) fn check_running(pid: u32) -> Result<(), Option<Difference>> {
    let process = Path::new("/proc").join(pid.to_string());
    let status = std::fs::read_to_string(process.join("status")).map_err(|_| None)?;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let expect = |name: &str, wanted: String, got: String| {
        if wanted == got {
            return Ok(());
        }
        Err(Some(Difference {
            field: format!("PID 1's {name}"),
            asked: wanted,
            got,
        }))
    };
    let capabilities = format!("{SUPERVISOR_CAPABILITY_BITS:016x}");
    expect("CapBnd", capabilities.clone(), field("CapBnd"))?;
    expect("CapPrm", capabilities, field("CapPrm"))?;
    expect("Seccomp", SECCOMP_FILTER.to_owned(), field("Seccomp"))?;
    expect("NoNewPrivs", "1".to_owned(), field("NoNewPrivs"))?;
    for namespace in ["net", "pid", "mnt", "ipc", "uts"] {
        let its = std::fs::read_link(process.join("ns").join(namespace)).map_err(|_| None)?;
        let ours = std::fs::read_link(Path::new("/proc/self/ns").join(namespace)).map_err(|_| None)?;
        if its == ours {
            let (asked, got) = ("its own".to_owned(), "the host's".to_owned());
            return Err(Some(Difference {
                field: format!("PID 1's {namespace} namespace"),
                asked,
                got,
            }));
        }
    }
    Ok(())
}
