//! The checker's mind: who checks which container when, a machine that does it, and how hardware,
//! service and health are judged.
//!
//! Floor 1, pure. Nobody chooses whom to check, no host knows before who comes when, and anybody can
//! tell whether a report comes from a checker that was to come.

#![forbid(unsafe_code)]

mod assignment;
pub mod challenge;
mod checker;
pub mod health;
pub mod place;
pub mod randomness;
pub mod roots;
pub mod score;
mod sheets;
pub mod site;
pub mod sortition;
mod way;
mod words;

pub use assignment::{PROBE_SECONDS, assignment, epoch_of, minute_of, second_of_minute};
pub use checker::{Checker, Config, EPOCHS_MAX, Input, Output, TARGETS_MAX};
pub use sheets::Sheets;
pub use words::{AHEAD_MS_MAX, Told, Word, WordError, Words};
