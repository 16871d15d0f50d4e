//! How far an indexer is trusted: by what buyers and checkers met with at it.
//!
//! An indexer has three ways to cheat: it offers what is not there, it does not show what is there,
//! and it prefers its own operator's containers. Each is met with by those who ask it, and counted
//! in a [`Tally`] of a day. Evidence loses half its weight in [`HALF_LIFE_DAYS`].
//!
//! * *Offers* count for what is certain (Wilson's lower bound), so a newcomer begins low and climbs.
//! * *Accusations* (hidden containers, receipts that don't recompute, favour) count for what is
//!   certain against it (the upper bound), so who was never compared is not suspected.
//!
//! A share of offers that fails is no lie: pictures are seconds old. Up to a tenth costs nothing.
//! What one has met with oneself comes first; what others report fills up the rest of
//! [`REPORTED_MAX`] observations, each account within the root of the fees that it pays.

mod compare;
mod ledger;
mod reports;

use welkin_proto::gossip::{Reported, Tally};
use welkin_types::evidence::{Beta, Ppm};
use welkin_types::{NodeId, UnixMillis};

pub use compare::{Comparison, Doubt, LOOKED_AT_MAX, Seen, compare, expected_own};
pub use ledger::{Finding, Ledger};
pub use reports::{REPORTS_MAX, Reports};

use crate::spread::Stream;

/// After so many days evidence counts half.
pub const HALF_LIFE_DAYS: u64 = 3;
/// Good offers that a newcomer is taken to have made, so that it is asked at times.
pub const PRIOR: u32 = 8;
/// Observations of a kind that others' reports may stand for, where there are none of one's own.
pub const REPORTED_MAX: u32 = 60;
/// Who is trusted least is still asked so often, so that it can mend its name.
pub const WEIGHT_MIN: Ppm = Ppm::new(2_000);
/// From this share of good offers on, all is well.
const WELL: Ppm = Ppm::new(850_000);
/// From this share of shown containers, and of receipts that recompute, on, all is well.
const WELL_SHOWN: Ppm = Ppm::new(930_000);
/// A receipt that does not recompute is no accident: it counts as so many.
const DISPROVED_COUNTS: u32 = 5;
/// An indexer's own containers may be preferred by so much before it counts.
const FAVOUR_SLACK: Ppm = Ppm::new(100_000);
const DAY: u64 = 86_400;
const WHOLE: u32 = 1_000_000;

/// What lowered an indexer's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Little is known of it.
    New,
    /// Too many of its offers are dead, stale or wrong.
    Offers,
    /// It does not show containers that it must know.
    Hides,
    /// Receipts of its choices don't recompute.
    Receipts,
    /// It prefers its own operator's containers.
    Favours,
}

impl Mark {
    /// The mark, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "little is known of it",
            Self::Offers => "its offers fail",
            Self::Hides => "hides containers",
            Self::Receipts => "its receipts don't recompute",
            Self::Favours => "prefers its own operator",
        }
    }
}

/// How an indexer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its weight when one is chosen.
    pub weight: Ppm,
    /// Offers that count, in thousandths, those reported by others included.
    pub offers_milli: u64,
    /// What share of its offers is good for certain.
    pub offers: Ppm,
    /// What share of what it must show it shows, at best.
    pub shown: Ppm,
    /// What share of its receipts recomputes, at best.
    pub proved: Ppm,
    /// How much of its own operator's share is more than expected, for certain.
    pub favour: Ppm,
    /// What lowered its weight, the worst first.
    pub marks: Vec<Mark>,
}

/// Aged evidence of every kind.
#[derive(Clone, Debug, Default)]
struct Aged {
    offers: Beta,
    shown: Beta,
    proved: Beta,
    own: Beta,
    expected: Beta,
}

impl Aged {
    /// Adds a day's evidence, at most so many observations of each kind.
    fn add(&mut self, at: u64, tally: &Tally, most: [u32; 4]) {
        let sum = |parts: &[u32]| parts.iter().fold(0, |sum: u32, part| sum.saturating_add(*part));
        // A container that is taken since is half a failure: seconds pass between offer and lease.
        let bad = sum(&[tally.dead, tally.wrong, tally.stale.div_ceil(2)]);
        let of = |good: u32, all: u32, most: u32| (Ppm::of(good.into(), all.into()), all.min(most));
        let compared = u64::from(tally.compared);
        let expected = Ppm::of(tally.own_expected_milli.into(), compared * 1_000);
        observe(&mut self.offers, at, of(tally.good, sum(&[tally.good, bad]), most[0]));
        observe(&mut self.shown, at, of(tally.shown, sum(&[tally.shown, tally.hidden]), most[1]));
        let disproved = tally.disproved.saturating_mul(DISPROVED_COUNTS);
        observe(&mut self.proved, at, of(tally.proved, sum(&[tally.proved, disproved]), most[2]));
        observe(&mut self.own, at, of(tally.own, tally.compared, most[3]));
        observe(&mut self.expected, at, (expected, tally.compared.min(most[3])));
    }
}

