//! Whether a node is the right one: of the network's chain, with the network's contracts on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloy_primitives::Address;

use crate::rpc::{BoxFuture, Rpc, RpcError, Transport, TransportError};

/// Why a node is of no use to a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It can't be asked now. Asking again may help.
    #[error("failed to ask the chain's node")]
    Ask(#[source] RpcError),
    /// It follows another chain.
    #[error(
        "the node follows chain {found}, and the network's contracts are on chain {expected}: name \
         a node of chain {expected}"
    )]
    Chain {
        /// The node's.
        found: u64,
        /// The network's.
        expected: u64,
    },
    /// Nothing stands where the network's contract should.
    #[error(
        "there is no contract at {0}: is the node behind, was the chain begun anew, or is the \
         deployment's file of another chain with the same id?"
    )]
    NoContract(Address),
}

/// What a node must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The chain's id.
    pub chain_id: u64,
    /// A contract of the network: its escrow.
    pub contract: Address,
}

impl Expected {
    /// Asks a node whether it is so.
    ///
    /// # Errors
    ///
    /// [`NodeError`]
    pub async fn check(self, rpc: &Rpc) -> Result<(), NodeError> {
        let found = rpc.chain_id().await.map_err(NodeError::Ask)?;
        if found != self.chain_id {
            return Err(NodeError::Chain { found, expected: self.chain_id });
        }
        if rpc.code(self.contract).await.map_err(NodeError::Ask)?.is_empty() {
            return Err(NodeError::NoContract(self.contract));
        }
        Ok(())
    }
}

/// A way to a node that is used only once it is known to be the right one. Until then every
/// question looks again, as a node may start late or be replaced.
#[derive(Debug)]
pub struct Checked<T> {
    inner: Arc<T>,
    expected: Expected,
    is_right: AtomicBool,
}

impl<T: Transport + 'static> Checked<T> {
    /// Looks before the first question.
    pub fn new(inner: T, expected: Expected) -> Self {
        Self { inner: Arc::new(inner), expected, is_right: AtomicBool::new(false) }
    }

    /// Looks now.
    ///
    /// # Errors
    ///
    /// [`NodeError`]
    pub async fn check(&self) -> Result<(), NodeError> {
        if self.is_right.load(Ordering::Acquire) {
            return Ok(());
        }
        self.expected.check(&Rpc::new(Arc::clone(&self.inner))).await?;
        self.is_right.store(true, Ordering::Release);
        Ok(())
    }
}

impl<T: Transport + 'static> Transport for Checked<T> {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move {
            match self.check().await {
                Ok(()) => self.inner.send(request).await,
                Err(NodeError::Ask(RpcError::Unreachable(why))) => Err(why),
                Err(error) => Err(TransportError(error.to_string())),
            }
        })
    }
}
