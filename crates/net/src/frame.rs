//! Messages on a stream: a length of four bytes, little-endian, then that many bytes.
//!
//! Invariant **limit-first**: the length is compared with the caller's limit before anything is
//! allocated, and memory then grows with the bytes that really arrive, so a peer that announces
//! much and sends little costs little.

use thiserror::Error;

use crate::{BoxFuture, ReadError, RecvStream, SendStream, WriteError};

/// Bytes of the length.
const HEADER_BYTES: usize = 4;

/// The most memory taken on the mere word of the peer.
const FIRST_ALLOCATION_BYTES: usize = 64 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than the limit.
    #[error("a frame of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// The announced length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended {missing} bytes before the end of a frame")]
    Truncated {
        /// How many bytes were missing, in the length or in the payload.
        missing: usize,
    },
    /// The stream could not be read.
    #[error("failed to read a frame")]
    Read(#[from] ReadError),
    /// The stream could not be written.
    #[error("failed to write a frame")]
    Write(#[from] WriteError),
}

/// Reads frames from a stream and may be interrupted: a [`FrameReader::next`] that is dropped
/// halfway, as in a `select!`, is taken up where it was by the next one.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    partial: Partial,
}

/// The part of a frame that has arrived.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    payload: Vec<u8>,
    payload_len: usize,
}

impl FrameReader {
    /// A reader at the beginning of a frame of `stream`.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, partial: Partial::default() }
    }

    /// Reads the next frame of at most `max` bytes; `None` if the stream ended between frames.
    /// Cancel-safe. After an error the stream is of no more use.
    ///
    /// # Errors
    ///
    /// If the frame is too long, cut off, or cannot be read.
    pub fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Vec<u8>>, FrameError>> {
        Box::pin(self.partial.complete(&mut self.stream, max))
    }

    /// Tells the far end to write no further.
    pub fn stop(&mut self, code: u32) {
        self.stream.stop(code);
    }
}

/// Reads the next frame of at most `max` bytes; `None` if the stream ended between frames.
///
/// Not cancel-safe: a call that is dropped halfway leaves the stream inside a frame. Where that
/// can happen, use a [`FrameReader`].
///
/// # Errors
///
/// If the frame is too long, cut off, or cannot be read.
pub fn read_frame(
    stream: &mut RecvStream,
    max: usize,
) -> BoxFuture<'_, Result<Option<Vec<u8>>, FrameError>> {
    Box::pin(async move { Partial::default().complete(stream, max).await })
}

/// Writes one frame.
///
/// Not cancel-safe: a call that is dropped halfway leaves half a frame on the stream.
///
/// # Errors
///
/// If the payload is longer than a length can say, or cannot be written.
pub fn write_frame<'a>(
    stream: &'a mut SendStream,
    payload: &'a [u8],
) -> BoxFuture<'a, Result<(), FrameError>> {
    Box::pin(async move {
        let len = u32::try_from(payload.len())
            .map_err(|_| FrameError::TooLong { len: payload.len() as u64, max: u32::MAX.into() })?;
        if payload.len() <= FIRST_ALLOCATION_BYTES {
            let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
            frame.extend_from_slice(&len.to_le_bytes());
            frame.extend_from_slice(payload);
            stream.write_all(&frame).await?;
        } else {
            stream.write_all(&len.to_le_bytes()).await?;
            stream.write_all(payload).await?;
        }
        Ok(())
    })
}

impl Partial {
    /// Reads what is missing. What has arrived is in `self` whenever this waits.
    async fn complete(
        &mut self,
        stream: &mut RecvStream,
        max: usize,
    ) -> Result<Option<Vec<u8>>, FrameError> {
        while self.header_len < HEADER_BYTES {
            match stream.read_part(&mut self.header[self.header_len..]).await? {
                Some(n) => self.header_len += n,
                None if self.header_len == 0 => return Ok(None),
                None => {
                    return Err(FrameError::Truncated { missing: HEADER_BYTES - self.header_len });
                }
            }
        }
        let announced = u32::from_le_bytes(self.header);
        let len = usize::try_from(announced).unwrap_or(usize::MAX);
        if len > max {
            return Err(FrameError::TooLong { len: announced.into(), max: max as u64 });
        }
        while self.payload_len < len {
            if self.payload_len == self.payload.len() {
                // At least doubles, so that a long frame is copied a bounded number of times.
                let step = FIRST_ALLOCATION_BYTES.max(self.payload_len).min(len - self.payload_len);
                self.payload.resize(self.payload_len + step, 0);
            }
            match stream.read_part(&mut self.payload[self.payload_len..]).await? {
                Some(n) => self.payload_len += n,
                None => return Err(FrameError::Truncated { missing: len - self.payload_len }),
            }
        }
        self.header_len = 0;
        self.payload_len = 0;
        Ok(Some(std::mem::take(&mut self.payload)))
    }
}
