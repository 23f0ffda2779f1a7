//! Artifacts of a step: found in its tree after its container is dead, beneath the root, without following a link, and streamed to the server.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_proto::limits::{
    ARTIFACT_BYTES_MAX, ARTIFACTS_BYTES_MAX, ARTIFACTS_PER_STEP_MAX, CAPTURE_ENTRIES_MAX, TREE_DEPTH_MAX,
};
use gantry_proto::v1::{Artifact, ArtifactHeader, Assignee, Fault};
use gantry_proto::{ErrorCode, NodeId, limits};
use globset::{GlobBuilder, GlobMatcher};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tokio_util::io::ReaderStream;
use unicode_normalization::UnicodeNormalization as _;

use crate::retry::Patience;
use crate::tree::{self, BENEATH};
use crate::uplink::{ByteStream, Uplink, UplinkError};

/// Uploads at once of one step.
const UPLOADS_MAX: usize = 4;
/// Longest path of an artifact.
const NAME_BYTES_MAX: usize = 1024;

/// Why artifacts were not captured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The step's fault: the path and what is wrong with it.
    #[error("{path}: {reason}")]
    Refused { path: String, reason: String },
    /// A pattern that no path can match, or that leads out.
    #[error("the artifact pattern `{pattern}` is refused: {reason}")]
    Pattern { pattern: String, reason: String },
    /// A needed artifact is missing.
    #[error("no file matches the needed artifact `{pattern}`")]
    Missing { pattern: String },
    /// Past a limit of all artifacts together.
    #[error("{reason}")]
    TooMuch { reason: String },
    /// The tree cannot be read.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The server will not take it, or could not for too long.
    #[error("the artifact {name} was not stored: {source}")]
    Upload {
        name: String,
        #[source]
        source: UplinkError,
    },
    /// The server stores something else than it is sent.
    #[error("the server did not store the artifact {name} as it was sent")]
    Garbled { name: String },
}

impl CaptureError {
    /// Whether it is the step that broke its contract, rather than infrastructure that failed.
    pub(crate) fn is_contract(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Pattern { .. } | Self::Missing { .. } | Self::TooMuch { .. } => true,
            Self::Io { .. } | Self::Garbled { .. } => false,
            Self::Upload { source, .. } => {
                matches!(
                    source.code(),
                    Some(ErrorCode::TooLarge | ErrorCode::ArtifactRefused | ErrorCode::InvalidRequest)
                )
            }
        }
    }

    /// Whether the lease is gone.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Upload { source, .. } if source.code() == Some(ErrorCode::StaleFence))
    }

    pub(crate) fn fault(&self) -> Fault {
        let code = if self.is_contract() {
            ErrorCode::ArtifactRefused
        } else {
            ErrorCode::Internal
        };
        Fault::new(code, self.to_string())
    }
}

/// One pattern: how it matches, and which directories can hold a match.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    matcher: GlobMatcher,
    /// Leading parts without wildcards.
    literal: Vec<String>,
    parts: usize,
    any_depth: bool,
}

/// Patterns of a plan, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns {
    wanted: Vec<Pattern>,
    needed: Vec<Pattern>,
}

