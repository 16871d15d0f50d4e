//! What happens to heartbeats, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use welkin_match::BeatDropped;
use welkin_proto::heartbeat::HeartbeatError;

/// What has happened to heartbeats; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeatCounters {
    /// Hosts that were given sessions, each time.
    pub enrolled: u64,
    /// Beats that were taken, from datagrams and streams.
    pub taken: u64,
    /// Beats that came over a stream.
    pub framed: u64,
    /// Answers.
    pub answered: u64,
    /// Of these, requests to announce anew.
    pub poked: u64,
    /// Sessions of which a beat with other leases was never heard, each time.
    pub missed: u64,
    /// Hosts that were given up.
    pub gone: u64,
    /// Dropped: a later beat was known.
    pub old: u64,
    /// Dropped: of no session.
    pub unknown: u64,
    /// Dropped: the tag was wrong.
    pub forged: u64,
    /// Dropped: no beat at all.
    pub malformed: u64,
}

impl BeatCounters {
    /// How many were dropped.
    pub const fn dropped(&self) -> u64 {
        self.old + self.unknown + self.forged + self.malformed
    }
}

/// One count.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one indexer.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) enrolled: Count,
    pub(super) taken: Count,
    pub(super) framed: Count,
    pub(super) answered: Count,
    pub(super) poked: Count,
    pub(super) missed: Count,
    pub(super) gone: Count,
    old: Count,
    unknown: Count,
    forged: Count,
    malformed: Count,
}

impl Tally {
    pub(super) fn dropped(&self, why: BeatDropped) {
        let count = match why {
            BeatDropped::Old => &self.old,
            BeatDropped::Unknown => &self.unknown,
            BeatDropped::Bad(HeartbeatError::Form) => &self.malformed,
            _ => &self.forged,
        };
        count.add(1);
    }

    pub(super) fn read(&self) -> BeatCounters {
        BeatCounters {
            enrolled: self.enrolled.read(),
            taken: self.taken.read(),
            framed: self.framed.read(),
            answered: self.answered.read(),
            poked: self.poked.read(),
            missed: self.missed.read(),
            gone: self.gone.read(),
            old: self.old.read(),
            unknown: self.unknown.read(),
            forged: self.forged.read(),
            malformed: self.malformed.read(),
        }
    }
}