/// Adds so many observations of a share.
fn observe(beta: &mut Beta, at: u64, (share, mut left): (Ppm, u32)) {
    // A weight is of 32 bits: four thousand whole observations at a time.
    while left > 0 {
        let part = left.min(4_000);
        beta.observe(HALF_LIFE_DAYS * DAY, at, share, part * WHOLE);
        left -= part;
    }
}

/// How an indexer stands at a moment: by one's own ledger, then by what others report.
pub fn standing(
    ledger: &Ledger,
    reported: &[Reported],
    indexer: NodeId,
    now: UnixMillis,
) -> Standing {
    let seconds = now.0 / 1_000;
    let mut aged = Aged::default();
    for (day, tally) in ledger.days_of(indexer) {
        // Evidence of a day is as old as the day's end, and of today as now.
        let at = ((u64::from(day) + 1) * DAY).min(seconds);
        aged.add(at, tally, [u32::MAX; 4]);
    }
    let about: Vec<_> = reported.iter().filter(|report| report.indexer == indexer).collect();
    let sources = u32::try_from(about.len().max(1)).unwrap_or(u32::MAX);
    let own = [&aged.offers, &aged.shown, &aged.proved, &aged.own];
    let room = own.map(|own| {
        let own = own.aged(HALF_LIFE_DAYS * DAY, seconds).count_milli() / 1_000;
        REPORTED_MAX.saturating_sub(u32::try_from(own).unwrap_or(u32::MAX)) / sources
    });
    for report in about {
        aged.add(seconds, &report.tally, room);
    }
    judge(&aged, seconds)
}

fn judge(aged: &Aged, seconds: u64) -> Standing {
    let half_life = HALF_LIFE_DAYS * DAY;
    let now = |beta: &Beta| beta.aged(half_life, seconds);
    let mut offers = now(&aged.offers);
    let offers_milli = offers.count_milli();
    observe(&mut offers, seconds, (Ppm::ONE, PRIOR));
    let (shown, proved) = (now(&aged.shown).upper(), now(&aged.proved).upper());
    let (own, expected) = (now(&aged.own), now(&aged.expected));
    let allowed = expected.mean().ppm().saturating_add(FAVOUR_SLACK.ppm());
    let certain = own.lower().ppm();
    let favour = Ppm::new(certain.saturating_sub(allowed));
    let factors = [
        (Mark::Offers, reached(offers.lower(), WELL)),
        (Mark::Hides, reached(shown, WELL_SHOWN)),
        (Mark::Receipts, reached(proved, WELL_SHOWN)),
        (Mark::Favours, square(Ppm::of(allowed.into(), certain.max(allowed).into()))),
    ];
    let weight = factors.iter().fold(Ppm::ONE, |weight, (_, factor)| product(weight, *factor));
    let is_new = offers_milli < 10_000;
    let mut marks: Vec<_> = factors.iter().filter(|(_, factor)| factor.ppm() < 800_000).collect();
    marks.sort_by_key(|(_, factor)| *factor);
    let name = |mark: Mark| match mark {
        // Few good offers are no bad offers.
        Mark::Offers if is_new && offers.mean() >= WELL => Mark::New,
        mark => mark,
    };
    Standing {
        weight: weight.max(WEIGHT_MIN),
        offers_milli,
        offers: offers.lower(),
        shown,
        proved,
        favour,
        marks: marks.into_iter().map(|(mark, _)| name(*mark)).collect(),
    }
}

/// The eighth power of how much of what is well a share reaches: nine tenths of the way are 43 %.
fn reached(share: Ppm, well: Ppm) -> Ppm {
    let reached = Ppm::of(share.ppm().into(), well.ppm().into());
    square(square(square(reached)))
}

fn square(share: Ppm) -> Ppm {
    product(share, share)
}

fn product(a: Ppm, b: Ppm) -> Ppm {
    let product = u64::from(a.ppm()) * u64::from(b.ppm()) / 1_000_000;
    Ppm::new(u32::try_from(product).unwrap_or(u32::MAX))
}

/// An order in which to ask, drawn by weight: the first is each with the share that its weight has.
pub fn draw(mut candidates: Vec<(NodeId, Ppm)>, random: u64) -> Vec<NodeId> {
    let mut chance = Stream::new(random);
    let mut order = Vec::with_capacity(candidates.len());
    while !candidates.is_empty() {
        let weights = candidates.iter().map(|(_, weight)| u64::from(weight.ppm()));
        let whole: u64 = weights.clone().sum();
        let mut at = if whole == 0 { 0 } else { chance.word() % whole };
        let found = weights.into_iter().position(|weight| {
            let is_here = at < weight;
            at = at.saturating_sub(weight);
            is_here
        });
        order.push(candidates.remove(found.unwrap_or(0)).0);
    }
    order
}

#[cfg(test)]
mod tests;