impl Patterns {
    /// Compiles patterns; `needed` ones must match, and are captured, too.
    pub(crate) fn new(wanted: &[String], needed: &[String]) -> Result<Self, CaptureError> {
        let all = |texts: &[String]| {
            texts
                .iter()
                .map(|text| Pattern::new(text))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            wanted: all(wanted)?,
            needed: all(needed)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.needed.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Pattern> {
        self.wanted.iter().chain(&self.needed)
    }

    fn matches(&self, path: &Path) -> bool {
        self.all().any(|pattern| pattern.matcher.is_match(path))
    }

    fn matches_below(&self, dir: &Path) -> bool {
        self.all().any(|pattern| pattern.may_match_below(dir))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, CaptureError> {
        let refused = |reason: &str| CaptureError::Pattern {
            pattern: text.to_owned(),
            reason: reason.to_owned(),
        };
        let trimmed = text.strip_prefix("./").unwrap_or(text);
        if trimmed.is_empty() || trimmed.len() > NAME_BYTES_MAX {
            return Err(refused("it is empty or too long"));
        }
        if trimmed.starts_with('/') || trimmed.split('/').any(|part| part == "..") {
            return Err(refused("it leads out of the workspace"));
        }
        let glob = GlobBuilder::new(trimmed)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        let matcher = glob.map_err(|error| refused(&error.to_string()))?.compile_matcher();
        let wild = |part: &&str| !part.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let parts: Vec<&str> = trimmed.split('/').collect();
        let literal: Vec<String> = parts
            .iter()
            .take_while(|part| wild(part))
            .map(|part| (*part).to_owned())
            .collect();
        // A slash within braces makes parts that the split does not see.
        let any_depth = trimmed.contains("**") || trimmed.contains('{');
        Ok(Self {
            text: text.to_owned(),
            matcher,
            literal,
            parts: parts.len(),
            any_depth,
        })
    }

    fn may_match_below(&self, dir: &Path) -> bool {
        let parts: Vec<_> = dir.iter().collect();
        let fits = parts
            .iter()
            .zip(&self.literal)
            .all(|(part, literal)| *part == literal.as_str());
        fits && (self.any_depth || parts.len() < self.parts)
    }

    /// Whether `dir` is named by the pattern itself, without wildcards.
    fn passes_through(&self, dir: &Path) -> bool {
        let parts: Vec<_> = dir.iter().collect();
        parts.len() < self.parts
            && parts.len() <= self.literal.len()
            && parts
                .iter()
                .zip(&self.literal)
                .all(|(part, literal)| *part == literal.as_str())
    }
}

/// A file that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
}

/// Finds what the patterns match in the tree at `root`. Nothing may run in it. Blocks.
pub(crate) fn find(root: &Path, patterns: &Patterns) -> Result<Vec<Found>, CaptureError> {
    let mut walk = Walk {
        patterns,
        found: BTreeMap::new(),
        linked: Vec::new(),
        entries: 0,
        bytes: 0,
    };
    let top = tree::open_root(root).map_err(|source| CaptureError::Io {
        path: root.to_owned(),
        source,
    })?;
    walk.run(top.try_clone().map_err(|source| CaptureError::Io {
        path: root.to_owned(),
        source,
    })?)?;
    if !walk.linked.is_empty() {
        check_links(&top, &walk.linked)?;
    }
    for pattern in &patterns.needed {
        if !walk.found.values().any(|found| pattern.matcher.is_match(&found.name)) {
            return Err(CaptureError::Missing {
                pattern: pattern.text.clone(),
            });
        }
    }
    Ok(walk.found.into_values().collect())
}

struct Linked {
    name: String,
    inode: (u64, u64),
    links: u64,
}

struct Walk<'a> {
    patterns: &'a Patterns,
    /// By normalised name, so that two names which look the same are noticed.
    found: BTreeMap<String, Found>,
    linked: Vec<Linked>,
    entries: usize,
    bytes: u64,
}

fn walk_dirs(
    top: OwnedFd,
    mut visit: impl FnMut(&OwnedFd, &CString, &Path, &rustix::fs::Stat) -> Result<bool, CaptureError>,
) -> Result<(), CaptureError> {
    let failed = |path: &Path, source: io::Error| CaptureError::Io {
        path: path.to_owned(),
        source,
    };
    let first = tree::names(&top).map_err(|error| failed(Path::new("."), error))?;
    let mut stack: Vec<(OwnedFd, Vec<CString>, PathBuf)> = vec![(top, first, PathBuf::new())];
    while let Some((dir, left, relative)) = stack.last_mut() {
        let Some(name) = left.pop() else {
            stack.pop();
            continue;
        };
        let path = tree::join(relative, &name);
        let stat = rustix::fs::statat(&*dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed(&path, error.into()))?;
        if visit(dir, &name, &path, &stat)? {
            let child = rustix::fs::openat2(&*dir, name.as_c_str(), tree::DIR_FLAGS, Mode::empty(), BENEATH)
                .map_err(|error| failed(&path, error.into()))?;
            let inside = tree::names(&child).map_err(|error| failed(&path, error))?;
            if stack.len() >= TREE_DEPTH_MAX {
                let reason = format!("deeper than {TREE_DEPTH_MAX} directories");
                return Err(CaptureError::Refused {
                    path: path.display().to_string(),
                    reason,
                });
            }
            stack.push((child, inside, path));
        }
    }
    Ok(())
}

impl Walk<'_> {
    fn run(&mut self, top: OwnedFd) -> Result<(), CaptureError> {
        walk_dirs(top, |_, _, path, stat| {
            self.entries += 1;
            if self.entries > CAPTURE_ENTRIES_MAX {
                let reason = format!("the workspace has more than {CAPTURE_ENTRIES_MAX} entries to search");
                return Err(CaptureError::TooMuch { reason });
            }
            self.entry(path, stat)
        })
    }

