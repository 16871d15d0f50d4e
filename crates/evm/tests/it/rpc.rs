//! JSON-RPC: logs, filters, batches, and what is no request at all.

use std::sync::Arc;

use alloy_primitives::{Address, hex};
use proptest::prelude::*;
use serde_json::{Value, json};
use welkin_evm::Chain;

use crate::world::{Spec, ask, counter, fail, genesis, key, open, open_with};

#[tokio::test]
async fn logs_are_found_by_address_and_topic() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    for nonce in 0..5 {
        chain.send_raw(&Spec::new(nonce, counter()).sign(&key(1))).await.unwrap();
        let other = Spec::new(nonce, Address::repeat_byte(1)).sign(&key(2));
        chain.send_raw(&other).await.unwrap();
    }
    let topic = |count: u64| format!("0x{count:064x}");
    let found = async |filter: Value| ask(&chain, "eth_getLogs", json!([filter])).await;
    let count = |found: &Value| found.as_array().unwrap().len();
    assert_eq!(count(&found(json!({ "fromBlock": "0x0" })).await), 5);
    assert_eq!(count(&found(json!({ "fromBlock": "0x0", "address": [counter()] })).await), 5);
    let other = Address::repeat_byte(1);
    assert_eq!(count(&found(json!({ "fromBlock": "0x0", "address": other })).await), 0);
    let one = found(json!({ "fromBlock": "0x0", "topics": [topic(3)] })).await;
    assert_eq!((count(&one), &one[0]["data"]), (1, &json!(topic(3))));
    let two = json!({ "fromBlock": "0x0", "topics": [[topic(1), topic(5)]] });
    assert_eq!(count(&found(two).await), 2);
    let at = json!({ "blockHash": one[0]["blockHash"] });
    assert_eq!(found(at).await, one);
    let receipt =
        ask(&chain, "eth_getTransactionReceipt", json!([one[0]["transactionHash"]])).await;
    assert_eq!(receipt["logs"], one);
    let wrong = json!([{ "fromBlock": "0x5", "toBlock": "0x2" }]);
    assert_eq!(fail(&chain, "eth_getLogs", wrong).await, "invalid block range params");
}

#[tokio::test]
async fn filters_tell_each_thing_once() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let logs = ask(&chain, "eth_newFilter", json!([{ "address": counter() }])).await;
    let blocks = ask(&chain, "eth_newBlockFilter", json!([])).await;
    let news = async |id: &Value| {
        let news = ask(&chain, "eth_getFilterChanges", json!([id])).await;
        news.as_array().unwrap().len()
    };
    assert_eq!((news(&logs).await, news(&blocks).await), (0, 0));
    chain.send_raw(&Spec::new(0, counter()).sign(&key(1))).await.unwrap();
    chain.send_raw(&Spec::new(0, Address::ZERO).sign(&key(2))).await.unwrap();
    assert_eq!((news(&logs).await, news(&blocks).await), (1, 2));
    assert_eq!((news(&logs).await, news(&blocks).await), (0, 0));
    assert_eq!(ask(&chain, "eth_uninstallFilter", json!([logs])).await, json!(true));
    let message = fail(&chain, "eth_getFilterChanges", json!([logs])).await;
    assert_eq!(message, "filter not found");
}

#[tokio::test]
async fn a_batch_of_transactions_shares_a_block() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let head = chain.head().number;
    let batch: Vec<_> = (0..50)
        .map(|nonce| {
            let raw = hex::encode_prefixed(Spec::new(nonce, counter()).sign(&key(1)));
            json!({ "jsonrpc": "2.0", "id": nonce, "method": "eth_sendRawTransaction", "params": [raw] })
        })
        .collect();
    let answer = chain.rpc(json!(batch).to_string().as_bytes()).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let answers = answer.as_array().unwrap();
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|answer| answer["result"].is_string()), "{answer}");
    assert!(chain.head().number - head < 25, "{}", chain.head().number - head);
    let too_many = vec![json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }); 101];
    let answer = chain.rpc(json!(too_many).to_string().as_bytes()).await;
    assert!(String::from_utf8(answer).unwrap().contains("-32600"));
}

