//! What a chain begins with: its rules, balances, and the contracts that stand from the start.

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_rlp::Encodable as _;

/// How the time of a block follows from the clock and from its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timestamps {
    /// Never before the parent; several blocks may share a second, as on Arbitrum.
    #[default]
    NotBeforeParent,
    /// Always after the parent, as on Ethereum; many blocks in a second run ahead of the clock.
    AfterParent,
}

/// A transaction of the genesis: executed in block 1 without a signature.
///
/// Its hash, and the address of what it deploys, follow from the description alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisTransaction {
    /// Who sends it: an address that needs no key. Its nonces count up from 0.
    pub from: Address,
    /// The contract called; `None` deploys one.
    pub to: Option<Address>,
    /// Init code or call data.
    pub data: Bytes,
}

impl GenesisTransaction {
    /// Deploys a contract, at `from.create(nonce)`.
    #[must_use]
    pub fn deploy(from: Address, init_code: impl Into<Bytes>) -> Self {
        Self { from, to: None, data: init_code.into() }
    }

    /// Calls a contract.
    #[must_use]
    pub fn call(from: Address, to: Address, data: impl Into<Bytes>) -> Self {
        Self { from, to: Some(to), data: data.into() }
    }

    pub(crate) fn kind(&self) -> TxKind {
        self.to.map_or(TxKind::Create, TxKind::Call)
    }
}

/// The description of a chain; all of it but [`testing`](Self::testing) is fixed by its first block.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// Part of every signature.
    pub chain_id: u64,
    /// The time of block 0, in seconds since 1970; no block is before it.
    pub timestamp: u64,
    /// How later times follow.
    pub timestamps: Timestamps,
    /// Wei per gas, the same in all blocks. With 0 gas is free: what a transaction offers is
    /// neither charged nor needed.
    pub base_fee: u64,
    /// The most gas of a block.
    pub gas_limit: u64,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// Balances of block 0, in wei.
    pub balances: Vec<(Address, U256)>,
    /// What is executed in block 1 (and further ones, where the gas of one does not suffice).
    pub transactions: Vec<GenesisTransaction>,
    /// Whether `evm_mine`, `evm_revert` and their like are served.
    pub testing: bool,
}

impl Genesis {
    /// A chain with free gas, 60,000,000 gas a block, and nobody who owns anything.
    #[must_use]
    pub const fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            timestamp: 0,
            timestamps: Timestamps::NotBeforeParent,
            base_fee: 0,
            gas_limit: 60_000_000,
            beneficiary: Address::ZERO,
            balances: Vec::new(),
            transactions: Vec::new(),
            testing: false,
        }
    }

    /// Identifies the description: a file opened with another one is refused.
    #[must_use]
    pub fn hash(&self) -> B256 {
        let mut out = b"welkin-evm genesis 1".to_vec();
        self.chain_id.encode(&mut out);
        self.timestamp.encode(&mut out);
        u8::from(self.timestamps == Timestamps::AfterParent).encode(&mut out);
        self.base_fee.encode(&mut out);
        self.gas_limit.encode(&mut out);
        self.beneficiary.encode(&mut out);
        self.balances.len().encode(&mut out);
        for (address, balance) in &self.balances {
            address.encode(&mut out);
            balance.encode(&mut out);
        }
        self.transactions.len().encode(&mut out);
        for transaction in &self.transactions {
            transaction.from.encode(&mut out);
            transaction.kind().encode(&mut out);
            transaction.data.encode(&mut out);
        }
        keccak256(&out)
    }
}