    /// `true`: a directory to go into.
    fn entry(&mut self, path: &Path, stat: &rustix::fs::Stat) -> Result<bool, CaptureError> {
        let refused = |reason: &str| {
            Err(CaptureError::Refused {
                path: path.to_string_lossy().escape_debug().to_string(),
                reason: reason.to_owned(),
            })
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => return Ok(self.patterns.matches_below(path)),
            FileType::RegularFile => {}
            FileType::Symlink if self.patterns.all().any(|pattern| pattern.passes_through(path)) => {
                return refused("a symbolic link is not followed");
            }
            _ => {}
        }
        if !self.patterns.matches(path) {
            return Ok(false);
        }
        match kind {
            FileType::RegularFile => {}
            FileType::Symlink => return refused("it is a symbolic link; only regular files become artifacts"),
            FileType::Fifo => return refused("it is a named pipe; only regular files become artifacts"),
            FileType::Socket => return refused("it is a socket; only regular files become artifacts"),
            _ => return refused("it is a device; only regular files become artifacts"),
        }
        let Some(name) = path.to_str() else {
            return refused("its name is not valid UTF-8");
        };
        if name.len() > NAME_BYTES_MAX {
            return refused("its name is too long");
        }
        if name.chars().any(char::is_control) {
            return refused("its name holds control characters");
        }
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if size_bytes > ARTIFACT_BYTES_MAX {
            return refused(&format!("it has {size_bytes} bytes; the limit is {ARTIFACT_BYTES_MAX}"));
        }
        self.bytes = self.bytes.saturating_add(size_bytes);
        if self.bytes > ARTIFACTS_BYTES_MAX {
            let reason = format!("the artifacts of one step are limited to {ARTIFACTS_BYTES_MAX} bytes in all");
            return Err(CaptureError::TooMuch { reason });
        }
        #[allow(clippy::unnecessary_cast)] // its width differs between architectures
        let links = stat.st_nlink as u64;
        if links > 1 {
            self.linked.push(Linked {
                name: name.to_owned(),
                inode: (stat.st_dev, stat.st_ino),
                links,
            });
        }
        let normal: String = name.nfc().collect();
        if self
            .found
            .insert(
                normal,
                Found {
                    name: name.to_owned(),
                    size_bytes,
                },
            )
            .is_some()
        {
            return refused("two files have names that differ only in their Unicode form");
        }
        if self.found.len() > ARTIFACTS_PER_STEP_MAX {
            let reason = format!("the patterns match more than {ARTIFACTS_PER_STEP_MAX} files");
            return Err(CaptureError::TooMuch { reason });
        }
        Ok(false)
    }
}

/// A file with several names is fine when all of them are in the tree.
fn check_links(top: &OwnedFd, linked: &[Linked]) -> Result<(), CaptureError> {
    let mut inside: HashMap<(u64, u64), u64> = linked.iter().map(|link| (link.inode, 0)).collect();
    let root = top.try_clone().map_err(|source| CaptureError::Io {
        path: PathBuf::from("."),
        source,
    })?;
    let mut entries = 0usize;
    walk_dirs(root, |_, _, _, stat| {
        entries += 1;
        if entries > CAPTURE_ENTRIES_MAX {
            let reason = format!("the workspace has more than {CAPTURE_ENTRIES_MAX} entries to search");
            return Err(CaptureError::TooMuch { reason });
        }
        if let Some(count) = inside.get_mut(&(stat.st_dev, stat.st_ino)) {
            *count += 1;
        }
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    })?;
    match linked
        .iter()
        .find(|link| inside.get(&link.inode).is_none_or(|count| *count < link.links))
    {
        None => Ok(()),
        Some(link) => Err(CaptureError::Refused {
            path: link.name.clone(),
            reason: "it is a hard link to a file outside of the workspace".to_owned(),
        }),
    }
}

