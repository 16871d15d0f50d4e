//! Execution that keeps nothing: `eth_call` and `eth_estimateGas`.

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Bytes, TxKind};
use alloy_rpc_types_eth::TransactionRequest;
use revm::context::result::{EVMError, ExecutionResult};
use revm::context::{BlockEnv, Context, TxEnv};
use revm::database_interface::WrapDatabaseRef;
use revm::{ExecuteEvm as _, MainBuilder as _, MainContext as _};

use crate::chain::Chain;
use crate::state::StateAt;
use crate::store::ReadError;
use crate::view::View;

/// Why a call gives no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The contract says no.
    #[error("execution reverted")]
    Reverted {
        /// What it says.
        data: Bytes,
    },
    /// The code went wrong, or needs more gas than a block has.
    #[error("execution halted: {why}")]
    Halted {
        /// How.
        why: String,
    },
    /// The request can't be executed at all.
    #[error("{why}")]
    Invalid {
        /// Why.
        why: String,
    },
    /// There is no such block.
    #[error("header not found")]
    UnknownBlock,
    /// The state can't be read, or is not kept any more.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A block that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The one to come.
    Pending,
    /// One that is there.
    Number(u64),
}

impl At {
    pub(crate) fn new(view: &View, block: BlockId) -> Result<Self, CallError> {
        let number = match block {
            BlockId::Hash(hash) => {
                view.number_of(hash.block_hash)?.ok_or(CallError::UnknownBlock)?
            }
            BlockId::Number(BlockNumberOrTag::Pending) => return Ok(Self::Pending),
            BlockId::Number(BlockNumberOrTag::Number(number)) => number,
            BlockId::Number(BlockNumberOrTag::Earliest) => 0,
            BlockId::Number(
                BlockNumberOrTag::Latest | BlockNumberOrTag::Safe | BlockNumberOrTag::Finalized,
            ) => view.number(),
        };
        if number > view.number() { Err(CallError::UnknownBlock) } else { Ok(Self::Number(number)) }
    }

    /// The state after that block.
    pub(crate) fn state(self, view: Arc<View>) -> Result<StateAt, CallError> {
        let number = match self {
            Self::Pending => view.number(),
            Self::Number(number) => number,
        };
        if !view.has_state(number) {
            return Err(ReadError::TooOld { number }.into());
        }
        Ok(StateAt { view, number })
    }
}

impl Chain {
    /// Calls a contract in the state after a block, and keeps nothing of it.
    ///
    /// Code sees the block's own number; at the newest block it sees the clock's time, because time
    /// goes on while no block is made.
    ///
    /// # Errors
    ///
    /// [`CallError`]; a revert comes with its data.
    pub fn call(&self, request: &TransactionRequest, block: BlockId) -> Result<Bytes, CallError> {
        let gas = self.gas_of(request);
        match self.execute(request, block, gas)? {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(CallError::Reverted { data: output }),
            ExecutionResult::Halt { reason, .. } => {
                Err(CallError::Halted { why: format!("{reason:?}") })
            }
        }
    }

    fn gas_of(&self, request: &TransactionRequest) -> u64 {
        let most = self.shared.rules.gas_limit;
        request.gas.filter(|gas| *gas > 0).map_or(most, |gas| gas.min(most))
    }

    fn execute(
        &self,
        request: &TransactionRequest,
        block: BlockId,
        gas_limit: u64,
    ) -> Result<ExecutionResult, CallError> {
        let view = self.view();
        let at = At::new(&view, block)?;
        let environment = self.block_environment(&view, at)?;
        let state = at.state(view)?;
        let mut config = self.shared.rules.config();
        config.disable_nonce_check = true;
        config.disable_balance_check = true;
        config.disable_base_fee = true;
        config.disable_eip3607 = true;
        config.tx_chain_id_check = false;
        let authorizations = request.authorization_list.clone().unwrap_or_default();
        let transaction = TxEnv {
            tx_type: if authorizations.is_empty() { 2 } else { 4 },
            caller: request.from.unwrap_or_default(),
            gas_limit,
            gas_priority_fee: Some(0),
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input.input().cloned().unwrap_or_default(),
            access_list: request.access_list.clone().unwrap_or_default(),
            authorization_list: authorizations
                .into_iter()
                .map(revm::context_interface::either::Either::Left)
                .collect(),
            ..TxEnv::default()
        };
        let mut evm = Context::mainnet()
            .with_db(WrapDatabaseRef(state))
            .with_block(environment)
            .with_cfg(config)
            .build_mainnet();
        match evm.transact(transaction) {
            Ok(outcome) => Ok(outcome.result),
            Err(EVMError::Database(error)) => Err(error.into()),
            Err(error) => Err(CallError::Invalid { why: error.to_string() }),
        }
    }

    fn block_environment(&self, view: &View, at: At) -> Result<BlockEnv, CallError> {
        let rules = &self.shared.rules;
        let head = &view.head;
        let now = rules.timestamp(&head.header, self.shared.now());
        Ok(match at {
            At::Pending => rules.block(head, head.header.number + 1, now),
            At::Number(number) if number == head.header.number => rules.block(head, number, now),
            At::Number(number) => {
                let sealed = view.header(number)?.ok_or(CallError::UnknownBlock)?;
                rules.block(&sealed, number, sealed.header.timestamp)
            }
        })
    }

    /// The least gas limit, within 1.6 %, with which a transaction succeeds.
    ///
    /// # Errors
    ///
    /// [`CallError`] where it succeeds with none.
    pub fn estimate_gas(
        &self,
        request: &TransactionRequest,
        block: BlockId,
    ) -> Result<u64, CallError> {
        let most = self.gas_of(request);
        let result = self.execute(request, block, most)?;
        match &result {
            ExecutionResult::Success { .. } => (),
            ExecutionResult::Revert { output, .. } => {
                return Err(CallError::Reverted { data: output.clone() });
            }
            ExecutionResult::Halt { reason, .. } => {
                return Err(CallError::Halted { why: format!("{reason:?}") });
            }
        }
        // Between what was used and all of it: refunds, and the 63/64 that a call may take at most,
        // make the need differ from the use.
        let (mut low, mut high) = (result.tx_gas_used().saturating_sub(1), most);
        let succeeds = |gas| match self.execute(request, block, gas) {
            Ok(result) => Ok(result.is_success()),
            Err(CallError::Invalid { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        let guess = (result.gas().total_gas_spent().saturating_add(2_300)) / 63 * 64 + 64;
        if guess < high && succeeds(guess)? {
            high = guess;
        }
        while high.saturating_sub(low) > low / 64 + 1 {
            let middle = low + (high - low) / 2;
            if succeeds(middle)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(high)
    }
}
