//! Claim files: what each sandbox of this node is for, written before the sandbox exists and synced at every change of state.
//!
//! Envelope: magic, `u32` version, `u32` length, BLAKE3 of the body, then the body as JSON (protobuf messages in it as hexadecimal).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_proto::SandboxId;
use gantry_proto::v1::{Assignee, Assignment, EndCause, HeldState, ProcessExited, StepResult};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::atomic;

const MAGIC: &[u8; 8] = b"GNTCLAIM";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 4 + 32;
/// A plan is bounded by the definition it comes from; hexadecimal doubles it.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Why a claim file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The file or its directory cannot be read or written.
    #[error("claim file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("claim file {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version.
    #[error("claim file {path} has format {found}; this version reads up to {VERSION}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl ClaimError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if atomic::is_disk_full(source))
    }
}

/// Where a claimed sandbox is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Docker's id of the container.
    pub container: String,
    /// What its supervisor must prove to know.
    #[serde(with = "hex_bytes")]
    pub nonce: [u8; 32],
    /// Host directory of its slot.
    pub slot: PathBuf,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the nonce: it opens the supervisor.
        f.debug_struct("Place")
            .field("container", &self.container)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// How far a step attempt has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Nothing ran yet.
    Claimed,
    /// The step may run.
    Running,
    /// The process ended and all of its output is durable upstream; the result is being made.
    Exited(Box<ProcessExited>),
    /// The result is final; the server may not have it yet.
    Finished(Box<StepResult>),
}

/// One assignment that this node holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// What is to be done.
    pub assignment: Assignment,
    /// The sandbox it is done in.
    pub sandbox: SandboxId,
    /// User id of the step.
    pub uid: u32,
    /// Where the sandbox is; known from [`Phase::Running`] on.
    pub place: Option<Place>,
    /// Id of the sandbox's image, which a name may not mean any more; known as its place is.
    pub image: Option<String>,
    /// How far it has come.
    pub phase: Phase,
    /// Output up to here is known to be durable upstream.
    pub output_acked: u64,
    /// Milliseconds that preparation took.
    pub prepare_ms: u64,
    /// When the process started, in milliseconds since the epoch.
    pub started_at_ms: Option<u64>,
}

impl Claim {
    /// Whose it is.
    #[must_use]
    pub fn assignee(&self) -> &Assignee {
        &self.assignment.assignee
    }

    /// Whether it takes a slot: while it runs, and while the server has not said what follows a success that is not the task's last.
    #[must_use]
    pub fn occupies_slot(&self) -> bool {
        match &self.phase {
            Phase::Claimed | Phase::Running | Phase::Exited(_) => true,
            Phase::Finished(result) => {
                let succeeded = result.cause() == EndCause::Exited && result.exit_code == Some(0);
                succeeded && !self.assignment.plan.last
            }
        }
    }

