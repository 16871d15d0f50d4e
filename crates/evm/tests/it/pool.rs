//! What waits for a block, and what is refused.

use alloy_primitives::{Address, U256};
use serde_json::json;
use welkin_evm::{SendError, Sent};

use crate::world::{self, Spec, address_of, ask, counter, fail, key, open, open_with};

const TO: Address = Address::repeat_byte(9);

#[tokio::test]
async fn a_nonce_gap_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    for nonce in [2, 1] {
        let sent = chain.send_raw_or_queue(&Spec::new(nonce, TO).value(1).sign(&key(1))).await;
        assert!(matches!(sent, Ok(Sent::Waiting(_))), "{sent:?}");
    }
    let from = address_of(&key(1));
    assert_eq!(ask(&chain, "eth_getTransactionCount", json!([from, "pending"])).await, "0x0");
    let last = Spec::new(3, TO).value(1).sign(&key(1));
    let first = Spec::new(0, TO).value(1).sign(&key(1));
    let (last, first) = tokio::join!(chain.send_raw(&last), chain.send_raw_or_queue(&first),);
    assert!(matches!(first, Ok(Sent::Included(_))));
    assert!(chain.receipt(last.unwrap()).unwrap().unwrap().status());
    assert_eq!(ask(&chain, "eth_getTransactionCount", json!([from, "latest"])).await, "0x4");
    assert_eq!(chain.balance(TO).unwrap(), U256::from(4));
}

#[tokio::test]
async fn a_replacement_needs_a_tenth_more_where_gas_costs() {
    let folder = tempfile::tempdir().unwrap();
    let mut genesis = world::genesis();
    genesis.base_fee = 10;
    let chain = open_with(&folder.path().join("chain.redb"), genesis);
    let send = |fee| {
        let raw = Spec::new(1, TO).fee(fee).sign(&key(1));
        let chain = &chain;
        async move { chain.send_raw_or_queue(&raw).await }
    };
    let first = send(100).await.unwrap();
    assert_eq!(send(100).await.unwrap_err(), SendError::AlreadyKnown);
    assert_eq!(send(109).await.unwrap_err(), SendError::Underpriced);
    let second = send(110).await.unwrap();
    assert!(matches!(send(9).await.unwrap_err(), SendError::FeeTooLow { have: 9, want: 10 }));
    chain.send_raw(&Spec::new(0, TO).fee(10).sign(&key(1))).await.unwrap();
    ask(&chain, "evm_mine", json!([])).await;
    assert!(chain.receipt(first.hash()).unwrap().is_none());
    let receipt = chain.receipt(second.hash()).unwrap().unwrap();
    assert_eq!(receipt.effective_gas_price, 110);
}

#[tokio::test]
async fn refusals_are_worded_as_tools_expect() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    chain.send_raw(&Spec::new(0, TO).sign(&key(1))).await.unwrap();
    let mut other = Spec::new(1, TO).sign(&key(1));
    other.push(0);
    let cases = [
        (Spec::new(0, TO).sign(&key(1)), "nonce too low: next nonce 1, tx nonce 0"),
        (Spec::new(1, TO).gas(20_999).sign(&key(1)), "intrinsic gas too low"),
        (Spec::new(1, TO).gas(60_000_001).sign(&key(1)), "exceeds block gas limit"),
        (Spec::new(0, TO).value(1).sign(&key(99)), "insufficient funds for gas * price + value"),
        (other, "invalid transaction"),
        (vec![2, 0xc0], "invalid transaction"),
        (vec![0; 200_000], "oversized data"),
        (Vec::new(), "invalid transaction"),
    ];
    for (raw, text) in cases {
        let message = fail(
            &chain,
            "eth_sendRawTransaction",
            json!([alloy_primitives::hex::encode_prefixed(raw)]),
        )
        .await;
        assert!(message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn gas_is_free_where_the_base_fee_is_zero() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let poor = key(77);
    let hash = chain.send_raw(&Spec::new(0, counter()).fee(1_000_000).sign(&poor)).await.unwrap();
    let receipt = chain.receipt(hash).unwrap().unwrap();
    assert_eq!((receipt.status(), receipt.effective_gas_price), (true, 0));
    assert_eq!(chain.balance(address_of(&poor)).unwrap(), U256::ZERO);
}

#[tokio::test]
async fn what_fails_before_its_turn_leaves_those_behind_it_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let all = 10_u64.pow(18);
    // Each could be paid alone; after the first, the second can't.
    let (first, second, third) = (
        Spec::new(0, TO).value(all - 5).sign(&key(1)),
        Spec::new(1, TO).value(10).sign(&key(1)),
        Spec::new(2, TO).value(1).sign(&key(1)),
    );
    let gapped = chain.send_raw_or_queue(&second).await.unwrap();
    let waits = chain.send_raw_or_queue(&third).await.unwrap();
    chain.send_raw(&first).await.unwrap();
    ask(&chain, "evm_mine", json!([])).await;
    assert!(chain.receipt(gapped.hash()).unwrap().is_none());
    assert!(chain.receipt(waits.hash()).unwrap().is_none());
    assert_eq!(chain.next_nonce(address_of(&key(1))).unwrap(), 1);
    chain.send_raw(&Spec::new(1, TO).value(2).sign(&key(1))).await.unwrap();
    ask(&chain, "evm_mine", json!([])).await;
    assert!(chain.receipt(waits.hash()).unwrap().is_some());
    assert_eq!(chain.balance(TO).unwrap(), U256::from(all - 2));
}
