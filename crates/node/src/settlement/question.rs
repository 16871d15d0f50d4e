//! What roles ask of settlement, whatever carries it out.

use welkin_proto::settle::{AccountView, EpochView, LeaseView, SettleRefusal, Totals};
use welkin_proto::{Order, SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, Usd};

/// A question or command about money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// "What has this account?"
    Balance {
        /// The account.
        account: AccountId,
    },
    /// Adds money from outside (local networks only).
    Fund {
        /// Whose account.
        account: AccountId,
        /// How much.
        amount: Usd,
        /// Drawn by the caller; the same key is carried out once.
        idempotency: [u8; 16],
    },
    /// A host sets money of a buyer aside for an order that the buyer signed.
    Reserve {
        /// The order.
        order: Box<SignedByAccount<Order>>,
        /// How much to have aside now.
        amount: Usd,
    },
    /// A host cashes the newest voucher and asks that `amount` be aside beyond it.
    Redeem {
        /// The voucher.
        voucher: Box<SignedByAccount<Voucher>>,
        /// How much to have aside beyond what is paid.
        amount: Usd,
    },
    /// A host ends a lease: pays its last voucher, gives the rest back.
    Close {
        /// Which lease.
        lease: LeaseId,
        /// The last voucher, if anything is due.
        voucher: Option<Box<SignedByAccount<Voucher>>>,
    },
    /// A buyer ends a reservation that its host has abandoned, after the order's expiry.
    Release {
        /// Which lease.
        lease: LeaseId,
    },
    /// "How does this lease stand?"
    Lease {
        /// Which lease.
        lease: LeaseId,
    },
    /// A checker makes itself known.
    RegisterChecker {
        /// The public key with which it proves its draws.
        vrf: [u8; 32],
    },
    /// The public seed of an epoch and who checks in it.
    Epoch {
        /// Which epoch.
        epoch: u64,
    },
    /// Sums over all accounts, to check that nothing was lost or made.
    Totals,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// How an account stands.
    Account(AccountView),
    /// How a lease stands.
    Lease(LeaseView),
    /// An epoch's seed and checkers.
    Epoch(EpochView),
    /// Sums over everything.
    Totals(Totals),
    /// Done, nothing to say.
    Done,
    /// Not done, and why.
    Refused(SettleRefusal),
}
