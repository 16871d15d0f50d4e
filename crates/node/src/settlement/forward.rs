//! JSON-RPC passed on to another node of the chain: only the methods that settling needs, so many
//! at a time, and none that a node's owner would not give to strangers.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use welkin_chain::http::Http;
use welkin_chain::node::{Checked, Expected, NodeError};
use welkin_chain::rpc::Transport as _;
use welkin_proto::settle::SettleRefusal;

/// The most questions on their way to the node.
const QUESTIONS_MAX: usize = 64;
/// How long one may take in all: less than those who ask wait for it.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How long a question may wait for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// What is passed on. Reading, and handing over what is signed: nothing that needs an account of
/// the node, none of its own affairs, nothing that only a node for tests does, no filters that it
/// would have to remember.
const METHODS: [&str; 20] = [
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getCode",
    "eth_getLogs",
    "eth_getStorageAt",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_sendRawTransaction",
    "eth_syncing",
    "net_version",
];

/// Another node of the chain.
#[derive(Debug)]
pub(super) struct Forward {
    node: Checked<Http>,
    turns: Semaphore,
}

/// The parts of a question that are passed on.
#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

impl Forward {
    pub(super) fn new(node: Http, expected: Expected) -> Self {
        Self { node: Checked::new(node, expected), turns: Semaphore::new(QUESTIONS_MAX) }
    }

    /// Whether it is the right node.
    pub(super) async fn check(&self) -> Result<(), NodeError> {
        self.node.check().await
    }

    /// The node's answer.
    pub(super) async fn rpc(&self, body: &[u8]) -> Result<Vec<u8>, SettleRefusal> {
        let question = match read(body) {
            Ok(question) => question,
            Err(refused) => return Ok(refused),
        };
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(SettleRefusal::Busy) };
        match tokio::time::timeout(TIMEOUT, self.node.send(question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the chain's node can't be asked");
                Err(SettleRefusal::NoNode)
            }
            Err(_) => {
                tracing::warn!(timeout = ?TIMEOUT, "the chain's node does not answer");
                Err(SettleRefusal::NoNode)
            }
        }
    }
}

/// The question as it is passed on, or the answer where it is not.
fn read(body: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let no = |id: Value, code: i64, message: String| {
        let error = json!({"code": code, "message": message});
        json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string().into_bytes()
    };
    let Ok(question) = serde_json::from_slice::<Question>(body) else {
        return Err(no(Value::Null, -32600, "not one JSON-RPC request".to_owned()));
    };
    let Question { id, method, params } = question;
    let is_plain = matches!(id, Value::Null | Value::Number(_) | Value::String(_))
        && matches!(params, Value::Null | Value::Array(_));
    if !is_plain {
        return Err(no(Value::Null, -32600, "not one JSON-RPC request".to_owned()));
    }
    if !METHODS.contains(&method.as_str()) {
        let name: String = method.chars().take(64).collect();
        let message = format!("the settlement service passes {name} on to no node");
        return Err(no(id, -32601, message));
    }
    let params = if params.is_null() { json!([]) } else { params };
    let question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    Ok(question.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_settling_needs_is_passed_on() {
        for method in METHODS {
            let body = format!(r#"{{"id":1,"method":"{method}","params":["0x1"],"more":2}}"#);
            let passed: Value = serde_json::from_slice(&read(body.as_bytes()).unwrap()).unwrap();
            let expected = json!({"jsonrpc":"2.0","id":1,"method":method,"params":["0x1"]});
            assert_eq!(passed, expected, "nothing else goes along");
        }
        for method in [
            "eth_accounts",
            "eth_sendTransaction",
            "eth_sign",
            "eth_newFilter",
            "personal_unlockAccount",
            "admin_addPeer",
            "debug_traceTransaction",
            "miner_start",
            "txpool_content",
            "anvil_setBalance",
            "hardhat_reset",
            "evm_revert",
            "ETH_CALL",
            "eth_call ",
            "",
        ] {
            let body = json!({"id": 7, "method": method, "params": []}).to_string();
            let refused: Value =
                serde_json::from_slice(&read(body.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(refused["id"], 7);
            assert_eq!(refused["error"]["code"], -32601, "{method}");
        }
        for nonsense in [
            "",
            "7",
            "null",
            "[]",
            r#"[{"id":1,"method":"eth_chainId"}]"#,
            r#"{"id":{},"method":"eth_chainId"}"#,
            r#"{"id":1,"method":"eth_chainId","params":{"a":1}}"#,
            r#"{"id":1,"method":["eth_chainId"]}"#,
        ] {
            let refused: Value =
                serde_json::from_slice(&read(nonsense.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(refused["error"]["code"], -32600, "{nonsense}");
        }
    }
}
