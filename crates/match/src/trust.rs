//! How far an indexer is trusted: by what buyers and checkers met with at it.
//!
//! An indexer has three ways to cheat: it offers what is not there, it does not show what is there,
//! and it prefers its own operator's containers. Each is met with by those who ask it, and counted
//! in a [`Tally`] of an hour. Evidence loses half its weight in [`HALF_LIFE_DAYS`], and with
//! every [`HALF_LIFE_EVENTS`] later observations of its kind: whoever begins to lie is found out by
//! what it does now, however long it was honest, and as fast as it is asked.
//!
//! * *Offers* count by how many were good, as if none had been bad (Wilson's lower bound), so a newcomer
//!   begins low and climbs; by their mean a little; and for what is certain against them (the upper
//!   bound) most of all, so bad luck where few ask costs little: it would keep itself up, for who is
//!   asked less learns more slowly that it was luck.
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
/// After so many later observations of the same kind evidence counts half, too.
pub const HALF_LIFE_EVENTS: u32 = 300;
/// Good offers that a newcomer is taken to have made, so that it is asked at times.
pub const PRIOR: u32 = 8;
/// With so many offers, in thousandths, an indexer is known.
const KNOWN_MILLI: u32 = 1_000_000;
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
/// A container of which its host, asked for that, says that it has none is no accident either.
const WRONG_COUNTS: u32 = 5;
/// An indexer's own containers may be preferred by so much before it counts.
const FAVOUR_SLACK: Ppm = Ppm::new(100_000);
const HALF_LIFE: u64 = HALF_LIFE_DAYS * 86_400;
/// An observation makes those before it older by so many seconds.
const STEP: u64 = HALF_LIFE / HALF_LIFE_EVENTS as u64;
/// Of more observations at a time nothing is left of those before.
const FORGETS: u32 = 10 * HALF_LIFE_EVENTS;
/// Observations that are added at a time.
const PART: u32 = 32;
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

/// Evidence of one kind, aged by time and by what came after.
#[derive(Clone, Debug, Default)]
struct Kind {
    beta: Beta,
    observed: u64,
}

impl Kind {
    /// A clock that every observation sets forward.
    const fn clock(&self, seconds: u64) -> u64 {
        seconds.saturating_add(self.observed.saturating_mul(STEP))
    }

    /// Adds so many observations of a share.
    fn observe(&mut self, seconds: u64, (share, count): (Ppm, u32)) {
        let mut left = count.min(FORGETS);
        while left > 0 {
            let part = left.min(PART);
            self.observed += u64::from(part);
            self.beta.observe(HALF_LIFE, self.clock(seconds), share, part * WHOLE);
            left -= part;
        }
    }

    /// Adds what others have observed, at most [`REPORTED_MAX`]: it makes nothing older.
    fn hear(&mut self, seconds: u64, (share, count): (Ppm, u32)) {
        let weight = count.min(REPORTED_MAX) * WHOLE;
        self.beta.observe(HALF_LIFE, self.clock(seconds), share, weight);
    }

    fn now(&self, seconds: u64) -> Beta {
        self.beta.aged(HALF_LIFE, self.clock(seconds))
    }
}

/// Aged evidence of every kind.
#[derive(Clone, Debug, Default)]
struct Aged {
    offers: Kind,
    shown: Kind,
    proved: Kind,
    own: Kind,
    expected: Kind,
}

/// A tally as shares of so many observations, in the order of [`Aged::kinds`].
fn shares(tally: &Tally) -> [(Ppm, u32); 5] {
    let sum = |parts: &[u32]| parts.iter().fold(0, |sum: u32, part| sum.saturating_add(*part));
    let of = |good: u32, all: u32| (Ppm::of(good.into(), all.into()), all);
    // A container that is taken since is half a failure: seconds pass between offer and lease.
    let wrong = tally.wrong.saturating_mul(WRONG_COUNTS);
    let bad = sum(&[tally.dead, wrong]);
    // An odd half is rounded up to a whole one, of which half is good: what is bad is exact.
    let count = sum(&[tally.good, bad, tally.stale.div_ceil(2)]);
    let halves = u64::from(count) * 2;
    let bad_halves = u64::from(bad) * 2 + u64::from(tally.stale);
    let good_share = Ppm::of(halves.saturating_sub(bad_halves), halves);
    let disproved = tally.disproved.saturating_mul(DISPROVED_COUNTS);
    let compared = u64::from(tally.compared);
    let expected = Ppm::of(tally.own_expected_milli.into(), compared * 1_000);
    [
        (good_share, count),
        of(tally.shown, sum(&[tally.shown, tally.hidden])),
        of(tally.proved, sum(&[tally.proved, disproved])),
        of(tally.own, tally.compared),
        (expected, tally.compared),
    ]
}

