//! Walking through segment files: the check at load, and the search for a stream's chunks.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::SegmentError;
use super::frame::{self, CLEAR_BYTES, FILE_HEADER_BYTES, FrameHead, FrameKind, LENGTH_MAX, PREFIX_BYTES};

const READ_BUFFER_BYTES: usize = 128 << 10;

pub(super) fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// Numbers of a workflow's files, in order. They must be complete from 1 on.
pub(super) fn numbers_in(dir: &Path) -> Result<Vec<u32>, SegmentError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(dir, &error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| io_error(dir, &error))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|digits| digits.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    for (expected, number) in (1u32..).zip(&numbers) {
        if *number != expected {
            let detail = "it is missing: restore it from a backup, or destroy the workflow's output".into();
            return Err(SegmentError::Damaged {
                path: path_of(dir, expected).display().to_string(),
                detail,
            });
        }
    }
    Ok(numbers)
}

pub(super) fn io_error(path: &Path, error: &io::Error) -> SegmentError {
    SegmentError::Io {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> SegmentError {
    SegmentError::Damaged {
        path: path.display().to_string(),
        detail: detail.into(),
    }
}

/// A frame while a file is walked through.
pub(super) struct Found<'a> {
    pub(super) head: FrameHead,
    pub(super) offset: u64,
    pub(super) body: &'a [u8],
}

enum Step {
    Frame { length: usize },
    End,
    Bad,
}

/// Reads frames one after the other, checksums included.
pub(super) struct Walker {
    reader: BufReader<File>,
    path: PathBuf,
    offset: u64,
    len: u64,
    content: Vec<u8>,
}

impl Walker {
    /// Opens a file and checks its header. `Ok(None)`: the file is shorter than one, which is what a crash at its creation leaves.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>, SegmentError> {
        let fail = |error: io::Error| io_error(&path, &error);
        let file = File::open(&path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        if len < FILE_HEADER_BYTES {
            return Ok(None);
        }
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let mut header = [0u8; 16];
        reader.read_exact(&mut header).map_err(fail)?;
        frame::check_file_header(&header).map_err(|detail| damaged(&path, detail))?;
        Ok(Some(Self {
            reader,
            path,
            offset: FILE_HEADER_BYTES,
            len,
            content: Vec::new(),
        }))
    }

    /// Goes on at `offset`, where a frame is known to begin.
    pub(super) fn seek(&mut self, offset: u64) -> Result<(), SegmentError> {
        self.reader
            .seek(SeekFrom::Start(offset))
            .map_err(|error| io_error(&self.path, &error))?;
        self.offset = offset;
        Ok(())
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn step(&mut self) -> io::Result<Step> {
        let left = self.len.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Step::End);
        }
        if left < PREFIX_BYTES as u64 {
            return Ok(Step::Bad);
        }
        let (mut length, mut crc) = ([0u8; 4], [0u8; 4]);
        self.reader.read_exact(&mut length)?;
        self.reader.read_exact(&mut crc)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(CLEAR_BYTES..=LENGTH_MAX).contains(&length) || (PREFIX_BYTES + length) as u64 > left {
            return Ok(Step::Bad);
        }
        self.content.resize(length, 0);
        self.reader.read_exact(&mut self.content)?;
        if crc32c::crc32c(&self.content) != u32::from_be_bytes(crc) {
            return Ok(Step::Bad);
        }
        Ok(Step::Frame { length })
    }

    /// The next frame; `Ok(None)` at the end of the file, or where what follows is no whole frame ([`Self::at_end`] tells which).
    pub(super) fn next(&mut self) -> Result<Option<Found<'_>>, SegmentError> {
        let step = self.step().map_err(|error| io_error(&self.path, &error))?;
        let Step::Frame { length } = step else { return Ok(None) };
        let offset = self.offset;
        match frame::parse_frame(&self.content) {
            Some((head, body)) => {
                self.offset += (PREFIX_BYTES + length) as u64;
                Ok(Some(Found { head, offset, body }))
            }
            // The checksum is right, so this is no torn write.
            None => Err(damaged(
                &self.path,
                format!("the frame at byte {offset} is of an unknown kind: use a newer Gantry"),
            )),
        }
    }

    pub(super) fn at_end(&self) -> bool {
        self.offset >= self.len
    }

    /// Whether a sync marker after the current place says that what is here had been durable. Then it was damaged later, and is not the trace of a crash.
    pub(super) fn was_durable_here(&mut self) -> Result<bool, SegmentError> {
        let fail = |path: &Path, error: io::Error| io_error(path, &error);
        self.reader
            .seek(SeekFrom::Start(self.offset))
            .map_err(|error| fail(&self.path, error))?;
        let mut rest = Vec::new();
        // A segment file is at most SEGMENT_BYTES_MAX long, and this happens after a crash only.
        self.reader
            .read_to_end(&mut rest)
            .map_err(|error| fail(&self.path, error))?;
        let marker_bytes = PREFIX_BYTES + CLEAR_BYTES;
        let found = rest.windows(marker_bytes).any(|window| {
            let (prefix, content) = window.split_at(PREFIX_BYTES);
            let crc = &prefix[4..];
            prefix[..4] == frame::MARKER_LENGTH.to_be_bytes()
                && crc == crc32c::crc32c(content).to_be_bytes()
                && frame::parse_frame(content)
                    .is_some_and(|(head, _)| head.kind == FrameKind::Synced && head.seq > self.offset)
        });
        Ok(found)
    }
}
