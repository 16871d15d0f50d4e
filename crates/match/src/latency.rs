//! How far two places are from each other, in time.
//!
//! Three sources, the better one first: what was measured between a buyer's network and a region
//! ([`RoundTrips`]), what was measured between the buyer's region and that region, and the default:
//! the way along the globe at the speed at which packets travel on the networks that there are
//! ([`default_rtt`]). `docs/reference/latency.md` compares them, and network coordinates.
//!
//! Everything is in microseconds and in integers, so that every machine agrees.

mod learnt;
mod place;

use welkin_types::Region;

pub use learnt::{ENTRIES_MAX, Estimate, Network, RoundTrips};
pub use place::{Place, place_of, regions};

/// Microseconds for a kilometre, there and back: light in fibre takes 10, and cables take detours.
pub const US_PER_KM: u32 = 16;
/// Microseconds to and from the nearest exchange, both ends together.
pub const ACCESS_US: u32 = 6_000;
/// The longest round trip that is believed: nothing on this planet is farther.
pub const RTT_US_MAX: u32 = 2_000_000;

/// The round trip between two regions, by their distance. `None` where a region is not in the table
/// and they are not the same.
///
/// ```
/// use welkin_match::latency::default_rtt;
/// let region = |name: &str| name.parse().unwrap();
/// let far = default_rtt(&region("de-frankfurt"), &region("sg-singapore")).unwrap();
/// assert!((150_000..190_000).contains(&far));
/// ```
pub fn default_rtt(one: &Region, other: &Region) -> Option<u32> {
    if one == other {
        let is_here = *one == Region::local();
        return Some(if is_here { 0 } else { ACCESS_US });
    }
    let (one, other) = (place_of(one)?, place_of(other)?);
    Some(ACCESS_US.saturating_add(one.distance_km(other).saturating_mul(US_PER_KM)))
}

/// Regions by the round trip to them, nearest first; those of which nothing is known come last, by
/// name.
pub fn nearest<'a>(
    regions: impl Iterator<Item = &'a Region>,
    rtt: impl Fn(&Region) -> Option<u32>,
) -> Vec<(Region, Option<u32>)> {
    let mut all: Vec<_> = regions.map(|region| (region.clone(), rtt(region))).collect();
    all.sort_by(|(one, a), (other, b)| {
        (a.unwrap_or(u32::MAX), one).cmp(&(b.unwrap_or(u32::MAX), other))
    });
    all.dedup_by(|(one, _), (other, _)| one == other);
    all
}

#[cfg(test)]
mod tests;
