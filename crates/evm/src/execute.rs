//! Execution: the rules of a chain as revm wants them, and a block under construction.

use std::sync::Arc;

use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Header, SignableTransaction as _, Transaction as _, TxEnvelope,
    TxLegacy, transaction::Recovered,
};
use alloy_eips::eip2718::Typed2718 as _;
use alloy_primitives::{Address, Bytes, Signature, U256};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::context_interface::cfg::gas_params::GasParams;
use revm::context_interface::either::Either;
use revm::database_interface::Database;
use revm::primitives::hardfork::SpecId;
use revm::{DatabaseCommit as _, ExecuteEvm as _, MainBuilder as _, MainContext as _};

use crate::block::{Body, Sealed, StoredReceipt, StoredTransaction, encoded};
use crate::commitment::{Before, commit};
use crate::genesis::{Genesis, GenesisTransaction, Timestamps};
use crate::send::SendError;
use crate::state::{Account, Changes, Overlay, Undo};
use crate::store::{NewBlock, ReadError};
use crate::view::View;

/// The fork whose instructions and gas costs hold.
const SPEC: SpecId = SpecId::PRAGUE;

/// The rules that every block follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) chain_id: u64,
    pub(crate) base_fee: u64,
    pub(crate) gas_limit: u64,
    beneficiary: Address,
    timestamps: Timestamps,
}

impl Rules {
    pub(crate) const fn new(genesis: &Genesis) -> Self {
        Self {
            chain_id: genesis.chain_id,
            base_fee: genesis.base_fee,
            gas_limit: genesis.gas_limit,
            beneficiary: genesis.beneficiary,
            timestamps: genesis.timestamps,
        }
    }

    /// The time of the block after `parent` when the clock says `now`.
    pub(crate) fn timestamp(&self, parent: &Header, now: u64) -> u64 {
        let earliest = match self.timestamps {
            Timestamps::NotBeforeParent => parent.timestamp,
            Timestamps::AfterParent => parent.timestamp.saturating_add(1),
        };
        now.max(earliest)
    }

    pub(crate) fn config(&self) -> CfgEnv {
        let mut config = CfgEnv::new_with_spec(SPEC);
        config.chain_id = self.chain_id;
        config
    }

    /// What code sees of the block that it runs in.
    pub(crate) fn block(&self, parent: &Sealed, number: u64, timestamp: u64) -> BlockEnv {
        BlockEnv {
            number: U256::from(number),
            beneficiary: self.beneficiary,
            timestamp: U256::from(timestamp),
            gas_limit: self.gas_limit,
            basefee: self.base_fee,
            prevrandao: Some(parent.hash),
            ..BlockEnv::default()
        }
    }

    /// What a transaction pays for a unit of gas at most, and as a tip; nothing where gas is free.
    pub(crate) fn price(&self, transaction: &TxEnvelope) -> (u128, Option<u128>) {
        if self.base_fee == 0 {
            return (0, transaction.max_priority_fee_per_gas().map(|_| 0));
        }
        (transaction.max_fee_per_gas(), transaction.max_priority_fee_per_gas())
    }

    /// Whether a transaction brings the gas that it costs before its first instruction.
    pub(crate) fn check_intrinsic_gas(
        &self,
        transaction: &Recovered<TxEnvelope>,
    ) -> Result<(), SendError> {
        let environment = self.environment(transaction.inner(), transaction.signer());
        let gas = GasParams::new_spec(SPEC).initial_tx_gas_for_tx(&environment, None);
        let want = gas.initial_total_gas().max(gas.floor_gas());
        let have = transaction.gas_limit();
        if have < want { Err(SendError::IntrinsicGas { have, want }) } else { Ok(()) }
    }

