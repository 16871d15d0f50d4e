//! Several containers at once, all or nothing, near each other.

use std::collections::BTreeSet;

use super::Index;
use super::best::{cost_of, row_of};
use super::choose::Chosen;
use super::query::{Search, SearchError};
use super::row::{LOCATIONS_MAX, RowId};
use super::search::{Scratch, Searcher};

/// The most members of a gang.
pub const GANG_MAX: u8 = 64;

/// How near to each other the members must be.
#[derive(Clone, Copy, Debug)]
pub enum Together<'a> {
    /// In one location.
    Site,
    /// In locations between any two of which a round trip takes no longer.
    Within {
        /// The longest round trip, in tenths of a millisecond.
        round_trip_max: u16,
        /// Round trips from location to location; what is missing is too far.
        round_trips: &'a [Vec<u16>],
    },
}

/// A search for several at once.
#[derive(Clone, Copy, Debug)]
pub struct Gang<'a> {
    /// What each member must be. Its count, width and slack do not matter.
    pub member: Search<'a>,
    /// How many members, from 1 to [`GANG_MAX`].
    pub members: u8,
    /// How near to each other.
    pub together: Together<'a>,
    /// Whether each must be on a host of its own.
    pub is_spread: bool,
}

/// Where a gang can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GangChoice {
    /// Each member's container; one with enough free slots may carry several.
    pub members: Vec<Chosen>,
    /// What all of them cost together.
    pub cost: u64,
    /// The locations that were searched together, one bit each.
    pub locations: u128,
    /// What the members were taken from there, best first: one list for each time that another had
    /// to be made because too few hosts were in those before.
    pub considered: Vec<Vec<RowId>>,
    /// What the gang costs in the sets of locations that were tried before, and after.
    pub others: [Vec<u64>; 2],
}

impl Index {
    /// Finds the place where a gang costs least, or nothing where it fits nowhere as a whole.
    ///
    /// Of locations that are only near each other, sets are made around each location: the next
    /// nearest is added as long as it is near enough to all that are in the set. The best of these
    /// sets is found; a best of all possible sets would take too long to find.
    ///
    /// # Errors
    ///
    /// [`SearchError`] where the search is out of bounds.
    pub fn find_gang(&self, gang: &Gang<'_>) -> Result<Option<GangChoice>, SearchError> {
        gang.member.check()?;
        let (given, most) = (usize::from(gang.members), usize::from(GANG_MAX));
        if given > most {
            return Err(SearchError::TooLarge { what: "number of members", given, most });
        }
        if given == 0 {
            return Err(SearchError::Nothing { what: "number of members" });
        }
        let (mut tried, mut scratch) = (BTreeSet::new(), Scratch::default());
        let mut best: Option<GangChoice> = None;
        for centre in 0..self.locations {
            let locations = set_around(gang, centre, self.locations);
            if locations == 0 || !tried.insert(locations) {
                continue;
            }
            let Some(choice) = self.gang_in(gang, locations, &mut scratch) else { continue };
            match &mut best {
                Some(best) if choice.cost < best.cost => {
                    let [mut before, after] = std::mem::take(&mut best.others);
                    before.push(best.cost);
                    before.extend(after);
                    *best = GangChoice { others: [before, Vec::new()], ..choice };
                }
                Some(best) => best.others[1].push(choice.cost),
                None => best = Some(choice),
            }
        }
        Ok(best)
    }

    /// The cheapest members within a set of locations.
    fn gang_in(
        &self,
        gang: &Gang<'_>,
        locations: u128,
        scratch: &mut Scratch,
    ) -> Option<GangChoice> {
        let count = usize::from(gang.members);
        let member = Search { locations, ..gang.member };
        let mut members: Vec<(RowId, u64)> = Vec::with_capacity(count);
        let mut used: Vec<u32> = Vec::new();
        let mut considered = Vec::with_capacity(1);
        loop {
            let excluded = [member.hosts_exclude, &used].concat();
            Searcher::run(self, &member, &excluded, (count, 1), scratch);
            for rank in &scratch.ranks {
                let record = &self.records[row_of(*rank) as usize];
                let carried = if !gang.is_spread {
                    usize::from(record.free / member.slots)
                } else {
                    usize::from(!used.contains(&record.host))
                };
                if gang.is_spread && carried > 0 {
                    used.push(record.host);
                }
                let carried = carried.min(count - members.len());
                let row = RowId(row_of(*rank));
                members.extend(std::iter::repeat_n((row, cost_of(*rank)), carried));
            }
            considered.push(scratch.ranks.iter().map(|rank| RowId(row_of(*rank))).collect());
            // A short list is all that there is, and without a spread each carries one at least.
            if members.len() == count {
                break;
            }
            if scratch.ranks.len() < count {
                return None;
            }
        }
        let cost = members.iter().map(|(_, cost)| cost).sum();
        let members = members.into_iter().map(|(row, _)| Chosen {
            row,
            host: self.records[row.0 as usize].host,
            terms: self.terms(&member, row),
        });
        let members = members.collect();
        Some(GangChoice { members, cost, locations, considered, others: Default::default() })
    }
}

/// The locations that are searched together around one; none if it is not wanted.
fn set_around(gang: &Gang<'_>, centre: usize, count: usize) -> u128 {
    let is_wanted = |location: usize| {
        gang.member.locations >> location & 1 == 1
            && gang.member.latency_to(location) <= gang.member.latency_max
    };
    if !is_wanted(centre) {
        return 0;
    }
    let Together::Within { round_trip_max, round_trips } = gang.together else {
        return 1 << centre;
    };
    let trip = |a: usize, b: usize| match a == b {
        true => Some(0),
        false => round_trips.get(a)?.get(b).copied().filter(|trip| *trip <= round_trip_max),
    };
    let mut others: Vec<_> = (0..count.min(LOCATIONS_MAX))
        .filter(|other| is_wanted(*other))
        .filter_map(|other| Some((trip(centre, other)?, other)))
        .collect();
    others.sort_unstable();
    let mut set = 1 << centre;
    for (_, other) in others {
        let is_near = (0..count).filter(|at| set >> at & 1 == 1).all(|at| {
            // Round trips differ by direction; the longer counts.
            trip(at, other).is_some() && trip(other, at).is_some()
        });
        if is_near {
            set |= 1 << other;
        }
    }
    set
}
