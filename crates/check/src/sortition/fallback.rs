//! The public fall-back: rendezvous hashing among neighbours.
//!
//! A container's anchor is a place in the sorted list of licences; its candidates are the licences
//! of the anchor's block of [`BLOCK`] places, ordered by the weight of licence and container. All
//! of 100,000 licences would have to be weighed otherwise, for each container. A licence that goes
//! moves the containers of one block, and those few whose anchor crosses into the next one.
//!
//! Weights mix hashes that nobody knows before the seed, so the mix need not be one-way.

use sha2::{Digest as _, Sha256};
use welkin_types::{AccountId, ContainerId};

use super::{Licence, Plan, to_usize};

/// Licences that are weighed for a container. With a last block of its own length, at most twice.
const BLOCK: usize = 256;

/// The licences of an epoch, hashed with its seed.
#[derive(Clone, Debug)]
pub struct Weights<'a> {
    licences: &'a [Licence],
    hashes: Vec<u64>,
}

impl Plan {
    /// Hashes the licences, which are sorted by number.
    pub fn weights<'a>(&self, licences: &'a [Licence]) -> Weights<'a> {
        let hash = |licence: &Licence| {
            self.hash(b"welkin/fallback/licence/1\0", &licence.number.to_be_bytes())
        };
        Weights { licences, hashes: licences.iter().map(hash).collect() }
    }

    /// Who checks a container in a period where sortition left it short: `wanted` licences, none
    /// of its owner's and none of those that reported already.
    pub fn fallback<'a>(
        &self,
        weights: &Weights<'a>,
        container: ContainerId,
        owner: AccountId,
        period: u8,
        wanted: usize,
        reported: &[u32],
    ) -> Vec<&'a Licence> {
        if wanted == 0 {
            return Vec::new();
        }
        let mut subject = [0; 17];
        subject[..16].copy_from_slice(container.as_bytes());
        subject[16] = period;
        let hash = self.hash(b"welkin/fallback/container/1\0", &subject);
        let may = |place: usize| {
            let licence = weights.licences.get(place);
            licence.is_some_and(|it| it.owner != owner && !reported.contains(&it.number))
        };
        let best = heaviest(&weights.hashes, hash, wanted, may);
        best.into_iter().filter_map(|place| weights.licences.get(place)).collect()
    }

    fn hash(&self, domain: &[u8], subject: &[u8]) -> u64 {
        let hash = Sha256::new()
            .chain_update(domain)
            .chain_update(self.seed)
            .chain_update(self.epoch.to_be_bytes())
            .chain_update(subject)
            .finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_be_bytes(first)
    }
}

/// The places of the heaviest licences for a subject, the heaviest first: among those of the subject's block
/// that may be taken.
pub(super) fn heaviest(
    hashes: &[u64],
    subject: u64,
    wanted: usize,
    may: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let count = hashes.len();
    let Some(blocks) = count.checked_sub(1).map(|last| (last / BLOCK).max(1)) else {
        return Vec::new();
    };
    let [_, _, _, _, a, b, c, d] = subject.to_be_bytes();
    let whole = u32::try_from(count).unwrap_or(u32::MAX);
    let anchor = super::scaled(u32::from_be_bytes([a, b, c, d]), whole);
    let block = (to_usize(anchor) / BLOCK).min(blocks - 1);
    let first = block * BLOCK;
    let end = if block + 1 == blocks { count } else { first + BLOCK };
    let mut best: Vec<(u64, usize)> = Vec::with_capacity(wanted + 1);
    let mut least = 0;
    for (place, own) in (first..end).zip(&hashes[first..end]) {
        let weight = mix(own ^ subject);
        // Few pass, so that the others cost no look at the licence.
        if (best.len() == wanted && weight <= least) || !may(place) {
            continue;
        }
        let rank = best.partition_point(|(other, _)| *other >= weight);
        best.insert(rank, (weight, place));
        best.truncate(wanted);
        least = best.last().map_or(0, |(weight, _)| *weight);
    }
    best.into_iter().map(|(_, place)| place).collect()
}

/// The finaliser of `SplitMix64`: each bit of what goes in moves half of those that come out.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
