//! The node's listening socket in a sandbox's socket directory.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Name of the socket; the supervisor dials it under its own view of the directory.
const SOCKET: &str = "node.sock";

/// Listens at `dir/node.sock`. An earlier socket is replaced in one step: a supervisor that dials meanwhile finds one or the other.
pub(crate) fn listen(dir: &Path) -> io::Result<UnixListener> {
    // Bound through the descriptor's short name: a socket's path may have 107 bytes only, and a state directory may lie deep.
    let open = File::open(dir)?;
    let base = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let fresh = base.join("node.sock.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, base.join(SOCKET))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_deep_directory_works_and_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let first = listen(&deep).unwrap();
        let second = listen(&deep).unwrap();
        let open = File::open(&deep).unwrap();
        let _client = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())).unwrap();
        second.set_nonblocking(false).unwrap();
        second.accept().unwrap();
        assert_eq!(first.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(
            fs::metadata(deep.join(SOCKET)).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
