//! The bounded files through which a step reports (`$GANTRY_OUTPUT` and its like).

use std::path::Path;

use bytes::Bytes;
use gantry_proto::v1::{ReportFile, ReportKind, WatchedFile};

use crate::files::{self, Content, Stamp};
use crate::identity::Identity;
use crate::start_error::StartError;

/// The report files of one run.
#[derive(Debug)]
pub(crate) struct Reports {
    run: u64,
    files: Vec<WatchedFile>,
    identity: Identity,
    progress_stamp: Option<Stamp>,
}

impl Reports {
    /// Creates the files empty and owned by the step, before it starts.
    pub(crate) fn create(run: u64, watched: &[WatchedFile], identity: &Identity) -> Result<Self, StartError> {
        let mut reports = Self {
            run,
            files: watched.to_vec(),
            identity: identity.clone(),
            progress_stamp: None,
        };
        identity
            .with_file_rights(|| {
                for file in watched {
                    files::create(Path::new(&file.path), b"", 0o600).map_err(|source| StartError::File {
                        path: file.path.clone(),
                        source,
                    })?;
                }
                Ok(())
            })
            .map_err(|source| StartError::Setup {
                what: "take the step's file rights",
                source,
            })??;
        if let Some(path) = reports.progress_path() {
            reports.progress_stamp = reports.stamp(&path);
        }
        Ok(reports)
    }

    /// Whether there is something to look at while the process runs.
    pub(crate) fn has_progress(&self) -> bool {
        self.progress_path().is_some()
    }

    /// The progress file's content when it was written since the last look.
    pub(crate) fn poll_progress(&mut self) -> Option<ReportFile> {
        let path = self.progress_path()?;
        let stamp = self.stamp(&path)?;
        if self.progress_stamp == Some(stamp) {
            return None;
        }
        self.progress_stamp = Some(stamp);
        let file = self.files.iter().find(|file| file.kind() == ReportKind::Progress)?;
        self.read(file)
    }

    /// Every file as it is now. One that is gone, or is no regular file any more, is left out.
    pub(crate) fn read_all(&self) -> Vec<ReportFile> {
        self.files.iter().filter_map(|file| self.read(file)).collect()
    }

    fn progress_path(&self) -> Option<String> {
        self.files
            .iter()
            .find(|file| file.kind() == ReportKind::Progress)
            .map(|file| file.path.clone())
    }

    fn stamp(&self, path: &str) -> Option<Stamp> {
        self.identity
            .with_file_rights(|| files::stamp(Path::new(path)))
            .ok()?
            .ok()
    }

    fn read(&self, file: &WatchedFile) -> Option<ReportFile> {
        let limit = usize::try_from(file.limit_bytes).unwrap_or(usize::MAX);
        let read = self
            .identity
            .with_file_rights(|| files::read_bounded(Path::new(&file.path), limit));
        let (content, truncated) = match read.ok()?.ok()?.0 {
            Content::Whole(content) => (Bytes::from(content), None),
            Content::TooLong => (Bytes::new(), Some(true)),
        };
        Some(ReportFile {
            run: self.run,
            kind: file.kind,
            content,
            truncated,
        })
    }
}
