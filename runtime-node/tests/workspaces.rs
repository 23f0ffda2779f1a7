//! The workspace suite, the same for every strategy: needs root, as the node does.

#![allow(clippy::unwrap_used, clippy::disallowed_types)] // a test ends by panicking

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use bytes::Bytes;
use gantry_proto::v1::workspace_source::Kind;
use gantry_proto::v1::{Fault, GitSource, InputPlan, Plan, WorkspacePlan, WorkspaceSource};
use gantry_proto::{ErrorCode, TaskId};
use gantry_runtime_node::workspace::{AttemptKey, FetchInput, WorkspaceError, WorkspaceOptions, Workspaces};
use gantry_runtime_node::{ByteStream, GitConfig, StrategyChoice, UplinkError};
use sha2::{Digest as _, Sha256};
use tokio_util::task::TaskTracker;

const BOTH: [StrategyChoice; 2] = [StrategyChoice::Overlay, StrategyChoice::Copy];

struct NoInputs;

#[async_trait::async_trait]
impl FetchInput for NoInputs {
    async fn fetch(&self, input: &InputPlan) -> Result<ByteStream, UplinkError> {
        let content: &'static [u8] = if input.path.ends_with("liar") {
            b"other"
        } else {
            b"input content"
        };
        Ok(Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(content))])))
    }
}

struct Bench {
    dir: tempfile::TempDir,
    ws: Workspaces,
}

impl Bench {
    fn new(strategy: StrategyChoice) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("allowed")).unwrap();
        fs::create_dir_all(dir.path().join("slot")).unwrap();
        let ws = open(dir.path(), strategy);
        Self { dir, ws }
    }

    fn slot(&self) -> PathBuf {
        self.dir.path().join("slot")
    }

    fn allowed(&self, name: &str) -> PathBuf {
        self.dir.path().join("allowed").join(name)
    }

    /// One attempt: `work` sees the tree; sealed when it says so.
    async fn attempt(
        &self,
        key: AttemptKey,
        plan: &Plan,
        work: impl FnOnce(&Path) -> bool,
    ) -> Result<(), WorkspaceError> {
        self.ws.prepare(key, plan, &NoInputs).await?;
        self.ws.mount(key, &self.slot()).await?;
        self.ws.mount(key, &self.slot()).await?;
        let keep = work(&self.slot().join("w"));
        self.ws.unmount(key, &self.slot()).await?;
        if keep {
            self.ws.view(key).await?;
            self.ws.seal(key, plan.last).await?;
            self.ws.seal(key, plan.last).await
        } else {
            self.ws.discard(key).await?;
            self.ws.discard(key).await
        }
    }
}

fn open(dir: &Path, strategy: StrategyChoice) -> Workspaces {
    let options = WorkspaceOptions {
        root: dir.join("state"),
        gids: 300_000..=300_010,
        allow_paths: vec![dir.join("allowed")],
        git: GitConfig::default(),
        strategy,
    };
    fs::create_dir_all(dir.join("state")).unwrap();
    Workspaces::open(&options, TaskTracker::new()).unwrap()
}

fn key(task: u8, step: u32, attempt: u32) -> AttemptKey {
    AttemptKey {
        task: TaskId::from_bytes([task; 16]),
        step,
        attempt,
    }
}

fn plan(sources: Vec<WorkspaceSource>) -> Plan {
    Plan {
        workspace: WorkspacePlan { sources },
        ..Plan::default()
    }
}

fn source(name: &str, kind: Kind) -> WorkspaceSource {
    WorkspaceSource {
        name: name.into(),
        kind: Some(kind),
    }
}

fn local(path: &Path) -> Kind {
    Kind::LocalPath(path.display().to_string())
}

