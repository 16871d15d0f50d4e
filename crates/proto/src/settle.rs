//! What is said to the settlement service: one [`SettleRequest`] and one [`SettleReply`] a stream.
//!
//! The service is a node of the chain that holds the contracts. What moves money are transactions
//! that accounts sign; the service carries them and can't make any. Who asks is known by the
//! delegation that travels along.

use serde::{Deserialize, Serialize};
use welkin_types::{AccountId, NodeId, TxId, UnixMillis, Usd};

use crate::order::{Delegation, SignedByAccount};

/// A question to the settlement service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleRequest {
    /// One JSON-RPC request to the chain's node, as bytes of JSON: at most [`RPC_BYTES_MAX`].
    /// Everything about money goes this way, in transactions that the asking account signed.
    Rpc(#[serde(with = "crate::hexed")] Vec<u8>),
    /// A checker makes itself known.
    RegisterChecker {
        /// The public key with which it proves its draws. It stays.
        vrf: [u8; 32],
    },
    /// The public seed of an epoch and who checks in it.
    Epoch {
        /// Which epoch.
        epoch: u64,
    },
}

/// The largest JSON-RPC request and answer, in bytes: with what stands around it, it fits a frame.
pub const RPC_BYTES_MAX: usize = crate::FRAME_BYTES_MAX - 4_096;

/// The most checkers that a network registers, and so of an epoch's list.
pub const CHECKERS_MAX: usize = 10_000;

/// The first frame: who asks, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleCall {
    /// The account's permission for the asking node.
    pub caller: SignedByAccount<Delegation>,
    /// What is asked.
    pub request: SettleRequest,
}

/// The settlement service's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleReply {
    /// The node's JSON-RPC answer.
    Rpc(#[serde(with = "crate::hexed")] Vec<u8>),
    /// An epoch's seed and checkers.
    Epoch(EpochView),
    /// Done, nothing to say.
    Done,
    /// Not done, and why.
    Refused(SettleRefusal),
}

/// How an account stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Free to use.
    pub available: Usd,
    /// Set aside for running leases.
    pub held: Usd,
    /// Put in from outside, in all.
    pub deposited: Usd,
    /// Paid for leases, in all (fees included).
    pub spent: Usd,
    /// Earned by leases, in all (after fees).
    pub earned: Usd,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Who pays.
    pub buyer: AccountId,
    /// Who is paid.
    pub operator: AccountId,
    /// Still set aside.
    pub held: Usd,
    /// Paid in all: the fee and the operator's part.
    pub paid: Usd,
    /// The fee in it.
    pub fee: Usd,
    /// Given back at the end.
    pub refunded: Usd,
    /// Whether it has ended.
    pub closed: bool,
    /// The newest transaction that moved its money, where it is known.
    pub transaction: Option<TxId>,
}

/// An epoch's public randomness and who checks in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochView {
    /// Which epoch.
    pub epoch: u64,
    /// The seed.
    pub seed: [u8; 32],
    /// The checkers, at most [`CHECKERS_MAX`], in the order of their keys. The list is closed before it is shown: it never
    /// changes.
    pub checkers: Vec<Listed>,
    /// How long an epoch lasts, in seconds.
    pub epoch_seconds: u64,
}

impl EpochView {
    /// The keys of the checkers, in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.checkers.iter().map(|listed| listed.node).collect()
    }

    /// What is listed of a checker.
    pub fn listed(&self, checker: NodeId) -> Option<&Listed> {
        let place = self.checkers.binary_search_by_key(&checker, |listed| listed.node).ok()?;
        self.checkers.get(place)
    }
}

/// A checker of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listed {
    /// Its key.
    pub node: NodeId,
    /// Its licence's number, given at registration and to nobody else.
    pub number: u32,
    /// The public key with which it proves its draws: registered before the epoch's seed was known.
    pub vrf: [u8; 32],
}

/// Sums over all accounts and leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Put in from outside.
    pub deposited: Usd,
    /// Free in all accounts.
    pub available: Usd,
    /// Set aside in all leases.
    pub held: Usd,
    /// In the treasury: all fees.
    pub treasury: Usd,
}

/// Why the settlement service refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SettleRefusal {
    /// The caller is not allowed this.
    #[error("the caller may not do this")]
    NotAllowed,
    /// A signature is wrong or for another party.
    #[error("a signature is wrong")]
    Signature,
    /// The account has less than is needed.
    #[error("the account has {available}, {needed} is needed")]
    Funds {
        /// What is needed.
        needed: Usd,
        /// What there is.
        available: Usd,
    },
    /// No such lease.
    #[error("no such lease")]
    UnknownLease,
    /// The lease has ended.
    #[error("the lease has been settled already")]
    Closed,
    /// The order is too old, or for another time.
    #[error("the order has expired")]
    Expired {
        /// When it ended.
        at: UnixMillis,
    },
    /// The voucher promises more than is set aside.
    #[error("the voucher promises {amount}, {covered} is covered")]
    Uncovered {
        /// What it promises beyond what was paid.
        amount: Usd,
        /// What is set aside.
        covered: Usd,
    },
    /// A number is out of range.
    #[error("an amount is out of range")]
    Range,
    /// Funding from outside is not possible in this network.
    #[error("this network takes no test money")]
    NoFaucet,
    /// The service could not write.
    #[error("the settlement service can't write its state")]
    Storage,
    /// The books hold as many accounts or leases as they may.
    #[error(
        "the settlement service's books are full: it forgets leases 30 days after their end, so try \
         again later, or use another network"
    )]
    Full,
    /// The lane of the lease's id is taken by another open lease of the same two parties.
    #[error("another open lease of the same buyer and operator has this lane: take another id")]
    LaneBusy,
    /// The order was taken before, or a later one was.
    #[error("the order, or a later one of its lane, was taken before: sign a new one")]
    Replayed,
    /// The chain has no fresh price of ATH, so that nothing is paid until it has.
    #[error("the price of ATH is stale: settling waits for a fresh one, work goes on")]
    StalePrice,
    /// The chain does not do this, for a reason that is not known here.
    #[error("the settlement contract refuses this")]
    Contract,
    /// The settlement service has no node of the network's chain to ask now.
    #[error("the settlement service can't reach its chain's node: what was asked for waits")]
    NoNode,
    /// The settlement service has more questions than it takes at once.
    #[error("the settlement service has too many questions: ask again in a moment")]
    Busy,
    /// The epoch has not begun, or its list of checkers is not closed.
    #[error(
        "the epoch has not begun, or it is not settled who checks in it: ask again in some seconds"
    )]
    NotYet,
}
