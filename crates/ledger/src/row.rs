//! What a ledger is made of, row by row, as a store keeps it.

use serde::{Deserialize, Serialize};
use welkin_proto::settle::{AccountView, LeaseView};
use welkin_proto::{Eip712 as _, Order};
use welkin_types::{AccountId, BasisPoints, LeaseId, Price, UnixMillis, Usd};

/// How many idempotency keys of deposits an account remembers; the oldest is forgotten first.
pub const FUND_KEYS_MAX: usize = 64;

/// One account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Free to use.
    pub available: Usd,
    /// Set aside for open leases.
    pub held: Usd,
    /// Put in from outside, in all.
    pub deposited: Usd,
    /// Paid for leases, in all (fees included).
    pub spent: Usd,
    /// Earned by leases, in all (after fees); also in `available`.
    pub earned: Usd,
    /// The idempotency keys of the last deposits, oldest first, at most [`FUND_KEYS_MAX`].
    pub fund_keys: Vec<[u8; 16]>,
}

impl AccountRow {
    /// The row as it is told to others.
    pub const fn view(&self) -> AccountView {
        AccountView {
            available: self.available,
            held: self.held,
            deposited: self.deposited,
            spent: self.spent,
            earned: self.earned,
        }
    }
}

/// One lease's reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Who pays.
    pub buyer: AccountId,
    /// Who is paid.
    pub operator: AccountId,
    /// The locked price.
    pub price: Price,
    /// The most that may be paid in all.
    pub budget: Usd,
    /// When the order ended.
    pub expires: UnixMillis,
    /// The order's EIP-712 struct hash: tells a repeated order from another of the same id.
    pub order: [u8; 32],
    /// When money was last moved to the operator, else when the reservation was made.
    pub active: UnixMillis,
    /// Still set aside.
    pub held: Usd,
    /// Paid in all: the amount of the best redeemed voucher.
    pub paid: Usd,
    /// The fee in it.
    pub fee: Usd,
    /// Given back at the end.
    pub refunded: Usd,
    /// Whether it has ended.
    pub closed: bool,
}

impl LeaseRow {
    /// A new reservation without money.
    pub(crate) fn new(order: &Order, now: UnixMillis) -> Self {
        Self {
            buyer: order.buyer,
            operator: order.operator,
            price: order.price,
            budget: order.budget,
            expires: order.expires,
            order: order.hash_struct(),
            active: now,
            held: Usd::ZERO,
            paid: Usd::ZERO,
            fee: Usd::ZERO,
            refunded: Usd::ZERO,
            closed: false,
        }
    }

    /// The operator's part of what was paid.
    pub const fn earned(&self) -> Usd {
        self.paid.saturating_sub(self.fee)
    }

    /// Whether the fields agree with each other.
    pub(crate) fn is_sound(&self) -> bool {
        let reserved = self.paid.checked_add(self.held);
        self.fee == self.paid.split(BasisPoints::SERVICE_FEE).0
            && reserved.is_some_and(|reserved| reserved <= self.budget)
            && (!self.closed || self.held.is_zero())
            && (self.closed || self.refunded.is_zero())
    }

    /// The row as it is told to others.
    pub const fn view(&self) -> LeaseView {
        LeaseView {
            buyer: self.buyer,
            operator: self.operator,
            held: self.held,
            paid: self.paid,
            fee: self.fee,
            refunded: self.refunded,
            closed: self.closed,
            transaction: None,
        }
    }
}

/// The rows that an operation replaces. Written in one transaction, then applied.
///
/// Carries the generation of the ledger that planned it: it fits that ledger only, and only once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Changes {
    /// Accounts with their new rows.
    pub accounts: Vec<(AccountId, AccountRow)>,
    /// The lease with its new row.
    pub lease: Option<(LeaseId, LeaseRow)>,
    /// All fees so far.
    pub treasury: Option<Usd>,
    /// Leases to forget.
    pub removed: Vec<LeaseId>,
    /// The generation of the ledger that this was planned on.
    pub generation: u64,
}

impl Changes {
    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.lease.is_none()
            && self.treasury.is_none()
            && self.removed.is_empty()
    }
}
