//! How far buyers trust each indexer: by the program's own rules, [`welkin_match::trust`].
//!
//! Counted are the first host that an indexer named (it took the buyer, was busy or silent) and,
//! where a buyer asked two at the same time, whether each showed something as good. All buyers of
//! the simulation share one ledger: everybody reports, and everybody is believed.

use welkin_match::trust::{Finding, Ledger, standing};
use welkin_types::{NodeId, UnixMillis};

use super::config::{INDEXERS, INDEXERS_PER_REGION};
use super::draw::Draw;

#[derive(Clone, Debug)]
pub(super) struct Trust {
    ledger: Ledger,
    /// How often each is asked beside the others of its region, in millionths.
    pub(super) weights: [u64; INDEXERS],
}

impl Trust {
    pub(super) fn new() -> Self {
        Self { ledger: Ledger::default(), weights: [1_000_000; INDEXERS] }
    }

    /// A buyer has met with something.
    pub(super) fn observe(&mut self, now: u64, indexer: u8, finding: Finding) {
        self.ledger.note(UnixMillis(now / 1_000), node(usize::from(indexer)), finding);
    }

    /// The weight of an indexer: from 0 to 1 000 000.
    pub(super) const fn score(&self, indexer: usize) -> u64 {
        self.weights[indexer]
    }

    /// Weighs all indexers anew.
    pub(super) fn weigh(&mut self, now: u64) {
        for (indexer, weight) in self.weights.iter_mut().enumerate() {
            let stands = standing(&self.ledger, &[], node(indexer), UnixMillis(now / 1_000));
            *weight = u64::from(stands.weight.ppm()).max(1);
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

/// The name of an indexer.
fn node(indexer: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(indexer).unwrap_or(u8::MAX); 32])
}
