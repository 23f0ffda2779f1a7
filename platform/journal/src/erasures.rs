//! The list of what was erased, outside of journal and backups: whoever restores an older backup applies it, so that nothing erased comes back.
//!
//! JSON lines, only ever appended to: `{"tenant": "ten_...", "workflow": "wf_...", "at_ms": ...}`. A line without `workflow` is about everything that the
//! tenant had at that time (without `at_ms` too: ever). Fields that this version does not know are ignored. A line is durable before the erasure is reported
//! as done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gantry_proto::{TenantId, UploadId, WorkflowId};
use parking_lot::Mutex;

use crate::durable_fs;

/// Content that must not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Erasure {
    /// When it was erased.
    pub at_ms: u64,
    /// Whose.
    pub tenant: TenantId,
    /// Of which workflow; `None`: everything that the tenant had then.
    pub workflow: Option<WorkflowId>,
}

/// A line of the list.
#[derive(serde::Serialize, serde::Deserialize)]
struct Line {
    tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_ms: Option<u64>,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The file system refused.
    #[error("the list of erasures {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What it said.
        source: io::Error,
    },
    /// It is not such a list, of a newer version, or damaged.
    #[error(
        "the list of erasures {path} cannot be read: {detail}. Restore the file from a copy: without it, erased content could come back from a backup"
    )]
    Damaged {
        /// The file.
        path: String,
        /// How that shows.
        detail: String,
    },
}

impl ErasureError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}

/// What was erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erasures {
    workflows: BTreeSet<(TenantId, WorkflowId)>,
    /// The last time of each; what is younger belongs to the tenant's new life.
    tenants: BTreeMap<TenantId, u64>,
}

impl Erasures {
    /// Reads a list for a restore. A line that cannot be read is no line to skip: it may be the one that matters. Blocks.
    ///
    /// # Errors
    /// [`ErasureError`]; also when there is no such file.
    pub fn read(path: &Path) -> Result<Self, ErasureError> {
        let text = std::fs::read_to_string(path).map_err(ErasureError::io(path))?;
        let (list, end) = load(path, &text)?;
        if end < text.len() {
            let number = text.lines().count();
            return Err(ErasureError::Damaged {
                path: path.display().to_string(),
                detail: format!("line {number} is cut off"),
            });
        }
        Ok(list)
    }

    /// Whether what was sealed under the key of a workflow, or of an upload with the same bytes as id, is erased.
    #[must_use]
    pub fn covers(&self, tenant: TenantId, workflow: WorkflowId) -> bool {
        let of_tenant = self.tenants.get(&tenant);
        of_tenant.is_some_and(|at_ms| workflow.time_ms() <= *at_ms) || self.workflows.contains(&(tenant, workflow))
    }

    /// The same for a path `<tenant>/<workflow or upload>/...`.
    #[must_use]
    pub fn covers_path(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        let Some(tenant) = parts.next().and_then(|part| part.parse().ok()) else {
            return false;
        };
        let owner = parts.next().and_then(|part| {
            let upload = || {
                part.parse::<UploadId>()
                    .map(|id| WorkflowId::from_bytes(*id.as_bytes()))
            };
            part.parse::<WorkflowId>().or_else(|_| upload()).ok()
        });
        owner.is_some_and(|owner| self.covers(tenant, owner))
    }

    /// How many lines count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.len() + self.workflows.len()
    }

    /// Whether nothing was ever erased.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&mut self, erasure: Erasure) {
        let Erasure {
            at_ms,
            tenant,
            workflow,
        } = erasure;
        if let Some(workflow) = workflow {
            self.workflows.insert((tenant, workflow));
        } else {
            let last = self.tenants.entry(tenant).or_default();
            *last = at_ms.max(*last);
        }
    }

    fn has(&self, erasure: &Erasure) -> bool {
        match erasure.workflow {
            Some(workflow) => self.workflows.contains(&(erasure.tenant, workflow)),
            None => self
                .tenants
                .get(&erasure.tenant)
                .is_some_and(|at_ms| erasure.at_ms <= *at_ms),
        }
    }
}