    /// The phase as the server is told.
    #[must_use]
    pub fn held_state(&self) -> HeldState {
        match self.phase {
            Phase::Claimed => HeldState::Claimed,
            Phase::Running | Phase::Exited(_) => HeldState::Running,
            Phase::Finished(_) => HeldState::Finished,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    assignment: String,
    sandbox: SandboxId,
    uid: u32,
    place: Option<Place>,
    #[serde(default)]
    image: Option<String>,
    phase: BodyPhase,
    #[serde(default)]
    output_acked: u64,
    #[serde(default)]
    prepare_ms: u64,
    #[serde(default)]
    started_at_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyPhase {
    Claimed,
    Running,
    Exited(String),
    Finished(String),
}

mod hex_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(bytes)
    }
}

fn encode(claim: &Claim) -> Vec<u8> {
    let message = |bytes: Vec<u8>| hex::encode(bytes);
    let body = Body {
        assignment: message(claim.assignment.encode_to_vec()),
        sandbox: claim.sandbox,
        uid: claim.uid,
        place: claim.place.clone(),
        image: claim.image.clone(),
        phase: match &claim.phase {
            Phase::Claimed => BodyPhase::Claimed,
            Phase::Running => BodyPhase::Running,
            Phase::Exited(exit) => BodyPhase::Exited(message(exit.encode_to_vec())),
            Phase::Finished(result) => BodyPhase::Finished(message(result.encode_to_vec())),
        },
        output_acked: claim.output_acked,
        prepare_ms: claim.prepare_ms,
        started_at_ms: claim.started_at_ms,
    };
    // Strings, numbers and paths: a path that is not UTF-8 is the one thing JSON cannot hold, and slots are ours.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut file = Vec::with_capacity(HEADER_BYTES + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    file.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    file.extend_from_slice(blake3::hash(&body).as_bytes());
    file.extend_from_slice(&body);
    file
}

fn decode(path: &Path, file: &[u8]) -> Result<Claim, ClaimError> {
    let damaged = |reason: &str| ClaimError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let (header, body) = file
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| damaged("it is too short"))?;
    if &header[..8] != MAGIC {
        return Err(damaged("it does not begin as a claim file"));
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if number(8) > VERSION {
        return Err(ClaimError::Newer {
            path: path.to_owned(),
            found: number(8),
        });
    }
    if number(12) as usize != body.len() || body.len() > BODY_BYTES_MAX {
        return Err(damaged("its length is not the one it names"));
    }
    if blake3::hash(body).as_bytes() != &header[16..48] {
        return Err(damaged("its checksum does not fit"));
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    let bytes = |text: &str| hex::decode(text).map_err(|error| damaged(&error.to_string()));
    let wire = |error: prost::DecodeError| damaged(&error.to_string());
    Ok(Claim {
        assignment: Assignment::decode(bytes(&body.assignment)?.as_slice()).map_err(wire)?,
        sandbox: body.sandbox,
        uid: body.uid,
        place: body.place,
        image: body.image,
        phase: match body.phase {
            BodyPhase::Claimed => Phase::Claimed,
            BodyPhase::Running => Phase::Running,
            BodyPhase::Exited(exit) => {
                Phase::Exited(Box::new(ProcessExited::decode(bytes(&exit)?.as_slice()).map_err(wire)?))
            }
            BodyPhase::Finished(result) => {
                Phase::Finished(Box::new(StepResult::decode(bytes(&result)?.as_slice()).map_err(wire)?))
            }
        },
        output_acked: body.output_acked,
        prepare_ms: body.prepare_ms,
        started_at_ms: body.started_at_ms,
    })
}

/// The directory of claim files.
#[derive(Debug, Clone)]
pub struct ClaimStore {
    dir: PathBuf,
}

impl ClaimStore {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// [`ClaimError::Io`]
    pub fn open(dir: PathBuf) -> Result<Self, ClaimError> {
        fs::create_dir_all(dir.join("damaged")).map_err(|source| ClaimError::Io {
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir })
    }

    /// The file of an assignment.
    #[must_use]
    pub fn path(&self, assignee: &Assignee) -> PathBuf {
        let Assignee {
            task,
            fence,
            step,
            attempt,
            ..
        } = assignee;
        self.dir.join(format!("{task}-{step}-{attempt}-{fence}.claim"))
    }

    /// Writes a claim; returns when it is durable. Blocks.
    ///
    /// # Errors
    /// [`ClaimError::Io`]; the old content is still there then.
    pub fn save(&self, claim: &Claim) -> Result<(), ClaimError> {
        let path = self.path(claim.assignee());
        atomic::write(&path, &encode(claim), 0o600).map_err(|source| ClaimError::Io { path, source })
    }

    /// Forgets a claim; one that is not there is fine. Blocks.
    ///
    /// # Errors
    /// [`ClaimError::Io`]
    pub fn remove(&self, assignee: &Assignee) -> Result<(), ClaimError> {
        let path = self.path(assignee);
        atomic::remove(&path).map_err(|source| ClaimError::Io { path, source })
    }

    /// Reads all claims. A damaged file is moved to `damaged/` and returned as its error: its sandbox counts as unclaimed. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file is of a newer version: then nothing may be destroyed on its behalf.
    pub fn load(&self) -> Result<(Vec<Claim>, Vec<ClaimError>), ClaimError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ClaimError::Io { path, source }
        };
        let (mut claims, mut damaged) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let path = entry.map_err(at(&self.dir))?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("claim") => {}
                // Never renamed into place: it was not acknowledged to anybody.
                Some("new") => {
                    fs::remove_file(&path).map_err(at(&path))?;
                    continue;
                }
                _ => continue,
            }
            match decode(&path, &fs::read(&path).map_err(at(&path))?) {
                Ok(claim) => claims.push(claim),
                Err(error @ ClaimError::Damaged { .. }) => {
                    let aside = self.dir.join("damaged").join(path.file_name().unwrap_or_default());
                    fs::rename(&path, &aside).map_err(at(&path))?;
                    atomic::sync_dir(&self.dir).map_err(at(&self.dir))?;
                    damaged.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((claims, damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(phase: Phase) -> Claim {
        let assignment = Assignment {
            lease_ms: 5,
            ..Assignment::default()
        };
        Claim {
            assignment,
            sandbox: SandboxId::from_bytes([3; 16]),
            uid: 200_001,
            place: Some(Place {
                container: "c".into(),
                nonce: [9; 32],
                slot: "/run/slot".into(),
            }),
            image: Some("sha256:1".into()),
            phase,
            output_acked: 7,
            prepare_ms: 1,
            started_at_ms: Some(2),
        }
    }

    #[test]
    fn every_phase_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = ClaimStore::open(dir.path().join("claims")).unwrap();
        for phase in [
            Phase::Claimed,
            Phase::Running,
            Phase::Exited(Box::new(ProcessExited {
                exit_code: Some(3),
                ..ProcessExited::default()
            })),
            Phase::Finished(Box::new(StepResult {
                exit_code: Some(0),
                ..StepResult::default()
            })),
        ] {
            let claim = claim(phase);
            store.save(&claim).unwrap();
            let (loaded, damaged) = store.load().unwrap();
            assert_eq!(loaded, [claim]);
            assert!(damaged.is_empty());
        }
        store.remove(claim(Phase::Claimed).assignee()).unwrap();
        store.remove(claim(Phase::Claimed).assignee()).unwrap();
        assert!(store.load().unwrap().0.is_empty());
    }

    #[test]
    fn any_damage_is_found_named_and_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = ClaimStore::open(dir.path().join("claims")).unwrap();
        let claim = claim(Phase::Running);
        let path = store.path(claim.assignee());
        let whole = encode(&claim);
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x04;
            fs::write(&path, &bytes).unwrap();
            match store.load() {
                Ok((claims, damaged)) => {
                    assert!(claims.is_empty(), "byte {at}");
                    assert!(matches!(&damaged[..], [ClaimError::Damaged { path: named, .. }] if *named == path));
                    assert!(!path.exists());
                }
                Err(ClaimError::Newer { .. }) => assert!((8..12).contains(&at)),
                Err(error) => panic!("{error}"),
            }
        }
        for length in [0, 10, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(store.load().unwrap().1.len(), 1);
        }
        fs::write(path.with_extension("claim.new"), b"torn").unwrap();
        assert!(store.load().unwrap().0.is_empty());
    }
}
