//! Accounts, contracts and transactions for the tests.

use std::path::Path;
use std::sync::Arc;

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, address, hex};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};

pub(crate) const CHAIN_ID: u64 = 412_346;
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const DEPLOYER: Address = address!("00000000000000000000000000000000000d3910");

/// Counts its calls in slot 0, logs each count with its number as the topic, and returns it; call
/// data of 32 bytes reverts with itself. Storage slot 7 is set by the constructor.
pub(crate) const COUNTER: &[u8] = &hex!(
    // constructor: sstore(7, 42); return the runtime code
    "602a600755" "602c" "6011" "6000" "39" "602c" "6000" "f3"
    // if calldatasize == 32: revert(calldata)
    "6020" "36" "14" "601f" "57"
    // n = sload(0) + 1; sstore(0, n)
    "6000" "54" "6001" "01" "80" "6000" "55"
    // mstore(0, n); log1(0, 32, n); return(0, 32)
    "80" "6000" "52" "6020" "6000" "a1" "6020" "6000" "f3"
    // 0x1f: jumpdest; calldatacopy(0, 0, 32); revert(0, 32)
    "5b" "6020" "6000" "6000" "37" "6020" "6000" "fd"
);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

pub(crate) fn address_of(key: &SigningKey) -> Address {
    Address::from_private_key(key)
}

pub(crate) fn genesis() -> Genesis {
    let mut genesis = Genesis::new(CHAIN_ID);
    genesis.timestamp = NOW;
    genesis.balances =
        (1..=8).map(|seed| (address_of(&key(seed)), U256::from(10_u64.pow(18)))).collect();
    genesis.transactions = vec![GenesisTransaction::deploy(DEPLOYER, COUNTER)];
    genesis.testing = true;
    genesis
}

pub(crate) fn counter() -> Address {
    DEPLOYER.create(0)
}

pub(crate) fn open(path: &Path) -> Arc<Chain> {
    open_with(path, genesis())
}

pub(crate) fn open_with(path: &Path, genesis: Genesis) -> Arc<Chain> {
    Chain::open(path, genesis, Clock::new(|| NOW)).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) nonce: u64,
    pub(crate) to: TxKind,
    pub(crate) value: u64,
    pub(crate) data: Bytes,
    pub(crate) gas: u64,
    pub(crate) fee: u128,
}

impl Spec {
    pub(crate) fn new(nonce: u64, to: Address) -> Self {
        Self { nonce, to: TxKind::Call(to), value: 0, data: Bytes::new(), gas: 200_000, fee: 0 }
    }

    pub(crate) fn value(self, value: u64) -> Self {
        Self { value, ..self }
    }

    pub(crate) fn fee(self, fee: u128) -> Self {
        Self { fee, ..self }
    }

    pub(crate) fn gas(self, gas: u64) -> Self {
        Self { gas, ..self }
    }

    pub(crate) fn data(self, data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), ..self }
    }

    pub(crate) fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: self.nonce,
            gas_limit: self.gas,
            max_fee_per_gas: self.fee,
            max_priority_fee_per_gas: self.fee,
            to: self.to,
            value: U256::from(self.value),
            access_list: alloy_eips::eip2930::AccessList::default(),
            input: self.data.clone(),
        };
        let hash = transaction.signature_hash();
        let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).unwrap();
        TxEnvelope::from(transaction.into_signed(Signature::from((signature, id)))).encoded_2718()
    }
}

/// The result of a request that must succeed.
pub(crate) async fn ask(chain: &Arc<Chain>, method: &str, params: Value) -> Value {
    let answer = ask_raw(chain, method, params).await;
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}

/// The message of a request that must fail.
pub(crate) async fn fail(chain: &Arc<Chain>, method: &str, params: Value) -> String {
    let answer = ask_raw(chain, method, params).await;
    answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{method}: {answer}")).to_owned()
}

pub(crate) async fn ask_raw(chain: &Arc<Chain>, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    serde_json::from_slice(&chain.rpc(body.to_string().as_bytes()).await).unwrap()
}
