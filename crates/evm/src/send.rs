//! What a transaction meets before it is in a block: decoding, and the words of refusal.

use std::sync::Arc;

use alloy_consensus::{Transaction as _, TxEnvelope, transaction::Recovered};
use alloy_eips::eip2718::{Decodable2718 as _, Typed2718 as _};
use alloy_primitives::{Address, B256, Signature, U256};
use welkin_proto::recover;

/// The longest encoding of a transaction, as go-ethereum's pool has it.
const TRANSACTION_BYTES_MAX: usize = 128 * 1024;

/// Why a transaction is refused; worded as go-ethereum does, because wallets read the words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No transaction, or a signature that is none.
    #[error("invalid transaction: {what}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
    /// Blobs have no place here.
    #[error("transaction type not supported")]
    Kind,
    /// It would not fit into a block.
    #[error("exceeds block gas limit")]
    GasLimit,
    /// The signature is for another chain.
    #[error("invalid chain id for signer: have {have} want {want}")]
    ChainId {
        /// What was signed.
        have: u64,
        /// Ours.
        want: u64,
    },
    /// It was used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The sender's next one.
        next: u64,
        /// What was signed.
        nonce: u64,
    },
    /// It waits here already.
    #[error("already known")]
    AlreadyKnown,
    /// The same nonce waits here with a fee that is not at least a tenth smaller.
    #[error("replacement transaction underpriced")]
    Underpriced,
    /// The sender can't pay.
    #[error("insufficient funds for gas * price + value: address {from} have {have} want {want}")]
    InsufficientFunds {
        /// Who.
        from: Address,
        /// Its balance in wei.
        have: U256,
        /// What it needs in wei.
        want: U256,
    },
    /// It costs more before its first instruction.
    #[error("intrinsic gas too low: have {have}, want {want}")]
    IntrinsicGas {
        /// The transaction's limit.
        have: u64,
        /// What it needs at least.
        want: u64,
    },
    /// It offers less than every block asks.
    #[error("max fee per gas less than block base fee: maxFeePerGas: {have}, baseFee: {want}")]
    FeeTooLow {
        /// What it offers.
        have: u128,
        /// What is asked.
        want: u64,
    },
    /// The pool has no room; `what` says where.
    #[error("txpool is full: {what}")]
    PoolFull {
        /// Which bound.
        what: &'static str,
    },
    /// It waited too long for those before it.
    #[error("transaction dropped: transactions of lower nonces did not come")]
    Expired,
    /// Another one took its nonce.
    #[error("transaction replaced")]
    Replaced,
    /// revm refuses it for another reason.
    #[error("{0}")]
    Refused(Arc<str>),
    /// The block could not be written, and is not part of the chain.
    #[error("failed to write the block: {0}")]
    Disk(Arc<str>),
    /// The chain was closed before the block was made.
    #[error("the chain is closed")]
    Closed,
}

/// A transaction that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in a block, and the block is on the disk.
    Included(B256),
    /// Its nonce has a gap before it: it waits in memory.
    Waiting(B256),
}

impl Sent {
    /// The transaction's hash.
    #[must_use]
    pub const fn hash(self) -> B256 {
        match self {
            Self::Included(hash) | Self::Waiting(hash) => hash,
        }
    }
}

/// Decodes a transaction and finds its sender: about 0.1 ms, most of it the signature.
pub(crate) fn decode(raw: &[u8]) -> Result<Recovered<TxEnvelope>, SendError> {
    if raw.len() > TRANSACTION_BYTES_MAX {
        return Err(SendError::Invalid { what: "oversized data" });
    }
    let mut rest = raw;
    let transaction = TxEnvelope::decode_2718(&mut rest)
        .map_err(|_| SendError::Invalid { what: "its encoding" })?;
    if !rest.is_empty() {
        return Err(SendError::Invalid { what: "bytes behind its end" });
    }
    if !matches!(transaction.ty(), 0 | 1 | 2 | 4) {
        return Err(SendError::Kind);
    }
    if transaction.max_priority_fee_per_gas().is_some_and(|tip| tip > transaction.max_fee_per_gas())
    {
        return Err(SendError::Invalid {
            what: "max priority fee per gas higher than max fee per gas",
        });
    }
    let from = signer(transaction.signature(), transaction.signature_hash())
        .ok_or(SendError::Invalid { what: "its signature" })?;
    Ok(Recovered::new_unchecked(transaction, from))
}

/// Who signed a hash.
fn signer(signature: &Signature, hash: B256) -> Option<Address> {
    let (r, s) = (signature.r().to_be_bytes(), signature.s().to_be_bytes());
    recover(r, s, signature.v(), &hash.0).map(|account| Address::from(*account.as_bytes()))
}