#[tokio::test]
async fn time_is_bent_only_in_tests() {
    let folder = tempfile::tempdir().unwrap();
    let mut plain = genesis();
    plain.testing = false;
    let chain = open_with(&folder.path().join("plain.redb"), plain);
    for method in ["evm_mine", "evm_revert", "evm_increaseTime", "evm_setNextBlockTimestamp"] {
        let message = fail(&chain, method, json!(["0x0"])).await;
        assert!(message.contains("does not exist"), "{message}");
    }
    let chain = open(&folder.path().join("test.redb"));
    let then = chain.head().timestamp;
    ask(&chain, "evm_increaseTime", json!([100])).await;
    ask(&chain, "evm_mine", json!([])).await;
    assert_eq!(chain.head().timestamp, then + 100);
    ask(&chain, "evm_setNextBlockTimestamp", json!([then + 1_000])).await;
    ask(&chain, "evm_mine", json!([])).await;
    assert_eq!(chain.head().timestamp, then + 1_000);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(0x)?[0-9a-f]{0,70}".prop_map(Value::from),
        prop::sample::select(vec!["latest", "pending", "earliest", "safe", "0x1", "\u{0}é"])
            .prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "from",
        "to",
        "data",
        "input",
        "gas",
        "value",
        "nonce",
        "fromBlock",
        "toBlock",
        "address",
        "topics",
        "blockHash",
        "accessList",
        "authorizationList",
        "maxFeePerGas",
        "type",
        "id",
        "params",
        "method",
    ]);
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

const METHODS: [&str; 32] = [
    "web3_clientVersion",
    "net_version",
    "net_listening",
    "eth_chainId",
    "eth_syncing",
    "eth_accounts",
    "eth_blockNumber",
    "eth_gasPrice",
    "eth_maxPriorityFeePerGas",
    "eth_feeHistory",
    "eth_getBalance",
    "eth_getTransactionCount",
    "eth_getCode",
    "eth_getStorageAt",
    "eth_call",
    "eth_estimateGas",
    "eth_sendRawTransaction",
    "eth_sendRawTransactionSync",
    "eth_getTransactionByHash",
    "eth_getTransactionReceipt",
    "eth_getBlockByNumber",
    "eth_getBlockByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getBlockReceipts",
    "eth_getLogs",
    "eth_newFilter",
    "eth_newBlockFilter",
    "eth_uninstallFilter",
    "eth_getFilterChanges",
    "eth_getFilterLogs",
    "evm_revert",
    "evm_increaseTime",
];

fn answer(chain: &Arc<Chain>, body: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(chain.rpc(body))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_asked_the_answer_is_json(
        requests in prop::collection::vec(
            (prop::sample::select(METHODS.to_vec()), prop::collection::vec(value(), 0..4)),
            1..20,
        ),
        strange in value(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let chain = open(&folder.path().join("chain.redb"));
        let mut batch: Vec<_> = requests
            .iter()
            .map(|(method, params)| json!({ "id": 1, "method": method, "params": params }))
            .collect();
        batch.push(strange);
        let text = json!(batch).to_string();
        let answers: Value = serde_json::from_slice(&answer(&chain, text.as_bytes())).unwrap();
        let answers = answers.as_array().unwrap();
        prop_assert!(answers.len() >= requests.len());
        // A panic would show so.
        prop_assert!(answers.iter().all(|answer| answer["error"]["code"] != -32603), "{:?}", answers);
        for body in [&bytes[..], &text.as_bytes()[..text.len() / 2]] {
            let answer: Value = serde_json::from_slice(&answer(&chain, body)).unwrap();
            prop_assert!(answer.is_object());
        }
        let alive = answer(&chain, br#"{"id":1,"method":"eth_chainId"}"#);
        prop_assert_eq!(alive.last(), Some(&b'}'));
    }
}
