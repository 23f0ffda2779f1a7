//! Sandboxes as host processes. What stands for the supervisor outlives the node, keeps output and exit until acknowledged, and is adopted by nonce.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_fleet_manager::{
    Adoptable, Ending, Fleet, FleetError, FleetHealth, Image, ImageId, Link, LinkEvent, Profile, Reconciled, Sandbox,
};
use gantry_proto::time::{Clock as _, SystemClock};
use gantry_proto::v1::{
    EndCause, Fault, NodeFrame, ProcessExited, ProcessOutput, ProcessStarted, ProcessStatus, ReportFile, StartProcess,
    SupervisorFrame, node_frame, supervisor_frame::Kind,
};
use gantry_proto::{ErrorCode, SandboxId};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::{Notify, mpsc, oneshot};

enum Control {
    Attach(mpsc::Sender<LinkEvent>, mpsc::Receiver<NodeFrame>),
    Kill(oneshot::Sender<()>),
}

struct Boxed {
    slot: PathBuf,
    nonce: [u8; 32],
    control: mpsc::Sender<Control>,
}

/// See the module.
pub struct HostFleet {
    root: PathBuf,
    boxes: Mutex<HashMap<SandboxId, Boxed>>,
    pub docker_down: AtomicBool,
    /// While set, looking for an image does not return.
    pub hold_images: AtomicBool,
    pub image_asked: Notify,
    pub claims: Mutex<Vec<SandboxId>>,
    pub destroyed: Notify,
    /// As they were asked for.
    pub images: Mutex<Vec<String>>,
}

impl HostFleet {
    pub fn new(root: &Path) -> Arc<Self> {
        std::fs::create_dir_all(root).unwrap();
        Arc::new(Self {
            root: root.to_owned(),
            boxes: Mutex::default(),
            docker_down: AtomicBool::new(false),
            hold_images: AtomicBool::new(false),
            image_asked: Notify::new(),
            claims: Mutex::default(),
            destroyed: Notify::new(),
            images: Mutex::default(),
        })
    }

    pub fn live(&self) -> usize {
        self.boxes.lock().len()
    }

    fn up(&self) -> Result<(), FleetError> {
        if self.docker_down.load(Ordering::SeqCst) {
            return Err(error(ErrorCode::DockerUnavailable, "docker is down"));
        }
        Ok(())
    }

    async fn attach(&self, id: SandboxId) -> Option<Sandbox> {
        let (slot, nonce, control) = {
            let boxes = self.boxes.lock();
            let boxed = boxes.get(&id)?;
            (boxed.slot.clone(), boxed.nonce, boxed.control.clone())
        };
        let (events, receiver) = mpsc::channel(64);
        let (frames, incoming) = mpsc::channel(64);
        control.send(Control::Attach(events, incoming)).await.ok()?;
        Some(Sandbox {
            id,
            container: format!("c-{id}"),
            slot,
            nonce,
            link: Link {
                frames,
                events: receiver,
            },
        })
    }

    pub async fn end(&self, id: SandboxId) {
        let control = self.boxes.lock().get(&id).map(|boxed| boxed.control.clone());
        if let Some(control) = control {
            let (done, wait) = oneshot::channel();
            if control.send(Control::Kill(done)).await.is_ok() {
                let _ = wait.await;
            }
        }
    }
}

fn error(code: ErrorCode, message: &str) -> FleetError {
    FleetError {
        code,
        message: message.into(),
        hint: None,
    }
}

#[async_trait::async_trait]
impl Fleet for HostFleet {
    async fn health(&self) -> FleetHealth {
        let up = self.up();
        FleetHealth {
            docker_ok: up.is_ok(),
            fault: up.err().map(Fault::from),
            containers: self.live() as u64,
        }
    }

    async fn image(&self, name: &str) -> Result<Image, FleetError> {
        self.images.lock().push(name.to_owned());
        self.image_asked.notify_one();
        while self.hold_images.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.up()?;
        if name == "missing" {
            return Err(error(ErrorCode::ImageNotFound, "no such image"));
        }
        Ok(Image {
            id: ImageId("sha256:1".into()),
            env: Vec::new(),
            workdir: String::new(),
            arch: "amd64".into(),
        })
    }

