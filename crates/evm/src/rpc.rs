//! JSON-RPC: what wallets and tools ask of a chain.
//!
//! A body is one request or a batch. Nothing in it can do more than fail its own request: bodies,
//! batches, ranges and answers are bounded, and what executes or reads does so on a thread of its own.

mod methods;
mod params;

use std::sync::Arc;

use alloy_primitives::{Bytes, hex};
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::logs::LogsError;
use crate::query::CallError;
use crate::send::SendError;
use crate::store::ReadError;
use params::Params;

/// The longest body.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// The most requests of a batch.
const BATCH_MAX: usize = 100;
/// The longest answer to a batch; those after it fail.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// An error as JSON-RPC has it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: i64,
    message: String,
    data: Option<Value>,
}

impl Failure {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    fn to_json(&self) -> Value {
        match &self.data {
            Some(data) => json!({ "code": self.code, "message": self.message, "data": data }),
            None => json!({ "code": self.code, "message": self.message }),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(-32000, error.to_string())
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        Self::new(-32000, error.to_string())
    }
}

impl From<LogsError> for Failure {
    fn from(error: LogsError) -> Self {
        let code = match error {
            LogsError::TooMany | LogsError::RangeTooLarge => -32005,
            LogsError::Range | LogsError::Criteria => -32602,
            LogsError::UnknownBlock | LogsError::NoFilter | LogsError::Read(_) => -32000,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let CallError::Reverted { data } = error else {
            return Self::new(-32000, error.to_string());
        };
        let message = match reason(&data) {
            Some(reason) => format!("execution reverted: {reason}"),
            None => "execution reverted".to_owned(),
        };
        Self { code: 3, message, data: Some(json!(hex::encode_prefixed(&data))) }
    }
}

/// The text of Solidity's `Error(string)`.
fn reason(data: &Bytes) -> Option<String> {
    let body = data.strip_prefix(&[0x08, 0xc3, 0x79, 0xa0])?;
    let length = usize::try_from(u64::from_be_bytes(body.get(56..64)?.try_into().ok()?)).ok()?;
    let text = body.get(64..)?.get(..length)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

impl Chain {
    /// Answers a JSON-RPC body: one request, or a batch of at most 100.
    ///
    /// Whatever the body is, the answer is JSON.
    pub async fn rpc(self: &Arc<Self>, body: &[u8]) -> Vec<u8> {
        let answer = match parse(body) {
            Ok(Value::Array(requests)) => self.batch(requests).await,
            Ok(request) => self.one(request).await,
            Err(failure) => Some(answer(Value::Null, Err(failure))),
        };
        answer.map_or_else(Vec::new, |answer| answer.to_string().into_bytes())
    }

    async fn batch(self: &Arc<Self>, requests: Vec<Value>) -> Option<Value> {
        if requests.is_empty() || requests.len() > BATCH_MAX {
            let text = format!("a batch holds 1 to {BATCH_MAX} requests");
            return Some(answer(Value::Null, Err(Failure::new(-32600, text))));
        }
        let mut answers = Vec::with_capacity(requests.len());
        let mut bytes = 0;
        for request in self.send_all(requests) {
            let answer = match request {
                Batched::Ended(answer) => answer,
                Batched::Sent(id, end) => {
                    let result = end.await.unwrap_or(Err(SendError::Closed));
                    answer(id, result.map(|hash| json!(hash)).map_err(Failure::from))
                }
                Batched::Other(request) if bytes > ANSWER_BYTES_MAX => {
                    let id = request.get("id").cloned().unwrap_or_default();
                    answer(id, Err(Failure::new(-32003, "response too large")))
                }
                Batched::Other(request) => match self.one(request).await {
                    Some(answer) => answer,
                    None => continue,
                },
            };
            bytes += size(&answer);
            answers.push(answer);
        }
        (!answers.is_empty()).then_some(Value::Array(answers))
    }

    /// Puts the transactions of a batch into the pool at once, so that they share a block.
    fn send_all(&self, requests: Vec<Value>) -> Vec<Batched> {
        let mut batched = Vec::with_capacity(requests.len());
        for request in requests {
            if request.get("method").and_then(Value::as_str) != Some("eth_sendRawTransaction") {
                batched.push(Batched::Other(request));
                continue;
            }
            let id = request.get("id").cloned().unwrap_or_default();
            let raw = Params::new(request.get("params")).and_then(|params| params.bytes(0));
            let sent = raw.and_then(|raw| Ok(self.submit(&raw)?));
            batched.push(match sent {
                Ok((_, true, end)) => Batched::Sent(id, end),
                Ok((hash, false, _)) => Batched::Ended(answer(id, Ok(json!(hash)))),
                Err(failure) => Batched::Ended(answer(id, Err(failure))),
            });
        }
        batched
    }

    async fn one(self: &Arc<Self>, request: Value) -> Option<Value> {
        let Value::Object(mut request) = request else {
            return Some(answer(Value::Null, Err(Failure::new(-32600, "invalid request"))));
        };
        let id = request.remove("id");
        let result = match (request.get("method"), Params::new(request.get("params"))) {
            (Some(Value::String(method)), Ok(params)) => self.answer(method, params).await,
            (Some(Value::String(_)), Err(failure)) => Err(failure),
            _ => Err(Failure::new(-32600, "invalid request")),
        };
        // One without an id wants no answer.
        Some(answer(id?, result))
    }

    async fn answer(self: &Arc<Self>, method: &str, params: Params) -> Result<Value, Failure> {
        match method {
            "eth_sendRawTransaction" => {
                Ok(json!(self.send_raw_or_queue(&params.bytes(0)?).await?.hash()))
            }
            "eth_sendRawTransactionSync" => {
                let hash = self.send_raw(&params.bytes(0)?).await?;
                Ok(json!(self.receipt(hash)?))
            }
            method if method.starts_with("evm_") => self.bend(method, &params).await,
            method => {
                let closed = |_| Failure::new(-32603, "internal error");
                let permit = Arc::clone(&self.readers).acquire_owned().await;
                let permit = permit.map_err(|_| Failure::new(-32603, "internal error"))?;
                let (chain, method) = (Arc::clone(self), method.to_owned());
                let work = move || {
                    let result = methods::read(&chain, &method, &params);
                    drop(permit);
                    result
                };
                tokio::task::spawn_blocking(work).await.map_err(closed)?
            }
        }
    }
}

/// A request of a batch.
enum Batched {
    Ended(Value),
    Sent(Value, tokio::sync::oneshot::Receiver<Result<alloy_primitives::B256, SendError>>),
    Other(Value),
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Failure::new(-32600, format!("a body has at most {BODY_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(body).map_err(|_| Failure::new(-32700, "parse error"))
}

fn answer(id: Value, result: Result<Value, Failure>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(failure) => json!({ "jsonrpc": "2.0", "id": id, "error": failure.to_json() }),
    }
}

/// About how long a value is as text.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + size(value)).sum(),
    }
}
