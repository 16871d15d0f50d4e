//! Blocks as they are stored, and as JSON-RPC shows them.

use alloy_consensus::{
    Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, Transaction as _, TxEnvelope,
    proofs::{calculate_receipt_root, ordered_trie_root_with_encoder},
    transaction::Recovered,
};
use alloy_eips::eip2718::{Decodable2718 as _, Encodable2718 as _, Typed2718 as _};
use alloy_primitives::{Address, B256, Bloom, Bytes, Log};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use alloy_rpc_types_eth as rpc;

use crate::store::ReadError;

/// A header with its hash.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) hash: B256,
    pub(crate) header: Header,
}

impl Sealed {
    pub(crate) fn new(header: Header) -> Self {
        Self { hash: header.hash_slow(), header }
    }

    pub(crate) fn to_rpc(&self) -> rpc::Header {
        rpc::Header {
            hash: self.hash,
            inner: self.header.clone(),
            total_difficulty: None,
            size: None,
        }
    }
}

/// A transaction in a block; the sender is kept because finding it costs a recovery,
/// the hash because logs need it.
#[derive(Clone, Debug, RlpEncodable, RlpDecodable)]
pub(crate) struct StoredTransaction {
    pub(crate) hash: B256,
    pub(crate) from: Address,
    pub(crate) raw: Bytes,
}

impl StoredTransaction {
    pub(crate) fn decode(&self) -> Result<TxEnvelope, ReadError> {
        TxEnvelope::decode_2718(&mut &self.raw[..])
            .map_err(|_| ReadError::Damaged { what: "a transaction" })
    }
}

/// A receipt, without what follows from its block.
#[derive(Clone, Debug, RlpEncodable, RlpDecodable)]
pub(crate) struct StoredReceipt {
    pub(crate) kind: u8,
    pub(crate) succeeded: bool,
    pub(crate) cumulative_gas: u64,
    pub(crate) logs: Vec<Log>,
}

/// The contents of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) transactions: Vec<StoredTransaction>,
    pub(crate) receipts: Vec<StoredReceipt>,
}

impl Body {
    pub(crate) fn transactions_root(&self) -> B256 {
        ordered_trie_root_with_encoder(&self.transactions, |transaction, out| {
            out.extend_from_slice(&transaction.raw);
        })
    }

    /// The receipts' root, and the union of their blooms.
    pub(crate) fn receipts_root(&self) -> (B256, Bloom) {
        let receipts: Vec<_> = self
            .receipts
            .iter()
            .map(|stored| {
                let receipt = Receipt {
                    status: stored.succeeded.into(),
                    cumulative_gas_used: stored.cumulative_gas,
                    logs: stored.logs.clone(),
                };
                envelope(stored.kind, ReceiptWithBloom::from(receipt))
            })
            .collect();
        let bloom =
            receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
        (calculate_receipt_root(&receipts), bloom)
    }
}

fn envelope<T>(kind: u8, receipt: ReceiptWithBloom<Receipt<T>>) -> ReceiptEnvelope<T> {
    match kind {
        1 => ReceiptEnvelope::Eip2930(receipt),
        2 => ReceiptEnvelope::Eip1559(receipt),
        4 => ReceiptEnvelope::Eip7702(receipt),
        _ => ReceiptEnvelope::Legacy(receipt),
    }
}

/// A whole block, read from the disk.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) sealed: Sealed,
    pub(crate) body: Body,
}

impl Block {
    /// What a transaction of this block paid for a unit of gas.
    fn price(&self, transaction: &TxEnvelope) -> u128 {
        match self.sealed.header.base_fee_per_gas {
            None | Some(0) => 0,
            fee => transaction.effective_gas_price(fee),
        }
    }

    pub(crate) fn transaction(&self, index: usize) -> Result<Option<rpc::Transaction>, ReadError> {
        let Some(stored) = self.body.transactions.get(index) else { return Ok(None) };
        let envelope = stored.decode()?;
        let price = self.price(&envelope);
        Ok(Some(rpc::Transaction {
            inner: Recovered::new_unchecked(envelope, stored.from),
            block_hash: Some(self.sealed.hash),
            block_number: Some(self.sealed.header.number),
            transaction_index: Some(index as u64),
            effective_gas_price: Some(price),
            block_timestamp: Some(self.sealed.header.timestamp),
        }))
    }

