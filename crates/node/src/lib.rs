//! The roles a machine can take: host, indexer, checker, relay, settlement; and the buyer.
//!
//! Each role has the same shape: settings, what it needs from outside, a `start` that takes a
//! [`Shutdown`], and an error enum of its own. Roles join the pure state machines of floor 1 to the
//! adapters of floor 2; they hold no rule of their own about money, matching or leases.

#![forbid(unsafe_code)]

mod assignments;
pub mod buyer;
pub mod checker;
mod connect;
pub mod epoch;
mod gate;
pub mod host;
pub mod identity;
pub mod indexer;
pub mod keystore;
pub mod network;
pub mod outside;
pub mod relay;
pub mod selftest;
pub mod settlement;
mod shutdown;
pub mod wire;

pub use connect::{CallError, Caller};
pub use gate::{CODE_IDLE, CODE_TOO_MANY, GateCounters, GateLimits, TooMany};
pub use shutdown::Shutdown;

/// Others' words, which are not trusted: their beginning, with nothing in it that plays tricks with a terminal.
pub(crate) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    text.escape_debug().take(CHARS_MAX).collect()
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
