//! The chain, from outside.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, in its helpers too"
)]

mod chain;
mod durable;
mod http;
mod pool;
mod reference;
mod rpc;
mod tools;
mod world;
