//! How far buyers trust each indexer, from what they and others have seen of it.
//!
//! Two things are counted: whether the first host that it named took the buyer, and whether
//! another indexer, asked at the same time, knew something much better that was really free. Old
//! observations fade with a half-life of an hour, and what is certain of the rest counts, by
//! Wilson's lower bound. A buyer asks an indexer in proportion to the eighth power of its score.

use super::config::{INDEXERS, INDEXERS_PER_REGION};
use super::draw::Draw;

/// An observation's weight.
const EACH: u64 = 1 << 16;
/// What is left of an observation after a minute: two to the power -1/60, with 16 binary places.
const AFTER_A_MINUTE: u64 = 64_783;
/// Good observations with which everybody begins, so that the first few decide nothing.
const GRANTED: u64 = 40;
/// What every indexer is asked at least, beside the best one's 10 000: one that has become honest
/// is noticed.
const LEAST: u64 = 100;

/// What is known of one indexer in one respect.
#[derive(Clone, Copy, Debug)]
struct Seen {
    good: u64,
    all: u64,
}

impl Seen {
    /// What is certain: from 0 to 10 000.
    fn certain(self) -> u64 {
        let (good, all) = (u128::from(self.good), u128::from(self.all.max(1)));
        let each = u128::from(EACH);
        // z = 1.96: z² = 3.8416, z²/2 = 1.9208, z²/4 = 0.9604, in the unit of observations.
        let inner = good * (all - good) / all + each * 9_604 / 10_000;
        let root = (inner * 38_416 / 10_000 * each).isqrt();
        let least = (good + each * 19_208 / 10_000).saturating_sub(root);
        let certain = least * 10_000 / (all + each * 38_416 / 10_000);
        u64::try_from(certain).unwrap_or(0)
    }
}

/// The ways in which an indexer can deceive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Respect {
    /// The first host that it named took the buyer.
    Taken = 0,
    /// It showed what there was.
    Shown = 1,
}

#[derive(Clone, Debug)]
pub(super) struct Trust {
    seen: [[Seen; 2]; INDEXERS],
    /// How often each is asked beside the others of its region.
    pub(super) weights: [u64; INDEXERS],
}

impl Trust {
    pub(super) fn new() -> Self {
        let seen = Seen { good: GRANTED * EACH, all: GRANTED * EACH };
        Self { seen: [[seen; 2]; INDEXERS], weights: [10_000; INDEXERS] }
    }

    pub(super) fn observe(&mut self, indexer: u8, respect: Respect, is_good: bool) {
        let seen = &mut self.seen[usize::from(indexer)][respect as usize];
        seen.all += EACH;
        seen.good += if is_good { EACH } else { 0 };
    }

    /// The score of an indexer: from 0 to 10 000.
    pub(super) fn score(&self, indexer: usize) -> u64 {
        let [taken, shown] = self.seen[indexer].map(Seen::certain);
        taken.min(shown)
    }

    /// A minute has passed.
    pub(super) fn fade(&mut self) {
        for seen in self.seen.iter_mut().flatten() {
            seen.good = (seen.good * AFTER_A_MINUTE) >> 16;
            seen.all = ((seen.all * AFTER_A_MINUTE) >> 16).max(seen.good);
        }
        for first in (0..INDEXERS).step_by(INDEXERS_PER_REGION) {
            let all = first..first + INDEXERS_PER_REGION;
            let best = all.clone().map(|indexer| self.score(indexer)).max().unwrap_or(0).max(1);
            for indexer in all {
                let ratio = self.score(indexer) * 10_000 / best;
                let eighth = (0..3).fold(ratio, |power, _| power * power / 10_000);
                self.weights[indexer] = eighth.max(LEAST);
            }
        }
    }

    /// Draws an indexer of a region, not the one that is excluded.
    pub(super) fn choose(&self, draw: &mut Draw, region: usize, but: Option<u8>) -> u8 {
        let first = region * INDEXERS_PER_REGION;
        let weight = |indexer: usize| {
            let is_excluded = but.is_some_and(|but| usize::from(but) == indexer);
            if is_excluded { 0 } else { self.weights[indexer] }
        };
        let all = first..first + INDEXERS_PER_REGION;
        let mut left = draw.within(0, all.clone().map(weight).sum::<u64>().max(1));
        let mut chosen = first;
        for indexer in all {
            let weight = weight(indexer);
            if weight == 0 {
                continue;
            }
            chosen = indexer;
            if left < weight {
                break;
            }
            left -= weight;
        }
        u8::try_from(chosen).unwrap_or(0)
    }
}
