//! A small JSON-RPC client for Ethereum nodes: what the sender, the follower and the calls need.
//!
//! The way to the node is a [`Transport`]: the embedded chain in this process, the settlement
//! service over the network, or HTTP. Methods and encodings are those of the Ethereum execution
//! API specification; numbers travel as `0x` quantities.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A future that owns what it needs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How many blocks are searched for events in one question at first.
const BLOCKS_AT_ONCE: u64 = 100_000;

/// The way to a node: takes one JSON-RPC request, gives its answer.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends a request and waits for the answer, with a time-out of its own.
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>>;
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        (**self).send(request)
    }
}

/// The node was not reached, or did not answer in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Why a question to a node brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The node can't be reached. Asking again may help.
    #[error("the chain's node can't be reached")]
    Unreachable(#[source] TransportError),
    /// The contract says no; the data tells why.
    #[error("the contract refuses: 0x{}", alloy_primitives::hex::encode(.0))]
    Reverted(Bytes),
    /// The node says no.
    #[error("the chain's node refuses: {message} (code {code})")]
    Refused {
        /// JSON-RPC's error code.
        code: i64,
        /// In the node's words.
        message: String,
    },
    /// The answer is none to this question.
    #[error("the chain's node gave an answer that can't be read: {0}")]
    Confused(String),
}

impl RpcError {
    /// Whether the node itself was not reached.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// What is called: a message without a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallRequest {
    /// In whose name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// Which contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Address>,
    /// The call's data.
    pub input: Bytes,
}

/// An event that a contract has emitted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Which contract.
    pub address: Address,
    /// The event's hash and its indexed fields.
    pub topics: Vec<B256>,
    /// The other fields.
    pub data: Bytes,
    /// In which block.
    #[serde(default)]
    pub block_number: Option<U64>,
    /// That block's hash.
    #[serde(default)]
    pub block_hash: Option<B256>,
    /// By which transaction.
    #[serde(default)]
    pub transaction_hash: Option<B256>,
    /// Its place among the block's events.
    #[serde(default)]
    pub log_index: Option<U64>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Which transaction.
    pub transaction_hash: B256,
    /// In which block.
    pub block_number: U64,
    /// That block's hash.
    pub block_hash: B256,
    /// 1 if it took effect, 0 if it was undone.
    pub status: U64,
    /// What it used.
    pub gas_used: U64,
    /// The contract it made, if it made one.
    #[serde(default)]
    pub contract_address: Option<Address>,
    /// What was emitted.
    #[serde(default)]
    pub logs: Vec<Log>,
}

/// A block's head, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockHead {
    /// Its number.
    pub number: U64,
    /// Its hash.
    pub hash: B256,
    /// The block before.
    pub parent_hash: B256,
    /// When it was made, in seconds since 1970.
    pub timestamp: U64,
    /// The least price of gas in it, where the chain has one (EIP-1559).
    #[serde(default)]
    pub base_fee_per_gas: Option<U256>,
}

/// Which events to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Of this contract.
    pub address: Address,
    /// By position: any of these, or all if empty. At most four.
    pub topics: Vec<Vec<B256>>,
    /// The first block.
    pub from: u64,
    /// The last block; none: the newest.
    pub to: Option<u64>,
}

/// A node of an EVM chain.
#[derive(Clone, Debug)]
pub struct Rpc {
    transport: Arc<dyn Transport>,
    next_id: Arc<AtomicU64>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: i64,
    message: String,
    #[serde(default)]
    data: Option<Value>,
}

impl Rpc {
    /// Talks to the node at the end of this way.
    pub fn new(transport: impl Transport + 'static) -> Self {
        Self { transport: Arc::new(transport), next_id: Arc::default() }
    }

