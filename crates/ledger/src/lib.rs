//! The settlement's mind: accounts, reservations, cumulative vouchers and fees; and the meter.
//!
//! Floor 1, pure. Every operation of [`Ledger`] is a plan: it reads the ledger, checks everything
//! and returns [`Changes`], the rows that are to be. A shell writes these rows in one transaction
//! and then applies them, so that what is in memory is never ahead of what is on disk.
//!
//! Laws, checked after every step of random histories in `ledger/tests.rs`:
//!
//! - **Conservation.** deposited == available (of all accounts) + held + treasury.
//! - **One rounding.** A lease's fee is the share of its cumulative payment, rounded once.
//! - **Monotone.** What a lease has paid never falls, and never exceeds its budget.
//! - **All or nothing.** A refused operation changes nothing.

#![forbid(unsafe_code)]

mod escrow;
mod ledger;
mod meter;
mod restore;
mod row;

pub use escrow::{Escrow, EscrowAccount, EscrowLane, EscrowRefusal, EscrowTerms};
pub use ledger::{
    ACCOUNTS_MAX, FORGET_AFTER, FORGOTTEN_MAX, LEASES_MAX, Ledger, RELEASE_GRACE, StaleChanges,
};
pub use meter::{Exposure, Meter};
pub use restore::RestoreError;
pub use row::{AccountRow, Changes, FUND_KEYS_MAX, LeaseRow};
