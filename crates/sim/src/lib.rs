//! A simulated world for the pure machines: one clock, one source of chance, a network that loses,
//! delays and repeats messages.
//!
//! [`World`] drives the real fleet, escrow arithmetic and checker with scripted hosts and buyers that sign
//! with real keys. Everything follows from the seed. After each step the laws are checked:
//!
//! - no money is lost or made, and no lease pays more than its buyer promised;
//! - no container carries more leases than it has slots, no lease runs twice;
//! - neither side loses more than the exposure: a host that stops has worked at most that long
//!   without cover, a buyer promises no more than what it saw running.

#![forbid(unsafe_code)]

mod actors;
pub mod adversaries;
mod chance;
pub mod day;
mod world;

pub use world::{Stats, Violation, World};