/// Opens a file that was found, as safely as it was found.
fn open(root: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat2(root.as_fd(), name, flags, Mode::empty(), BENEATH)?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file any more"))
    }
}

/// Streams what was found to the server, a few files at a time. While the server is away or cannot store, it is waited for.
pub(crate) async fn store(
    root: &Path,
    found: Vec<Found>,
    assignee: &Assignee,
    node: NodeId,
    uplink: &dyn Uplink,
) -> Result<Vec<Artifact>, CaptureError> {
    let top = tree::open_root(root).map_err(|source| CaptureError::Io {
        path: root.to_owned(),
        source,
    })?;
    let top = Arc::new(top);
    stream::iter(found)
        .map(|file| {
            let top = top.clone();
            async move { store_one(&top, &file, assignee, node, uplink).await }
        })
        .buffered(UPLOADS_MAX)
        .try_collect()
        .await
}

async fn store_one(
    root: &OwnedFd,
    found: &Found,
    assignee: &Assignee,
    node: NodeId,
    uplink: &dyn Uplink,
) -> Result<Artifact, CaptureError> {
    let name = || found.name.clone();
    let unreadable = |source: io::Error| CaptureError::Io {
        path: PathBuf::from(&found.name),
        source,
    };
    let mut patience = Patience::new();
    loop {
        let file = open(root, &found.name).map_err(unreadable)?;
        let header = ArtifactHeader {
            assignee: assignee.clone(),
            node,
            name: name(),
            content_type: Some(content_type(&found.name).to_owned()),
        };
        let sent = Arc::new(Mutex::new(Sent::default()));
        let stored = uplink
            .put_artifact(header, watched(file, found.size_bytes, sent.clone()))
            .await;
        let sent = std::mem::take(&mut *sent.lock());
        match stored {
            Ok(artifact) => {
                if sent.size_bytes == artifact.size_bytes && sent.hash.finalize().as_slice() == artifact.sha256.as_ref()
                {
                    return Ok(artifact);
                }
                if !patience.wrong() {
                    return Err(CaptureError::Garbled { name: name() });
                }
                tracing::warn!(
                    name = found.name,
                    "the server stored something else than was sent; sending it again"
                );
            }
            // However the upload ended, it is the file here that cannot be read.
            Err(_) if let Some(source) = sent.failed => return Err(unreadable(source)),
            Err(source @ UplinkError::Unreachable(_)) => {
                tracing::debug!(error = %source, name = found.name, "artifact waits")
            }
            Err(source) => {
                // The process has done its work: what the server cannot do now is no reason to run it again.
                if !source.is_passing() || !patience.refused() {
                    return Err(CaptureError::Upload { name: name(), source });
                }
                tracing::info!(error = %source, name = found.name, "artifact waits");
            }
        }
        patience.pause().await;
    }
}

/// What went into an upload.
#[derive(Debug, Default)]
struct Sent {
    hash: Sha256,
    size_bytes: u64,
    /// Why reading ended early.
    failed: Option<io::Error>,
}

fn watched(file: File, size: u64, sent: Arc<Mutex<Sent>>) -> ByteStream {
    use tokio::io::AsyncReadExt as _;
    let reader = tokio::fs::File::from_std(file).take(size);
    let chunks = ReaderStream::with_capacity(reader, limits::OUTPUT_CHUNK_BYTES_MAX);
    Box::pin(chunks.map(move |chunk| {
        let mut sent = sent.lock();
        match &chunk {
            Ok(chunk) => {
                sent.hash.update(chunk);
                sent.size_bytes += chunk.len() as u64;
            }
            Err(error) => sent.failed = Some(io::Error::new(error.kind(), error.to_string())),
        }
        chunk
    }))
}

