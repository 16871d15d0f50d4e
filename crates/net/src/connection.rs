//! A connection to a peer that has proved its key.

use std::{net::SocketAddr, time::Duration};

use iroh::{
    TransportAddr,
    endpoint::{ConnectionError, TransportErrorCode, VarInt},
};
use thiserror::Error;

use crate::{BoxFuture, Bytes, RecvStream, SendStream};

/// TLS alert `no_application_protocol` (RFC 7301).
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// An encrypted connection. Clones share it; it closes when the last clone and the last stream
/// are dropped, or with [`Connection::close`].
#[derive(Clone, Debug)]
pub struct Connection {
    inner: iroh::endpoint::Connection,
}

/// How packets to the peer travel at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// Direct or through a relay.
    pub kind: PathKind,
    /// The current estimate of the round trip.
    pub rtt: Duration,
}

/// The two kinds of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Straight to this address of the peer.
    Direct(SocketAddr),
    /// Through a relay, which sees ids and volumes but no content.
    Relay,
}

/// What a connection has carried: QUIC packets of all paths, with headers and repetitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that we sent.
    pub sent_bytes: u64,
    /// Bytes that we received.
    pub received_bytes: u64,
    /// Packets that we sent.
    pub sent_packets: u64,
    /// Packets that we sent and that were lost.
    pub lost_packets: u64,
}

/// Why a connection is no more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectionLost {
    /// The peer closed it, with its code and reason. The reason is the peer's: bounded to one
    /// packet, not to be trusted or shown unescaped.
    #[error("the peer closed the connection with code {code}")]
    ClosedByPeer {
        /// The code given by the peer.
        code: u64,
        /// The reason given by the peer.
        reason: Bytes,
    },
    /// This side closed it.
    #[error("the connection was closed here")]
    ClosedHere,
    /// No packet for longer than the idle limit.
    #[error("the connection fell silent")]
    Silent,
    /// The peer does not know the connection any more, as after a restart.
    #[error("the peer has forgotten the connection")]
    Forgotten,
    /// A QUIC or TLS error, raised by the peer.
    #[error("the peer broke off with QUIC error {code:#x}")]
    BrokenByPeer {
        /// The QUIC transport error code.
        code: u64,
    },
    /// A QUIC or TLS error of the peer, found here.
    #[error("broken off with QUIC error {code:#x}")]
    BrokenHere {
        /// The QUIC transport error code.
        code: u64,
    },
}

impl Connection {
    pub(crate) fn new(inner: iroh::endpoint::Connection) -> Self {
        Self { inner }
    }

    /// Opens a stream. Waits while the peer has no stream left to give; the peer learns of the
    /// stream with the first bytes that are written to it.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub fn open(&self) -> BoxFuture<'_, Result<(SendStream, RecvStream), ConnectionLost>> {
        Box::pin(async {
            let (send, recv) = self.inner.open_bi().await?;
            Ok((SendStream::new(send), RecvStream::new(recv)))
        })
    }

    /// Waits for the next stream that the peer opens.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub fn accept(&self) -> BoxFuture<'_, Result<(SendStream, RecvStream), ConnectionLost>> {
        Box::pin(async {
            let (send, recv) = self.inner.accept_bi().await?;
            Ok((SendStream::new(send), RecvStream::new(recv)))
        })
    }

    /// Closes the connection for both sides at once; data in flight is dropped.
    pub fn close(&self, code: u32, reason: &[u8]) {
        self.inner.close(VarInt::from_u32(code), reason);
    }

    /// Waits until the connection is no more and says why.
    pub fn closed(&self) -> BoxFuture<'_, ConnectionLost> {
        Box::pin(async { self.inner.closed().await.into() })
    }

    /// Why the connection is no more, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<ConnectionLost> {
        self.inner.close_reason().map(Into::into)
    }

    /// The ed25519 public key that the peer proved.
    #[must_use]
    pub fn peer(&self) -> [u8; 32] {
        *self.inner.remote_id().as_bytes()
    }

    /// The protocol that both sides agreed on.
    #[must_use]
    pub fn alpn(&self) -> &[u8] {
        self.inner.alpn()
    }

    /// The path in use; `None` once the connection is closed.
    #[must_use]
    pub fn path(&self) -> Option<PathInfo> {
        if self.inner.close_reason().is_some() {
            return None;
        }
        let paths = self.inner.paths();
        let path = paths.iter().find(|p| p.is_selected()).or_else(|| paths.iter().next())?;
        let kind = match path.remote_addr() {
            TransportAddr::Ip(addr) => PathKind::Direct(*addr),
            _ => PathKind::Relay,
        };
        Some(PathInfo { kind, rtt: path.rtt() })
    }

    /// What the connection has carried so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let stats = self.inner.stats();
        Traffic {
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.sent_packets,
            lost_packets: stats.lost_packets,
        }
    }

    /// The address of the peer if the path is direct, for limits by address.
    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        match self.path()?.kind {
            PathKind::Direct(addr) => Some(addr),
            PathKind::Relay => None,
        }
    }
}

impl ConnectionLost {
    /// Whether the handshake ended because the two sides share no protocol.
    pub(crate) fn is_wrong_alpn(&self) -> bool {
        let alert = u64::from(TransportErrorCode::crypto(ALERT_NO_APPLICATION_PROTOCOL));
        matches!(self, Self::BrokenByPeer { code } | Self::BrokenHere { code } if *code == alert)
    }

    /// Whether the handshake ended with a TLS alert raised here, as for a wrong key.
    pub(crate) fn is_tls_refusal(&self) -> bool {
        let first = u64::from(TransportErrorCode::crypto(0));
        let last = u64::from(TransportErrorCode::crypto(u8::MAX));
        matches!(self, Self::BrokenHere { code } if (first..=last).contains(code))
    }
}

impl From<ConnectionError> for ConnectionLost {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::ClosedByPeer { code: close.error_code.into(), reason: close.reason }
            }
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Forgotten,
            ConnectionError::ConnectionClosed(close) => {
                Self::BrokenByPeer { code: close.error_code.into() }
            }
            ConnectionError::TransportError(error) => Self::BrokenHere { code: error.code.into() },
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                Self::BrokenHere { code: TransportErrorCode::INTERNAL_ERROR.into() }
            }
        }
    }
}