    /// Asks one question.
    ///
    /// # Errors
    ///
    /// [`RpcError`], as of every question here.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<T, RpcError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let bytes = question.to_string().into_bytes();
        let answer = self.transport.send(bytes).await.map_err(RpcError::Unreachable)?;
        read_answer(id, &answer)
    }

    /// The chain's id.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn chain_id(&self) -> Result<u64, RpcError> {
        self.ask::<U64>("eth_chainId", json!([])).await.map(|id| id.to())
    }

    /// The number of the newest block.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn block_number(&self) -> Result<u64, RpcError> {
        self.ask::<U64>("eth_blockNumber", json!([])).await.map(|number| number.to())
    }

    /// A block's head; none where the chain is not that long.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn head_at(&self, number: u64) -> Result<Option<BlockHead>, RpcError> {
        self.ask("eth_getBlockByNumber", json!([U64::from(number), false])).await
    }

    /// The newest block's head.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn head(&self) -> Result<BlockHead, RpcError> {
        self.ask("eth_getBlockByNumber", json!(["latest", false])).await
    }

    /// How many transactions of an account are in blocks: the next one's number.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn nonce(&self, account: Address) -> Result<u64, RpcError> {
        let params = json!([account, "latest"]);
        self.ask::<U64>("eth_getTransactionCount", params).await.map(|count| count.to())
    }

    /// An account's balance in the chain's own coin, in wei.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn coins(&self, account: Address) -> Result<U256, RpcError> {
        self.ask("eth_getBalance", json!([account, "latest"])).await
    }

    /// A contract's code; empty where there is none.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn code(&self, contract: Address) -> Result<Bytes, RpcError> {
        self.ask("eth_getCode", json!([contract, "latest"])).await
    }

    /// Calls without changing anything.
    ///
    /// # Errors
    ///
    /// [`RpcError::Reverted`] where the contract refuses, else [`RpcError`].
    pub async fn call(&self, request: &CallRequest) -> Result<Bytes, RpcError> {
        self.ask("eth_call", json!([request, "latest"])).await
    }

    /// How much gas a call needs.
    ///
    /// # Errors
    ///
    /// [`RpcError::Reverted`] where the contract refuses, else [`RpcError`].
    pub async fn estimate(&self, request: &CallRequest) -> Result<u64, RpcError> {
        self.ask::<U64>("eth_estimateGas", json!([request])).await.map(|gas| gas.to())
    }

    /// What a node advises to pay its block's maker for a unit of gas, in wei.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn tip(&self) -> Result<u128, RpcError> {
        let tip: U256 = self.ask("eth_maxPriorityFeePerGas", json!([])).await?;
        tip.try_into().map_err(|_| RpcError::Confused("a tip beyond 128 bits".to_owned()))
    }

    /// Hands a signed transaction over.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn send_raw(&self, transaction: &[u8]) -> Result<B256, RpcError> {
        let text = alloy_primitives::hex::encode_prefixed(transaction);
        self.ask("eth_sendRawTransaction", json!([text])).await
    }

    /// What became of a transaction; none while it is in no block.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        self.ask("eth_getTransactionReceipt", json!([hash])).await
    }

    /// The events that a filter lets through, in order.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn logs(&self, filter: &LogFilter) -> Result<Vec<Log>, RpcError> {
        let topics: Vec<Value> = filter
            .topics
            .iter()
            .map(|any| if any.is_empty() { Value::Null } else { json!(any) })
            .collect();
        let to = filter.to.map_or_else(|| json!("latest"), |to| json!(U64::from(to)));
        self.ask(
            "eth_getLogs",
            json!([{
                "address": filter.address,
                "topics": topics,
                "fromBlock": U64::from(filter.from),
                "toBlock": to,
            }]),
        )
        .await
    }

    /// As [`Self::logs`], in as many questions as the node asks for: where it finds a range too
    /// large, the range is halved.
    ///
    /// # Errors
    ///
    /// [`RpcError`]
    pub async fn logs_in_parts(&self, filter: &LogFilter) -> Result<Vec<Log>, RpcError> {
        let last = match filter.to {
            Some(to) => to,
            None => self.block_number().await?,
        };
        let (mut from, mut step) = (filter.from, BLOCKS_AT_ONCE);
        let mut logs = Vec::new();
        while from <= last {
            let to = last.min(from.saturating_add(step - 1));
            match self.logs(&LogFilter { from, to: Some(to), ..filter.clone() }).await {
                Ok(part) => {
                    logs.extend(part);
                    from = to + 1;
                }
                Err(RpcError::Refused { .. }) if step > 1 => step = step.div_ceil(4),
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }
}

fn read_answer<T: DeserializeOwned>(id: u64, bytes: &[u8]) -> Result<T, RpcError> {
    let confused = |why: String| RpcError::Confused(why);
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(confused(format!("{} bytes are too many", bytes.len())));
    }
    let answer: Answer =
        serde_json::from_slice(bytes).map_err(|error| confused(error.to_string()))?;
    if answer.id != json!(id) {
        return Err(confused("it answers another question".to_owned()));
    }
    let Some(error) = answer.error else {
        return serde_json::from_value(answer.result).map_err(|error| confused(error.to_string()));
    };
    // Geth and most others say 3 with the data as text; some wrap it once more.
    let data = error.data.as_ref().and_then(|data| data.as_str().or_else(|| data["data"].as_str()));
    let data = data.and_then(|text| text.parse::<Bytes>().ok());
    match data {
        Some(data) if error.code == 3 || error.message.contains("revert") => {
            Err(RpcError::Reverted(data))
        }
        None if error.code == 3 => Err(RpcError::Reverted(Bytes::new())),
        _ => Err(RpcError::Refused {
            code: error.code,
            message: error.message.chars().take(400).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_what_they_are() {
        let ok = br#"{"jsonrpc":"2.0","id":7,"result":"0x2a"}"#;
        assert_eq!(read_answer::<U64>(7, ok), Ok(U64::from(42)));
        assert!(matches!(read_answer::<U64>(8, ok), Err(RpcError::Confused(_))));
        let revert = br#"{"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"execution reverted","data":"0x01ff"}}"#;
        assert_eq!(
            read_answer::<U64>(1, revert),
            Err(RpcError::Reverted(Bytes::from(vec![1, 0xff])))
        );
        let wrapped = br#"{"id":1,"error":{"code":-32000,"message":"execution reverted","data":{"data":"0x01"}}}"#;
        assert_eq!(read_answer::<U64>(1, wrapped), Err(RpcError::Reverted(Bytes::from(vec![1]))));
        let refused = br#"{"id":1,"error":{"code":-32000,"message":"nonce too low"}}"#;
        assert!(matches!(read_answer::<U64>(1, refused), Err(RpcError::Refused { .. })));
        for nonsense in ["", "[]", "{", "null", "{\"id\":1,\"result\":{}}"] {
            let read = read_answer::<U64>(1, nonsense.as_bytes());
            assert!(matches!(read, Err(RpcError::Confused(_))), "{nonsense}");
        }
    }
}
