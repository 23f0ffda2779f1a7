//! Bare mirrors and the work trees cloned from them.

mod prune;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_proto::v1::GitSource;
use parking_lot::Mutex;

use super::command::{CONFIG, Git, GitError, Transports};
use super::source::{GitUrl, check_ref};
use crate::atomic;
use crate::config::GitConfig;
use crate::retry::Backoff;
use crate::tree;
use crate::workspace::error::WorkspaceError;
use crate::workspace::local::AllowList;

/// Tries to reach a remote, within [`GitConfig::timeout`], before its being away is the source's fault.
const REMOTE_TRIES: u32 = 6;
/// Pauses between them: half a minute in all.
const REMOTE_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The mirrors of a node.
#[derive(Debug)]
pub(crate) struct Mirrors {
    dir: PathBuf,
    git: Git,
    /// Held by whoever uses a mirror; by its key.
    locks: Arc<Locks>,
    keep: prune::Keep,
}

type Locks = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// What a source comes down to.
struct Origin {
    /// As the definition wrote it; becomes the work tree's `origin`.
    named: String,
    /// What git is given.
    location: String,
    transports: Transports,
}

/// The commit to check out.
struct Target {
    commit: String,
    /// Local branch to be on; `None`: detached.
    branch: Option<String>,
}

enum Failure {
    /// Trying again with a new mirror may help.
    Git(GitError),
    Final(WorkspaceError),
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Mirrors {
    /// Opens or makes the directory of mirrors.
    pub(crate) fn open(dir: PathBuf, options: &GitConfig) -> Result<Self, WorkspaceError> {
        let home = dir.join("home");
        fs::create_dir_all(&home).map_err(|error| WorkspaceError::io(&home, error))?;
        let config = dir.join("gitconfig");
        atomic::write(&config, CONFIG.as_bytes(), 0o600).map_err(|error| WorkspaceError::io(&config, error))?;
        let git = Git {
            config,
            home,
            ssh_command: options.ssh_command.clone(),
            timeout: options.timeout,
        };
        prune::remove_leftovers(&dir).map_err(|error| WorkspaceError::io(&dir, error))?;
        Ok(Self {
            dir,
            git,
            locks: Arc::default(),
            keep: prune::Keep {
                count: options.mirrors_max,
                bytes: options.mirrors_bytes_max,
            },
        })
    }

    /// Puts a work tree of `source` into the empty directory `into`, with a `.git` of its own that points nowhere else.
    pub(crate) async fn checkout(
        &self,
        source: &GitSource,
        allow: &AllowList,
        into: &Path,
    ) -> Result<(), WorkspaceError> {
        let refused = |what: &str, text: &str, error: super::GitUrlError| {
            let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            WorkspaceError::refused(format!("the git {what} `{text}` is refused: {error}"))
        };
        let url = GitUrl::parse(&source.url).map_err(|error| refused("url", &source.url, error))?;
        if let Some(name) = &source.r#ref {
            check_ref(name).map_err(|error| refused("ref", name, error))?;
        }
        let origin = match url {
            GitUrl::Remote(url) => Origin {
                named: url.clone(),
                location: url,
                transports: Transports::Remote,
            },
            GitUrl::Local(path) => {
                let (real, _) = allow.open(&path)?;
                let location = real
                    .to_str()
                    .ok_or_else(|| WorkspaceError::refused("the path is not valid UTF-8"))?;
                Origin {
                    named: path,
                    location: location.to_owned(),
                    transports: Transports::Paths,
                }
            }
        };
        let key = blake3::hash(origin.location.as_bytes()).to_hex()[..32].to_owned();
        let lock = self.locks.lock().entry(key.clone()).or_default().clone();
        let guard = lock.lock_owned().await;
        let mirror = self.dir.join(&key);
        let done = self.use_mirror(&mirror, &origin, source, into).await;
        prune::used(&mirror);
        drop(guard);
        self.prune().await;
        done
    }

