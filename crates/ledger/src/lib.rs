//! What the settlement does with money, and what running seconds cost.
//!
//! Floor 1, pure. [`Escrow`] is the escrow contract's arithmetic to the wei: a test plays the same
//! random histories through both, and the simulated world settles by it. [`Meter`] and [`Exposure`]
//! count what was worked and how much of it nothing covers. [`epoch`] turns an epoch's evidence into
//! rewards and penalties.

#![forbid(unsafe_code)]

pub mod epoch;
mod escrow;
mod meter;

pub use escrow::{Escrow, EscrowAccount, EscrowLane, EscrowRefusal, EscrowTerms};
pub use meter::{Exposure, Meter};
