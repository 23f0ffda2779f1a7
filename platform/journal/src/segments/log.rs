//! The files of one workflow. Everything here blocks and runs on the store's worker threads.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use gantry_proto::limits::SEGMENT_BYTES_MAX;
use gantry_proto::{TenantId, WorkflowId};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::file::{self, Walker, damaged, io_error};
use super::frame::{self, FILE_HEADER_BYTES, FrameHead, FrameKind, StreamId};
use super::handles::Handles;
use super::index::{StreamState, Target};
use super::{Chunk, SegmentError, StreamKey};
use crate::data_key::DataKey;
use crate::durable_fs;

/// The file that is appended to.
#[derive(Debug, Clone, Copy)]
struct Tail {
    number: u32,
    len: u64,
    durable_len: u64,
    marked_len: u64,
}

/// What is known once the files have been read.
#[derive(Debug, Default)]
struct State {
    tail: Option<Tail>,
    streams: HashMap<StreamId, StreamState>,
    /// Streams that wrote since the last sync.
    dirty: Vec<StreamId>,
    /// A file was created since the directories were last synced.
    dirs_dirty: bool,
    /// A sync failed while this was borrowed; the next use turns it into [`Phase::Failed`].
    broken: Option<SegmentError>,
}

#[derive(Debug)]
enum Phase {
    Unloaded,
    Ready(State),
    /// A sync failed, a file is damaged, or all was destroyed: nothing works until the process is restarted.
    Failed(SegmentError),
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) written: u64,
    pub(super) durable: u64,
    pub(super) finished: Option<u64>,
}

/// One workflow's log of output.
#[derive(Debug)]
pub(super) struct WorkflowLog {
    tenant: TenantId,
    workflow: WorkflowId,
    /// `<root>/<tenant>/<workflow>`.
    dir: PathBuf,
    segment_bytes_max: u64,
    phase: Mutex<Phase>,
    /// Held by the one caller that syncs; those that wait for it mostly find their work done.
    pub(super) syncing: tokio::sync::Mutex<()>,
}

impl WorkflowLog {
    pub(super) fn new(tenant: TenantId, workflow: WorkflowId, dir: PathBuf, segment_bytes_max: u64) -> Self {
        let segment_bytes_max = segment_bytes_max.min(SEGMENT_BYTES_MAX);
        Self {
            tenant,
            workflow,
            dir,
            segment_bytes_max,
            phase: Mutex::new(Phase::Unloaded),
            syncing: tokio::sync::Mutex::new(()),
        }
    }

    /// Whether the log may be forgotten and read again later: nothing waits for a sync.
    pub(super) fn is_clean(&self) -> bool {
        match &*self.phase.lock() {
            Phase::Unloaded => true,
            Phase::Ready(state) => state.dirty.is_empty() && !state.dirs_dirty && state.broken.is_none(),
            Phase::Failed(_) => false,
        }
    }