fn no_mounts_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<&str> = table
        .lines()
        .filter(|line| line.contains(dir.to_str().unwrap()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// All paths with content, to compare whole trees.
fn listing(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_symlink() {
                all.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if kind.is_dir() {
                all.push(format!("{name}/"));
                dirs.push(path);
            } else {
                all.push(format!("{name} = {}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_retry_starts_from_the_tree_as_of_its_steps_start() {
    for strategy in BOTH {
        let bench = Bench::new(strategy);
        let from = bench.allowed("project");
        fs::create_dir_all(from.join("src/deep")).unwrap();
        fs::write(from.join("src/deep/file"), "original").unwrap();
        fs::write(from.join("top"), "top").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let plan = plan(vec![source("", local(&from))]);
        bench
            .attempt(key(1, 0, 1), &plan, |tree| {
                fs::write(tree.join("made"), "by step 0").unwrap();
                fs::rename(tree.join("src"), tree.join("renamed")).unwrap();
                true
            })
            .await
            .unwrap();
        let mut seen = Vec::new();
        let corrupt = |tree: &Path| {
            seen = listing(tree);
            fs::remove_dir_all(tree.join("renamed")).unwrap();
            fs::remove_file(tree.join("top")).unwrap();
            // An opaque directory where a file was, and a file where a directory was.
            fs::create_dir(tree.join("top")).unwrap();
            fs::write(tree.join("renamed"), "wrecked").unwrap();
            fs::write(tree.join("made"), "wrecked").unwrap();
            false
        };
        bench.attempt(key(1, 1, 1), &plan, corrupt).await.unwrap();
        let mut again = Vec::new();
        bench
            .attempt(key(1, 1, 2), &plan, |tree| {
                again = listing(tree);
                true
            })
            .await
            .unwrap();
        assert_eq!(seen, again, "{strategy:?}");
        let expected = [
            "link -> /etc/passwd",
            "made = by step 0",
            "renamed/",
            "renamed/deep/",
            "renamed/deep/file = original",
            "top = top",
        ];
        assert_eq!(again, expected);
        assert_eq!(
            fs::read_to_string(from.join("src/deep/file")).unwrap(),
            "original",
            "the host's copy is untouched"
        );
        bench.ws.release(key(1, 0, 1).task).await.unwrap();
        assert!(bench.ws.tasks().unwrap().is_empty());
        no_mounts_below(bench.dir.path());
    }
}

#[tokio::test]
async fn every_uid_of_a_workspace_can_change_what_another_left() {
    for strategy in BOTH {
        let bench = Bench::new(strategy);
        let gid = bench.ws.prepare(key(1, 0, 1), &plan(vec![]), &NoInputs).await.unwrap();
        let run = |uid: u32, script: &'static str| {
            use std::os::unix::process::CommandExt as _;
            let tree = bench.slot().join("w");
            let status = Command::new("/bin/sh")
                .args(["-euc", script])
                .current_dir(tree)
                .uid(uid)
                .gid(gid)
                .status();
            assert!(status.unwrap().success(), "{strategy:?}: uid {uid}: {script}");
        };
        let root = bench.dir.path();
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        bench.ws.mount(key(1, 0, 1), &bench.slot()).await.unwrap();
        run(200_000, "umask 077; mkdir d; echo one > d/private; chmod 500 d");
        bench.ws.unmount(key(1, 0, 1), &bench.slot()).await.unwrap();
        bench.ws.seal(key(1, 0, 1), false).await.unwrap();
        bench.ws.prepare(key(1, 1, 1), &plan(vec![]), &NoInputs).await.unwrap();
        bench.ws.mount(key(1, 1, 1), &bench.slot()).await.unwrap();
        run(
            200_001,
            "grep one d/private; echo two >> d/private; rm d/private; echo three > d/new; rm -r d",
        );
        bench.ws.unmount(key(1, 1, 1), &bench.slot()).await.unwrap();
        bench.ws.release(key(1, 0, 1).task).await.unwrap();
    }
}

#[tokio::test]
async fn results_of_tasks_are_copied_under_names_and_outlive_their_source() {
    for strategy in BOTH {
        let bench = Bench::new(strategy);
        let mut first = plan(vec![]);
        first.last = true;
        let unfinished = plan(vec![source("a", Kind::FromTask(key(1, 0, 1).task))]);
        let error = bench
            .ws
            .prepare(key(2, 0, 1), &unfinished, &NoInputs)
            .await
            .unwrap_err();
        assert!(matches!(error, WorkspaceError::Gone { .. }), "{error}");
        bench
            .attempt(
                key(1, 0, 1),
                &Plan {
                    last: false,
                    ..first.clone()
                },
                |tree| {
                    fs::write(tree.join("one"), "1").unwrap();
                    fs::write(tree.join("gone"), "1").unwrap();
                    true
                },
            )
            .await
            .unwrap();
        bench
            .attempt(key(1, 1, 1), &first, |tree| {
                fs::remove_file(tree.join("gone")).unwrap();
                std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
                fs::write(tree.join("two"), "2").is_ok()
            })
            .await
            .unwrap();
        let task = key(1, 0, 1).task;
        let both = plan(vec![
            source("a", Kind::FromTask(task)),
            source("b", Kind::FromTask(task)),
        ]);
        let mut seen = Vec::new();
        bench.ws.prepare(key(3, 0, 1), &both, &NoInputs).await.unwrap();
        bench.ws.release(task).await.unwrap();
        bench.ws.mount(key(3, 0, 1), &bench.slot()).await.unwrap();
        seen.extend(listing(&bench.slot().join("w")));
        bench.ws.unmount(key(3, 0, 1), &bench.slot()).await.unwrap();
        assert_eq!(seen, ["a/", "a/one = 1", "a/two = 2", "b/", "b/one = 1", "b/two = 2"]);
    }
}

#[tokio::test]
async fn sealing_survives_a_crash_at_every_point() {
    for strategy in BOTH {
        let bench = Bench::new(strategy);
        let plan = plan(vec![]);
        bench.ws.prepare(key(1, 0, 1), &plan, &NoInputs).await.unwrap();
        bench.ws.mount(key(1, 0, 1), &bench.slot()).await.unwrap();
        fs::write(bench.slot().join("w/file"), "x").unwrap();
        // A restart with the mount still there: cleaned unless its slot is claimed.
        let Bench { dir, ws } = bench;
        drop(ws);
        let ws = open(dir.path(), strategy);
        ws.clean_mounts(&[dir.path().join("slot")]).unwrap();
        assert!(dir.path().join("slot/w/file").exists());
        ws.unmount(key(1, 0, 1), &dir.path().join("slot")).await.unwrap();
        // Died after the rename, before the manifest.
        let task = dir.path().join("state/ws").join(key(1, 0, 1).task.to_string());
        fs::create_dir_all(task.join("layers")).unwrap();
        fs::rename(task.join("attempts/0-1/upper"), task.join("layers/0-1")).unwrap();
        ws.seal(key(1, 0, 1), true).await.unwrap();
        // Sealed, but the result was never noted: looked at again, sealed again.
        let view = ws.view(key(1, 0, 1)).await.unwrap();
        assert_eq!(fs::read_to_string(view.0.join("file")).unwrap(), "x");
        ws.seal(key(1, 0, 1), true).await.unwrap();
        // A stale result: the layer goes, and the next attempt sees nothing of it.
        ws.discard(key(1, 0, 1)).await.unwrap();
        ws.prepare(key(1, 0, 2), &plan, &NoInputs).await.unwrap();
        assert!(!ws.view(key(1, 0, 2)).await.unwrap().0.join("file").exists());
        ws.release(key(1, 0, 1).task).await.unwrap();
        no_mounts_below(dir.path());
    }
}

#[tokio::test]
async fn many_layers_are_flattened() {
    let bench = Bench::new(StrategyChoice::Overlay);
    let plan = plan(vec![]);
    for step in 0..40u32 {
        bench
            .attempt(key(1, step, 1), &plan, |tree| {
                assert_eq!(fs::read_dir(tree).unwrap().count(), step as usize);
                fs::write(tree.join(step.to_string()), "x").is_ok()
            })
            .await
            .unwrap();
    }
    let layers = bench
        .dir
        .path()
        .join("state/ws")
        .join(key(1, 0, 1).task.to_string())
        .join("layers");
    assert!(fs::read_dir(layers).unwrap().count() <= 33);
    let error = bench.ws.prepare(key(1, 50, 1), &plan, &NoInputs).await.unwrap_err();
    assert!(matches!(error, WorkspaceError::Gone { .. }));
}

#[tokio::test]
async fn inputs_are_checked_and_stay_inside() {
    let bench = Bench::new(StrategyChoice::Overlay);
    let input = |path: &str| InputPlan {
        path: path.into(),
        sha256: Sha256::digest(b"input content").to_vec().into(),
        size_bytes: 13,
        ..InputPlan::default()
    };
    let with = |path: &str| Plan {
        inputs: vec![input(path)],
        ..plan(vec![])
    };
    bench
        .attempt(key(1, 0, 1), &with("in/data"), |tree| {
            assert_eq!(fs::read_to_string(tree.join("in/data")).unwrap(), "input content");
            symlink("/etc", tree.join("etc")).is_ok()
        })
        .await
        .unwrap();
    // A new input of a later step lands in that step's layer, and replaces a link instead of following it.
    bench
        .attempt(key(1, 1, 1), &with("etc/late"), |tree| tree.join("etc/late").exists())
        .await
        .unwrap();
    assert!(!Path::new("/etc/late").exists());
    for path in ["../x", "/etc/x", "", "a/../../x"] {
        let error = bench
            .ws
            .prepare(key(2, 0, 1), &with(path), &NoInputs)
            .await
            .unwrap_err();
        assert!(matches!(error, WorkspaceError::Refused { .. }), "{path}: {error}");
    }
    let error = bench
        .ws
        .prepare(key(2, 0, 1), &with("liar"), &NoInputs)
        .await
        .unwrap_err();
    // The server's fault, not that of the step.
    assert!(matches!(error, WorkspaceError::Unavailable { .. }), "{error}");
}

/// What an input's source does, one entry per time it is asked.
struct Scripted(Mutex<Vec<Turn>>);

enum Turn {
    Away,
    Refuses(ErrorCode),
    BreaksOff,
    Delivers,
}

#[async_trait::async_trait]
impl FetchInput for Scripted {
    async fn fetch(&self, _: &InputPlan) -> Result<ByteStream, UplinkError> {
        let turn = self.0.lock().unwrap().pop().expect("asked once more than expected");
        let bytes = |content: &'static str| Ok(Bytes::from_static(content.as_bytes()));
        Ok(match turn {
            Turn::Away => return Err(UplinkError::Unreachable("away".into())),
            Turn::Refuses(code) => return Err(UplinkError::Refused(Fault::new(code, "refused"))),
            Turn::BreaksOff => {
                let parts = [bytes("input"), Err(std::io::ErrorKind::ConnectionReset.into())];
                Box::pin(futures_util::stream::iter(parts))
            }
            Turn::Delivers => Box::pin(futures_util::stream::iter([bytes("input content")])),
        })
    }
}

#[tokio::test]
async fn a_server_in_trouble_is_waited_for_and_only_its_refusal_counts_against_the_step() {
    let bench = Bench::new(StrategyChoice::Overlay);
    let input = InputPlan {
        path: "in/data".into(),
        sha256: Sha256::digest(b"input content").to_vec().into(),
        size_bytes: 13,
        ..InputPlan::default()
    };
    let plan = Plan {
        inputs: vec![input],
        ..plan(vec![])
    };
    // Popped from the end.
    let passing = vec![
        Turn::Delivers,
        Turn::BreaksOff,
        Turn::Refuses(ErrorCode::StorageUnavailable),
        Turn::Refuses(ErrorCode::Overloaded),
        Turn::Away,
    ];
    let source = Scripted(Mutex::new(passing));
    bench.ws.prepare(key(1, 0, 1), &plan, &source).await.unwrap();
    assert!(source.0.lock().unwrap().is_empty());
    let tree = bench.ws.view(key(1, 0, 1)).await.unwrap().0;
    assert_eq!(fs::read_to_string(tree.join("in/data")).unwrap(), "input content");
    bench.ws.discard(key(1, 0, 1)).await.unwrap();
    for (code, counts) in [(ErrorCode::NotFound, true), (ErrorCode::StaleFence, false)] {
        let source = Scripted(Mutex::new(vec![Turn::Refuses(code)]));
        let error = bench.ws.prepare(key(2, 0, 1), &plan, &source).await.unwrap_err();
        match error {
            WorkspaceError::Fetch { .. } => assert!(counts),
            WorkspaceError::Stale => assert!(!counts),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn sockets_and_paths_outside_are_refused() {
    let bench = Bench::new(StrategyChoice::Overlay);
    fs::create_dir(bench.allowed("s")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.allowed("s/socket")).unwrap();
    symlink("/etc", bench.allowed("escape")).unwrap();
    for path in [
        bench.allowed("s"),
        bench.allowed("escape"),
        bench.allowed("../slot"),
        PathBuf::from("/etc"),
    ] {
        let error = bench
            .ws
            .prepare(key(1, 0, 1), &plan(vec![source("", local(&path))]), &NoInputs)
            .await
            .unwrap_err();
        assert_eq!(
            error.code().as_str(),
            "workspace-refused",
            "{}: {error}",
            path.display()
        );
    }
    for name in ["../up", "a/b", ".."] {
        let error = bench
            .ws
            .prepare(
                key(1, 0, 1),
                &plan(vec![source(name, local(&bench.allowed(".")))]),
                &NoInputs,
            )
            .await;
        assert!(matches!(error, Err(WorkspaceError::Refused { .. })), "{name}");
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=trunk",
            "-c",
            "safe.directory=*",
        ])
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn git_sources_by_branch_tag_and_commit_through_a_mirror_that_heals() {
    let bench = Bench::new(StrategyChoice::Overlay);
    let repo = bench.allowed("repo");
    fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    // A hook and a submodule that would show if anything of them ran or was followed.
    let commit = |content: &str| {
        fs::write(repo.join("file"), content).unwrap();
        git(&repo, &["add", "-A"]);
        git(&repo, &["commit", "-qm", content]);
        git(&repo, &["rev-parse", "HEAD"])
    };
    let first = commit("one");
    git(&repo, &["tag", "v1"]);
    git(&repo, &["checkout", "-qb", "feature/x"]);
    commit("two");
    git(&repo, &["checkout", "-q", "trunk"]);
    commit("three");
    // A repository of somebody else's.
    Command::new("chown")
        .args(["-R", "1234:1234"])
        .arg(&repo)
        .status()
        .unwrap();
    let mut task = 0u8;
    let mut check = async |name: Option<&str>, depth: Option<u32>, content: &str, commits: usize| {
        task += 1;
        let kind = Kind::Git(GitSource {
            url: repo.display().to_string(),
            r#ref: name.map(str::to_owned),
            depth,
        });
        let plan = plan(vec![source("", kind)]);
        bench
            .attempt(key(task, 0, 1), &plan, |tree| {
                assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), content, "{name:?}");
                assert_eq!(git(tree, &["log", "--format=%s"]).lines().count(), commits, "{name:?}");
                assert!(!tree.join(".git/objects/info/alternates").exists());
                assert_eq!(git(tree, &["remote", "get-url", "origin"]), repo.display().to_string());
                true
            })
            .await
            .unwrap();
    };
    check(None, None, "three", 2).await;
    check(Some("v1"), None, "one", 1).await;
    check(Some("feature/x"), None, "two", 2).await;
    check(Some(&first), None, "one", 1).await;
    check(Some("trunk"), Some(1), "three", 1).await;
    // The mirror loses its objects, as after a crash in the middle of a fetch.
    let mirrors = bench.dir.path().join("state/mirrors");
    for entry in fs::read_dir(&mirrors).unwrap() {
        let mirror = entry.unwrap().path();
        if mirror.join("HEAD").exists() {
            fs::remove_dir_all(mirror.join("objects/pack")).unwrap();
            fs::write(mirror.join("packed-refs.lock"), "").unwrap();
        }
    }
    check(None, None, "three", 2).await;
    let missing = Kind::Git(GitSource {
        url: repo.display().to_string(),
        r#ref: Some("nowhere".into()),
        depth: None,
    });
    let error = bench
        .ws
        .prepare(key(99, 0, 1), &plan(vec![source("", missing)]), &NoInputs)
        .await
        .unwrap_err();
    assert_eq!(error.code().as_str(), "workspace-fetch-failed", "{error}");
}

#[tokio::test]
async fn hostile_git_sources_are_refused_before_anything_runs() {
    let bench = Bench::new(StrategyChoice::Overlay);
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    git(&outside, &["init", "-q"]);
    let marker = bench.dir.path().join("ran");
    let touch = format!("ext::sh -c touch% {}", marker.display());
    let upload = format!("--upload-pack=touch {}", marker.display());
    let file = format!("file://{}", outside.display());
    let plain = outside.display().to_string();
    let cases = [
        (touch.as_str(), None),
        (&upload, None),
        (&file, None),
        (&plain, None),
        ("https://u:p@example.org/x", None),
        ("https://example.org/x", Some(upload.as_str())),
    ];
    for (url, name) in cases {
        let kind = Kind::Git(GitSource {
            url: url.into(),
            r#ref: name.map(str::to_owned),
            depth: None,
        });
        let error = bench
            .ws
            .prepare(key(1, 0, 1), &plan(vec![source("", kind)]), &NoInputs)
            .await
            .unwrap_err();
        assert_eq!(error.code().as_str(), "workspace-refused", "{url}: {error}");
        assert!(!marker.exists(), "{url} ran something");
    }
}

/// A git server on a port of its own that hangs up on its first `failures` callers.
async fn git_server(base: &Path, failures: usize) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let base = base.to_owned();
    let serving = tokio::spawn(async move {
        for _ in 0..failures {
            drop(listener.accept().await.unwrap());
        }
        loop {
            let stream = listener.accept().await.unwrap().0.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let (input, output) = (stream.try_clone().unwrap(), stream);
            let daemon = tokio::process::Command::new("git")
                .args(["-c", "safe.directory=*", "daemon", "--inetd", "--export-all"])
                .arg(format!("--base-path={}", base.display()))
                .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(input)))
                .stdout(std::process::Stdio::from(std::os::fd::OwnedFd::from(output)))
                .env("HOME", &base)
                .status();
            daemon.await.unwrap();
        }
    });
    (port, serving)
}

#[tokio::test]
async fn a_git_remote_that_hangs_up_is_asked_again_and_one_that_says_no_is_not() {
    let bench = Bench::new(StrategyChoice::Overlay);
    let repo = bench.allowed("repo");
    fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    fs::write(repo.join("file"), "content").unwrap();
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-qm", "one"]);
    let (port, serving) = git_server(&bench.dir.path().join("allowed"), 2).await;
    let from = |name: &str| {
        let url = format!("git://127.0.0.1:{port}/{name}");
        let kind = Kind::Git(GitSource {
            url,
            r#ref: Some("trunk".into()),
            depth: None,
        });
        plan(vec![source("", kind)])
    };
    let found = |tree: &Path| fs::read_to_string(tree.join("file")).unwrap() == "content";
    bench.attempt(key(1, 0, 1), &from("repo"), found).await.unwrap();
    let error = bench
        .ws
        .prepare(key(2, 0, 1), &from("missing"), &NoInputs)
        .await
        .unwrap_err();
    assert!(matches!(error, WorkspaceError::Fetch { .. }), "{error}");
    assert!(!error.to_string().contains("cannot be reached"), "{error}");
    serving.abort();
}
