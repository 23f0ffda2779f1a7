//! Output of one step attempt, read to its end or followed.

use std::collections::VecDeque;

use gantry_engine::api::{Chunk, StreamKey};
use gantry_proto::v1::OutputStream;

use super::{OUTPUT_PAGE_BYTES, Stop, Watch};

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
            let page = self
                .watch
                .shared
                .backend
                .output(self.key, self.after, OUTPUT_PAGE_BYTES)
                .await
                .map_err(|refusal| Stop::Problem(refusal.into()))?;
            self.finished = page.finished;
            match page.chunks.last() {
                Some(last) => {
                    self.after = last.seq;
                    self.waiting.extend(page.chunks);
                }
                None if self.finished || !self.follow => return Ok(None),
                None => self.watch.wait().await?,
            }
        }
    }
}