    pub(crate) fn hashes(&self) -> Vec<B256> {
        self.body.transactions.iter().map(|stored| stored.hash).collect()
    }

    /// The logs of one receipt, numbered from `first`.
    fn logs(&self, index: usize, first: u64, hash: B256) -> Vec<rpc::Log> {
        let Some(receipt) = self.body.receipts.get(index) else { return Vec::new() };
        let numbered = receipt.logs.iter().zip(first..);
        numbered
            .map(|(log, number)| rpc::Log {
                inner: log.clone(),
                block_hash: Some(self.sealed.hash),
                block_number: Some(self.sealed.header.number),
                block_timestamp: Some(self.sealed.header.timestamp),
                transaction_hash: Some(hash),
                transaction_index: Some(index as u64),
                log_index: Some(number),
                removed: false,
            })
            .collect()
    }

    /// All logs of the block.
    pub(crate) fn all_logs(&self) -> Vec<rpc::Log> {
        let mut logs = Vec::new();
        for (index, stored) in self.body.transactions.iter().enumerate() {
            let first = logs.len() as u64;
            logs.extend(self.logs(index, first, stored.hash));
        }
        logs
    }

    pub(crate) fn receipt(
        &self,
        index: usize,
    ) -> Result<Option<rpc::TransactionReceipt>, ReadError> {
        let (Some(stored), Some(receipt)) =
            (self.body.transactions.get(index), self.body.receipts.get(index))
        else {
            return Ok(None);
        };
        let transaction = stored.decode()?;
        let hash = stored.hash;
        let before = self.body.receipts.get(..index).unwrap_or_default();
        let first = before.iter().map(|receipt| receipt.logs.len() as u64).sum();
        let gas_before = before.last().map_or(0, |receipt| receipt.cumulative_gas);
        let logs = self.logs(index, first, hash);
        let with_bloom = Receipt {
            status: receipt.succeeded.into(),
            cumulative_gas_used: receipt.cumulative_gas,
            logs,
        };
        let is_creation = transaction.kind().is_create();
        Ok(Some(rpc::TransactionReceipt {
            inner: envelope(receipt.kind, ReceiptWithBloom::from(with_bloom)),
            transaction_hash: hash,
            transaction_index: Some(index as u64),
            block_hash: Some(self.sealed.hash),
            block_number: Some(self.sealed.header.number),
            gas_used: receipt.cumulative_gas.saturating_sub(gas_before),
            effective_gas_price: self.price(&transaction),
            blob_gas_used: None,
            blob_gas_price: None,
            from: stored.from,
            to: transaction.to(),
            contract_address: is_creation.then(|| stored.from.create(transaction.nonce())),
        }))
    }

    pub(crate) fn receipts(&self) -> Result<Vec<rpc::TransactionReceipt>, ReadError> {
        let mut receipts = Vec::new();
        for index in 0..self.body.transactions.len() {
            receipts.extend(self.receipt(index)?);
        }
        Ok(receipts)
    }

    /// The block as JSON-RPC shows it, with whole transactions or with their hashes.
    pub(crate) fn to_rpc(&self, is_full: bool) -> Result<rpc::Block, ReadError> {
        let transactions = if is_full {
            let mut all = Vec::new();
            for index in 0..self.body.transactions.len() {
                all.extend(self.transaction(index)?);
            }
            rpc::BlockTransactions::Full(all)
        } else {
            rpc::BlockTransactions::Hashes(self.hashes())
        };
        let header = self.sealed.to_rpc();
        Ok(rpc::Block { header, uncles: Vec::new(), transactions, withdrawals: None })
    }
}

/// Decodes what we wrote ourselves.
pub(crate) fn decode<T: Decodable>(bytes: &[u8], what: &'static str) -> Result<T, ReadError> {
    T::decode(&mut &*bytes).map_err(|_| ReadError::Damaged { what })
}

/// The type and the encoding of a signed transaction.
pub(crate) fn encoded(transaction: &TxEnvelope) -> (u8, Bytes) {
    (transaction.ty(), transaction.encoded_2718().into())
}
