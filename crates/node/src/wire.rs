//! Messages over streams: one frame each, bounded, with errors that say which side is at fault.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use welkin_net::{Bytes, BytesMut, FrameError, RecvStream, SendStream, read_frame, write_frame};
use welkin_proto::lease::{DATA_BYTES_MAX, FRAMES_AHEAD_MAX, LogFrame, LogSeen};
use welkin_proto::{CodecError, FRAME_BYTES_MAX, NodeAddr, RelayAddr, decode, encode};
use welkin_types::{NodeId, UnixMillis};

/// Why a message was not sent or received.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream or the connection broke.
    #[error("the connection broke")]
    Frame(#[source] std::sync::Arc<FrameError>),
    /// What came is no message of the expected kind.
    #[error("the peer sent something that is no message of this protocol")]
    Malformed(#[source] CodecError),
    /// The peer ended the stream where a message was due.
    #[error("the peer ended the conversation")]
    Ended,
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl WireError {
    /// Whether the peer broke the protocol (rather than the network broke).
    pub const fn is_peers_fault(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

impl From<FrameError> for WireError {
    fn from(error: FrameError) -> Self {
        Self::Frame(std::sync::Arc::new(error))
    }
}

/// Sends a message.
///
/// # Errors
///
/// [`WireError`] if it is too large or the connection broke.
pub async fn send<T: Serialize + Sync>(
    stream: &mut SendStream,
    message: &T,
) -> Result<(), WireError> {
    let bytes = encode(message).map_err(WireError::Malformed)?;
    Ok(write_frame(stream, &bytes).await?)
}

/// Receives a message; `None` at the clean end of the stream. Not to be cancelled and retried.
///
/// # Errors
///
/// [`WireError`] if the connection broke or what came is no such message.
pub async fn recv<T: DeserializeOwned>(stream: &mut RecvStream) -> Result<Option<T>, WireError> {
    match read_frame(stream, FRAME_BYTES_MAX).await? {
        Some(bytes) => decode(&bytes).map(Some).map_err(WireError::Malformed),
        None => Ok(None),
    }
}

/// Receives a message that must come, within a time.
///
/// # Errors
///
/// [`WireError`] if it does not.
pub async fn expect<T: DeserializeOwned>(
    stream: &mut RecvStream,
    within: Duration,
) -> Result<T, WireError> {
    let received = tokio::time::timeout(within, recv(stream));
    received.await.map_err(|_| WireError::Late(within))??.ok_or(WireError::Ended)
}

/// The transport's form of an address.
pub fn to_net(addr: &NodeAddr) -> welkin_net::NodeAddr {
    let relay = addr.relay.as_ref().and_then(to_net_relay);
    welkin_net::NodeAddr { id: *addr.node.as_bytes(), relay, direct: addr.direct.clone() }
}

/// The transport's form of a relay's address; `None` if it is malformed.
pub fn to_net_relay(relay: &RelayAddr) -> Option<welkin_net::RelayAddr> {
    let (host, port) = relay.host.rsplit_once(':')?;
    welkin_net::RelayAddr::new(host, port.parse().ok()?, relay.cert_sha256).ok()
}

/// The protocol's form of an address.
pub fn from_net(addr: &welkin_net::NodeAddr) -> NodeAddr {
    let relay = addr.relay.as_ref().map(from_net_relay);
    NodeAddr { node: NodeId::from_bytes(addr.id), relay, direct: addr.direct.clone() }
}

/// The protocol's form of a relay's address.
pub fn from_net_relay(relay: &welkin_net::RelayAddr) -> RelayAddr {
    RelayAddr {
        host: format!("{}:{}", relay.host(), relay.port()),
        cert_sha256: *relay.cert_sha256(),
    }
}

/// Sends a log.
#[derive(Debug)]
pub struct LogSender {
    stream: SendStream,
    seen: RecvStream,
    /// Pieces that the reader has not said to have taken.
    ahead: u32,
}

impl LogSender {
    /// Sends on a stream, and hears on the other half what was taken.
    pub const fn new(stream: SendStream, seen: RecvStream) -> Self {
        Self { stream, seen, ahead: 0 }
    }

    /// Sends [`LogFrame::Data`] with its bytes after it, which are not copied. Waits for a reader
    /// that pauses.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the connection broke.
    pub async fn data(
        &mut self,
        offset: u64,
        at: UnixMillis,
        bytes: Bytes,
    ) -> Result<(), WireError> {
        while self.ahead >= FRAMES_AHEAD_MAX {
            let seen: LogSeen = recv(&mut self.seen).await?.ok_or(WireError::Ended)?;
            self.ahead = self.ahead.saturating_sub(seen.frames);
        }
        let too_large = |_| WireError::Malformed(CodecError::TooLarge { bytes: bytes.len() });
        let len = u32::try_from(bytes.len()).map_err(too_large)?;
        self.frame(&LogFrame::Data { offset, at, len }).await?;
        self.ahead += 1;
        self.stream.write_chunk(bytes).await.map_err(|error| FrameError::Write(error).into())
    }

    /// Sends anything else.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the connection broke.
    pub async fn frame(&mut self, frame: &LogFrame) -> Result<(), WireError> {
        send(&mut self.stream, frame).await
    }

    /// Sends the last frame.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the connection broke.
    pub async fn end(&mut self, total: u64) -> Result<(), WireError> {
        self.frame(&LogFrame::End { total }).await?;
        let _ = self.stream.finish();
        Ok(())
    }
}

/// Receives a log.
#[derive(Debug)]
pub struct LogReceiver {
    stream: RecvStream,
    seen: SendStream,
    /// Pieces that were taken and not told of.
    taken: u32,
    /// Of the bytes that come now: how many are still to come, and when they were printed.
    left: u32,
    at: UnixMillis,
    buffer: BytesMut,
}

/// A received piece of a log.
#[derive(Clone, Debug)]
pub enum LogMessage {
    /// Bytes that were printed at the latest then; never none.
    Data(UnixMillis, Bytes),
    /// So many bytes were not kept.
    Gap(u64),
    /// Nothing more will come.
    End,
    /// The log can't be read, and why.
    Failed(String),
}

impl LogReceiver {
    /// Receives the log that comes on a stream, and says on the other half what was taken.
    pub fn new(seen: SendStream, stream: RecvStream) -> Self {
        Self { stream, seen, taken: 0, left: 0, at: UnixMillis(0), buffer: BytesMut::new() }
    }

    /// The next piece; `None` at the clean end of the stream. Not to be cancelled and retried.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the connection broke or what came is no such piece.
    pub async fn next(&mut self) -> Result<Option<LogMessage>, WireError> {
        while self.left == 0 {
            if self.taken >= FRAMES_AHEAD_MAX / 4 {
                let frames = std::mem::take(&mut self.taken);
                // A host that has sent the last piece does not listen any more.
                let _ = send(&mut self.seen, &LogSeen { frames }).await;
            }
            match recv(&mut self.stream).await? {
                Some(LogFrame::Data { at, len, .. }) => {
                    if len as usize > DATA_BYTES_MAX {
                        let bytes = len as usize;
                        return Err(WireError::Malformed(CodecError::TooLarge { bytes }));
                    }
                    (self.at, self.left) = (at, len);
                    self.taken += 1;
                }
                Some(LogFrame::Gap { from, to }) => {
                    return Ok(Some(LogMessage::Gap(to.saturating_sub(from))));
                }
                Some(LogFrame::End { .. }) => return Ok(Some(LogMessage::End)),
                Some(LogFrame::Failed(why)) => return Ok(Some(LogMessage::Failed(why))),
                None => return Ok(None),
            }
        }
        // What has come is handed on. Packets are joined: whoever prints or keeps the bytes does
        // that by the piece. Memory of pieces that are gone is used again.
        let missing = self.left as usize;
        let read = self.stream.read_buf(&mut self.buffer, missing).await;
        let Some(read) = read.map_err(FrameError::Read)? else {
            return Err(FrameError::Truncated { missing }.into());
        };
        self.left = self.left.saturating_sub(u32::try_from(read).unwrap_or(u32::MAX));
        Ok(Some(LogMessage::Data(self.at, self.buffer.split().freeze())))
    }
}