/// The list, open for appending. One process has it open at a time: it lies in a locked data directory.
#[derive(Debug)]
pub struct ErasureList {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    end: u64,
    known: Erasures,
}

impl ErasureList {
    /// Opens the list, or makes it. What a crash left of a last line is cut off: it was never reported. Blocks.
    ///
    /// # Errors
    /// [`ErasureError`].
    pub fn open(path: &Path) -> Result<Self, ErasureError> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(ErasureError::io(path))?,
        };
        let (known, end) = load(path, &text)?;
        let begin = || -> io::Result<(File, u64)> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(path)?;
            let whole = &text[..end];
            let mut end = whole.len() as u64;
            file.set_len(end)?;
            if !whole.is_empty() && !whole.ends_with('\n') {
                // Somebody's editor left it out; the line itself is whole.
                file.seek(SeekFrom::Start(end))?;
                file.write_all(b"\n")?;
                end += 1;
            }
            file.sync_all()?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                durable_fs::sync_dir(parent)?;
            }
            Ok((file, end))
        };
        let (file, end) = begin().map_err(ErasureError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            inner: Mutex::new(Inner { file, end, known }),
        })
    }

    /// Adds what is not in the list yet, and returns when all of it is durable. Blocks.
    ///
    /// # Errors
    /// When the file system refuses; repeating is right.
    pub fn append(&self, erasures: &[Erasure]) -> Result<(), ErasureError> {
        let mut inner = self.inner.lock();
        let new: Vec<Erasure> = erasures.iter().filter(|each| !inner.known.has(each)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let text: Result<String, serde_json::Error> = new.iter().map(line).collect();
        let text = text.map_err(|error| ErasureError::io(&self.path)(error.into()))?;
        let Inner { file, end, .. } = &mut *inner;
        // From the last durable end on: what a failed append left is overwritten.
        let write = |file: &mut File, end: u64| -> io::Result<()> {
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write(file, *end).map_err(ErasureError::io(&self.path))?;
        *end += text.len() as u64;
        for erasure in new {
            inner.known.add(erasure);
        }
        Ok(())
    }

    /// Whether a workflow is in it by name.
    #[must_use]
    pub fn contains(&self, tenant: TenantId, workflow: WorkflowId) -> bool {
        self.inner.lock().known.workflows.contains(&(tenant, workflow))
    }

    /// Every workflow in it.
    #[must_use]
    pub fn workflows(&self) -> Vec<(TenantId, WorkflowId)> {
        self.inner.lock().known.workflows.iter().copied().collect()
    }

    /// Every tenant that was erased, and when last.
    #[must_use]
    pub fn tenants(&self) -> Vec<(TenantId, u64)> {
        let inner = self.inner.lock();
        inner
            .known
            .tenants
            .iter()
            .map(|(tenant, at_ms)| (*tenant, *at_ms))
            .collect()
    }
}

fn line(erasure: &Erasure) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(&Line {
        tenant: erasure.tenant.to_string(),
        workflow: erasure.workflow.map(|workflow| workflow.to_string()),
        at_ms: Some(erasure.at_ms),
    })?;
    text.push('\n');
    Ok(text)
}

fn parse(text: &str) -> Result<Erasure, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let workflow = line
        .workflow
        .map(|text| text.parse().map_err(|error| format!("{error}")));
    Ok(Erasure {
        at_ms: line.at_ms.unwrap_or(u64::MAX),
        tenant: line.tenant.parse().map_err(|error| format!("{error}"))?,
        workflow: workflow.transpose()?,
    })
}

/// The list, and where its last whole line ends. A last line is whole without a line break, too: torn ones do not parse.
fn load(path: &Path, text: &str) -> Result<(Erasures, usize), ErasureError> {
    let mut list = Erasures::default();
    let mut end = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if !line.trim().is_empty() {
            match parse(line) {
                Ok(erasure) => list.add(erasure),
                Err(_) if !line.ends_with('\n') => break,
                Err(detail) => {
                    return Err(ErasureError::Damaged {
                        path: path.display().to_string(),
                        detail: format!("line {number}: {detail}"),
                    });
                }
            }
        }
        end += line.len();
    }
    Ok((list, end))
}