/// What browsers and tools are told; never anything that a browser would run.
fn content_type(name: &str) -> &'static str {
    let extension = Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "json" | "sarif" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "md" | "markdown" => "text/markdown; charset=utf-8",
        "txt" | "log" | "patch" | "diff" | "toml" | "html" | "htm" | "js" | "css" | "svg" => {
            "text/plain; charset=utf-8"
        }
        "csv" => "text/csv; charset=utf-8",
        "yaml" | "yml" => "application/yaml",
        "xml" => "application/xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "tar" => "application/x-tar",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn patterns(wanted: &[&str]) -> Patterns {
        let texts: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
        Patterns::new(&texts, &[]).unwrap()
    }

    fn names(root: &Path, wanted: &[&str]) -> Vec<String> {
        find(root, &patterns(wanted))
            .unwrap()
            .into_iter()
            .map(|found| found.name)
            .collect()
    }

    fn refused(root: &Path, wanted: &str) -> String {
        match find(root, &patterns(&[wanted])) {
            Err(error) if error.is_contract() => error.to_string(),
            other => panic!("{wanted}: {other:?}"),
        }
    }

    #[test]
    fn patterns_find_files_at_their_depth_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("out/deep")).unwrap();
        for name in [
            "a.json",
            "out/b.json",
            "out/deep/c.json",
            "out/d.txt",
            "out/deep/e.json",
        ] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        assert_eq!(names(dir.path(), &["*.json"]), ["a.json"]);
        assert_eq!(
            names(dir.path(), &["./out/*.json", "out/d.txt"]),
            ["out/b.json", "out/d.txt"]
        );
        assert_eq!(names(dir.path(), &["**/*.json"]).len(), 4);
        assert_eq!(
            names(dir.path(), &["out/{deep/c,d}.*"]),
            ["out/d.txt", "out/deep/c.json"]
        );
        assert!(names(dir.path(), &["missing"]).is_empty());
        let needed = Patterns::new(&[], &["missing/*".to_owned()]).unwrap();
        assert!(matches!(find(dir.path(), &needed), Err(CaptureError::Missing { .. })));
    }

    #[test]
    fn patterns_that_lead_out_are_refused() {
        for text in ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "[", ".."] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn links_pipes_and_strange_names_are_refused_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink("sub", root.join("inner")).unwrap();
        fs::write(root.join("sub/file"), "x").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RWXU).unwrap();
        fs::write(root.join("new\nline"), "x").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_encoded(b"bad\xff")), "x").unwrap();
        assert!(refused(&root, "passwd").contains("symbolic link"));
        assert!(refused(&root, "etc/passwd").contains("etc"));
        assert!(refused(&root, "inner/file").contains("not followed"));
        assert!(refused(&root, "pi*").contains("pipe"));
        assert!(refused(&root, "new*").contains("control"));
        assert!(refused(&root, "bad*").contains("UTF-8"));
        assert_eq!(names(&root, &["sub/**"]), ["sub/file"]);
        assert!(open(&tree::open_root(&root).unwrap(), "etc/passwd").is_err());
        assert!(open(&tree::open_root(&root).unwrap(), "../outside").is_err());
    }

    trait FromEncoded {
        fn from_encoded(bytes: &[u8]) -> &std::ffi::OsStr;
    }
    impl FromEncoded for std::ffi::OsStr {
        fn from_encoded(bytes: &[u8]) -> &std::ffi::OsStr {
            std::os::unix::ffi::OsStrExt::from_bytes(bytes)
        }
    }

    #[test]
    fn hard_links_within_are_fine_and_to_the_outside_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), "x").unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        assert_eq!(names(&root, &["a"]), ["a"]);
        fs::write(dir.path().join("outside"), "secret").unwrap();
        fs::hard_link(dir.path().join("outside"), root.join("c")).unwrap();
        assert!(refused(&root, "c").contains("outside"));
    }

    #[test]
    fn names_of_equal_look_and_too_many_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("caf\u{e9}.txt"), "1").unwrap();
        fs::write(dir.path().join("cafe\u{301}.txt"), "2").unwrap();
        assert!(refused(dir.path(), "*.txt").contains("Unicode"));
        for index in 0..=ARTIFACTS_PER_STEP_MAX {
            fs::write(dir.path().join(format!("{index}.log")), "").unwrap();
        }
        assert!(refused(dir.path(), "*.log").contains("more than"));
        fs::File::create(dir.path().join("huge"))
            .unwrap()
            .set_len(ARTIFACT_BYTES_MAX + 1)
            .unwrap();
        assert!(refused(dir.path(), "huge").contains("limit"));
    }
}
