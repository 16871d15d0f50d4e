//! Roles over real connections on loopback, without sandboxes: no privileges are needed.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod anvil;
mod books;
mod escrow;
mod genesis;
mod market;
mod ops;
mod world;