#[cfg(test)]
mod tests {
    use gantry_proto::PartitionId;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::new(1, PartitionId::new(3).unwrap(), 7)
    }

    fn workflow(n: u64) -> WorkflowId {
        WorkflowId::new(n, PartitionId::new(3).unwrap(), n)
    }

    fn erasure(n: u64) -> Erasure {
        Erasure {
            at_ms: 1_000 + n,
            tenant: tenant(),
            workflow: Some(workflow(n)),
        }
    }

    #[test]
    fn what_was_added_is_there_once_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasures");
        assert!(
            Erasures::read(&path).is_err(),
            "a restore is given a list that is there"
        );
        let list = ErasureList::open(&path).unwrap();
        list.append(&[erasure(1), erasure(2)]).unwrap();
        list.append(&[erasure(2), erasure(3)]).unwrap();
        drop(list);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        let read = Erasures::read(&path).unwrap();
        assert_eq!(read.len(), 3);
        assert!(read.covers(tenant(), workflow(3)) && !read.covers(tenant(), workflow(4)));
        let again = ErasureList::open(&path).unwrap();
        assert!(again.contains(tenant(), workflow(1)));
        assert_eq!(again.workflows().len(), 3);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasures");
        ErasureList::open(&path)
            .unwrap()
            .append(&[erasure(1), erasure(2)])
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let torn = ![0, first, first + 1, whole.len() - 1].contains(&cut);
            assert_eq!(Erasures::read(&path).is_err(), torn, "cut at {cut}");
            let list = ErasureList::open(&path).unwrap();
            list.append(&[erasure(9)]).unwrap();
            let read = Erasures::read(&path).unwrap();
            assert!(read.covers(tenant(), workflow(9)), "cut at {cut}");
            assert_eq!(read.covers(tenant(), workflow(1)), cut >= first, "cut at {cut}");
            assert_eq!(
                read.covers(tenant(), workflow(2)),
                cut == whole.len() - 1,
                "cut at {cut}"
            );
        }
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(ErasureList::open(&path).unwrap_err().to_string().contains("line 1"));
        assert!(Erasures::read(&path).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn a_tenant_is_covered_up_to_the_time_of_its_erasure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasures");
        let of_tenant = Erasure {
            at_ms: 50,
            tenant: tenant(),
            workflow: None,
        };
        let list = ErasureList::open(&path).unwrap();
        list.append(&[of_tenant, of_tenant]).unwrap();
        assert_eq!(list.tenants(), [(tenant(), 50)]);
        let read = Erasures::read(&path).unwrap();
        assert_eq!(read.len(), 1);
        assert!(read.covers(tenant(), workflow(50)) && !read.covers(tenant(), workflow(51)));
        let upload = UploadId::new(9, PartitionId::default(), 9);
        let (old, new) = (workflow(9), workflow(51));
        let tenant = tenant();
        assert!(read.covers_path(&format!("{tenant}/{old}/00000001.seg")));
        assert!(read.covers_path(&format!("{tenant}/{upload}/f")));
        assert!(!read.covers_path(&format!("{tenant}/{new}/f")) && !read.covers_path("rubbish"));
        let other = TenantId::from_bytes([9; 16]);
        assert!(!read.covers(other, old) && !read.covers_path(&format!("{other}/{old}/f")));

        // Written by hand, without a time and without a line break at the end.
        std::fs::write(&path, format!("\n{{\"tenant\": \"{tenant}\", \"reason\": \"later\"}}")).unwrap();
        let read = Erasures::read(&path).unwrap();
        assert!(read.covers(tenant, new));
        assert!(std::fs::write(&path, "{\"tenant\": \"nobody\"}\n").is_ok());
        assert!(Erasures::read(&path).is_err());
    }
}
