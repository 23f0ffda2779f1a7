//! The host's side of a sandbox: directories, sockets and mounts under the state directory. Blocking calls, run off the async threads.

mod layout;
mod mounts;
mod socket;

pub(crate) use self::layout::{NONCE_BYTES, StateDir, StateError};
pub(crate) use self::socket::listen;
