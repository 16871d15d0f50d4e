//! A connection that someone begins to open to us.
//!
//! It is handed out after its first packet, before any expensive step, so that the accept loop
//! is never held up by a slow handshake: the loop decides by address (limits, refusal) and gives
//! the handshake to a task of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use iroh::endpoint::{ConnectingError, IncomingAddr};
use thiserror::Error;

use crate::{
    BoxFuture, Connection, ConnectionLost,
    counters::{Tally, count},
    transport::HANDSHAKE_TIMEOUT,
};

/// The first packet of a connection.
#[derive(Debug)]
pub struct Incoming {
    inner: iroh::endpoint::Incoming,
    tally: Arc<Tally>,
}

/// Why a handshake did not end in a connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The handshake took too long.
    #[error("no handshake within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The peer speaks none of our protocols.
    #[error("the peer speaks none of our protocols")]
    WrongAlpn,
    /// The peer showed no usable key.
    #[error("the peer showed no usable key")]
    NoIdentity,
    /// The connection broke off.
    #[error("the handshake broke off")]
    Broken(#[source] ConnectionLost),
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    EndpointClosed,
}

impl Incoming {
    pub(crate) fn new(inner: iroh::endpoint::Incoming, tally: Arc<Tally>) -> Self {
        count(&tally.incoming);
        Self { inner, tally }
    }

    /// The address from which the packet came; `None` through a relay. Whether the sender can
    /// receive there is known only if [`Incoming::is_validated`].
    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        match self.inner.remote_addr() {
            IncomingAddr::Ip(addr) => Some(addr),
            _ => None,
        }
    }

    /// Whether the sender has shown that it receives at [`Incoming::remote_addr`].
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.inner.remote_addr_validated()
    }

    /// Completes the handshake within [`HANDSHAKE_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// If the peer is too slow, malformed, or speaks another protocol.
    pub fn handshake(self) -> BoxFuture<'static, Result<Connection, HandshakeError>> {
        Box::pin(async move {
            let tally = Arc::clone(&self.tally);
            let result = match tokio::time::timeout(HANDSHAKE_TIMEOUT, complete(self.inner)).await {
                Ok(result) => result,
                Err(_) => Err(HandshakeError::TimedOut { after: HANDSHAKE_TIMEOUT }),
            };
            count(match &result {
                Ok(_) => &tally.connected,
                Err(HandshakeError::WrongAlpn) => &tally.wrong_alpn,
                Err(HandshakeError::TimedOut { .. }) => &tally.timed_out,
                Err(_) => &tally.malformed,
            });
            result
        })
    }

    /// Answers with a refusal.
    pub fn refuse(self) {
        count(&self.tally.refused);
        self.inner.refuse();
    }

    /// Drops the packet without an answer, which costs least under attack.
    pub fn ignore(self) {
        count(&self.tally.refused);
        self.inner.ignore();
    }

    /// Asks the sender to prove its address before anything is kept for it; the connection then
    /// comes back as a new [`Incoming`] that is validated. Nothing happens if it already is.
    ///
    /// # Errors
    ///
    /// Gives itself back if the address is validated already.
    pub fn retry(self) -> Result<(), Box<Self>> {
        let Self { inner, tally } = self;
        inner.retry().map_err(|error| Box::new(Self { inner: error.into_incoming(), tally }))
    }
}

async fn complete(incoming: iroh::endpoint::Incoming) -> Result<Connection, HandshakeError> {
    let accepting = incoming.accept().map_err(|error| broken(error.into()))?;
    match accepting.await {
        Ok(connection) => Ok(Connection::new(connection)),
        Err(ConnectingError::ConnectionError { source, .. }) => Err(broken(source.into())),
        Err(ConnectingError::HandshakeFailure { .. }) => Err(HandshakeError::NoIdentity),
        Err(_) => Err(HandshakeError::EndpointClosed),
    }
}

fn broken(lost: ConnectionLost) -> HandshakeError {
    if lost.is_wrong_alpn() { HandshakeError::WrongAlpn } else { HandshakeError::Broken(lost) }
}
