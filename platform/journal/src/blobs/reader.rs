//! Reading a blob or a range of it.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::frames::{self, FRAME_PLAIN_BYTES, FRAME_SEALED_BYTES, HEADER_BYTES};
use super::{BlobError, BlobKey, timed};
use crate::data_key::DataKey;

/// Frames fetched with one call: about a MiB.
const FETCH_FRAMES: u64 = 16;

/// The plain bytes of a blob or a range of it, in pieces of at most 64 KiB. Ends after the first error.
pub struct BlobReader {
    size_bytes: u64,
    range: Range<u64>,
    pieces: BoxStream<'static, Result<Bytes, BlobError>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader")
            .field("size_bytes", &self.size_bytes)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

struct Source {
    store: Arc<dyn ObjectStore>,
    key: BlobKey,
    data_key: DataKey,
    frames: u64,
}

impl BlobReader {
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        key: BlobKey,
        data_key: DataKey,
        range: Option<Range<u64>>,
    ) -> Result<Self, BlobError> {
        let path = key.path();
        let object_bytes = timed(store.head(&path)).await?.size;
        let damaged = |detail: &str| BlobError::Damaged {
            object: path.to_string(),
            detail: detail.into(),
        };
        let (frames, size_bytes) = frames::shape(object_bytes).ok_or_else(|| damaged("it is cut short"))?;
        let header = timed(store.get_range(&path, 0..HEADER_BYTES)).await?;
        if let Some(detail) = frames::check_header(&header) {
            return Err(damaged(detail));
        }
        let whole = range.is_none();
        let range = range.unwrap_or(0..size_bytes);
        let range = range.start..range.end.min(size_bytes);
        if range.start > range.end || (!whole && range.start >= size_bytes && size_bytes > 0) {
            return Err(BlobError::Range { size_bytes });
        }
        let source = Source {
            store,
            key,
            data_key,
            frames,
        };
        let pieces = source.pieces(&range, whole);
        Ok(Self {
            size_bytes,
            range,
            pieces,
        })
    }

    /// Plain bytes of the whole blob.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The plain bytes that are given out.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_next_unpin(cx)
    }
}

impl Source {
    fn pieces(self, range: &Range<u64>, whole: bool) -> BoxStream<'static, Result<Bytes, BlobError>> {
        let plain = FRAME_PLAIN_BYTES as u64;
        let range = range.clone();
        // A whole read of an empty blob still opens its one frame, so that it is authenticated.
        let first = range.start / plain;
        let end = if whole {
            self.frames
        } else {
            range.end.div_ceil(plain).max(first)
        };
        let groups = stream::try_unfold((self, first), move |(source, next)| async move {
            if next >= end {
                return Ok(None);
            }
            let until = end.min(next + FETCH_FRAMES);
            let frames = source.fetch(next, until).await?;
            Ok(Some((frames, (source, until))))
        });
        groups
            .flat_map(|group| match group {
                Ok(frames) => stream::iter(frames.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .map(move |frame: Result<(u64, Bytes), BlobError>| {
                frame.map(|(index, bytes)| {
                    let begin = index * plain;
                    let cut = |at: u64| {
                        usize::try_from(at.saturating_sub(begin))
                            .unwrap_or(usize::MAX)
                            .min(bytes.len())
                    };
                    bytes.slice(cut(range.start)..cut(range.end))
                })
            })
            .filter(|piece| std::future::ready(!matches!(piece, Ok(bytes) if bytes.is_empty())))
            .boxed()
    }

    async fn fetch(&self, first: u64, end: u64) -> Result<Vec<(u64, Bytes)>, BlobError> {
        let path = self.key.path();
        let damaged = |detail: String| BlobError::Damaged {
            object: path.to_string(),
            detail,
        };
        let from = HEADER_BYTES + first * FRAME_SEALED_BYTES;
        let sealed = timed(
            self.store
                .get_range(&path, from..HEADER_BYTES + end * FRAME_SEALED_BYTES),
        )
        .await?;
        let mut frames = Vec::new();
        let frame_bytes = usize::try_from(FRAME_SEALED_BYTES).unwrap_or(usize::MAX);
        for (index, frame) in (first..).zip(sealed.chunks(frame_bytes)) {
            let last = index + 1 == self.frames;
            let plain = frames::open_frame(&self.key, &self.data_key, index, last, frame);
            let plain = plain.ok_or_else(|| {
                damaged(format!(
                    "frame {index} of {} does not open: it was cut or changed, or the key is another",
                    self.frames
                ))
            })?;
            frames.push((index, plain));
        }
        if frames.len() as u64 != end - first {
            return Err(damaged(format!("frame {} is missing", first + frames.len() as u64)));
        }
        Ok(frames)
    }
}