    async fn claim(&self, id: SandboxId, _: &Profile) -> Result<Sandbox, FleetError> {
        self.up()?;
        let dir = self.root.join(id.to_string());
        let slot = dir.join("slot");
        std::fs::create_dir_all(slot.join("w")).unwrap();
        let tmp = dir.join("tmp");
        std::fs::create_dir_all(&tmp).unwrap();
        std::fs::set_permissions(&tmp, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let (control, orders) = mpsc::channel(4);
        let boxed = Boxed {
            slot: slot.clone(),
            nonce: [7; 32],
            control,
        };
        assert!(
            self.boxes.lock().insert(id, boxed).is_none(),
            "a sandbox is claimed once"
        );
        self.claims.lock().push(id);
        tokio::spawn(
            Supervisor {
                slot,
                tmp,
                link: None,
                process: None,
            }
            .run(orders),
        );
        Ok(self.attach(id).await.unwrap())
    }

    async fn adopt(&self, adoptable: &Adoptable) -> Result<Result<Sandbox, Ending>, FleetError> {
        self.up()?;
        assert_eq!(adoptable.nonce, [7; 32]);
        Ok(self.attach(adoptable.id).await.ok_or_else(|| Ending {
            detail: "gone".into(),
            ..Ending::default()
        }))
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), FleetError> {
        self.up()?;
        self.end(id).await;
        self.boxes.lock().remove(&id);
        let dir = self.root.join(id.to_string());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(dir.to_str().unwrap()),
            "the slot is unmounted before its sandbox is destroyed"
        );
        let _ = std::fs::remove_dir_all(dir);
        self.destroyed.notify_one();
        Ok(())
    }

    async fn kill(&self, id: SandboxId) -> Result<Ending, FleetError> {
        self.up()?;
        self.end(id).await;
        Ok(Ending::default())
    }

    async fn reconcile(&self, claimed: &BTreeSet<SandboxId>) -> Result<Reconciled, FleetError> {
        self.up()?;
        let all: Vec<SandboxId> = self.boxes.lock().keys().copied().collect();
        let mut done = Reconciled::default();
        for id in all {
            if claimed.contains(&id) {
                done.kept.push(id);
            } else {
                self.destroy(id).await?;
                done.removed.push(id.to_string());
            }
        }
        done.missing = claimed.iter().filter(|id| !done.kept.contains(id)).copied().collect();
        Ok(done)
    }
}

struct Process {
    start: StartProcess,
    pid: u32,
    started_at_ms: u64,
    unacked: Vec<ProcessOutput>,
    next_seq: u64,
    stop: Option<EndCause>,
    exited: Option<ProcessExited>,
    chunks: mpsc::Receiver<(i32, Vec<u8>)>,
    child: tokio::process::Child,
    drained: bool,
}

struct Supervisor {
    slot: PathBuf,
    tmp: PathBuf,
    link: Option<(mpsc::Sender<LinkEvent>, mpsc::Receiver<NodeFrame>)>,
    process: Option<Process>,
}

