//! One kept connection to a service, dialled again when it is lost, and questions over it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use welkin_net::{ConnectError, Connection, ConnectionLost, Endpoint};
use welkin_proto::NodeAddr;

use crate::wire::{self, WireError};

/// How long dialling may take.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a question brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no way to the service.
    #[error("failed to connect to {node}")]
    Connect {
        /// Whom.
        node: welkin_types::NodeId,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The connection was lost.
    #[error("the connection was lost")]
    Lost(#[source] ConnectionLost),
    /// The conversation failed.
    #[error("the conversation failed")]
    Wire(#[source] WireError),
}

/// Asks one service; keeps the connection.
pub struct Caller {
    endpoint: Endpoint,
    addr: NodeAddr,
    alpn: &'static [u8],
    connection: Mutex<Option<Connection>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.addr.node)
    }
}

impl Caller {
    /// Will connect at the first question.
    pub fn new(endpoint: Endpoint, addr: NodeAddr, alpn: &'static [u8]) -> Self {
        Self { endpoint, addr, alpn, connection: Mutex::new(None) }
    }

    /// Whom it asks.
    pub const fn addr(&self) -> &NodeAddr {
        &self.addr
    }

    /// The kept connection, dialled where there is none.
    ///
    /// # Errors
    ///
    /// [`CallError::Connect`] where the service can't be reached.
    pub async fn connection(&self) -> Result<Connection, CallError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|kept| kept.close_reason().is_none()) {
            return Ok(connection.clone());
        }
        let addr = wire::to_net(&self.addr);
        let connection = self
            .endpoint
            .connect(&addr, self.alpn, DIAL_TIMEOUT)
            .await
            .map_err(|source| CallError::Connect { node: self.addr.node, source })?;
        *kept = Some(connection.clone());
        Ok(connection)
    }

    /// Asks one question on a stream of its own.
    ///
    /// # Errors
    ///
    /// [`CallError`] where there is no answer in time.
    pub async fn ask<Q, A>(&self, question: &Q, within: Duration) -> Result<A, CallError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let asking = async {
            let connection = self.connection().await?;
            let (mut send, mut recv) = connection.open().await.map_err(CallError::Lost)?;
            wire::send(&mut send, question).await.map_err(CallError::Wire)?;
            let _ = send.finish();
            wire::expect(&mut recv, within).await.map_err(CallError::Wire)
        };
        let late = |_| CallError::Wire(WireError::Late(within));
        tokio::time::timeout(within, asking).await.map_err(late)?
    }
}
