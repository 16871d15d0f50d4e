//! The database and the logs on a real disk, with real pipes.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod db;
mod log;
