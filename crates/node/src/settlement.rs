//! Settlement: who has how much, what is set aside, what was paid.
//!
//! [`Settlement`] is the face that every role sees. [`EvmSettlement`] carries its questions out on
//! the contracts, in transactions that the role's own account signs. The chain's node is reached by
//! a [`Line`]: the [`Service`] in this process or over the network, or any node by HTTP.

mod access;
mod contracts;
mod evm;
mod forward;
mod history;
mod line;
mod local;
mod question;
mod refusal;
mod register;
mod serve;
mod service;
mod teller;
mod trail;
mod words;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use welkin_chain::batch::NoCredit;
use welkin_chain::sender::SendError;
use welkin_proto::settle::{AccountView, EpochView, LeaseView, SettleRefusal, Totals};
use welkin_proto::{Order, SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, Usd};

pub use access::{ChainConfig, ChainConfigError};
pub use contracts::Contracts;
pub use evm::{EvmConfig, EvmSettlement};
pub(crate) use history::account;
pub use line::Line;
pub use local::{LocalChain, LocalChainError};
pub use question::{Answer, Question};
pub use serve::serve;
pub use service::{Service, ServiceConfig, ServiceError};

use crate::connect::CallError;
use crate::outside;

/// A future that owns what it needs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a settlement call brought nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettlementError {
    /// The service said no.
    #[error("the settlement service refuses")]
    Refused(#[source] SettleRefusal),
    /// The service could not be asked.
    #[error("the settlement service can't be reached")]
    Unreachable(#[source] CallError),
    /// The service answered something else than was asked.
    #[error("the settlement service gave an answer to another question")]
    Confused,
    /// Too much is not redeemed yet.
    #[error("no further credit is given")]
    NoCredit(#[source] NoCredit),
    /// The chain did not take the transaction.
    #[error("the chain did not take it")]
    Chain(#[source] SendError),
}

impl SettlementError {
    /// Whether asking again may help.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Chain(_) | Self::NoCredit(_) => true,
            Self::Refused(why) => matches!(
                why,
                SettleRefusal::Storage
                    | SettleRefusal::StalePrice
                    | SettleRefusal::NoNode
                    | SettleRefusal::Busy
            ),
            Self::Confused => false,
        }
    }
}

/// The settlement service as one account's node sees it.
pub trait Settlement: Send + Sync + fmt::Debug {
    /// Asks one question.
    fn call(&self, request: Question) -> BoxFuture<'_, Result<Answer, SettlementError>>;

    /// The way to the contracts beside the escrow, where there is one.
    fn contracts(&self) -> Option<Contracts> {
        None
    }
}

/// Named questions over [`Settlement::call`].
#[derive(Clone, Debug)]
pub struct Settle(Arc<dyn Settlement>);

macro_rules! expect_reply {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply {
            $pattern => Ok($value),
            Answer::Refused(refusal) => Err(SettlementError::Refused(refusal)),
            _ => Err(SettlementError::Confused),
        }
    };
}

impl Settle {
    /// Wraps a service.
    pub fn new(service: impl Settlement + 'static) -> Self {
        Self(Arc::new(service))
    }

    async fn call(&self, request: Question) -> Result<Answer, SettlementError> {
        self.0.call(request).await
    }

    /// The contracts beside the escrow, where it is known where they stand.
    pub fn contracts(&self) -> Option<Contracts> {
        self.0.contracts()
    }

    /// How an account stands.
    ///
    /// # Errors
    ///
    /// [`SettlementError`], as of every question here.
    pub async fn balance(&self, account: AccountId) -> Result<AccountView, SettlementError> {
        let reply = self.call(Question::Balance { account }).await?;
        expect_reply!(reply, Answer::Account(view) => view)
    }

    /// Adds test money (local networks only).
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn fund(
        &self,
        account: AccountId,
        amount: Usd,
    ) -> Result<AccountView, SettlementError> {
        let request = Question::Fund { account, amount, idempotency: outside::random() };
        expect_reply!(self.call(request).await?, Answer::Account(view) => view)
    }

    /// Sets money of the order's buyer aside.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn reserve(
        &self,
        order: SignedByAccount<Order>,
        amount: Usd,
    ) -> Result<LeaseView, SettlementError> {
        let request = Question::Reserve { order: Box::new(order), amount };
        expect_reply!(self.call(request).await?, Answer::Lease(view) => view)
    }

    /// Cashes a voucher and asks for `amount` to be aside beyond it.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn redeem(
        &self,
        voucher: SignedByAccount<Voucher>,
        amount: Usd,
    ) -> Result<LeaseView, SettlementError> {
        let request = Question::Redeem { voucher: Box::new(voucher), amount };
        expect_reply!(self.call(request).await?, Answer::Lease(view) => view)
    }

    /// Pays the last voucher of a lease and gives the rest back.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn close(
        &self,
        lease: LeaseId,
        voucher: Option<SignedByAccount<Voucher>>,
    ) -> Result<LeaseView, SettlementError> {
        let request = Question::Close { lease, voucher: voucher.map(Box::new) };
        expect_reply!(self.call(request).await?, Answer::Lease(view) => view)
    }

    /// Frees what an abandoned reservation holds.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn release(&self, lease: LeaseId) -> Result<LeaseView, SettlementError> {
        let reply = self.call(Question::Release { lease }).await?;
        expect_reply!(reply, Answer::Lease(view) => view)
    }

    /// How a lease stands.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn lease(&self, lease: LeaseId) -> Result<LeaseView, SettlementError> {
        let reply = self.call(Question::Lease { lease }).await?;
        expect_reply!(reply, Answer::Lease(view) => view)
    }

    /// Makes this node known as a checker that proves its draws with this key.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn register_checker(&self, vrf: [u8; 32]) -> Result<(), SettlementError> {
        let reply = self.call(Question::RegisterChecker { vrf }).await?;
        expect_reply!(reply, Answer::Done => ())
    }

    /// An epoch's seed and checkers.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn epoch(&self, epoch: u64) -> Result<EpochView, SettlementError> {
        let reply = self.call(Question::Epoch { epoch }).await?;
        expect_reply!(reply, Answer::Epoch(view) => view)
    }

    /// Sums over everything.
    ///
    /// # Errors
    ///
    /// [`SettlementError`]
    pub async fn totals(&self) -> Result<Totals, SettlementError> {
        let reply = self.call(Question::Totals).await?;
        expect_reply!(reply, Answer::Totals(totals) => totals)
    }
}