impl Aged {
    const fn kinds(&mut self) -> [&mut Kind; 5] {
        [&mut self.offers, &mut self.shown, &mut self.proved, &mut self.own, &mut self.expected]
    }

    /// Adds what was met with oneself.
    fn add(&mut self, seconds: u64, tally: &Tally) {
        for (kind, observed) in self.kinds().into_iter().zip(shares(tally)) {
            kind.observe(seconds, observed);
        }
    }

    /// Adds what others report, at most so many observations of each kind.
    fn hear(&mut self, seconds: u64, tally: &Tally, most: [u32; 5]) {
        for ((kind, (share, count)), most) in self.kinds().into_iter().zip(shares(tally)).zip(most)
        {
            kind.hear(seconds, (share, count.min(most)));
        }
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
    for (hour, tally) in ledger.hours_of(indexer) {
        // Evidence of an hour is as old as the hour's end, and of this hour as now.
        aged.add(((u64::from(hour) + 1) * 3_600).min(seconds), tally);
    }
    let about: Vec<_> = reported.iter().filter(|report| report.indexer == indexer).collect();
    let sources = u32::try_from(about.len().max(1)).unwrap_or(u32::MAX);
    let room = aged.kinds().map(|own| {
        let own = own.now(seconds).count_milli() / 1_000;
        REPORTED_MAX.saturating_sub(u32::try_from(own).unwrap_or(u32::MAX)) / sources
    });
    for report in about {
        aged.hear(seconds, &report.tally, room);
    }
    judge(&aged, seconds)
}

fn judge(aged: &Aged, seconds: u64) -> Standing {
    let now = |kind: &Kind| kind.now(seconds);
    let mut offers = now(&aged.offers);
    let offers_milli = offers.count_milli();
    let good_milli = offers_milli * u64::from(offers.mean().ppm()) / u64::from(WHOLE);
    offers.observe(HALF_LIFE, offers.at(), Ppm::ONE, PRIOR * WHOLE);
    let (shown, proved) = (now(&aged.shown).upper(), now(&aged.proved).upper());
    let (own, expected) = (now(&aged.own), now(&aged.expected));
    let allowed = expected.mean().ppm().saturating_add(FAVOUR_SLACK.ppm());
    let certain = own.lower().ppm();
    let favour = Ppm::new(certain.saturating_sub(allowed));
    // The 64th power: a certain fault ends the asking soon, and what may be bad luck costs nothing.
    let failing = eighth_power(reached(offers.upper(), WELL));
    let failing = product(failing, reached(offers.mean(), WELL));
    let factors = [
        (Mark::Offers, product(reached(known(good_milli), WELL), failing)),
        (Mark::Hides, square(reached(shown, WELL_SHOWN))),
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

/// What share is good for certain where so many offers, in thousandths, were made and all were good.
fn known(offers_milli: u64) -> Ppm {
    let mut good = Beta::default();
    let count = u32::try_from(offers_milli).unwrap_or(u32::MAX).min(KNOWN_MILLI);
    good.observe(HALF_LIFE, 0, Ppm::ONE, PRIOR * WHOLE);
    good.observe(HALF_LIFE, 0, Ppm::ONE, count * (WHOLE / 1_000));
    good.lower()
}

/// The eighth power of how much of what is well a share reaches: nine tenths of the way are 43 %.
fn reached(share: Ppm, well: Ppm) -> Ppm {
    eighth_power(Ppm::of(share.ppm().into(), well.ppm().into()))
}

fn eighth_power(share: Ppm) -> Ppm {
    square(square(square(share)))
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
