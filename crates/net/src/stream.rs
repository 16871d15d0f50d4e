//! The two halves of a stream.
//!
//! Both implement tokio's traits, whose poll functions are compiled here, and offer boxed
//! methods for the common steps. Beware of the meaning of a drop: a dropped [`SendStream`] is
//! *finished*, so the far end reads a clean end, and a dropped [`RecvStream`] tells the far end
//! to stop. Whoever gives up in the middle says so with [`SendStream::reset`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use iroh::endpoint::{ReadError as QuicReadError, VarInt, WriteError as QuicWriteError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::{BoxFuture, Bytes, BytesMut, ConnectionLost};

/// The half that is written to.
#[derive(Debug)]
pub struct SendStream {
    inner: iroh::endpoint::SendStream,
}

/// The half that is read from.
#[derive(Debug)]
pub struct RecvStream {
    inner: iroh::endpoint::RecvStream,
}

/// Why nothing more can be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer reads no further.
    #[error("the peer stopped reading with code {code}")]
    Stopped {
        /// The code given by the peer.
        code: u64,
    },
    /// The connection is lost.
    #[error("the connection was lost while writing")]
    Lost(#[from] ConnectionLost),
    /// This half was finished or reset before.
    #[error("the stream is closed for writing")]
    Closed,
}

/// Why nothing more can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer gave up in the middle.
    #[error("the peer gave up the stream with code {code}")]
    Reset {
        /// The code given by the peer.
        code: u64,
    },
    /// The connection is lost.
    #[error("the connection was lost while reading")]
    Lost(#[from] ConnectionLost),
    /// This half was stopped or read to its end before.
    #[error("the stream is closed for reading")]
    Closed,
}

impl SendStream {
    pub(crate) fn new(inner: iroh::endpoint::SendStream) -> Self {
        Self { inner }
    }

    /// Writes all of `data`; waits while the peer reads slowly.
    ///
    /// # Errors
    ///
    /// If the peer stops reading or the connection is lost; a part may have been sent.
    pub fn write_all<'a>(&'a mut self, data: &'a [u8]) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move { Ok(self.inner.write_all(data).await?) })
    }

    /// Writes all of `chunk` without copying it.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write_all`].
    pub fn write_chunk(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), WriteError>> {
        Box::pin(async move { Ok(self.inner.write_chunk(chunk).await?) })
    }

    /// Marks the end: the far end reads what was written, then a clean end. Does not wait.
    ///
    /// # Errors
    ///
    /// If this half was closed before.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.inner.finish().map_err(|_| WriteError::Closed)
    }

    /// Gives up: the far end reads an error with `code`. Nothing happens if already closed.
    pub fn reset(&mut self, code: u32) {
        let _ = self.inner.reset(VarInt::from_u32(code));
    }

    /// Waits until the far end has received everything up to the end (`Ok(None)`) or stopped
    /// reading (`Ok(Some(code))`).
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub fn stopped(&self) -> BoxFuture<'static, Result<Option<u64>, WriteError>> {
        let stopped = self.inner.stopped();
        Box::pin(async move {
            let code = stopped.await.map_err(QuicWriteError::from)?;
            Ok(code.map(VarInt::into_inner))
        })
    }
}

impl RecvStream {
    pub(crate) fn new(inner: iroh::endpoint::RecvStream) -> Self {
        Self { inner }
    }

    /// Reads the next bytes, at most `max` of them, without copying; `None` at the clean end.
    ///
    /// # Errors
    ///
    /// If the peer gave up or the connection is lost.
    pub fn read_chunk(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async move { Ok(self.inner.read_chunk(max).await?) })
    }

    /// Reads into `buf` and says how many bytes came; `None` at the clean end.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    pub fn read<'a>(
        &'a mut self,
        buf: &'a mut [u8],
    ) -> BoxFuture<'a, Result<Option<usize>, ReadError>> {
        Box::pin(self.read_part(buf))
    }

    /// Appends at most `max` bytes that have come, of one packet or of many, and says how many;
    /// `None` at the clean end. The memory need not be initialised first.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    pub fn read_buf<'a>(
        &'a mut self,
        buf: &'a mut BytesMut,
        max: usize,
    ) -> BoxFuture<'a, Result<Option<usize>, ReadError>> {
        Box::pin(async move {
            buf.reserve(max);
            match (&mut self.inner).take(max as u64).read_buf(buf).await {
                Ok(0) => Ok(None),
                Ok(n) => Ok(Some(n)),
                // The transport's own error went through the trait of tokio.
                Err(error) => match error.downcast::<QuicReadError>() {
                    Ok(error) => Err(error.into()),
                    Err(_) => Err(ReadError::Closed),
                },
            }
        })
    }

    /// Tells the far end to write no further. Nothing happens if already closed.
    pub fn stop(&mut self, code: u32) {
        let _ = self.inner.stop(VarInt::from_u32(code));
    }

    /// As [`RecvStream::read`], unboxed for use inside this crate.
    pub(crate) async fn read_part(&mut self, buf: &mut [u8]) -> Result<Option<usize>, ReadError> {
        Ok(self.inner.read(buf).await?)
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.inner), cx)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.inner), cx, buf)
    }
}

impl From<QuicWriteError> for WriteError {
    fn from(error: QuicWriteError) -> Self {
        match error {
            QuicWriteError::Stopped(code) => Self::Stopped { code: code.into() },
            QuicWriteError::ConnectionLost(lost) => Self::Lost(lost.into()),
            // Early data is never sent, so the second cannot be.
            QuicWriteError::ClosedStream | QuicWriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<QuicReadError> for ReadError {
    fn from(error: QuicReadError) -> Self {
        match error {
            QuicReadError::Reset(code) => Self::Reset { code: code.into() },
            QuicReadError::ConnectionLost(lost) => Self::Lost(lost.into()),
            QuicReadError::ClosedStream | QuicReadError::ZeroRttRejected => Self::Closed,
        }
    }
}
