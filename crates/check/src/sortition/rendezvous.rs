//! Rendezvous hashing among neighbours: who stands in.
//!
//! A subject's anchor is a place in the sorted list of licences; its candidates are the licences
//! of the anchor's block of [`BLOCK`] places, ordered by the weight of licence and subject. All
//! of 100,000 licences would have to be weighed otherwise, for each container. A licence that goes
//! moves the containers of one block, and those few whose anchor crosses into the next one.
//!
//! Weights mix hashes that nobody knows before the seed, so the mix need not be one-way.

/// Licences that are weighed for a container. With a last block of its own length, at most twice.
const BLOCK: usize = 256;

/// The places of the heaviest licences for a subject, the heaviest first, among those of its block.
pub(super) fn heaviest(hashes: &[u64], subject: u64, wanted: usize) -> Vec<usize> {
    if wanted == 0 {
        return Vec::new();
    }
    let count = hashes.len();
    let Some(blocks) = count.checked_sub(1).map(|last| (last / BLOCK).max(1)) else {
        return Vec::new();
    };
    let [_, _, _, _, a, b, c, d] = subject.to_be_bytes();
    let whole = u32::try_from(count).unwrap_or(u32::MAX);
    let anchor = scaled(u32::from_be_bytes([a, b, c, d]), whole);
    let anchor = usize::try_from(anchor).unwrap_or(usize::MAX);
    let block = (anchor / BLOCK).min(blocks - 1);
    let first = block * BLOCK;
    let end = if block + 1 == blocks { count } else { first + BLOCK };
    let mut best: Vec<(u64, usize)> = Vec::with_capacity(wanted + 1);
    let mut least = 0;
    for (place, own) in (first..end).zip(&hashes[first..end]) {
        let weight = mix(own ^ subject);
        if best.len() == wanted && weight <= least {
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

/// A word as a number below `bound`: the high half of their product.
fn scaled(word: u32, bound: u32) -> u32 {
    let [a, b, c, d, ..] = (u64::from(word) * u64::from(bound)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
