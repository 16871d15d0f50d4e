//! Whether a change of a container's leases was told and never heard.
//!
//! Each beat says all that counts, so a lost one costs time and nothing else. That one was lost no
//! other beat says; it follows from the leases. A host counts the sets of leases that it tells
//! ([`Vitals::lease_epoch`]): of two beats that are heard one after the other the later has the same
//! count and the same set, or the next count. Anything else means that something between them was
//! missed, or that the two sides no longer speak of the same; then the host is to announce itself
//! anew, which begins the count anew.
//!
//! Nothing of it is written down: after a restart and for a standby the first beat is believed. So a
//! million hosts that went on meanwhile are asked for nothing.

use welkin_proto::heartbeat::Vitals;
use welkin_types::UnixMillis;

const MINUTE_MS: u64 = 60_000;

/// What is known of one session's leases; five bytes, for there are a million of them.
///
/// Of the count and the digest lower bits are kept: one mismatch of 256, or of 65 536, is not seen
/// before the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leases {
    known: Known,
    count: u8,
    digest: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// No beat has come.
    Nothing,
    All,
    /// Something was missed.
    Missed,
    /// The same, and the host was asked to announce itself in this minute, of which the lower bits
    /// are kept.
    Asked(u8),
}

impl Leases {
    /// Before the first beat.
    pub(super) const UNKNOWN: Self = Self { known: Known::Nothing, count: 0, digest: [0; 2] };

    /// Takes what a beat says. Returns whether something was missed that was not known yet.
    pub(super) fn hear(&mut self, vitals: &Vitals) -> bool {
        let (count, digest) = (lowest(vitals.lease_epoch.into()), folded(vitals.lease_digest));
        let is_same = count == self.count && digest == self.digest;
        let follows = is_same || count == self.count.wrapping_add(1);
        (self.count, self.digest) = (count, digest);
        match self.known {
            Known::Nothing => self.known = Known::All,
            Known::All if !follows => self.known = Known::Missed,
            Known::All | Known::Missed | Known::Asked(_) => return false,
        }
        self.known == Known::Missed
    }

    /// Whether the host is to be asked to announce itself: once in a minute.
    pub(super) fn is_asking(&self, now: UnixMillis) -> bool {
        match self.known {
            Known::Nothing | Known::All => false,
            Known::Missed => true,
            Known::Asked(minute) => minute != minute_of(now),
        }
    }

    /// The host was asked.
    pub(super) fn asked(&mut self, now: UnixMillis) {
        if matches!(self.known, Known::Missed | Known::Asked(_)) {
            self.known = Known::Asked(minute_of(now));
        }
    }
}

const fn minute_of(now: UnixMillis) -> u8 {
    lowest(now.0 / MINUTE_MS)
}

const fn lowest(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

fn folded(digest: u64) -> [u8; 2] {
    let halves = digest ^ (digest >> 32);
    let [first, second, ..] = (halves ^ (halves >> 16)).to_le_bytes();
    [first, second]
}