    pub(crate) fn environment(&self, transaction: &TxEnvelope, from: Address) -> TxEnv {
        let (gas_price, gas_priority_fee) = self.price(transaction);
        TxEnv {
            tx_type: transaction.ty(),
            caller: from,
            gas_limit: transaction.gas_limit(),
            gas_price,
            gas_priority_fee,
            kind: transaction.kind(),
            value: transaction.value(),
            data: transaction.input().clone(),
            nonce: transaction.nonce(),
            chain_id: transaction.chain_id(),
            access_list: transaction.access_list().cloned().unwrap_or_default(),
            authorization_list: transaction
                .authorization_list()
                .map(|list| list.iter().cloned().map(Either::Left).collect())
                .unwrap_or_default(),
            ..TxEnv::default()
        }
    }
}

/// What became of a transaction that was offered to a block.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in, whether its call succeeded or not.
    Included,
    /// The block has not the gas for it.
    NoRoom,
    /// It can't be in this block or in any.
    Refused(SendError),
}

/// How a transaction of the genesis failed.
#[derive(Debug)]
pub(crate) enum GenesisFailure {
    Read(ReadError),
    Reverted(Bytes),
    Failed(String),
}

/// A block under construction.
#[derive(Debug)]
pub(crate) struct Building {
    rules: Rules,
    parent: Sealed,
    environment: BlockEnv,
    overlay: Overlay,
    body: Body,
    gas_used: u64,
}

