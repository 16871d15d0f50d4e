//! Messages over streams: one frame each, bounded, with errors that say which side is at fault.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use welkin_net::{Bytes, FrameError, RecvStream, SendStream, read_frame, write_frame};
use welkin_proto::lease::LogFrame;
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

/// Sends [`welkin_proto::lease::LogFrame::Data`] without copying its bytes into a message first.
///
/// # Errors
///
/// [`WireError`] if the connection broke.
pub async fn send_log_data(
    stream: &mut SendStream,
    offset: u64,
    at: UnixMillis,
    bytes: Bytes,
) -> Result<(), WireError> {
    let malformed = |_| WireError::Malformed(CodecError::Malformed);
    let head = postcard::to_stdvec(&LogHead(DATA_VARIANT, offset, at, bytes.len() as u64))
        .map_err(malformed)?;
    let len = u32::try_from(head.len() + bytes.len())
        .map_err(|_| WireError::Malformed(CodecError::TooLarge { bytes: bytes.len() }))?;
    let mut frame = Vec::with_capacity(4 + head.len());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&head);
    let lost = |error| WireError::from(FrameError::Write(error));
    stream.write_chunk(frame.into()).await.map_err(lost)?;
    stream.write_chunk(bytes).await.map_err(lost)
}

/// How [`LogFrame::Data`] begins on the wire: the variant's number, its fields, and the length of
/// the bytes that follow.
#[derive(Serialize, Deserialize)]
struct LogHead(u32, u64, UnixMillis, u64);

/// The number of [`LogFrame::Data`].
const DATA_VARIANT: u32 = 0;

/// A received piece of a log.
#[derive(Clone, Debug)]
pub enum LogMessage {
    /// Bytes, at their offset, printed at the latest then; not copied out of their frame.
    Data(u64, UnixMillis, Bytes),
    /// Anything else.
    Other(LogFrame),
}

/// Receives a piece of a log.
///
/// # Errors
///
/// [`WireError`] if the connection broke or what came is no such piece.
pub async fn recv_log(stream: &mut RecvStream) -> Result<Option<LogMessage>, WireError> {
    let Some(frame) = read_frame(stream, FRAME_BYTES_MAX).await? else { return Ok(None) };
    if frame.first() != Some(&0) {
        return decode(&frame).map(LogMessage::Other).map(Some).map_err(WireError::Malformed);
    }
    let malformed = WireError::Malformed(CodecError::Malformed);
    let Ok((LogHead(_, offset, at, len), rest)) = postcard::take_from_bytes(&frame) else {
        return Err(malformed);
    };
    if rest.len() as u64 != len {
        return Err(malformed);
    }
    let head = frame.len() - rest.len();
    Ok(Some(LogMessage::Data(offset, at, Bytes::from(frame).slice(head..))))
}