impl Supervisor {
    async fn run(mut self, mut control: mpsc::Receiver<Control>) {
        loop {
            let frame = async {
                match &mut self.link {
                    Some((_, frames)) => frames.recv().await,
                    None => std::future::pending().await,
                }
            };
            let process = async {
                match &mut self.process {
                    Some(process) if !process.drained => process.chunks.recv().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                order = control.recv() => match order {
                    Some(Control::Attach(events, frames)) => self.attached(events, frames).await,
                    Some(Control::Kill(done)) => {
                        self.signal(rustix::process::Signal::KILL);
                        if let Some(process) = &mut self.process {
                            let _ = process.child.wait().await;
                        }
                        self.tell(LinkEvent::Gone(Ending { detail: "killed".into(), ..Ending::default() })).await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                frame = frame => match frame {
                    Some(frame) => self.frame(frame).await,
                    None => self.link = None,
                },
                chunk = process => self.chunk(chunk).await,
            }
        }
    }

    async fn tell(&mut self, event: LinkEvent) {
        if let Some((events, _)) = &self.link
            && events.send(event).await.is_err()
        {
            self.link = None;
        }
    }

    async fn tell_kind(&mut self, kind: Kind) {
        self.tell(LinkEvent::Frame(SupervisorFrame { kind: Some(kind) })).await;
    }

    async fn attached(&mut self, events: mpsc::Sender<LinkEvent>, frames: mpsc::Receiver<NodeFrame>) {
        self.link = Some((events, frames));
        let status = self.process.as_ref().map(|process| ProcessStatus {
            run: process.start.run,
            pid: Some(process.pid),
            started_at_ms: Some(process.started_at_ms),
            next_seq: Some(process.next_seq),
            exited: process.exited.clone(),
        });
        let again = self
            .process
            .as_ref()
            .map(|process| process.unacked.clone())
            .unwrap_or_default();
        self.tell(LinkEvent::Connected(status)).await;
        for chunk in again {
            self.tell_kind(Kind::Output(chunk)).await;
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let Some(process) = &self.process else { return };
        let pid = rustix::process::Pid::from_raw(i32::try_from(process.pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process_group(pid, signal);
    }

    async fn frame(&mut self, frame: NodeFrame) {
        match frame.kind.unwrap() {
            node_frame::Kind::Start(start) => self.start(start).await,
            node_frame::Kind::Stop(stop) => {
                if let Some(process) = &mut self.process {
                    process.stop = Some(stop.cause());
                }
                self.signal(rustix::process::Signal::KILL);
            }
            node_frame::Kind::OutputAck(ack) => {
                if let Some(process) = &mut self.process {
                    process.unacked.retain(|chunk| chunk.seq > ack.seq);
                }
            }
            _ => {}
        }
    }

    fn outside(&self, text: &str) -> String {
        let tmp = format!("{}/gantry-", self.tmp.display());
        text.replace("/gantry/w", self.slot.join("w").to_str().unwrap())
            .replace("/tmp/gantry-", &tmp)
    }

    async fn start(&mut self, start: StartProcess) {
        if let Some(process) = &self.process {
            assert_eq!(process.start, start, "a re-sent start is the same");
            return;
        }
        assert!(start.uid >= 200_000 && start.gid >= 300_000);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "umask 0002; exec \"$@\"", "sh"])
            .args(start.argv.iter().map(|arg| self.outside(arg)));
        command.env_clear();
        for var in &start.env {
            command.env(&var.name, self.outside(&var.value));
        }
        command
            .current_dir(self.outside(&start.cwd))
            .uid(start.uid)
            .gid(start.gid)
            .process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (sender, chunks) = mpsc::channel(4);
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let other = sender.clone();
        tokio::spawn(async move {
            let mut buffer = [0u8; 4096];
            while let Ok(got @ 1..) = stdout.read(&mut buffer).await {
                let _ = sender.send((0, buffer[..got].to_vec())).await;
            }
        });
        tokio::spawn(async move {
            let mut buffer = [0u8; 4096];
            while let Ok(got @ 1..) = stderr.read(&mut buffer).await {
                let _ = other.send((1, buffer[..got].to_vec())).await;
            }
        });
        let (run, pid, started_at_ms) = (start.run, child.id().unwrap(), SystemClock.now_ms());
        self.process = Some(Process {
            start,
            pid,
            started_at_ms,
            unacked: Vec::new(),
            next_seq: 1,
            stop: None,
            exited: None,
            chunks,
            child,
            drained: false,
        });
        self.tell_kind(Kind::Started(ProcessStarted {
            run,
            pid,
            started_at_ms,
        }))
        .await;
    }

    async fn chunk(&mut self, chunk: Option<(i32, Vec<u8>)>) {
        let process = self.process.as_mut().unwrap();
        if let Some((stream, data)) = chunk {
            let seq = process.next_seq;
            process.next_seq += 1;
            let run = process.start.run;
            let chunk = ProcessOutput {
                run,
                seq,
                stream,
                data: data.into(),
                at_ms: SystemClock.now_ms(),
            };
            process.unacked.push(chunk.clone());
            return self.tell_kind(Kind::Output(chunk)).await;
        }
        process.drained = true;
        let status = process.child.wait().await.unwrap();
        let reports = process.start.reports.clone();
        let (run, last_seq, stop) = (process.start.run, process.next_seq - 1, process.stop);
        let reports = reports
            .iter()
            .filter_map(|watched| {
                let content = std::fs::read(self.outside(&watched.path)).ok()?;
                Some(ReportFile {
                    run,
                    kind: watched.kind,
                    content: content.into(),
                    truncated: None,
                })
            })
            .collect();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let natural = if signal.is_some() {
            EndCause::Signalled
        } else {
            EndCause::Exited
        };
        let exit = ProcessExited {
            run,
            cause: stop.unwrap_or(natural).into(),
            exit_code: status.code(),
            signal,
            finished_at_ms: SystemClock.now_ms(),
            last_seq: Some(last_seq),
            reports,
            ..ProcessExited::default()
        };
        if let Some(process) = &mut self.process {
            process.exited = Some(exit.clone());
        }
        self.tell_kind(Kind::Exited(exit)).await;
    }
}
