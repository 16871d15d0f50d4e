//! Roles over real connections on loopback, without sandboxes: no privileges are needed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, in its helpers too"
)]

mod anvil;
mod beats;
mod books;
mod directory;
mod escrow;
mod exams;
mod genesis;
mod kept;
mod lists;
mod market;
mod missed;
mod ops;
mod pages;
mod queue;
mod regions;
mod reorgs;
mod roots;
mod sites;
mod standby;
mod turns;
mod world;
