//! A contract's refusal in the words of settlement.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolError as _, SolInterface as _};
use welkin_chain::contracts::{Escrow, MedianOracle};
use welkin_chain::refusals::explain;
use welkin_chain::rpc::RpcError;
use welkin_chain::sender::SendError;
use welkin_proto::settle::SettleRefusal;
use welkin_types::{UnixMillis, Usd};

use super::SettlementError;
use crate::connect::CallError;

/// What a failed call means to whoever asked. `micros` tells an amount of wei in micro-dollars.
pub(super) fn refusal(error: SendError, micros: impl Fn(U256) -> Usd) -> SettlementError {
    match error {
        SendError::Rpc(error) => rpc_refusal(error, micros),
        other => SettlementError::Chain(other),
    }
}

/// What a failed question means to whoever asked.
pub(super) fn rpc_refusal(error: RpcError, micros: impl Fn(U256) -> Usd) -> SettlementError {
    match error {
        RpcError::Unreachable(why) => SettlementError::Unreachable(CallError::Node(why)),
        RpcError::Reverted(data) => SettlementError::Refused(read(&data, micros)),
        other => SettlementError::Chain(SendError::Rpc(other)),
    }
}

/// What it means that a batch passed a voucher over, by the selector of the error.
pub(super) fn skipped(selector: [u8; 4]) -> SettlementError {
    SettlementError::Refused(read(&Bytes::copy_from_slice(&selector), |_| Usd::ZERO))
}

fn read(data: &Bytes, micros: impl Fn(U256) -> Usd) -> SettleRefusal {
    use Escrow::EscrowErrors as Error;
    if MedianOracle::Stale::abi_decode(data).is_ok() {
        return SettleRefusal::StalePrice;
    }
    let Ok(error) = Escrow::EscrowErrors::abi_decode(data) else {
        tracing::warn!(%data, why = %explain(data), "a contract refuses");
        return SettleRefusal::Contract;
    };
    match error {
        Error::Funds(funds) => SettleRefusal::Funds {
            needed: micros(funds.needed),
            available: micros(funds.available),
        },
        Error::Signature(_) => SettleRefusal::Signature,
        Error::Expired(expired) => SettleRefusal::Expired { at: UnixMillis(expired.at) },
        Error::Range(_) => SettleRefusal::Range,
        Error::LaneBusy(_) => SettleRefusal::LaneBusy,
        Error::Closed(_) => SettleRefusal::Closed,
        Error::Replayed(_) => SettleRefusal::Replayed,
        Error::UnknownLease(_) => SettleRefusal::UnknownLease,
        Error::NotOperator(_) | Error::NotYet(_) => SettleRefusal::NotAllowed,
        _ => {
            tracing::warn!(%data, why = %explain(data), "a contract refuses");
            SettleRefusal::Contract
        }
    }
}