    fn ready(&self) -> Result<MappedMutexGuard<'_, State>, SegmentError> {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Unloaded) {
            *phase = match self.load() {
                Ok(state) => Phase::Ready(state),
                // A refusal of the file system may pass; damage does not.
                Err(error @ SegmentError::Io { .. }) => return Err(error),
                Err(error) => Phase::Failed(error),
            };
        }
        if let Phase::Ready(state) = &mut *phase
            && let Some(error) = state.broken.take()
        {
            *phase = Phase::Failed(error);
        }
        MutexGuard::try_map(phase, |phase| match phase {
            Phase::Ready(state) => Some(state),
            _ => None,
        })
        .map_err(|phase| match &*phase {
            Phase::Failed(error) => error.clone(),
            _ => SegmentError::Closed,
        })
    }

    /// Reads all files, cuts a torn tail, and syncs: what a crashed process had written and not synced is served only after that.
    fn load(&self) -> Result<State, SegmentError> {
        let mut state = State::default();
        let numbers = file::numbers_in(&self.dir)?;
        for &number in &numbers {
            let is_last = Some(&number) == numbers.last();
            let path = file::path_of(&self.dir, number);
            let good = match Walker::open(path.clone())? {
                Some(mut walker) => walk_at_load(&mut walker, number, is_last, &mut state)?,
                None if is_last => 0,
                None => {
                    return Err(damaged(
                        &path,
                        "it is cut short: restore it from a backup, or destroy the workflow's output",
                    ));
                }
            };
            if is_last {
                let fail = |error: std::io::Error| io_error(&path, &error);
                let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
                file.set_len(good).map_err(fail)?;
                if good == 0 {
                    file.write_all_at(&frame::file_header(), 0).map_err(fail)?;
                }
                file.sync_all().map_err(fail)?;
                self.sync_dirs()?;
                let len = good.max(FILE_HEADER_BYTES);
                state.tail = Some(Tail {
                    number,
                    len,
                    durable_len: len,
                    marked_len: 0,
                });
            }
        }
        state.streams.values_mut().for_each(StreamState::set_durable);
        Ok(state)
    }

    pub(super) fn ensure_loaded(&self) -> Result<(), SegmentError> {
        self.ready().map(drop)
    }

    pub(super) fn progress(&self, id: StreamId) -> Result<Progress, SegmentError> {
        let state = self.ready()?;
        let stream = state.streams.get(&id);
        Ok(stream.map_or_else(Progress::default, |stream| Progress {
            written: stream.written,
            durable: stream.durable,
            finished: stream.end_written.filter(|_| stream.end_durable),
        }))
    }

    pub(super) fn stream_ids(&self) -> Result<Vec<StreamId>, SegmentError> {
        let mut ids: Vec<StreamId> = self.ready()?.streams.keys().copied().collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Appends the chunks that are not there yet.
    pub(super) fn append(
        &self,
        handles: &Handles,
        key: &StreamKey,
        data_key: &DataKey,
        chunks: &[Chunk],
    ) -> Result<(), SegmentError> {
        let id = StreamId::from(key);
        let mut state = self.ready()?;
        let (written, end) = state
            .streams
            .get(&id)
            .map_or((0, None), |stream| (stream.written, stream.end_written));
        let mut fresh = Vec::with_capacity(chunks.len());
        let mut next = written + 1;
        for chunk in chunks {
            if chunk.seq > next || chunk.seq == 0 {
                return Err(SegmentError::Gap {
                    expected: next,
                    got: chunk.seq,
                });
            }
            if chunk.seq == next {
                fresh.push(chunk);
                next += 1;
            }
        }
        if let (Some(last_seq), false) = (end, fresh.is_empty()) {
            return Err(SegmentError::Finished { last_seq });
        }
        // Sealed before anything is written, so that a chunk that is too large leaves nothing behind.
        let sealed: Vec<_> = fresh
            .iter()
            .map(|chunk| Ok((chunk.seq, frame::seal_chunk(key, data_key, chunk)?)))
            .collect::<Result<_, SegmentError>>()?;
        let mut writer = Writer::new(self, handles, &mut state);
        for (seq, body) in &sealed {
            let head = FrameHead {
                kind: FrameKind::Chunk,
                stream: id,
                seq: *seq,
            };
            writer.push(head, |out| frame::put_chunk(out, id, *seq, body))?;
        }
        writer.flush()
    }

    /// Writes the end marker of a stream.
    pub(super) fn finish(&self, handles: &Handles, id: StreamId, last_seq: u64) -> Result<(), SegmentError> {
        let mut state = self.ready()?;
        let (written, end) = state
            .streams
            .get(&id)
            .map_or((0, None), |stream| (stream.written, stream.end_written));
        match end {
            Some(end) if end == last_seq => return Ok(()),
            Some(end) => return Err(SegmentError::Finished { last_seq: end }),
            None if written != last_seq => {
                return Err(SegmentError::Gap {
                    expected: written + 1,
                    got: last_seq,
                });
            }
            None => {}
        }
        let mut writer = Writer::new(self, handles, &mut state);
        writer.push(
            FrameHead {
                kind: FrameKind::End,
                stream: id,
                seq: last_seq,
            },
            |out| frame::put_end(out, id, last_seq),
        )?;
        writer.flush()
    }

    /// What is written of a stream now; to be passed to [`Self::sync`].
    pub(super) fn target(&self, id: StreamId) -> Result<Target, SegmentError> {
        let state = self.ready()?;
        let stream = state.streams.get(&id);
        let (seq, end) = stream.map_or((0, false), |stream| (stream.written, stream.end_written.is_some()));
        Ok(Target { stream: id, seq, end })
    }

    /// Makes `target` durable, and with it everything that was written before this call; returns the stream's highest durable sequence. Does nothing
    /// when another caller's sync has covered the target. A failure is final: what the kernel forgot to write cannot be found out.
    pub(super) fn sync(&self, handles: &Handles, syncs: &AtomicU64, target: Target) -> Result<u64, SegmentError> {
        let (tail, dirs, streams) = {
            let mut state = self.ready()?;
            let stream = state.streams.get(&target.stream);
            let reached =
                stream.is_none_or(|stream| stream.durable >= target.seq && (stream.end_durable || !target.end));
            if reached {
                return Ok(stream.map_or(0, |stream| stream.durable));
            }
            let dirty = std::mem::take(&mut state.dirty);
            let mut snapshot = Vec::with_capacity(dirty.len());
            for id in dirty {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.dirty = false;
                    snapshot.push((id, stream.written, stream.end_written.is_some()));
                }
            }
            (state.tail, std::mem::take(&mut state.dirs_dirty), snapshot)
        };
        syncs.fetch_add(1, Ordering::Relaxed);
        // Without the lock: appends go on meanwhile. Files before the tail were synced when they were left.
        let synced = tail
            .map_or(Ok(()), |tail| self.sync_file(handles, tail.number))
            .and_then(|()| if dirs { self.sync_dirs() } else { Ok(()) });
        if let Err(error) = synced {
            return Err(self.fail(unsynced(error)));
        }
        let mut state = self.ready()?;
        if let (Some(tail), Some(now)) = (tail, state.tail.as_mut())
            && now.number == tail.number
        {
            now.durable_len = now.durable_len.max(tail.len);
        }
        for (id, written, end) in streams {
            if let Some(stream) = state.streams.get_mut(&id) {
                stream.durable = stream.durable.max(written);
                stream.end_durable |= end;
            }
        }
        Ok(state.streams.get(&target.stream).map_or(0, |stream| stream.durable))
    }

    fn fail(&self, error: SegmentError) -> SegmentError {
        let mut phase = self.phase.lock();
        if let Phase::Failed(earlier) = &*phase {
            // Destroyed meanwhile, which is why the sync failed.
            return earlier.clone();
        }
        tracing::error!(workflow = %self.workflow, %error, "segment files take nothing more until the process is restarted");
        *phase = Phase::Failed(error.clone());
        error
    }

    fn sync_file(&self, handles: &Handles, number: u32) -> Result<(), SegmentError> {
        let path = file::path_of(&self.dir, number);
        handles
            .get((self.tenant, self.workflow, number), &path)
            .and_then(|file| file.sync_data())
            .map_err(|error| io_error(&path, &error))
    }

    /// The workflow's directory, its tenant's and the root: each may have got its entry just now.
    fn sync_dirs(&self) -> Result<(), SegmentError> {
        for dir in self.dir.ancestors().take(3) {
            durable_fs::sync_dir(dir).map_err(|error| io_error(dir, &error))?;
        }
        Ok(())
    }

    fn create_file(&self, handles: &Handles, number: u32) -> Result<Arc<File>, SegmentError> {
        let path = file::path_of(&self.dir, number);
        let fail = |error: std::io::Error| io_error(&path, &error);
        fs::create_dir_all(&self.dir).map_err(fail)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(fail)?;
        file.write_all_at(&frame::file_header(), 0).map_err(fail)?;
        let file = Arc::new(file);
        handles.put((self.tenant, self.workflow, number), Arc::clone(&file));
        Ok(file)
    }

    /// Chunks after `after_seq` that are durable, in order, until they hold `max_bytes` of data; at least one if there is one.
    pub(super) fn read(
        &self,
        key: &StreamKey,
        data_key: &DataKey,
        after_seq: u64,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, SegmentError> {
        let id = StreamId::from(key);
        let (point, durable, tail) = {
            let state = self.ready()?;
            let Some(stream) = state.streams.get(&id) else {
                return Ok(Vec::new());
            };
            let point = stream.point_before(after_seq.saturating_add(1));
            let (Some(point), Some(tail)) = (point, state.tail) else {
                return Ok(Vec::new());
            };
            (point, stream.durable, tail.number)
        };
        let mut chunks = Vec::new();
        let (mut next, mut bytes) = (after_seq.saturating_add(1), 0);
        for number in point.file..=tail {
            if next > durable {
                break;
            }
            let path = file::path_of(&self.dir, number);
            let cut = || damaged(&path, "it is cut short: restore it from a backup");
            let mut walker = Walker::open(path.clone())
                .map_err(|error| self.while_destroyed(error))?
                .ok_or_else(cut)?;
            if number == point.file {
                walker.seek(point.offset)?;
            }
            while next <= durable
                && let Some(found) = walker.next()?
            {
                if found.head.stream != id || found.head.kind != FrameKind::Chunk || found.head.seq < next {
                    continue;
                }
                if found.head.seq > next {
                    return Err(damaged(
                        &path,
                        format!("chunk {next} of a stream is missing: restore it from a backup"),
                    ));
                }
                let chunk = frame::open_chunk(key, data_key, next, found.body)?;
                if !chunks.is_empty() && bytes + chunk.data.len() > max_bytes {
                    return Ok(chunks);
                }
                bytes += chunk.data.len();
                next += 1;
                chunks.push(chunk);
                if bytes >= max_bytes {
                    return Ok(chunks);
                }
            }
        }
        if next <= durable {
            let path = file::path_of(&self.dir, tail);
            return Err(damaged(
                &path,
                format!("chunk {next} of a stream cannot be read any more: restore it from a backup"),
            ));
        }
        Ok(chunks)
    }

    fn while_destroyed(&self, error: SegmentError) -> SegmentError {
        match &*self.phase.lock() {
            Phase::Failed(SegmentError::Destroyed) => SegmentError::Destroyed,
            _ => error,
        }
    }

    /// Removes all files. Every operation that comes through this log afterwards gets [`SegmentError::Destroyed`].
    pub(super) fn destroy(&self, handles: &Handles) -> Result<(), SegmentError> {
        let mut phase = self.phase.lock();
        *phase = Phase::Failed(SegmentError::Destroyed);
        handles.forget(self.tenant, self.workflow);
        let fail = |error: std::io::Error| io_error(&self.dir, &error);
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        match self.dir.parent() {
            Some(parent) if parent.is_dir() => durable_fs::sync_dir(parent).map_err(fail),
            _ => Ok(()),
        }
    }
}

