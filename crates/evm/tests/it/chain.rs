//! Opening, sending, reading.

use alloy_primitives::{Address, U256};
use serde_json::json;
use welkin_evm::{Chain, Clock, OpenError};

use crate::world::{self, NOW, Spec, address_of, ask, counter, fail, key, open, open_with};

#[tokio::test]
async fn a_transfer_is_in_a_block_when_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    assert_eq!(chain.head().number, 1);
    let to = Address::repeat_byte(9);
    let hash = chain.send_raw(&Spec::new(0, to).value(5).sign(&key(1))).await.unwrap();
    assert_eq!(chain.head().number, 2);
    let receipt = chain.receipt(hash).unwrap().unwrap();
    assert!(receipt.status());
    assert_eq!((receipt.gas_used, receipt.block_number), (21_000, Some(2)));
    assert_eq!(receipt.from, address_of(&key(1)));
    assert_eq!(chain.balance(to).unwrap(), U256::from(5));
    assert_eq!(ask(&chain, "eth_getBalance", json!([to, "latest"])).await, "0x5");
    assert_eq!(ask(&chain, "eth_getBalance", json!([to, "0x1"])).await, "0x0");
}

#[tokio::test]
async fn genesis_contracts_stand_where_they_were_computed_to() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let slot = ask(&chain, "eth_getStorageAt", json!([counter(), "0x7", "latest"])).await;
    assert_eq!(U256::from_str_radix(&slot.as_str().unwrap()[2..], 16).unwrap(), U256::from(42));
    let call = json!({ "to": counter() });
    let one = format!("0x{:064x}", 1);
    assert_eq!(ask(&chain, "eth_call", json!([call, "latest"])).await, one);
    assert_eq!(ask(&chain, "eth_call", json!([call, "0x1"])).await, one);
    let hash = chain.send_raw(&Spec::new(0, counter()).sign(&key(1))).await.unwrap();
    let receipt = chain.receipt(hash).unwrap().unwrap();
    assert_eq!(receipt.logs().len(), 1);
    assert_eq!(ask(&chain, "eth_call", json!([call, "latest"])).await, format!("0x{:064x}", 2));
    assert_eq!(ask(&chain, "eth_call", json!([call, "0x1"])).await, one);
    let data = format!("0x{:064x}", 77);
    let revert = json!([{ "to": counter(), "data": data }, "latest"]);
    let answer = world::ask_raw(&chain, "eth_call", revert.clone()).await;
    assert_eq!((&answer["error"]["code"], &answer["error"]["data"]), (&json!(3), &json!(data)));
    assert_eq!(fail(&chain, "eth_estimateGas", revert).await, "execution reverted");
}

#[test]
fn a_failing_genesis_says_which_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let mut genesis = world::genesis();
    let data = U256::from(77).to_be_bytes_vec();
    genesis.transactions.push(welkin_evm::GenesisTransaction::call(
        Address::ZERO,
        counter(),
        data.clone(),
    ));
    let error = Chain::open(&path, genesis, Clock::new(|| NOW)).unwrap_err();
    match error {
        OpenError::Reverted { index: 1, data: found, .. } => assert_eq!(found, data),
        other => panic!("{other}"),
    }
    // What it left is no chain.
    assert_eq!(open(&path).head().number, 1);
}

#[test]
fn another_genesis_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    drop(open(&path));
    let mut other = world::genesis();
    other.chain_id += 1;
    let error = Chain::open(&path, other, Clock::new(|| NOW)).unwrap_err();
    assert!(matches!(error, OpenError::Genesis { .. }), "{error}");
    let mut in_use = world::genesis();
    in_use.testing = false;
    let chain = open_with(&path, in_use);
    let error = Chain::open(&path, world::genesis(), Clock::new(|| NOW)).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(chain);
}