impl Building {
    /// Begins the block after a view's head.
    pub(crate) fn new(rules: Rules, view: Arc<View>, now: u64) -> Self {
        let parent = view.head.clone();
        let timestamp = rules.timestamp(&parent.header, now);
        let environment = rules.block(&parent, parent.header.number + 1, timestamp);
        let overlay = Overlay::new(view);
        Self { rules, parent, environment, overlay, body: Body::default(), gas_used: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.body.transactions.is_empty()
    }

    pub(crate) const fn gas_used(&self) -> u64 {
        self.gas_used
    }

    /// Executes a transaction and keeps what it changes.
    pub(crate) fn add(
        &mut self,
        transaction: &Recovered<TxEnvelope>,
    ) -> Result<Outcome, ReadError> {
        if transaction.gas_limit() > self.rules.gas_limit - self.gas_used {
            return Ok(Outcome::NoRoom);
        }
        let environment = self.rules.environment(transaction.inner(), transaction.signer());
        let config = self.rules.config();
        let result = match transact(&mut self.overlay, &self.environment, config, environment) {
            Ok(result) => result,
            Err(EVMError::Transaction(error)) => {
                return Ok(Outcome::Refused(refusal(&error, transaction.signer())));
            }
            Err(EVMError::Database(error)) => return Err(error),
            Err(other) => {
                return Ok(Outcome::Refused(SendError::Refused(other.to_string().into())));
            }
        };
        self.include(transaction.inner(), transaction.signer(), result);
        Ok(Outcome::Included)
    }

    /// Executes a transaction of the genesis, without a signature and for nothing.
    pub(crate) fn add_genesis(
        &mut self,
        transaction: &GenesisTransaction,
        gas_limit: u64,
    ) -> Result<(), GenesisFailure> {
        let from = transaction.from;
        let account = self.overlay.account(from).map_err(GenesisFailure::Read)?;
        let unsigned = TxLegacy {
            chain_id: Some(self.rules.chain_id),
            nonce: account.map_or(0, |account| account.nonce),
            gas_price: 0,
            gas_limit,
            to: transaction.kind(),
            value: U256::ZERO,
            input: transaction.data.clone(),
        };
        // A signature of nobody: the sender is stated, not recovered.
        let nobody = Signature::new(U256::ONE, U256::ONE, false);
        let signed = TxEnvelope::from(unsigned.into_signed(nobody));
        let mut config = self.rules.config();
        config.disable_base_fee = true;
        let environment = self.rules.environment(&signed, from);
        let result = transact(&mut self.overlay, &self.environment, config, environment);
        match result {
            Ok(result @ ExecutionResult::Success { .. }) => {
                self.include(&signed, from, result);
                Ok(())
            }
            Ok(ExecutionResult::Revert { output, .. }) => Err(GenesisFailure::Reverted(output)),
            Ok(ExecutionResult::Halt { reason, .. }) => {
                Err(GenesisFailure::Failed(format!("{reason:?}")))
            }
            Err(EVMError::Database(error)) => Err(GenesisFailure::Read(error)),
            Err(error) => Err(GenesisFailure::Failed(error.to_string())),
        }
    }

    fn include(&mut self, transaction: &TxEnvelope, from: Address, result: ExecutionResult) {
        self.gas_used += result.tx_gas_used();
        let (kind, raw) = encoded(transaction);
        let succeeded = result.is_success();
        let logs = if succeeded { result.into_logs() } else { Vec::new() };
        let hash = *transaction.tx_hash();
        self.body.transactions.push(StoredTransaction { hash, from, raw });
        let cumulative_gas = self.gas_used;
        self.body.receipts.push(StoredReceipt { kind, succeeded, cumulative_gas, logs });
    }

    /// The finished block.
    pub(crate) fn seal(self) -> Result<NewBlock, ReadError> {
        let number = self.parent.header.number + 1;
        let before = self.overlay.parent();
        let (mut changes, mut undo) = self.overlay.into_changes(number)?;
        let (state_root, nodes) = commit(Before(Some(&before)), &mut changes, &mut undo)?;
        let (receipts_root, logs_bloom) = self.body.receipts_root();
        let header = Header {
            parent_hash: self.parent.hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: self.rules.beneficiary,
            state_root,
            transactions_root: self.body.transactions_root(),
            receipts_root,
            logs_bloom,
            number,
            gas_limit: self.rules.gas_limit,
            gas_used: self.gas_used,
            timestamp: self.environment.timestamp.saturating_to(),
            mix_hash: self.parent.hash,
            base_fee_per_gas: Some(self.rules.base_fee),
            ..Header::default()
        };
        Ok(NewBlock { sealed: Sealed::new(header), body: self.body, changes, undo, nodes })
    }
}

/// Block 0: balances and nothing else.
pub(crate) fn first_block(genesis: &Genesis) -> Result<NewBlock, ReadError> {
    let (mut changes, mut undo) = (Changes::default(), Undo::default());
    for (address, balance) in &genesis.balances {
        let account = Account { balance: *balance, ..Account::default() };
        let is_there = !balance.is_zero();
        changes.accounts.insert(*address, is_there.then_some(account));
    }
    let (state_root, nodes) = commit(Before(None), &mut changes, &mut undo)?;
    let header = Header {
        parent_hash: genesis.hash(),
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: genesis.beneficiary,
        state_root,
        gas_limit: genesis.gas_limit,
        timestamp: genesis.timestamp,
        base_fee_per_gas: Some(genesis.base_fee),
        ..Header::default()
    };
    // Nothing is before it: its undo record is empty.
    let undo = Undo::default();
    Ok(NewBlock { sealed: Sealed::new(header), body: Body::default(), changes, undo, nodes })
}

fn transact(
    overlay: &mut Overlay,
    block: &BlockEnv,
    config: CfgEnv,
    transaction: TxEnv,
) -> Result<ExecutionResult, EVMError<<Overlay as Database>::Error>> {
    let outcome = {
        let mut evm = Context::mainnet()
            .with_db(&mut *overlay)
            .with_block(block.clone())
            .with_cfg(config)
            .build_mainnet();
        evm.transact(transaction)?
    };
    overlay.commit(outcome.state);
    Ok(outcome.result)
}

/// revm's refusal in go-ethereum's words.
fn refusal(error: &InvalidTransaction, from: Address) -> SendError {
    use InvalidTransaction as Invalid;
    match error {
        Invalid::NonceTooLow { tx, state } => SendError::NonceTooLow { next: *state, nonce: *tx },
        Invalid::LackOfFundForMaxFee { fee, balance } => {
            SendError::InsufficientFunds { from, have: **balance, want: **fee }
        }
        Invalid::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            SendError::IntrinsicGas { have: *gas_limit, want: *initial_gas }
        }
        Invalid::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            SendError::IntrinsicGas { have: *gas_limit, want: *gas_floor }
        }
        Invalid::CallerGasLimitMoreThanBlock => SendError::GasLimit,
        other => SendError::Refused(other.to_string().into()),
    }
}
