//! Where a search may find something, and what the way there costs: computed for all locations at
//! once, without a branch or a division for each.

use super::bounds::{GROUP, GROUPS};
use super::query::Search;
use super::row::LOCATIONS_MAX;

/// Farther than any limit, in micro-dollars: a location that is not eligible.
pub(super) const FAR: i32 = (1 << 30) - 1;

/// The locations of a search.
#[derive(Debug)]
pub(super) struct Reach {
    weight: u64,
    latency: [u16; LOCATIONS_MAX],
    /// The cost of the way as a price, rounded down; [`FAR`] where nothing is wanted.
    pub(super) away: [i32; LOCATIONS_MAX],
    /// The locations where something is wanted.
    pub(super) eligible: u128,
    /// The groups of locations in which something is wanted, with the least way to each.
    groups: [(usize, i32); GROUPS],
    groups_len: usize,
    /// What the way to the nearest costs.
    pub(super) nearest: u64,
}

impl Reach {
    /// That of a search among so many locations.
    pub(super) fn new(search: &Search<'_>, locations: usize) -> Self {
        let mut latency = [if search.latency.is_empty() { 0 } else { u16::MAX }; LOCATIONS_MAX];
        let known = search.latency.len().min(LOCATIONS_MAX);
        latency[..known].copy_from_slice(&search.latency[..known]);
        let mut away = ways(&latency, search);
        away[locations.min(LOCATIONS_MAX)..].fill(FAR);
        if search.locations != u128::MAX {
            for (location, away) in away.iter_mut().enumerate() {
                if search.locations >> location & 1 == 0 {
                    *away = FAR;
                }
            }
        }
        let (mut eligible, mut nearest) = (0, u16::MAX);
        let (mut groups, mut groups_len) = ([(0, FAR); GROUPS], 0);
        let lanes = away.as_chunks::<GROUP>().0.iter().zip(latency.as_chunks::<GROUP>().0);
        for (number, (away, latency)) in lanes.enumerate() {
            let least = away.iter().copied().min().unwrap_or(FAR);
            groups[groups_len] = (number, least);
            groups_len += usize::from(least < FAR);
            eligible |= u128::from(bits_below(away, FAR)) << (number * GROUP);
            for (away, latency) in away.iter().zip(latency) {
                nearest = nearest.min(if *away < FAR { *latency } else { u16::MAX });
            }
        }
        let weight = u64::from(search.weights.latency);
        let nearest = weight * u64::from(nearest);
        Self { weight, latency, away, eligible, groups, groups_len, nearest }
    }

    /// What the way to a location costs.
    pub(super) fn cost(&self, location: usize) -> u64 {
        self.weight * u64::from(self.latency[location])
    }

    /// The groups of locations in which something is wanted.
    pub(super) fn groups(&self) -> &[(usize, i32)] {
        &self.groups[..self.groups_len]
    }
}

/// The cost of each way as a price, where it is short enough: never more than what it costs.
fn ways(latency: &[u16; LOCATIONS_MAX], search: &Search<'_>) -> [i32; LOCATIONS_MAX] {
    let weights = &search.weights;
    // Price for each tenth of a millisecond in 2^-16 micro-dollars, below FAR for the longest way.
    // Without a weight of the price no price is too high.
    let each = (u64::from(weights.latency) << 16).checked_div(weights.price.into()).unwrap_or(0);
    let each = u32::try_from(each).unwrap_or(u32::MAX).min((1 << 30) - 1);
    // Numbers of 16 bits are multiplied eight at once by every processor of this kind.
    let [high, low] = [each >> 16, each & 0xffff].map(|part| u16::try_from(part).unwrap_or(0));
    let mut away = [FAR; LOCATIONS_MAX];
    for (away, latency) in away.iter_mut().zip(latency) {
        let times = |part: u16| u32::from(*latency) * u32::from(part);
        let way = times(high) + (times(low) >> 16);
        *away = if *latency <= search.latency_max { way.cast_signed() } else { FAR };
    }
    away
}

/// One bit for each number below `limit`.
fn bits_below<const N: usize>(numbers: &[i32; N], limit: i32) -> u32 {
    let mut bits = [0_u32; N];
    for (place, (bit, number)) in bits.iter_mut().zip(numbers).enumerate() {
        *bit = u32::from(*number < limit) << place;
    }
    bits.iter().fold(0, |all, bit| all | bit)
}
