//! The methods, by name.

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, U64, U256, hex};
use alloy_rpc_types_eth::TransactionRequest;
use serde_json::{Value, json};

use super::{Failure, Params};
use crate::block::Block;
use crate::chain::Chain;
use crate::logs::News;
use crate::query::{At, CallError};
use crate::state::StateAt;
use crate::store::ReadError;
use crate::view::View;
use crate::writer::Command;

/// The most blocks of a fee history.
const FEE_HISTORY_MAX: u64 = 1_024;
/// The most percentiles of a fee history.
const PERCENTILES_MAX: usize = 100;

fn quantity(number: u64) -> Value {
    json!(U64::from(number))
}

/// Answers what changes nothing.
pub(super) fn read(chain: &Arc<Chain>, method: &str, params: &Params) -> Result<Value, Failure> {
    let rules = &chain.shared.rules;
    Ok(match method {
        "web3_clientVersion" => json!(concat!("welkin-evm/v", env!("CARGO_PKG_VERSION"))),
        "net_version" => json!(rules.chain_id.to_string()),
        "net_listening" => json!(true),
        "eth_chainId" => quantity(rules.chain_id),
        "eth_syncing" => json!(false),
        "eth_accounts" => json!([]),
        "eth_blockNumber" => quantity(chain.view().number()),
        "eth_gasPrice" => quantity(rules.base_fee),
        "eth_maxPriorityFeePerGas" => quantity(0),
        "eth_feeHistory" => fee_history(chain, params)?,
        "eth_getBalance" => {
            json!(state(chain, params, 1)?.account(params.value(0)?)?.unwrap_or_default().balance)
        }
        "eth_getTransactionCount" => transaction_count(chain, params)?,
        "eth_getCode" => {
            let code = state(chain, params, 1)?.code(params.value(0)?)?;
            json!(hex::encode_prefixed(code.original_byte_slice()))
        }
        "eth_getStorageAt" => {
            let slot = (params.value::<Address>(0)?, params.value::<U256>(1)?);
            json!(B256::from(state(chain, params, 2)?.slot(slot)?))
        }
        "eth_call" => {
            no_overrides(params)?;
            json!(chain.call(&params.value::<TransactionRequest>(0)?, params.block(1)?)?)
        }
        "eth_estimateGas" => {
            no_overrides(params)?;
            let block = params.maybe(1)?.unwrap_or(BlockId::Number(BlockNumberOrTag::Pending));
            quantity(chain.estimate_gas(&params.value::<TransactionRequest>(0)?, block)?)
        }
        "eth_getTransactionByHash" => {
            placed(&chain.view(), params, |block, index| Ok(json!(block.transaction(index)?)))?
        }
        "eth_getTransactionReceipt" => {
            placed(&chain.view(), params, |block, index| Ok(json!(block.receipt(index)?)))?
        }
        "eth_getBlockByNumber" | "eth_getBlockByHash" => {
            let is_full = params.maybe(1)?.unwrap_or(false);
            block(chain, params, |block| Ok(json!(block.to_rpc(is_full)?)))?
        }
        "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
            block(chain, params, |block| Ok(quantity(block.body.transactions.len() as u64)))?
        }
        "eth_getBlockReceipts" => block(chain, params, |block| Ok(json!(block.receipts()?)))?,
        _ => return filters(chain, method, params),
    })
}

/// Answers what is about logs.
fn filters(chain: &Chain, method: &str, params: &Params) -> Result<Value, Failure> {
    let id = || {
        let missing = || Failure::params("missing value for required argument 0");
        params.number(0)?.ok_or_else(missing)
    };
    Ok(match method {
        "eth_getLogs" => json!(chain.logs(&params.value(0)?)?),
        "eth_newFilter" => quantity(chain.new_filter(Some(params.value(0)?))?),
        "eth_newBlockFilter" => quantity(chain.new_filter(None)?),
        "eth_uninstallFilter" => json!(chain.remove_filter(id()?)),
        "eth_getFilterLogs" => json!(chain.filter_logs(id()?)?),
        "eth_getFilterChanges" => match chain.filter_changes(id()?)? {
            News::Blocks(hashes) => json!(hashes),
            News::Logs(logs) => json!(logs),
        },
        _ => return Err(unknown(method)),
    })
}

fn unknown(method: &str) -> Failure {
    let name: String = method.chars().take(64).collect();
    Failure::new(-32601, format!("the method {name} does not exist/is not available"))
}

fn no_overrides(params: &Params) -> Result<(), Failure> {
    match params.maybe::<Value>(2)? {
        Some(Value::Object(overrides)) if !overrides.is_empty() => {
            Err(Failure::params("state overrides are not supported"))
        }
        _ => Ok(()),
    }
}