    /// The mirror is ours meanwhile.
    async fn use_mirror(
        &self,
        mirror: &Path,
        origin: &Origin,
        source: &GitSource,
        into: &Path,
    ) -> Result<(), WorkspaceError> {
        let fetched = |error: GitError| self.fetch_error(origin, &error);

        if !mirror.join("HEAD").exists() {
            self.rebuild(mirror, origin).await.map_err(fetched)?;
        } else if !self.has_commit(mirror, source.r#ref.as_deref()).await
            && let Err(error) = self.update(mirror, origin).await
        {
            // A new mirror helps against a broken one, not against a remote that is away.
            if matches!(error, GitError::Away(_)) {
                return Err(fetched(error));
            }
            tracing::info!(%error, "git mirror could not be brought up to date; making a new one");
            self.rebuild(mirror, origin).await.map_err(fetched)?;
        }
        for last in [false, true] {
            match self.work_tree(mirror, origin, source, into).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Git(error)) if last || error.is_disk_full() || matches!(error, GitError::Away(_)) => {
                    return Err(fetched(error));
                }
                Err(Failure::Git(error)) => {
                    tracing::warn!(%error, "git mirror is of no use; making a new one");
                    self.rebuild(mirror, origin).await.map_err(fetched)?;
                    tree::remove_contents(into).map_err(|error| WorkspaceError::io(into, error))?;
                }
            }
        }
        Ok(())
    }

    fn fetch_error(&self, origin: &Origin, error: &GitError) -> WorkspaceError {
        if error.is_disk_full() {
            return WorkspaceError::DiskFull { path: self.dir.clone() };
        }
        let (source_name, reason) = (format!("git repository {}", origin.named), error.to_string());
        match error {
            GitError::Start(_) => WorkspaceError::Unavailable { source_name, reason },
            GitError::Timeout(_) | GitError::Failed { .. } | GitError::Away(_) => {
                WorkspaceError::Fetch { source_name, reason }
            }
        }
    }

    /// A command that speaks to the remote. One that is away, or breaks off, is asked again a few times.
    async fn ask(&self, dir: &Path, origin: &Origin, args: &[&str]) -> Result<String, GitError> {
        let began = Instant::now();
        let mut backoff = Backoff::new(REMOTE_PAUSES.0, REMOTE_PAUSES.1);
        let mut tries = 1;
        loop {
            let error = match self.git.run(dir, origin.transports, args).await {
                Err(error) if error.is_passing() && origin.transports == Transports::Remote => error,
                answer => return answer,
            };
            if tries == REMOTE_TRIES || began.elapsed() >= self.git.timeout {
                return Err(GitError::Away(Box::new(error)));
            }
            tracing::info!(%error, repository = origin.named, "git remote cannot be reached; trying again");
            tokio::time::sleep(backoff.pause()).await;
            tries += 1;
        }
    }

    /// A commit that is there needs no fetch: it cannot change.
    async fn has_commit(&self, mirror: &Path, name: Option<&str>) -> bool {
        let Some(name) = name.filter(|name| is_commit(name)) else {
            return false;
        };
        let object = format!("{name}^{{commit}}");
        self.git
            .run(mirror, Transports::Paths, &["cat-file", "-e", &object])
            .await
            .is_ok()
    }

    async fn update(&self, mirror: &Path, origin: &Origin) -> Result<(), GitError> {
        let args = [
            "fetch",
            "--quiet",
            "--prune",
            "--force",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--",
            &origin.location,
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ];
        self.ask(mirror, origin, &args).await.map(drop)
    }

    /// Makes the mirror anew; the old one stays until the new one is whole.
    async fn rebuild(&self, mirror: &Path, origin: &Origin) -> Result<(), GitError> {
        let fresh = mirror.with_extension(prune::NEW);
        tree::remove_path(&fresh).map_err(GitError::Start)?;
        fs::create_dir(&fresh).map_err(GitError::Start)?;
        let made = async {
            self.git
                .run(&fresh, Transports::Paths, &["init", "--quiet", "--bare", "--template="])
                .await?;
            self.update(&fresh, origin).await
        };
        if let Err(error) = made.await {
            tree::remove_path(&fresh).map_err(GitError::Start)?;
            return Err(error);
        }
        tree::remove_path(mirror).map_err(GitError::Start)?;
        fs::rename(&fresh, mirror).map_err(GitError::Start)
    }

    async fn resolve(&self, mirror: &Path, origin: &Origin, name: Option<&str>) -> Result<Target, Failure> {
        // `HEAD` is not a ref of the mirror but of the remote, which alone knows what it stands for.
        let Some(name) = name.filter(|name| *name != "HEAD") else {
            return self.resolve_head(mirror, origin).await;
        };
        let branch = name.strip_prefix("refs/heads/").unwrap_or(name);
        for (full, branch) in [
            (format!("refs/heads/{branch}"), Some(branch.to_owned())),
            (format!("refs/tags/{name}"), None),
            (
                if name.starts_with("refs/tags/") || is_commit(name) {
                    name.to_owned()
                } else {
                    String::new()
                },
                None,
            ),
        ] {
            if full.is_empty() {
                continue;
            }
            if let Some(commit) = self.commit(mirror, &full).await {
                return Ok(Target { commit, branch });
            }
        }
        if name.starts_with("refs/") || is_commit(name) {
            // Not under heads or tags: asked for by name (pull request heads, commits that servers hand out).
            let spec = if is_commit(name) {
                name.to_owned()
            } else {
                format!("+{name}:{name}")
            };
            let args = [
                "fetch",
                "--quiet",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--",
                &origin.location,
                &spec,
            ];
            self.ask(mirror, origin, &args)
                .await
                .map_err(|error| Failure::Final(self.fetch_error(origin, &error)))?;
            if let Some(commit) = self.commit(mirror, name).await {
                return Ok(Target { commit, branch: None });
            }
        }
        Err(Failure::Final(WorkspaceError::Fetch {
            source_name: format!("git repository {}", origin.named),
            reason: format!("it has no branch, tag or commit `{name}`"),
        }))
    }

    async fn resolve_head(&self, mirror: &Path, origin: &Origin) -> Result<Target, Failure> {
        let args = ["ls-remote", "--symref", "--", &origin.location, "HEAD"];
        let listed = self
            .ask(mirror, origin, &args)
            .await
            .map_err(|error| Failure::Final(self.fetch_error(origin, &error)))?;
        let mut target = Target {
            commit: String::new(),
            branch: None,
        };
        for line in listed.lines() {
            match line.split_once('\t') {
                Some((symbolic, "HEAD")) if symbolic.starts_with("ref: refs/heads/") => {
                    let branch = symbolic.trim_start_matches("ref: refs/heads/");
                    target.branch = check_ref(branch).is_ok().then(|| branch.to_owned());
                }
                Some((commit, "HEAD")) if is_commit(commit) => target.commit = commit.to_owned(),
                _ => {}
            }
        }
        if target.commit.is_empty() {
            return Err(Failure::Final(WorkspaceError::Fetch {
                source_name: format!("git repository {}", origin.named),
                reason: "it has no commits".to_owned(),
            }));
        }
        if self.commit(mirror, &target.commit).await.is_none() {
            // Moved on since the fetch, or HEAD is on no branch.
            let args = [
                "fetch",
                "--quiet",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--",
                &origin.location,
                &target.commit,
            ];
            self.ask(mirror, origin, &args).await?;
        }
        Ok(target)
    }

    async fn commit(&self, mirror: &Path, name: &str) -> Option<String> {
        let object = format!("{name}^{{commit}}");
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &object];
        let printed = self.git.run(mirror, Transports::Paths, &args).await.ok()?;
        Some(printed.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    async fn work_tree(&self, mirror: &Path, origin: &Origin, source: &GitSource, into: &Path) -> Result<(), Failure> {
        let target = self.resolve(mirror, origin, source.r#ref.as_deref()).await?;
        let not_text = || Failure::Final(WorkspaceError::refused("the state directory's path is not valid UTF-8"));
        let from = mirror.to_str().ok_or_else(not_text)?;
        let git = |args: Vec<String>| async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            self.git.run(into, Transports::Paths, &args).await
        };
        let words = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        if let Some(depth) = source.depth.filter(|depth| *depth > 0) {
            git(words(&["init", "--quiet", "--template=", "."])).await?;
            git(words(&["remote", "add", "origin", &origin.named])).await?;
            let depth = format!("--depth={depth}");
            let fetch = [
                "fetch",
                "--quiet",
                &depth,
                "--no-tags",
                "--no-write-fetch-head",
                "--",
                from,
                &target.commit,
            ];
            git(words(&fetch)).await?;
        } else {
            let clone = [
                "clone",
                "--quiet",
                "--no-hardlinks",
                "--no-checkout",
                "--no-recurse-submodules",
                "--template=",
                "--",
                from,
                ".",
            ];
            git(words(&clone)).await?;
            git(words(&["remote", "set-url", "origin", &origin.named])).await?;
        }
        let mut checkout = words(&[
            "checkout",
            "--quiet",
            "--force",
            "--no-track",
            "--no-recurse-submodules",
        ]);
        match &target.branch {
            Some(branch) => checkout.extend(words(&["-B", branch, &target.commit])),
            None => {
                checkout.retain(|arg| arg != "--no-track");
                checkout.extend(words(&["--detach", &target.commit]));
            }
        }
        git(checkout).await?;
        Ok(())
    }
}
