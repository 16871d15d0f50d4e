//! Durable state: one embedded database per role, and logs that survive their process.
//!
//! [`Db`] holds small records (leases, accounts); what it has confirmed is on the disk. [`LogWriter`]
//! moves what a command prints from its pipe into files within the kernel, so that a process killed
//! at any moment has lost no line; [`LogReader`] follows those files.

#![forbid(unsafe_code)]

mod db;
mod log;

pub use db::{Batch, CommitError, Db, OpenError};
pub use log::{LogError, LogLimits, LogPiece, LogReader, LogStart, LogWriter, Watch, log_exists};
