//! What one has met with oneself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use welkin_proto::gossip::{Evidence, Tally, day_of};
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

/// One's own experience with indexers, by day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct Ledger {
    days: BTreeMap<(u32, NodeId), Tally>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    day: u32,
    indexer: NodeId,
    tally: Tally,
}

impl From<Vec<Entry>> for Ledger {
    fn from(entries: Vec<Entry>) -> Self {
        let possible = entries.into_iter().filter(|entry| entry.tally.is_possible());
        let days = possible.map(|entry| ((entry.day, entry.indexer), entry.tally));
        Self { days: days.take(Self::ENTRIES_MAX).collect() }
    }
}

impl From<Ledger> for Vec<Entry> {
    fn from(ledger: Ledger) -> Self {
        let days = ledger.days.into_iter();
        days.map(|((day, indexer), tally)| Entry { day, indexer, tally }).collect()
    }
}

impl Ledger {
    /// The most entries; beyond it the oldest go.
    pub const ENTRIES_MAX: usize = 1_024;
    /// Days that are kept: ten half-lives.
    pub const DAYS_MAX: u32 = 30;

    /// Counts what was met with.
    pub fn note(&mut self, now: UnixMillis, indexer: NodeId, finding: Finding) {
        let today = day_of(now);
        let tally = self.days.entry((today, indexer)).or_default();
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
        self.prune(today);
    }

    /// What was met with at an indexer, by day.
    pub fn days_of(&self, indexer: NodeId) -> impl Iterator<Item = (u32, &Tally)> {
        let its = self.days.iter().filter(move |((_, of), _)| *of == indexer);
        its.map(|((day, _), tally)| (*day, tally))
    }

    /// What there is to report of a day.
    pub fn about(&self, day: u32) -> Vec<(NodeId, Tally)> {
        let days = self.days.iter().filter(|((of, _), tally)| *of == day && !tally.is_empty());
        days.map(|((_, indexer), tally)| (*indexer, *tally)).take(Evidence::INDEXERS_MAX).collect()
    }

    /// Adds the other's counts: two processes of one account have each met with something.
    pub fn add(&mut self, other: &Self) {
        for (key, tally) in &other.days {
            let into = self.days.entry(*key).or_default();
            let before = into.numbers();
            let sum = |at: usize| before[at].saturating_add(tally.numbers()[at]);
            let capped = |at: usize| sum(at).min(Tally::COUNT_MAX);
            *into = Tally {
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
            };
        }
        let newest = self.days.keys().next_back().map_or(0, |(day, _)| *day);
        self.prune(newest);
    }

    /// Whether nothing was met with.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    fn prune(&mut self, today: u32) {
        self.days.retain(|(day, _), _| day.saturating_add(Self::DAYS_MAX) >= today);
        while self.days.len() > Self::ENTRIES_MAX {
            self.days.pop_first();
        }
    }
}