/// A refusal of the file system that came from a sync.
fn unsynced(error: SegmentError) -> SegmentError {
    match error {
        SegmentError::Io { path, reason } => SegmentError::Unsynced { path, reason },
        other => other,
    }
}

/// Reads one file's frames into the state; returns how much of it is good.
fn walk_at_load(walker: &mut Walker, number: u32, is_last: bool, state: &mut State) -> Result<u64, SegmentError> {
    let path = walker.path().to_owned();
    while let Some(found) = walker.next()? {
        let (head, offset) = (found.head, found.offset);
        if head.kind != FrameKind::Synced
            && !state
                .streams
                .entry(head.stream)
                .or_default()
                .note(&head, number, offset)
        {
            let detail = format!(
                "frame {} at byte {offset} does not follow from the stream's frames before it: restore it from a backup",
                head.seq
            );
            return Err(damaged(&path, detail));
        }
    }
    let good = walker.offset();
    if !walker.at_end() {
        if !is_last || walker.was_durable_here()? {
            let detail = format!(
                "what had been durable at byte {good} is damaged: restore it from a backup, or destroy the workflow's output"
            );
            return Err(damaged(&path, detail));
        }
        tracing::warn!(path = %path.display(), offset = good, "cut the torn tail of a segment file");
    }
    Ok(good)
}

