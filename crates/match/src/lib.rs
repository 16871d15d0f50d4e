//! The indexer's mind: what hosts say they have, what checkers found, and who can run a task.
//!
//! Floor 1, pure. A [`Fleet`] is soft state: hosts announce and beat, everything else is derived,
//! and what is lost with a restart comes back with the next announcement. It is optimistic: the
//! host alone decides about its slots, so a free slot here is a guess that is good for seconds.
//!
//! What a fleet has is found through an [`index::Index`], which also stands for itself: gangs,
//! receipts and explanations by bounded work. [`synth`] makes fleets and searches to measure it.
//!
//! The signatures of announcements, offers and reports are the caller's to check.

#![forbid(unsafe_code)]

mod checksum;
mod filter;
mod find;
mod fleet;
mod gang;
pub mod index;
pub mod latency;
mod presence;
pub mod prices;
pub mod queue;
mod receipt;
pub mod regions;
mod score;
mod spread;
pub mod synth;
pub mod trust;

pub use find::{Candidate, Found, Query};
pub use fleet::{
    AnnounceRefusal, BeatRefusal, Block, BlockError, BlockHead, CONTAINERS_MAX, Fleet, HOLD_MS_MAX,
    HOLDS_MAX, HOLDS_PER_BUYER_MAX, HOST_BYTES_MAX, HOSTS_MAX, HoldRefusal, ReadHosts, Restoring,
    SCORES_MAX, SILENT_MS, STALE_MS, Seal, State, UNCONFIRMED_CUT_BP, WORDS_BYTES_MAX,
};
pub use presence::{
    BeatDropped, DumpError, KEY_EPOCH_MS, PERIOD_MS, Presence, SESSIONS_MAX, SessionRecord,
    SessionsFull, Standing, Taken, epoch_of as key_epoch_of,
};
pub use receipt::{ReceiptFault, verify_gang_receipt, verify_receipt};
pub use score::{CHECKS_PER_MINUTE_MAX, LATE_MINUTES_MAX, ReportRefusal, WINDOW_MINUTES};
