//! Output of one step attempt, read to its end or followed.

use std::collections::VecDeque;

use gantry_engine::api::{Chunk, StreamKey};
use gantry_proto::v1::OutputStream;

use super::{OUTPUT_PAGE_BYTES, Stop, Watch};
use crate::problem::Problem;

/// Reads an attempt's output in order, from any sequence number.
pub(crate) struct OutputReader {
    watch: Watch,
    key: StreamKey,
    only: Option<OutputStream>,
    follow: bool,
    after: u64,
    waiting: VecDeque<Chunk>,
    finished: bool,
}

impl OutputReader {
    pub(crate) fn new(watch: Watch, key: StreamKey, only: Option<OutputStream>, follow: bool, after: u64) -> Self {
        Self {
            watch,
            key,
            only,
            follow,
            after,
            waiting: VecDeque::new(),
            finished: false,
        }
    }

    /// Reads the first page before anything is answered, so that what cannot be read at all is a problem and not a body that breaks off.
    pub(crate) async fn begin(&mut self) -> Result<(), Problem> {
        self.fetch().await.map(drop)
    }

    /// Reads on. Whether anything came.
    async fn fetch(&mut self) -> Result<bool, Problem> {
        let backend = &self.watch.shared.backend;
        let page = backend.output(self.key, self.after, OUTPUT_PAGE_BYTES).await?;
        self.finished = page.finished;
        let Some(last) = page.chunks.last() else {
            return Ok(false);
        };
        self.after = last.seq;
        self.waiting.extend(page.chunks);
        Ok(true)
    }

    /// The next chunk; `None` at the end of the attempt, or of what is stored when it is not followed.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, Stop> {
        loop {
            while let Some(chunk) = self.waiting.pop_front() {
                if self.only.is_none_or(|only| only == chunk.stream) {
                    return Ok(Some(chunk));
                }
            }
            if self.finished {
                return Ok(None);
            }
            self.watch.check().await?;
            if self.fetch().await.map_err(Stop::Problem)? {
                continue;
            }
            if self.finished || !self.follow {
                return Ok(None);
            }
            self.watch.wait().await?;
        }
    }
}
