//! What one has met with oneself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use welkin_proto::gossip::{Evidence, Tally};
use welkin_types::evidence::Ppm;
use welkin_types::{NodeId, UnixMillis};

/// Something that was met with at an indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An offer became a lease.
    Good,
    /// The host of an offer was not there.
    Dead,
    /// The host of an offer was busy.
    Stale,
    /// The host of an offer asks for another price, or has no such container.
    Wrong,
    /// A receipt recomputes.
    Proved,
    /// A receipt does not.
    Disproved,
    /// So many containers that another indexer shows, it shows too.
    Shown(u32),
    /// A container that is free, and that it must know, it does not show.
    Hidden,
    /// An offer was compared with all that fits.
    Compared {
        /// Whether it is of the indexer's operator.
        is_own: bool,
        /// How likely that was.
        expected: Ppm,
    },
}

/// One's own experience with indexers, by hour; that of earlier days by day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct Ledger {
    hours: BTreeMap<(u32, NodeId), Tally>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// The hour since 1970.
    #[serde(default)]
    hour: Option<u32>,
    /// In files of earlier versions the day instead.
    #[serde(default, skip_serializing)]
    day: Option<u32>,
    indexer: NodeId,
    tally: Tally,
}

impl Entry {
    fn hour(&self) -> u32 {
        let of_day = || last_hour_of(self.day.unwrap_or(0));
        self.hour.unwrap_or_else(of_day)
    }
}

impl From<Vec<Entry>> for Ledger {
    fn from(entries: Vec<Entry>) -> Self {
        let possible = entries.into_iter().filter(|entry| entry.tally.is_possible());
        let hours = possible.map(|entry| ((entry.hour(), entry.indexer), entry.tally));
        Self { hours: hours.take(Self::ENTRIES_MAX).collect() }
    }
}

impl From<Ledger> for Vec<Entry> {
    fn from(ledger: Ledger) -> Self {
        let hours = ledger.hours.into_iter();
        hours
            .map(|((hour, indexer), tally)| Entry { hour: Some(hour), day: None, indexer, tally })
            .collect()
    }
}

/// The hour (since 1970) of a moment.
fn hour_of(at: UnixMillis) -> u32 {
    u32::try_from(at.0 / 3_600_000).unwrap_or(u32::MAX)
}

const fn last_hour_of(day: u32) -> u32 {
    day.saturating_mul(24).saturating_add(23)
}

impl Ledger {
    /// The most entries; beyond it the oldest go.
    pub const ENTRIES_MAX: usize = 2_048;
    /// Days that are kept: ten half-lives.
    pub const DAYS_MAX: u32 = 30;
    /// A report goes back from now, by whole hours, until it has so many offers.
    pub const REPORTED_OFFERS_MIN: u32 = 64;

    /// Counts what was met with.
    pub fn note(&mut self, now: UnixMillis, indexer: NodeId, finding: Finding) {
        let hour = hour_of(now);
        let is_first = !self.hours.contains_key(&(hour, indexer));
        let tally = self.hours.entry((hour, indexer)).or_default();
        let count = |number: &mut u32, by: u32| {
            *number = number.saturating_add(by).min(Tally::COUNT_MAX);
        };
        match finding {
            Finding::Good => count(&mut tally.good, 1),
            Finding::Dead => count(&mut tally.dead, 1),
            Finding::Stale => count(&mut tally.stale, 1),
            Finding::Wrong => count(&mut tally.wrong, 1),
            Finding::Proved => count(&mut tally.proved, 1),
            Finding::Disproved => count(&mut tally.disproved, 1),
            Finding::Shown(containers) => count(&mut tally.shown, containers),
            Finding::Hidden => count(&mut tally.hidden, 1),
            Finding::Compared { is_own, expected } => {
                if tally.compared < Tally::COUNT_MAX {
                    tally.compared += 1;
                    tally.own += u32::from(is_own);
                    tally.own_expected_milli += expected.ppm() / 1_000;
                }
            }
        }
        if is_first {
            self.prune(hour);
        }
    }

    /// What was met with at an indexer, by hour (since 1970), the oldest first; of days before
    /// yesterday all is in their last hour.
    pub fn hours_of(&self, indexer: NodeId) -> impl Iterator<Item = (u32, &Tally)> {
        let its = self.hours.iter().filter(move |((_, of), _)| *of == indexer);
        its.map(|((hour, _), tally)| (*hour, tally))
    }

    /// What there is to report now, of today: the last hours, so that an indexer that has begun to
    /// lie is not excused by its morning.
    pub fn about(&self, now: UnixMillis) -> Vec<(NodeId, Tally)> {
        let hour = hour_of(now);
        let mut about: BTreeMap<NodeId, Tally> = BTreeMap::new();
        let today = self.hours.range((hour - hour % 24, NodeId::from_bytes([0; 32]))..);
        for ((_, indexer), tally) in today.rev().filter(|((of, _), _)| *of <= hour) {
            let sum = about.entry(*indexer).or_default();
            let offers = [sum.good, sum.dead, sum.stale, sum.wrong];
            let offers = offers.iter().fold(0, |sum: u32, part| sum.saturating_add(*part));
            if offers < Self::REPORTED_OFFERS_MIN {
                *sum = together(sum, tally);
            }
        }
        let some = about.into_iter().filter(|(_, tally)| !tally.is_empty());
        some.take(Evidence::INDEXERS_MAX).collect()
    }

    /// Adds the other's counts: two processes of one account have each met with something.
    pub fn add(&mut self, other: &Self) {
        for (key, tally) in &other.hours {
            let into = self.hours.entry(*key).or_default();
            *into = together(into, tally);
        }
        let newest = self.hours.keys().next_back().map_or(0, |(hour, _)| *hour);
        self.prune(newest);
    }

    /// Whether nothing was met with.
    pub fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    /// Folds days before yesterday, and forgets what is too old or too much.
    fn prune(&mut self, now: u32) {
        let today = now / 24;
        let is_late = |hour: u32| hour / 24 + 1 < today && hour != last_hour_of(hour / 24);
        let late: Vec<_> = self.hours.keys().copied().filter(|(hour, _)| is_late(*hour)).collect();
        for key in late {
            let Some(tally) = self.hours.remove(&key) else { continue };
            let into = self.hours.entry((last_hour_of(key.0 / 24), key.1)).or_default();
            *into = together(into, &tally);
        }
        self.hours.retain(|(hour, _), _| (hour / 24).saturating_add(Self::DAYS_MAX) >= today);
        while self.hours.len() > Self::ENTRIES_MAX {
            self.hours.pop_first();
        }
    }
}

/// The sum of two tallies, each number within its bound.
fn together(one: &Tally, other: &Tally) -> Tally {
    let (one, other) = (one.numbers(), other.numbers());
    let sum = |at: usize| one[at].saturating_add(other[at]);
    let capped = |at: usize| sum(at).min(Tally::COUNT_MAX);
    Tally {
        good: capped(0),
        dead: capped(1),
        stale: capped(2),
        wrong: capped(3),
        proved: capped(4),
        disproved: capped(5),
        shown: capped(6),
        hidden: capped(7),
        compared: capped(8),
        own: capped(9),
        own_expected_milli: sum(10).min(capped(8).saturating_mul(1_000)),
    }
}
