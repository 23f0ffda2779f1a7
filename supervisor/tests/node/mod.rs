//! A node for tests: it listens on the socket, greets, and speaks frames. The supervisor under test is the real binary, PID 1 of a pid namespace of
//! its own, with the capabilities that a sandbox leaves it and no more.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gantry_proto::v1::{
    EndCause, ExitAck, NodeFrame, NodeHello, OutputAck, OutputStream, ProcessExited, ProcessOutput, StartProcess,
    SupervisorFrame, SupervisorHello, node_frame, supervisor_frame::Kind,
};
use gantry_proto::{SUPERVISOR_PROTOCOL, frame};
use tempfile::TempDir;

/// Longest wait for anything that must happen; far above what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const NONCE: [u8; 32] = [42; 32];
pub const UID: u32 = 64_001;
pub const GID: u32 = 64_002;

/// A supervisor and the place where its node listens.
pub struct Sandbox {
    pub dir: TempDir,
    listener: UnixListener,
    namespace: Child,
}

impl Sandbox {
    /// Starts the binary in a fresh pid namespace.
    pub fn start() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make pid namespaces and change users: run them as root"
        );
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        set_mode(dir.path(), 0o755);
        let sock = dir.path().join("sock");
        std::fs::create_dir(&sock).unwrap();
        set_mode(&sock, 0o700);
        std::fs::write(sock.join("nonce"), NONCE).unwrap();
        set_mode(&sock.join("nonce"), 0o600);
        let work = dir.path().join("w");
        std::fs::create_dir(&work).unwrap();
        set_mode(&work, 0o777);
        let listener = UnixListener::bind(sock.join("node.sock")).unwrap();
        let namespace = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--"])
            .args([
                "setpriv",
                "--bounding-set=-all,+setuid,+setgid,+setpcap,+kill",
                "--inh-caps=-all",
                "--no-new-privs",
            ])
            .arg(env!("CARGO_BIN_EXE_gantry-supervisor"))
            .arg("--sock-dir")
            .arg(&sock)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            dir,
            listener,
            namespace,
        }
    }

    /// A path in the directory that the step may write.
    pub fn work(&self, name: &str) -> PathBuf {
        self.dir.path().join("w").join(name)
    }

    /// The next connection, before any hello.
    pub fn accept(&self) -> Line {
        self.listener.set_nonblocking(true).unwrap();
        let stream = wait_for("a connection", || self.listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Line {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next connection, both hellos said.
    pub fn connect(&self) -> (Line, SupervisorHello) {
        let mut line = self.accept();
        let Kind::Hello(hello) = line.read() else {
            panic!("the supervisor did not greet first")
        };
        assert_eq!(hello.nonce.as_ref(), NONCE);
        line.hello(&NONCE);
        (line, hello)
    }

    /// Exit code of PID 1.
    pub fn wait(&mut self) -> Option<i32> {
        wait_for("the supervisor's end", || self.namespace.try_wait().unwrap()).code()
    }

    /// Pids, on the host, of everything in the namespace but PID 1, found by the step's user.
    pub fn processes_of(uid: u32) -> Vec<i32> {
        let needle = format!("Uid:\t{uid}\t");
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains(&needle))
            })
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // `unshare` passes no signal on, and a parent-death signal does not survive the supervisor's change of file rights: PID 1 is killed by
        // its own number, and the namespace and `unshare` end with it.
        let unshare = self.namespace.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap_or_default();
        for pid in children
            .split_whitespace()
            .filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?))
        {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _gone = self.namespace.wait();
    }
}

/// One connection, node's side.
pub struct Line {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Line {
    pub fn hello(&mut self, nonce: &[u8]) {
        let nonce = bytes::Bytes::copy_from_slice(nonce);
        self.send(node_frame::Kind::Hello(NodeHello {
            protocol: SUPERVISOR_PROTOCOL,
            nonce,
        }));
    }

    pub fn send(&mut self, kind: node_frame::Kind) {
        self.try_send(kind).unwrap();
    }

    /// Sends to a supervisor that may hang up.
    pub fn try_send(&mut self, kind: node_frame::Kind) -> std::io::Result<()> {
        let mut wire = BytesMut::new();
        frame::encode(&NodeFrame { kind: Some(kind) }, &mut wire).unwrap();
        self.stream.write_all(&wire)
    }

    /// The next frame; a panic when the connection ends.
    pub fn read(&mut self) -> Kind {
        self.try_read().expect("the supervisor hung up")
    }

    /// The next frame, or `None` at the end of the connection.
    pub fn try_read(&mut self) -> Option<Kind> {
        loop {
            if let Some(frame) = frame::decode::<SupervisorFrame>(&mut self.buffer).unwrap() {
                return Some(frame.kind.unwrap());
            }
            let mut block = [0; 64 << 10];
            let got = match self.stream.read(&mut block) {
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
                Err(error) => panic!("nothing came for {PATIENCE:?}: {error}"),
            };
            if got == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&block[..got]);
        }
    }

    /// Reads to the exit, acknowledging output as it comes.
    pub fn finish(&mut self) -> Finished {
        let mut finished = Finished::default();
        loop {
            match self.read() {
                Kind::Output(output) => {
                    self.send(node_frame::Kind::OutputAck(OutputAck {
                        run: output.run,
                        seq: output.seq,
                    }));
                    finished.outputs.push(output);
                }
                Kind::Exited(exited) => {
                    finished.exited = exited;
                    return finished;
                }
                Kind::ReportFile(report) => finished.progress.push(report.content.to_vec()),
                Kind::Started(_) | Kind::Pong(_) | Kind::Fault(_) | Kind::Hello(_) => {}
            }
        }
    }

    /// Starts a run and reads to its end.
    pub fn run(&mut self, start: StartProcess) -> Finished {
        self.send(node_frame::Kind::Start(start));
        self.finish()
    }

    pub fn acknowledge_exit(&mut self, run: u64) {
        self.send(node_frame::Kind::ExitAck(ExitAck { run }));
    }

    /// Reads output until `text` has been seen on stdout.
    pub fn read_until(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            match self.read() {
                Kind::Output(output) => seen.extend_from_slice(&output.data),
                Kind::Exited(exited) => panic!("ended before {text:?}: {exited:?}; {}", String::from_utf8_lossy(&seen)),
                _ => {}
            }
        }
    }
}

/// What a run left.
#[derive(Default)]
pub struct Finished {
    pub outputs: Vec<ProcessOutput>,
    pub progress: Vec<Vec<u8>>,
    pub exited: ProcessExited,
}

impl Finished {
    pub fn text(&self, stream: OutputStream) -> String {
        let bytes: Vec<u8> = self
            .outputs
            .iter()
            .filter(|o| o.stream() == stream)
            .flat_map(|o| o.data.to_vec())
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    pub fn stdout(&self) -> String {
        self.text(OutputStream::Stdout)
    }

    pub fn cause(&self) -> EndCause {
        self.exited.cause()
    }

    pub fn fault(&self) -> &str {
        &self.exited.fault.as_ref().unwrap().message
    }
}

/// `sh -c script` as the step's user, with generous limits.
pub fn shell(run: u64, script: &str) -> StartProcess {
    StartProcess {
        run,
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        cwd: "/".to_owned(),
        uid: UID,
        gid: GID,
        grace_ms: 5_000,
        deadman_ms: 3_600_000,
        output_limit_bytes: 1 << 30,
        ..Default::default()
    }
}

/// Looks until there is something; a bounded poll for what gives no notification.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
