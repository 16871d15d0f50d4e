//! The `welkin` program from end to end: real processes, real sandboxes, real connections.
//!
//! Sandboxes need root; elsewhere these tests say that they are skipped.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken step fails its test"
)]

mod anvil;
mod checks;
mod contracts;
mod crash;
mod deploy;
mod epochs;
mod gangs;
mod gpus;
mod health;
mod hostile;
mod json;
mod limits;
mod money;
mod mystery;
mod netns;
mod placing;
mod queue;
mod reserved;
mod run;
mod services;
mod session;
mod spot;
#[cfg(feature = "postgres")]
mod standby;
mod support;
mod unprivileged;
mod up;
