//! What people do with the contracts: looks at their state, and the transactions that change it.
//!
//! A [`Desk`] looks; what is to be sent comes out as a list of [`Act`]s, which the caller shows,
//! signs, hands to a hardware wallet or leaves be. Planning reads the present state first, so that
//! a command that broke off is simply run again: what was done is left out of the next plan.

pub mod calls;
pub mod committee;
pub mod deploy;
pub mod escrow;
pub mod gov;
pub mod licence;
pub mod params;
pub mod rewards;
pub mod stake;
pub mod typed_data;
pub mod verify;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent};

use crate::contracts::{Ath, Escrow};
use crate::deployment::{Contract, Deployment};
use crate::refusals::{Refusal, explain};
use crate::rpc::{CallRequest, LogFilter, Rpc, RpcError};
use crate::sender::SendError;

/// One transaction that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// What it does, for people: "announce the withdrawal of 5 ATH".
    pub what: String,
    /// The contract that is called.
    pub to: Address,
    /// The call's data.
    pub input: Bytes,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// A contract says no.
    #[error("failed to {what}")]
    Refused {
        /// What was tried.
        what: String,
        /// The contract's reason.
        #[source]
        refusal: Refusal,
    },
    /// The node can't be asked.
    #[error("failed to {what}")]
    Rpc {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: RpcError,
    },
    /// A transaction did not take effect.
    #[error("failed to {what}")]
    Send {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: SendError,
    },
    /// A contract's answer is none that it can give.
    #[error("the contract `{0}` gives an answer that can't be read: is it another version?")]
    Confused(&'static str),
    /// This network has no such contract.
    #[error("this network has no contract `{0}`")]
    Absent(&'static str),
    /// It can't be done as it stands, and the contracts need not be asked to know that.
    #[error("{why}")]
    Unfit {
        /// What is wrong.
        why: String,
        /// What to do now; may be empty.
        next: String,
        /// Whether it is money that is missing.
        is_money: bool,
    },
}

impl OpsError {
    /// Something that can't be done as it stands.
    pub fn unfit(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Unfit { why: why.into(), next: next.into(), is_money: false }
    }

    /// Something for which there is not enough money.
    pub fn money(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Unfit { why: why.into(), next: next.into(), is_money: true }
    }

    /// What a failed question means.
    pub fn of(what: impl Into<String>, error: RpcError) -> Self {
        let what = what.into();
        match error {
            RpcError::Reverted(data) => Self::Refused { what, refusal: explain(&data) },
            source => Self::Rpc { what, source },
        }
    }

    /// What a failed transaction means.
    pub fn of_send(what: impl Into<String>, error: SendError) -> Self {
        match error {
            SendError::Rpc(error) => Self::of(what, error),
            source => Self::Send { what: what.into(), source },
        }
    }

    /// The contract's reason, where it was one.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

/// One account's view of a network's contracts.
#[derive(Clone, Debug)]
pub struct Desk {
    rpc: Rpc,
    deployment: Deployment,
    account: Address,
}

impl Desk {
    /// A view of these contracts through this node, in this account's name.
    pub const fn new(rpc: Rpc, deployment: Deployment, account: Address) -> Self {
        Self { rpc, deployment, account }
    }

    /// The node.
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Where the contracts stand.
    pub const fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// In whose name.
    pub const fn account(&self) -> Address {
        self.account
    }

    /// Where one contract stands.
    ///
    /// # Errors
    ///
    /// [`OpsError::Absent`] where the network has none.
    pub fn place(&self, contract: Contract) -> Result<Address, OpsError> {
        let place = self.deployment.contracts.of(contract);
        if place.is_zero() { Err(OpsError::Absent(contract.name())) } else { Ok(place) }
    }

    /// Looks at a contract's state, in the account's name.
    ///
    /// # Errors
    ///
    /// [`OpsError`]
    pub async fn look<C: SolCall>(
        &self,
        contract: Contract,
        call: C,
    ) -> Result<C::Return, OpsError> {
        let to = self.place(contract)?;
        let input = call.abi_encode().into();
        let request = CallRequest { from: Some(self.account), to: Some(to), input };
        let data = self.rpc.call(&request).await.map_err(|error| {
            let function = C::SIGNATURE.split('(').next().unwrap_or_default();
            OpsError::of(
                format!("look at `{function}` of the contract `{}`", contract.name()),
                error,
            )
        })?;
        C::abi_decode_returns(&data).map_err(|_| OpsError::Confused(contract.name()))
    }

    /// A transaction that calls a contract.
    ///
    /// # Errors
    ///
    /// [`OpsError::Absent`]
    pub fn act<C: SolCall>(
        &self,
        what: impl Into<String>,
        contract: Contract,
        call: &C,
    ) -> Result<Act, OpsError> {
        let to = self.place(contract)?;
        Ok(Act { what: what.into(), to, input: call.abi_encode().into() })
    }

    /// Whether a transaction would take effect now; changes nothing.
    ///
    /// # Errors
    ///
    /// [`OpsError::Refused`] with the contract's reason.
    pub async fn check(&self, act: &Act) -> Result<(), OpsError> {
        let input = act.input.clone();
        let request = CallRequest { from: Some(self.account), to: Some(act.to), input };
        let tried = self.rpc.call(&request).await;
        tried.map(drop).map_err(|error| OpsError::of(act.what.clone(), error))
    }

    /// Events of a contract since it stands, in order: those whose indexed fields are these, as
    /// far as they are given.
    ///
    /// # Errors
    ///
    /// [`OpsError`]
    pub async fn events<E: SolEvent>(
        &self,
        contract: Contract,
        fields: &[Option<B256>],
    ) -> Result<Vec<E>, OpsError> {
        let mut topics = vec![vec![E::SIGNATURE_HASH]];
        topics.extend(fields.iter().map(|field| field.iter().copied().collect()));
        let filter = LogFilter {
            address: self.place(contract)?,
            topics,
            from: self.deployment.first_block,
            to: None,
        };
        let what = || format!("read the events of the contract `{}`", contract.name());
        let logs =
            self.rpc.logs_in_parts(&filter).await.map_err(|error| OpsError::of(what(), error))?;
        logs.into_iter()
            .map(|log| {
                E::decode_raw_log(log.topics, &log.data)
                    .map_err(|_| OpsError::Confused(contract.name()))
            })
            .collect()
    }

    /// The chain's own time, in seconds since 1970: that of the newest block.
    ///
    /// # Errors
    ///
    /// [`OpsError`]
    pub async fn now(&self) -> Result<u64, OpsError> {
        let head = self.rpc.head().await;
        head.map(|head| head.timestamp.to())
            .map_err(|error| OpsError::of("look at the newest block", error))
    }

    /// ATH in an account's wallet.
    ///
    /// # Errors
    ///
    /// [`OpsError`]
    pub async fn wallet(&self) -> Result<U256, OpsError> {
        self.look(Contract::Ath, Ath::balanceOfCall { account: self.account }).await
    }

    /// ATH for so many micro-dollars, at the present price.
    ///
    /// # Errors
    ///
    /// [`OpsError`], also where the price is too old.
    pub async fn wei(&self, micros: u64) -> Result<U256, OpsError> {
        self.look(Contract::Escrow, Escrow::toWeiCall { micros }).await
    }

    /// Micro-dollars for so many ATH, at the present price.
    ///
    /// # Errors
    ///
    /// [`OpsError`], also where the price is too old.
    pub async fn micros(&self, amount: U256) -> Result<U256, OpsError> {
        self.look(Contract::Escrow, Escrow::toMicrosCall { amount }).await
    }

    /// The permission that a contract needs to take `amount` from the wallet; none where it has
    /// it. Fails where the wallet has less.
    ///
    /// # Errors
    ///
    /// [`OpsError`]
    pub async fn permission(&self, taker: Contract, amount: U256) -> Result<Option<Act>, OpsError> {
        let has = self.wallet().await?;
        if has < amount {
            let (needs, has) = (crate::ath::show(amount), crate::ath::show(has));
            return Err(OpsError::money(
                format!("it needs {needs} in the wallet of {}, which has {has}", self.account),
                "`welkin withdraw` moves money from the escrow to the wallet",
            ));
        }
        let spender = self.place(taker)?;
        let call = Ath::allowanceCall { owner: self.account, spender };
        if self.look(Contract::Ath, call).await? >= amount {
            return Ok(None);
        }
        let what = format!("let the contract `{}` take {}", taker.name(), crate::ath::show(amount));
        let call = Ath::approveCall { spender, value: amount };
        self.act(what, Contract::Ath, &call).map(Some)
    }
}
