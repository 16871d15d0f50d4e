//! The network on loopback: real sockets, a real relay, and some hostile peers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bulk;
mod frames;
mod hostile;
mod meet;
mod relayed;
mod world;
