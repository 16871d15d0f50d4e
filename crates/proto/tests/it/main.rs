//! The crate's tests against hostile input: one binary, a module for each matter.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise, in its helpers too"
)]

mod hostile;
mod make;
mod messages;
mod text;
