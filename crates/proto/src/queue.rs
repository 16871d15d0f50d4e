//! Waiting at an indexer for what can't be placed now.
//!
//! The buyer opens a stream with [`crate::index::IndexHello::Wait`] and keeps it open. The indexer
//! sends a [`WaitEvent::Ticket`], then where the buyer stands, again whenever that changes, and at
//! its turn offers with a hold each, which the buyer answers by a [`WaitAnswer`]. A buyer whose
//! connection is lost comes back with its ticket and keeps its place; one that ends its stream
//! gives it up.

use serde::{Deserialize, Serialize};
use welkin_types::{AccountId, NodeId, TicketId, UnixMillis};

use crate::index::{Candidates, Filter, MatchRequest, WhyNot};
use crate::signed::{Signable, Signed};

/// The longest wait, in milliseconds: a day.
pub const WAIT_MS_MAX: u64 = 86_400_000;
/// The most hosts that a buyer names as having refused.
pub const REFUSING_MAX: usize = 16;

/// A buyer's wish to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// What is waited for, and by whom. `count`, `hold` and `receipt` are without meaning; of
    /// `exclude` at most [`REFUSING_MAX`].
    pub request: Box<MatchRequest>,
    /// How long, in milliseconds, at most [`WAIT_MS_MAX`].
    pub wait_ms: u64,
    /// The place that it had, where it comes back.
    pub ticket: Option<Signed<Ticket>>,
}

/// A place in an indexer's queue, signed by the indexer, so that it knows its own word even after
/// a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its name.
    pub id: TicketId,
    /// Whose it is.
    pub buyer: AccountId,
    /// SHA-256 of what is asked for: a place is not traded for another wish.
    pub wish: [u8; 32],
    /// Since when the buyer waits.
    pub since: UnixMillis,
    /// Until when.
    pub deadline: UnixMillis,
}

impl Signable for Ticket {
    const KIND: &'static str = "ticket";
}

/// From the indexer to a buyer that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitEvent {
    /// The place is taken.
    Ticket {
        /// To come back with.
        ticket: Signed<Ticket>,
        /// Whether it is the place of the ticket that the buyer came with.
        is_kept: bool,
    },
    /// Where the buyer stands; at the latest every [`STANDING_EVERY_MS`].
    Standing(Standing),
    /// Its turn: as many offers as containers were asked for, of each a slot is kept, with the
    /// receipt of the choice. The receipt's question is what the ticket names.
    Offers(Box<Signed<Candidates>>),
    /// The time is over. The last event.
    TimedOut,
    /// Waiting would not help. The last event.
    WhyNot(WhyNot),
    /// The buyer may not wait here, and why. The last event.
    Refused(String),
}

/// A buyer that waits hears something at least so often, in milliseconds.
pub const STANDING_EVERY_MS: u64 = 10_000;

/// From a buyer that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitAnswer {
    /// The offers were taken up: the place is free.
    Placed,
    /// These hosts did not want it: the place is kept. At most [`REFUSING_MAX`].
    Refused(Vec<NodeId>),
}

/// Where a buyer stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// From 1, among those who wait for the same GPUs.
    pub position: u32,
    /// How many those are.
    pub of: u32,
    /// Containers that would do and are taken.
    pub busy: u32,
    /// What else removed how many containers, as in [`WhyNot`].
    pub removed: Vec<(Filter, u32)>,
    /// Whether what becomes free is already kept for this buyer.
    pub is_reserved: bool,
    /// An estimate of the wait by what became free lately, in milliseconds; `None` before enough did.
    pub estimate_ms: Option<u64>,
    /// The longest that it still waits, in milliseconds.
    pub left_ms: u64,
}

impl WhyNot {
    /// Whether containers would fit and are only taken now: waiting helps.
    pub fn is_only_busy(&self) -> bool {
        let is_passing = |filter: &Filter| matches!(filter, Filter::Free | Filter::Excluded);
        let is_apart = self.removed.iter().any(|(filter, _)| *filter == Filter::Together);
        !is_apart && self.removed.iter().any(|(filter, count)| *count > 0 && is_passing(filter))
    }
}
