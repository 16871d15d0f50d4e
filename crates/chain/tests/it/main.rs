//! Tests of the chain's client against made-up chains.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod batch;
mod http;
mod outbox;
