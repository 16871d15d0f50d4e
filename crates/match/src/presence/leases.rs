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

use std::num::NonZeroU8;

use welkin_proto::heartbeat::Vitals;
use welkin_types::UnixMillis;

/// When a host was asked is known to so many milliseconds.
const TICK_MS: u64 = 8_000;
/// For what was missed a host is asked again after so many ticks: a minute.
const ASKED_TICKS: u8 = 8;
/// Ticks are counted up to here and from the beginning again: who was asked half an hour ago may be
/// taken for one that was asked just now, and waits a minute.
const TICKS: u8 = 255;

/// What is known of one session's leases, and when its host was asked to announce itself; five
/// bytes, for there are a million of them.
///
/// Of the count and the digest lower bits are kept: one mismatch of 256, or of 65 536, is not seen
/// before the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leases {
    known: Known,
    asked: Option<NonZeroU8>,
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
}

impl Leases {
    /// Before the first beat.
    pub(super) const UNKNOWN: Self =
        Self { known: Known::Nothing, asked: None, count: 0, digest: [0; 2] };

    /// The same where the host has announced itself: when it was asked is not forgotten, or it could be
    /// asked at once again.
    pub(super) const fn anew(self) -> Self {
        Self { asked: self.asked, ..Self::UNKNOWN }
    }

    /// Takes what a beat says. Returns whether something was missed that was not known yet.
    pub(super) fn hear(&mut self, vitals: &Vitals) -> bool {
        let (count, digest) = (lowest(vitals.lease_epoch.into()), folded(vitals.lease_digest));
        let is_same = count == self.count && digest == self.digest;
        let follows = is_same || count == self.count.wrapping_add(1);
        (self.count, self.digest) = (count, digest);
        match self.known {
            Known::Nothing => self.known = Known::All,
            Known::All if !follows => self.known = Known::Missed,
            Known::All | Known::Missed => return false,
        }
        self.known == Known::Missed
    }

    /// Whether the host is to be asked to announce itself for what was missed: once in a minute.
    pub(super) fn is_asking(&self, now: UnixMillis) -> bool {
        self.known == Known::Missed
            && self.ticks_since(now).is_none_or(|ticks| ticks >= ASKED_TICKS)
    }

    /// Whether the host may be asked for another reason: not twice in a tick.
    pub(super) fn may_be_asked(&self, now: UnixMillis) -> bool {
        self.ticks_since(now) != Some(0)
    }

    /// The host was asked.
    pub(super) fn asked(&mut self, now: UnixMillis) {
        self.asked = NonZeroU8::new(tick(now) + 1);
    }

    fn ticks_since(&self, now: UnixMillis) -> Option<u8> {
        let asked = self.asked?.get() - 1;
        let ticks = (u16::from(tick(now)) + u16::from(TICKS) - u16::from(asked)) % u16::from(TICKS);
        u8::try_from(ticks).ok()
    }
}

/// From 0 to [`TICKS`] less one.
fn tick(now: UnixMillis) -> u8 {
    lowest(now.0 / TICK_MS % u64::from(TICKS))
}

const fn lowest(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

fn folded(digest: u64) -> [u8; 2] {
    let halves = digest ^ (digest >> 32);
    let [first, second, ..] = (halves ^ (halves >> 16)).to_le_bytes();
    [first, second]
}