/// Collects frames and writes them with as few calls as files.
struct Writer<'a, 'g> {
    log: &'a WorkflowLog,
    handles: &'a Handles,
    state: &'a mut MappedMutexGuard<'g, State>,
    out: BytesMut,
    noted: Vec<(FrameHead, u64)>,
}

impl<'a, 'g> Writer<'a, 'g> {
    fn new(log: &'a WorkflowLog, handles: &'a Handles, state: &'a mut MappedMutexGuard<'g, State>) -> Self {
        Self {
            log,
            handles,
            state,
            out: BytesMut::new(),
            noted: Vec::new(),
        }
    }

    fn push(&mut self, head: FrameHead, put: impl FnOnce(&mut BytesMut)) -> Result<(), SegmentError> {
        let tail = match self.state.tail {
            Some(tail) if tail.len + (self.out.len() as u64) < self.log.segment_bytes_max => tail,
            _ => self.roll()?,
        };
        if self.out.is_empty() && tail.durable_len > tail.marked_len {
            frame::put_synced(&mut self.out, tail.durable_len);
        }
        self.noted.push((head, tail.len + self.out.len() as u64));
        put(&mut self.out);
        Ok(())
    }

    /// Begins the next file. The one before is synced first: only the last file of a family can be torn.
    fn roll(&mut self) -> Result<Tail, SegmentError> {
        self.flush()?;
        let number = match self.state.tail {
            Some(tail) => {
                if let Err(error) = self.log.sync_file(self.handles, tail.number) {
                    tracing::error!(workflow = %self.log.workflow, %error, "a full segment file could not be synced");
                    let error = unsynced(error);
                    self.state.broken = Some(error.clone());
                    return Err(error);
                }
                tail.number + 1
            }
            None => 1,
        };
        self.log.create_file(self.handles, number)?;
        let tail = Tail {
            number,
            len: FILE_HEADER_BYTES,
            durable_len: 0,
            marked_len: 0,
        };
        self.state.tail = Some(tail);
        self.state.dirs_dirty = true;
        Ok(tail)
    }

    fn flush(&mut self) -> Result<(), SegmentError> {
        let Some(tail) = self.state.tail.filter(|_| !self.out.is_empty()) else {
            return Ok(());
        };
        let path = file::path_of(&self.log.dir, tail.number);
        let file = self
            .handles
            .get((self.log.tenant, self.log.workflow, tail.number), &path)
            .map_err(|error| io_error(&path, &error))?;
        if let Err(error) = file.write_all_at(&self.out, tail.len) {
            // What was half written is beyond the tail and is written over; this only gives the space back.
            drop(file.set_len(tail.len));
            return Err(io_error(&path, &error));
        }
        let len = tail.len + self.out.len() as u64;
        self.state.tail = Some(Tail {
            len,
            marked_len: tail.durable_len,
            ..tail
        });
        self.out.clear();
        for (head, offset) in self.noted.drain(..) {
            let stream = self.state.streams.entry(head.stream).or_default();
            let fits = stream.note(&head, tail.number, offset);
            debug_assert!(fits, "frames are checked before they are written");
            if !std::mem::replace(&mut stream.dirty, true) {
                self.state.dirty.push(head.stream);
            }
        }
        Ok(())
    }
}
