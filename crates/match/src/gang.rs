//! Several containers at once, all or nothing.

use welkin_proto::index::{GangAsk, Hold, Together};
use welkin_types::{NodeId, Region, UnixMillis};

use crate::filter::tenths_of;
use crate::find::{Candidate, Query, ROUNDS_MAX};
use crate::fleet::rows::{OTHER_LOCATION, location_of};
use crate::fleet::{Fleet, HoldRefusal};
use crate::index::{Gang, GangChoice, GangReceipt, LIST_MAX, LOCATIONS_MAX, Together as Near};

impl Fleet {
    /// Finds containers for all members of a gang, or nothing where it fits nowhere as a whole. One
    /// candidate for each member; a container may carry several. `between` knows round trips
    /// between regions, in microseconds.
    ///
    /// The query's count does not matter, and what is kept for the buyer is not found again.
    pub fn find_gang(
        &mut self,
        now: UnixMillis,
        query: &Query<'_>,
        ask: &GangAsk,
        between: &dyn Fn(&Region, &Region) -> Option<u32>,
    ) -> Option<Vec<Candidate>> {
        self.find_gang_shown(now, query, (ask, None), between).map(|(members, _)| members)
    }

    /// The same, with the receipt of the choice where a digest of the question is given.
    pub fn find_gang_shown(
        &mut self,
        now: UnixMillis,
        query: &Query<'_>,
        (ask, digest): (&GangAsk, Option<[u8; 32]>),
        between: &dyn Fn(&Region, &Region) -> Option<u32>,
    ) -> Option<(Vec<Candidate>, Option<GangReceipt>)> {
        let is_settled = self.settle_a_little(now);
        let round_trips = match ask.together {
            Together::Site => Vec::new(),
            Together::WithinUs(_) => self.round_trips(between),
        };
        let together = match ask.together {
            Together::Site => Near::Site,
            Together::WithinUs(us) => {
                Near::Within { round_trip_max: tenths_of(us), round_trips: &round_trips }
            }
        };
        let mut lists = self.lists(&query.wish());
        for round in 0..ROUNDS_MAX {
            lists.is_sure |= round + 1 == ROUNDS_MAX;
            let member = query.search(self.search(query.needs, &lists));
            let gang = Gang { member, members: ask.members, together, is_spread: ask.is_spread };
            let choice = self.index.find_gang(&gang).ok()??;
            if !is_settled && self.freshen(now, choice.members.iter().map(|one| &one.row)) {
                continue;
            }
            let owners = self.owners_of(&choice);
            let unfit = self.unfit(now, query, &owners);
            if unfit.is_empty() && owners.len() == usize::from(ask.members) {
                let receipt = digest.map(|query| self.index.gang_receipt(&gang, &choice, query));
                return Some((self.as_candidates(now, query, owners), receipt));
            }
            if lists.is_sure || unfit.is_empty() {
                return None;
            }
            lists.is_sure = lists.hosts.len() + unfit.len() > LIST_MAX;
            if !lists.is_sure {
                lists.hosts.extend(unfit);
            }
        }
        None
    }

    fn owners_of(&self, choice: &GangChoice) -> Vec<u32> {
        choice.members.iter().filter_map(|member| self.owner(member.row)).collect()
    }

    /// Round trips from location to location. What shares a location is near nothing.
    fn round_trips(&self, between: &dyn Fn(&Region, &Region) -> Option<u32>) -> Vec<Vec<u16>> {
        let own = |number: u32| Some(location_of(number)).filter(|at| *at != OTHER_LOCATION);
        let mut trips = vec![vec![u16::MAX; LOCATIONS_MAX]; LOCATIONS_MAX];
        for (from, name) in self.regions.iter() {
            for (to, other) in self.regions.iter() {
                let (Some(from), Some(to)) = (own(from), own(to)) else { break };
                if let Some(us) = between(name, other) {
                    trips[usize::from(from)][usize::from(to)] = tenths_of(us);
                }
            }
        }
        trips
    }

    /// Keeps slots for all members of a gang, or none.
    ///
    /// # Errors
    ///
    /// [`HoldRefusal`] of the first that can't be kept; then nothing is kept.
    pub fn hold_all(
        &mut self,
        now: UnixMillis,
        holds: &[(NodeId, Hold)],
    ) -> Result<(), HoldRefusal> {
        for (place, (host, hold)) in holds.iter().enumerate() {
            if let Err(refusal) = self.hold(now, *host, *hold) {
                for (host, hold) in &holds[..place] {
                    self.release_hold(now, *host, hold.container, hold.offer);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }
}
