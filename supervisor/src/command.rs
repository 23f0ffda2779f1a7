//! From a request to what can be executed: environment, working directory, the program's file, and why it would not run.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_proto::v1::EnvVar;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::identity::Identity;
use crate::start_error::StartError;

/// Where commands are looked for when neither image nor step set PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Trees that are no place to work in: their entries lead elsewhere (`/proc/self/fd`), or belong to the supervisor.
const CWD_REFUSED: [&str; 4] = ["/proc", "/sys", "/dev", "/.gantry"];

/// The image's environment with the step's on top.
pub(crate) fn merge_env(image: &[EnvVar], step: &[EnvVar]) -> Result<BTreeMap<String, String>, StartError> {
    let mut merged = BTreeMap::new();
    for var in image.iter().chain(step) {
        if var.name.is_empty() || var.name.contains(['=', '\0']) || var.value.contains('\0') {
            return Err(StartError::BadText {
                what: "an environment variable",
            });
        }
        merged.insert(var.name.clone(), var.value.clone());
    }
    Ok(merged)
}

/// Opens the working directory with the step's rights. The child enters what was opened here, so the checks cannot be outrun.
pub(crate) fn open_cwd(path: &str, identity: &Identity) -> Result<OwnedFd, StartError> {
    let refused = |why: &str| StartError::Cwd {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    if !path.starts_with('/') {
        return Err(refused("is not an absolute path"));
    }
    // Before it is opened: `/proc/self` would be the supervisor here.
    if Path::new(path)
        .components()
        .nth(1)
        .is_some_and(|first| first.as_os_str() == "proc")
    {
        return Err(refused("is not a place to work in"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = identity
        .with_file_rights(|| rustix::fs::open(path, flags, Mode::empty()))
        .map_err(|source| StartError::Setup {
            what: "take the step's file rights",
            source,
        })?;
    let directory = opened.map_err(|error| match error {
        rustix::io::Errno::NOENT => refused("does not exist"),
        rustix::io::Errno::NOTDIR => refused("is not a directory"),
        rustix::io::Errno::ACCESS => refused("may not be entered by the step's user"),
        other => refused(&format!("cannot be opened: {}", io::Error::from(other))),
    })?;
    let real = real_path(&directory).map_err(|source| StartError::Setup {
        what: "read the working directory's path",
        source,
    })?;
    if CWD_REFUSED.iter().any(|tree| real.starts_with(tree)) {
        return Err(refused("is not a place to work in"));
    }
    Ok(directory)
}

fn real_path(file: &OwnedFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Finds the program's file as a shell would, relative names seen from the working directory.
pub(crate) fn resolve(
    command: &str,
    env: &BTreeMap<String, String>,
    cwd: &OwnedFd,
    identity: &Identity,
) -> Result<PathBuf, StartError> {
    if command.is_empty() {
        return Err(StartError::NoCommand);
    }
    identity
        .with_file_rights(|| search(command, env, cwd, identity))
        .map_err(|source| StartError::Setup {
            what: "take the step's file rights",
            source,
        })?
}

fn search(
    command: &str,
    env: &BTreeMap<String, String>,
    cwd: &OwnedFd,
    identity: &Identity,
) -> Result<PathBuf, StartError> {
    if command.contains('/') {
        return check(Path::new(command), cwd, identity).map(|()| PathBuf::from(command));
    }
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let mut unusable = None;
    for entry in path.split(':') {
        let directory = if entry.is_empty() { "." } else { entry };
        let candidate = Path::new(directory).join(command);
        match check(&candidate, cwd, identity) {
            Ok(()) => return Ok(candidate),
            Err(StartError::Missing { .. }) => {}
            Err(other) => unusable = unusable.or(Some(other)),
        }
    }
    Err(unusable.unwrap_or_else(|| StartError::NotInPath {
        command: command.to_owned(),
        path: path.to_owned(),
    }))
}

fn check(path: &Path, cwd: &OwnedFd, identity: &Identity) -> Result<(), StartError> {
    let shown = || path.display().to_string();
    let stat = rustix::fs::statat(cwd, path, AtFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => StartError::Missing { path: shown() },
        rustix::io::Errno::ACCESS => StartError::NotExecutable { path: shown() },
        other => StartError::Exec {
            path: shown(),
            source: other.into(),
        },
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(StartError::NotAFile { path: shown() });
    }
    if !identity.may_execute(stat.st_mode, stat.st_uid, stat.st_gid) {
        return Err(StartError::NotExecutable { path: shown() });
    }
    Ok(())
}

/// Why `execve` refused a file that exists.
pub(crate) fn explain(program: &Path, cwd: &OwnedFd, identity: &Identity, error: io::Error) -> StartError {
    let path = program.display().to_string();
    let head = identity
        .with_file_rights(|| read_head(program, cwd))
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default();
    match error.raw_os_error() {
        Some(libc::ENOENT) => match interpreter(&head) {
            Some(interpreter) => StartError::NoInterpreter { path, interpreter },
            // Without one of these, libc tried the shell, and there is none.
            None if !head.is_empty() => StartError::BadFormat { path },
            None => StartError::Missing { path },
        },
        Some(libc::EACCES | libc::EPERM) => StartError::NotExecutable { path },
        Some(libc::ENOEXEC | libc::ELIBBAD) => StartError::BadFormat { path },
        Some(libc::E2BIG) => StartError::TooLong,
        _ => StartError::Exec { path, source: error },
    }
}

fn read_head(program: &Path, cwd: &OwnedFd) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(cwd, program, flags, Mode::empty())?;
    let mut head = vec![0; 4096];
    let got = rustix::io::read(&file, &mut head)?;
    head.truncate(got);
    Ok(head)
}

/// What a file says it is to be run by: the `#!` line of a script, the dynamic loader of a program.
fn interpreter(head: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        return text(line).split_whitespace().next().map(str::to_owned);
    }
    elf_loader(head).map(text)
}

/// PT_INTERP of a 64-bit little-endian program whose headers are in `head`.
fn elf_loader(head: &[u8]) -> Option<&[u8]> {
    const PROGRAM_HEADERS_AT: usize = 32;
    const HEADER_SIZE_AT: usize = 54;
    const HEADER_COUNT_AT: usize = 56;
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(head.get(at..at.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(value))
    };
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(number(PROGRAM_HEADERS_AT, 8)?).ok()?;
    let size = usize::try_from(number(HEADER_SIZE_AT, 2)?).ok()?;
    for index in 0..usize::try_from(number(HEADER_COUNT_AT, 2)?).ok()? {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if number(header, 4)? == PT_INTERP {
            let start = usize::try_from(number(header.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(number(header.checked_add(32)?, 8)?).ok()?;
            let name = head.get(start..start.checked_add(length)?)?;
            return Some(name.strip_suffix(b"\0").unwrap_or(name));
        }
    }
    None
}

/// A C string for the kernel.
pub(crate) fn check_text(text: &str, what: &'static str) -> Result<(), StartError> {
    CString::new(text).map(|_| ()).map_err(|_| StartError::BadText { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Gid, Uid};
    use std::os::unix::fs::PermissionsExt;

    fn me() -> Identity {
        Identity {
            uid: Uid::from_raw(65_534),
            gid: Gid::from_raw(65_534),
            groups: Vec::new(),
        }
    }

    fn root_dir() -> OwnedFd {
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn var(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn the_steps_environment_wins() {
        let env = merge_env(&[var("A", "image"), var("B", "image")], &[var("A", "step")]).unwrap();
        assert_eq!((env["A"].as_str(), env["B"].as_str()), ("step", "image"));
        assert!(merge_env(&[], &[var("A=B", "")]).is_err());
        assert!(merge_env(&[], &[var("", "")]).is_err());
        assert!(merge_env(&[], &[var("A", "x\0y")]).is_err());
    }

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for (name, mode) in [("plain", 0o644), ("tool", 0o755)] {
            std::fs::write(dir.path().join(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        let env = BTreeMap::from([("PATH".to_owned(), format!("/nowhere:{}", dir.path().display()))]);
        let find = |command: &str| resolve(command, &env, &root_dir(), &me());
        assert_eq!(find("tool").unwrap(), dir.path().join("tool"));
        assert!(matches!(find("plain"), Err(StartError::NotExecutable { .. })));
        assert!(matches!(find("nothing"), Err(StartError::NotInPath { .. })));
        assert!(matches!(find("/nothing"), Err(StartError::Missing { .. })));
        assert!(matches!(find("/etc"), Err(StartError::NotAFile { .. })));
        assert!(matches!(find(""), Err(StartError::NoCommand)));
        let relative = format!("{}/tool", &dir.path().display().to_string()[1..]);
        assert_eq!(find(&relative).unwrap(), PathBuf::from(&relative));
    }

    #[test]
    fn working_directory_is_checked() {
        let why = |path: &str| open_cwd(path, &me()).unwrap_err().to_string();
        assert!(open_cwd("/tmp", &me()).is_ok());
        assert!(why("/nowhere").contains("does not exist"));
        assert!(why("/etc/passwd").contains("is not a directory"));
        assert!(why("tmp").contains("not an absolute path"));
        for path in [
            "/proc/self/fd/0",
            "/proc",
            "//proc/1",
            "/dev",
            "/tmp/../proc/self",
            "/sys/kernel",
        ] {
            assert!(why(path).contains("not a place to work in"), "{path}");
        }
        let private = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(private.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(why(&private.path().join("x").display().to_string()).contains("may not be entered"));
    }

    #[test]
    fn interpreters_are_named() {
        assert_eq!(interpreter(b"#!/bin/nope -x\nrest").as_deref(), Some("/bin/nope"));
        assert_eq!(
            interpreter(b"#! /usr/bin/env python3\n").as_deref(),
            Some("/usr/bin/env")
        );
        assert_eq!(interpreter(b"plain text"), None);
        assert_eq!(interpreter(b"\x7fELF\x02\x01short"), None);
        let dynamic = std::fs::read("/bin/ls").unwrap();
        let loader = interpreter(&dynamic[..4096]).unwrap();
        assert!(loader.contains("ld-linux"), "{loader}");
    }
}
