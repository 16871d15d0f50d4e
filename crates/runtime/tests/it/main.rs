//! Sandboxes for real: needs root, skips elsewhere.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken step fails its test")]

mod confinement;
mod crash;
mod devices;
mod files;
mod images;
mod launcher;
mod limits;
mod run;
mod support;