fn state(chain: &Chain, params: &Params, place: usize) -> Result<StateAt, Failure> {
    let view = chain.view();
    Ok(At::new(&view, params.block(place)?)?.state(view)?)
}

fn transaction_count(chain: &Chain, params: &Params) -> Result<Value, Failure> {
    let address = params.value(0)?;
    if params.block(1)? == BlockId::Number(BlockNumberOrTag::Pending) {
        return Ok(quantity(chain.next_nonce(address)?));
    }
    Ok(quantity(state(chain, params, 1)?.account(address)?.unwrap_or_default().nonce))
}

/// The block that the first parameter names, null where there is none.
fn block(
    chain: &Chain,
    params: &Params,
    shown: impl FnOnce(&Block) -> Result<Value, ReadError>,
) -> Result<Value, Failure> {
    let view = chain.view();
    let number = match At::new(&view, params.value(0)?) {
        Ok(At::Number(number)) => number,
        Ok(At::Pending) => view.number(),
        Err(CallError::UnknownBlock) => return Ok(Value::Null),
        Err(error) => return Err(error.into()),
    };
    match view.block(number)? {
        Some(block) => Ok(shown(&block)?),
        None => Ok(Value::Null),
    }
}

/// The transaction whose hash is the first parameter, null where it is in no block.
fn placed(
    view: &View,
    params: &Params,
    shown: impl FnOnce(&Block, usize) -> Result<Value, ReadError>,
) -> Result<Value, Failure> {
    let Some((number, index)) = view.place_of(params.value(0)?)? else { return Ok(Value::Null) };
    match view.block(number)? {
        Some(block) => Ok(shown(&block, index)?),
        None => Ok(Value::Null),
    }
}

fn fee_history(chain: &Chain, params: &Params) -> Result<Value, Failure> {
    let view = chain.view();
    let rules = &chain.shared.rules;
    let count = params.number(0)?.unwrap_or(1).clamp(1, FEE_HISTORY_MAX);
    let newest = match At::new(&view, params.block(1)?)? {
        At::Pending => view.number(),
        At::Number(number) => number,
    };
    let oldest = (newest + 1).saturating_sub(count);
    let percentiles = params.maybe::<Vec<f64>>(2)?.unwrap_or_default().len();
    if percentiles > PERCENTILES_MAX {
        return Err(Failure::params("too many percentiles"));
    }
    let mut ratios = Vec::new();
    for header in view.headers(oldest..=newest)? {
        let header = header?;
        #[expect(clippy::cast_precision_loss, reason = "a ratio to be shown")]
        ratios.push(header.gas_used as f64 / header.gas_limit as f64);
    }
    let blocks = ratios.len();
    let mut history = json!({
        "oldestBlock": quantity(oldest),
        "baseFeePerGas": vec![quantity(rules.base_fee); blocks + 1],
        "gasUsedRatio": ratios,
        "baseFeePerBlobGas": vec![quantity(0); blocks + 1],
        "blobGasUsedRatio": vec![0.0; blocks],
    });
    if percentiles > 0 {
        // Transactions are taken in the order of their arrival: a tip buys nothing.
        history["reward"] = json!(vec![vec![quantity(0); percentiles]; blocks]);
    }
    Ok(history)
}

impl Chain {
    /// The methods that bend time and go back, for chains opened for tests.
    pub(super) async fn bend(&self, method: &str, params: &Params) -> Result<Value, Failure> {
        if !self.shared.is_testing {
            return Err(unknown(method));
        }
        let required = || Failure::params("missing value for required argument 0");
        match method {
            "evm_increaseTime" => {
                let by = params.number(0)?.ok_or_else(required)?;
                let mut bend = crate::chain::lock(&self.shared.bend);
                bend.ahead = bend.ahead.saturating_add(by);
                Ok(quantity(bend.ahead))
            }
            "evm_setNextBlockTimestamp" => {
                let at = params.number(0)?.ok_or_else(required)?;
                let now = self.shared.clock.now();
                let mut bend = crate::chain::lock(&self.shared.bend);
                bend.next = Some(at);
                bend.ahead = at.saturating_sub(now);
                Ok(quantity(at))
            }
            "evm_mine" => {
                self.command(Command::Mine).await?;
                Ok(json!("0x0"))
            }
            // A snapshot is the number of a block: it is valid as long as that block's state is kept.
            "evm_snapshot" => Ok(quantity(self.view().number())),
            "evm_revert" => {
                let number = params.number(0)?.ok_or_else(required)?;
                Ok(json!(self.command(Command::Revert(number)).await?))
            }
            _ => Err(unknown(method)),
        }
    }
}
