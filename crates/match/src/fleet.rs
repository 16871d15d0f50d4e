//! The hosts of a region, as they describe themselves.
//!
//! Everything is bounded: hosts by [`HOSTS_MAX`], their containers by
//! [`Capability::CONTAINERS_MAX`] each and [`CONTAINERS_MAX`] in all, what they say by
//! [`WORDS_BYTES_MAX`], holds by [`HOLDS_MAX`] and [`HOLDS_PER_BUYER_MAX`], scores by
//! [`SCORES_MAX`]. A container belongs to the host that announces it: another host that announces
//! the same id has another container.
//!
//! The work of a call is bounded too. What the passing of time changes waits in a queue by when it
//! is due; [`Fleet::expire`] does a part of it and says whether there is more.

mod announce;
mod block;
mod dump;
mod explain;
mod facts;
mod holds;
mod hosts;
mod numbers;
mod restore;
pub(crate) mod rows;
mod scores;
mod seal;
mod slab;
mod table;
mod timers;
mod walk;

use welkin_proto::check::Report;
use welkin_proto::index::{Beat, Hold};
use welkin_proto::{Capability, NodeAddr};
use welkin_types::{
    AccountId, AppId, CapacityType, ContainerId, NodeId, OfferId, Region, UnixMillis,
};

pub use block::{Block, BlockError, Head as BlockHead};
pub use restore::{ReadHosts, Restoring};
pub use seal::Seal;

use crate::index::{Index, RowId};
use crate::score::{ReportRefusal, Score};
use holds::Holds;
use hosts::{Host, Hosts, Kind};
use numbers::Numbers;
use scores::Scores;
use slab::NONE;
use timers::Timers;

/// The most hosts.
pub const HOSTS_MAX: usize = 1 << 21;
/// The most containers of all hosts.
pub const CONTAINERS_MAX: usize = 1 << 21;
/// The most bytes that all announcements may take.
pub const WORDS_BYTES_MAX: usize = 1 << 31;
/// The most bytes that one host's announcement may take.
pub const HOST_BYTES_MAX: usize = 1 << 17;
/// The most holds at once.
pub const HOLDS_MAX: usize = 1 << 18;
/// The most holds for one buyer at once.
pub const HOLDS_PER_BUYER_MAX: usize = 64;
/// The longest hold, in milliseconds.
pub const HOLD_MS_MAX: u64 = 30_000;
/// The most containers of which checks are remembered.
pub const SCORES_MAX: usize = 1 << 21;
/// A host that has said nothing for so many milliseconds is not offered. It beats every 10 s.
pub const SILENT_MS: u64 = 25_000;
/// A host that has been silent or disconnected for so many milliseconds is no longer listed.
pub const STALE_MS: u64 = 120_000;
/// By how much the online score of a host counts less that is known from before a restart and has
/// not been heard since, in hundredths of a percent.
pub const UNCONFIRMED_CUT_BP: u16 = 100;
/// How much one call does of what the passing of time brings about: a fraction of a millisecond …
const WORK_MAX: usize = 256;
/// … and how much a search does of it, which waits for it.
const SEARCH_WORK_MAX: usize = 16;

/// Why an announcement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceRefusal {
    /// There are as many hosts, containers or bytes as there may be.
    #[error("this indexer has as many hosts as it can and takes no more: try another")]
    Full,
    /// A newer announcement is known.
    #[error("revision {known} is known, this one is {given}")]
    Outdated {
        /// The revision that is known.
        known: u64,
        /// The revision that was announced.
        given: u64,
    },
    /// It has ended.
    #[error("the capability has expired")]
    Expired,
    /// It lists too much.
    #[error("the capability lists more than {} containers", Capability::CONTAINERS_MAX)]
    Bounds,
    /// It is too long.
    #[error("the capability takes {bytes} bytes, and may take {HOST_BYTES_MAX}")]
    Long {
        /// How long it is.
        bytes: usize,
    },
    /// A container is in it twice.
    #[error("the capability lists a container twice")]
    Repeated,
}

/// Why a beat is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeatRefusal {
    /// The host has not announced itself, or was forgotten: it must announce itself again.
    #[error("the host is not known")]
    Unknown,
    /// It belongs to another revision than was announced.
    #[error("the beat is of revision {given}, announced is {known}")]
    Revision {
        /// The revision that is known.
        known: u64,
        /// The beat's revision.
        given: u64,
    },
    /// A later beat is known.
    #[error("the beat comes after a later one")]
    Sequence,
    /// The container is not among those that were announced.
    #[error("the host has not announced this container")]
    Container,
    /// It lists too much.
    #[error("the beat lists more than {} containers", Capability::CONTAINERS_MAX)]
    Bounds,
}

/// Why a slot is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldRefusal {
    /// No such container.
    #[error("no such container")]
    Unknown,
    /// No slot is free.
    #[error("no slot is free")]
    NotFree,
    /// The buyer holds as much as one may.
    #[error("the buyer holds {HOLDS_PER_BUYER_MAX} slots and gets no more")]
    Buyer,
    /// There are as many holds as there may be.
    #[error("this indexer keeps {HOLDS_MAX} slots and no more")]
    Full,
    /// It has ended, or is longer than [`HOLD_MS_MAX`].
    #[error("a hold lasts from 1 to {HOLD_MS_MAX} ms")]
    Time,
    /// The offer has a hold on this container.
    #[error("the offer has been used")]
    Repeated,
}

/// What a host says of one container in a beat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The capability that it belongs to, as far as 32 bits go.
    pub revision: u32,
    /// Slots that no lease has.
    pub free: u32,
    /// Slots that spot leases have.
    pub spot_used: u32,
    /// Whether the host takes no new leases.
    pub is_draining: bool,
}

/// The hosts, holds and scores of an indexer.
///
/// ```
/// use welkin_match::{Fleet, Found, Query};
/// use welkin_types::task::Needs;
/// use welkin_types::{AccountId, UnixMillis};
/// let (mut fleet, needs) = (Fleet::default(), Needs::default());
/// let buyer = AccountId::from_bytes([1; 20]);
/// let query =
///     Query { needs: &needs, exclude: &[], buyer, count: 1, tie: 7, round_trips_us: &[] };
/// assert!(matches!(fleet.find(UnixMillis(0), &query), Found::WhyNot(_)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub(crate) hosts: Hosts,
    holds: Holds,
    scores: Scores,
    timers: Timers,
    /// Hosts that may be gone, to be forgotten.
    stale: Vec<u32>,
    pub(crate) index: Index,
    /// The container of each row.
    owners: Vec<u32>,
    operators: Numbers<AccountId>,
    pub(crate) regions: Numbers<Region>,
    pub(crate) kinds: Numbers<Kind>,
    pub(crate) apps: Numbers<AppId>,
    /// How often something became free.
    gains: u64,
}

impl Fleet {
    /// A fleet whose tables are ordered by a secret random number, so that nobody can choose names
    /// that all fall into one place.
    pub fn new(seed: u64) -> Self {
        let other = |number: u64| seed.rotate_left(32) ^ number;
        Self {
            hosts: Hosts::new(seed),
            scores: Scores::new(other(1)),
            operators: Numbers::new(other(2)),
            regions: Numbers::new(other(3)),
            kinds: Numbers::new(other(4)),
            apps: Numbers::new(other(5)),
            ..Self::default()
        }
    }

    /// Takes a host's present state. More than its slots are never free; a container that is not
    /// in it has none free.
    ///
    /// # Errors
    ///
    /// [`BeatRefusal`] saying why not; then nothing is changed.
    pub fn beat(&mut self, now: UnixMillis, node: NodeId, beat: &Beat) -> Result<(), BeatRefusal> {
        let number = self.hosts.number(node).ok_or(BeatRefusal::Unknown)?;
        let host = self.hosts.hosts.get_mut(number).ok_or(BeatRefusal::Unknown)?;
        if host.has_left {
            return Err(BeatRefusal::Unknown);
        }
        if beat.revision != host.revision {
            return Err(BeatRefusal::Revision { known: host.revision, given: beat.revision });
        }
        if host.sequence.is_some_and(|last| beat.sequence <= last) {
            return Err(BeatRefusal::Sequence);
        }
        if beat.free.len().max(beat.spot.len()) > Capability::CONTAINERS_MAX {
            return Err(BeatRefusal::Bounds);
        }
        host.sequence = Some(beat.sequence);
        let was_other = self.hear(now, number, beat.draining);
        let mut next = self.hosts.hosts.get(number).map_or(NONE, |host| host.first);
        while let Some(container) = self.hosts.containers.get(next) {
            let place = std::mem::replace(&mut next, container.next);
            // The last word on a container counts.
            let said = |list: &[(ContainerId, u32)]| {
                let said = list.iter().rev().find(|(id, _)| *id == container.id);
                said.map_or(0, |(_, count)| *count)
            };
            let said = (said(&beat.free), said(&beat.spot));
            self.say(now, place, said, was_other);
        }
        self.arm(now, number);
        Ok(())
    }

    /// Takes one container's present state, out of an authenticated datagram whose counter the
    /// caller has checked.
    ///
    /// # Errors
    ///
    /// [`BeatRefusal`] saying why not; then nothing is changed.
    pub fn beat_one(
        &mut self,
        now: UnixMillis,
        named: (NodeId, ContainerId),
        state: &State,
    ) -> Result<(), BeatRefusal> {
        self.beat_at(now, None, named, state).map(drop)
    }

    /// Does the same for a container that was at a place; returns where it is.
    ///
    /// # Errors
    ///
    /// As [`Fleet::beat_one`].
    pub fn beat_at(
        &mut self,
        now: UnixMillis,
        place: Option<u32>,
        (node, id): (NodeId, ContainerId),
        state: &State,
    ) -> Result<u32, BeatRefusal> {
        let known = place.and_then(|place| Some((place, self.hosts.at(place, (node, id))?)));
        let (place, number) = match known {
            Some(known) => known,
            None => {
                let number = self.hosts.number(node).ok_or(BeatRefusal::Unknown)?;
                let host = self.hosts.hosts.get(number).ok_or(BeatRefusal::Unknown)?;
                let (place, _) = self.hosts.container(host, id).ok_or(BeatRefusal::Container)?;
                (place, number)
            }
        };
        let host = self.hosts.hosts.get(number).ok_or(BeatRefusal::Unknown)?;
        if u64::from(state.revision) != host.revision & u64::from(u32::MAX) {
            let (known, given) = (host.revision, state.revision.into());
            return Err(BeatRefusal::Revision { known, given });
        }
        let was_other = self.hear(now, number, state.is_draining);
        if was_other {
            self.gains += 1;
            self.write_host(now, number);
        }
        self.say(now, place, (state.free, state.spot_used), false);
        self.arm(now, number);
        Ok(place)
    }

    /// Reads a little of what beats at these places will need, as [`crate::Presence::fetch`] does.
    pub fn fetch(&self, places: impl Iterator<Item = (u32, State)> + Clone) -> u64 {
        let containers = places.filter_map(|(place, state)| {
            self.hosts.containers.get(place).map(|container| (container, state))
        });
        let hosts = containers.clone().fold(0, |sum, (container, _)| sum ^ container.touched());
        let containers = containers.fold(0, |sum, (container, state)| {
            let host = self.hosts.hosts.get(container.host).map_or(0, Host::touched);
            let is_other = state.free != u32::from(container.free);
            let row = if is_other { self.index.touched(RowId(container.rows[0])) } else { 0 };
            sum ^ host ^ row
        });
        hosts ^ containers
    }

    /// A host was heard. Returns whether all of its containers stand otherwise than before.
    fn hear(&mut self, now: UnixMillis, number: u32, is_draining: bool) -> bool {
        let Some(host) = self.hosts.hosts.get_mut(number) else { return false };
        let was_offered = host.is_offered(now) && !host.is_unconfirmed;
        host.is_draining = is_draining;
        host.is_unconfirmed = false;
        host.has_left = false;
        host.heard = host.heard.max(now);
        was_offered != host.is_offered(now)
    }

    /// A host has said what of a container is free.
    fn say(&mut self, now: UnixMillis, place: u32, (free, used): (u32, u32), is_other: bool) {
        let Some(container) = self.hosts.containers.get_mut(place) else { return };
        let slots = u32::from(container.slots);
        let free = rows::small(free.min(slots));
        let spot_used = rows::small(used.min(slots - u32::from(free)));
        let is_first = !std::mem::replace(&mut container.is_said, true);
        let before = std::mem::replace(&mut container.free, free);
        let used_before = std::mem::replace(&mut container.spot_used, spot_used);
        if free > before || spot_used < used_before || is_first || is_other {
            self.gains += 1;
        }
        let taken = if is_first { 0 } else { before.saturating_sub(free) };
        let has_holds = container.kept > 0;
        if taken > 0 && has_holds {
            // A slot that was taken was, in all likelihood, one that was kept: it counts once.
            self.drop_oldest_holds(now, place, taken);
        }
        if is_other || (before, used_before) != (free, spot_used) {
            self.write_rows(now, place);
        }
    }

    /// A host's connection is lost: its containers are listed for [`STALE_MS`] and not offered.
    pub fn leave(&mut self, now: UnixMillis, node: NodeId) {
        let Some(number) = self.hosts.number(node) else { return };
        if let Some(host) = self.hosts.hosts.get_mut(number).filter(|host| !host.has_left) {
            host.has_left = true;
            host.heard = host.heard.max(now);
            self.write_host(now, number);
        }
    }

    /// Keeps a slot of a host's container for a buyer until the hold expires. Where all that is
    /// free is kept, the buyer's own oldest hold is replaced.
    ///
    /// # Errors
    ///
    /// [`HoldRefusal`] saying why not.
    pub fn hold(&mut self, now: UnixMillis, host: NodeId, hold: Hold) -> Result<(), HoldRefusal> {
        if hold.expires <= now || hold.expires.0 - now.0 > HOLD_MS_MAX {
            return Err(HoldRefusal::Time);
        }
        let number = self.hosts.number(host).ok_or(HoldRefusal::Unknown)?;
        let known = self.hosts.hosts.get(number).ok_or(HoldRefusal::Unknown)?;
        let (place, container) =
            self.hosts.container(known, hold.container).ok_or(HoldRefusal::Unknown)?;
        let key = (host, hold.container, hold.offer);
        if self.holds.contains(&key) {
            return Err(HoldRefusal::Repeated);
        }
        let is_buyers = |kept: &&Hold| kept.buyer == hold.buyer && kept.expires > now;
        let free = |besides| self.free(now, (known, container), (besides, CapacityType::OnDemand));
        if free(None) == 0 {
            if free(Some(hold.buyer)) == 0 {
                return Err(HoldRefusal::NotFree);
            }
            let own = self.holds.of(host, hold.container).filter(is_buyers);
            let oldest = own.min_by_key(|kept| (kept.expires, kept.offer)).map(|kept| kept.offer);
            if let Some(oldest) = oldest {
                self.release_hold(now, host, hold.container, oldest);
            }
        }
        if self.holds.len() >= HOLDS_MAX {
            return Err(HoldRefusal::Full);
        }
        if self.holds.of_buyer(now, hold.buyer).count() >= HOLDS_PER_BUYER_MAX {
            return Err(HoldRefusal::Buyer);
        }
        self.holds.insert(host, hold);
        if let Some(container) = self.hosts.containers.get_mut(place) {
            container.kept += 1;
        }
        self.write_rows(now, place);
        Ok(())
    }

    /// Ends a hold before its time; nothing if there is none.
    pub fn release_hold(
        &mut self,
        now: UnixMillis,
        host: NodeId,
        container: ContainerId,
        offer: OfferId,
    ) {
        if self.holds.remove(&(host, container, offer)).is_some() {
            self.count_less(now, host, container);
        }
    }

    /// A hold of a container has gone.
    fn count_less(&mut self, now: UnixMillis, host: NodeId, id: ContainerId) {
        let Some(number) = self.hosts.number(host) else { return };
        let Some(known) = self.hosts.hosts.get(number) else { return };
        let Some((place, _)) = self.hosts.container(known, id) else { return };
        if let Some(container) = self.hosts.containers.get_mut(place) {
            container.kept = container.kept.saturating_sub(1);
        }
        self.write_rows(now, place);
    }

    fn drop_oldest_holds(&mut self, now: UnixMillis, place: u32, count: u16) {
        let Some(container) = self.hosts.containers.get(place) else { return };
        let Some(host) = self.hosts.hosts.get(container.host) else { return };
        let (node, id) = (host.node, container.id);
        let present = self.holds.of(node, id).filter(|hold| hold.expires > now);
        let mut oldest: Vec<_> = present.map(|hold| (hold.expires, hold.offer)).collect();
        oldest.sort_unstable();
        for (_, offer) in oldest.into_iter().take(count.into()) {
            self.release_hold(now, node, id, offer);
        }
    }

    /// Counts a report, whose signature and assignment the caller has checked.
    ///
    /// # Errors
    ///
    /// [`ReportRefusal`] saying why it does not count.
    pub fn report(&mut self, now: UnixMillis, report: &Report) -> Result<(), ReportRefusal> {
        let (node, id) = (report.host, report.container);
        let (number, place) = self.find_listed(now, node, id).ok_or(ReportRefusal::Unknown)?;
        let scored = self.hosts.containers.get(place).map_or(NONE, |container| container.score);
        if scored == NONE {
            if self.scores.slab.len() >= SCORES_MAX {
                return Err(ReportRefusal::Unknown);
            }
            let mut score = Score::default();
            score.add(now, report)?;
            let added = self.scores.insert(node, id, score);
            if let Some(container) = self.hosts.containers.get_mut(place) {
                container.score = added;
            }
        } else if let Some(known) = self.scores.slab.get_mut(scored) {
            known.score.add(now, report)?;
        }
        self.write_rows(now, place);
        self.arm(now, number);
        Ok(())
    }

    /// Does a part of what the passing of time brings about: forgets hosts that are gone, holds
    /// that have ended and checks that are too old. Returns whether there is more to do now. To be
    /// called several times a second, and again while there is more.
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        let is_settled = self.settle(now, WORK_MAX);
        for (node, id) in self.scores.sweep(now, WORK_MAX / 8) {
            self.forget_score(now, node, id);
        }
        let mut left = WORK_MAX;
        while let Some(number) = self.stale.pop() {
            let Some(host) = self.hosts.hosts.get(number) else { continue };
            if host.is_listed(now) {
                self.arm(now, number);
            } else {
                self.forget(number);
            }
            left -= 1;
            if left == 0 {
                return true;
            }
        }
        !is_settled
    }

    /// As [`Self::settle`], as far as a search goes.
    pub(crate) fn settle_a_little(&mut self, now: UnixMillis) -> bool {
        self.settle(now, SEARCH_WORK_MAX)
    }

    /// Brings the index up to date with the time, with so much work; whether it is.
    fn settle(&mut self, now: UnixMillis, mut budget: usize) -> bool {
        while let Some((host, container, _)) = self.holds.pop_ended(now) {
            self.count_less(now, host, container);
            budget -= 1;
            if budget == 0 {
                return false;
            }
        }
        while let Some((at, number)) = self.timers.pop(now.0, &mut budget) {
            let Some(host) = self.hosts.hosts.get_mut(number).filter(|host| host.due == at) else {
                continue;
            };
            host.due = u64::MAX;
            let is_listed = host.is_listed(now);
            self.prune_scores(now, number);
            self.write_host(now, number);
            if is_listed {
                self.arm(now, number);
            } else {
                self.stale.push(number);
            }
        }
        budget > 0
    }

    /// Sees to it that a host is looked at when time next changes something about it.
    fn arm(&mut self, now: UnixMillis, number: u32) {
        let Some(due) = self.next_change(now, number) else { return };
        let Some(host) = self.hosts.hosts.get_mut(number) else { return };
        if due < host.due {
            host.due = due;
            self.timers.push(now.0, due, number);
        }
    }

    /// When the passing of time next changes what is said of a host, holds apart.
    fn next_change(&self, now: UnixMillis, number: u32) -> Option<u64> {
        let host = self.hosts.hosts.get(number)?;
        let silent = if host.is_offered(now) { SILENT_MS } else { STALE_MS };
        let silent = host.heard.0.saturating_add(silent).saturating_add(1);
        let expired = host.expires.0.saturating_add(1);
        let mut due = silent.min(expired);
        let mut next = host.first;
        while let Some(container) = self.hosts.containers.get(next) {
            next = container.next;
            let score = self.scores.get(container.score).and_then(Score::next_change);
            due = score.map_or(due, |change| due.min(change.0));
        }
        Some(due)
    }

    /// Forgets a host's checks that are too old.
    fn prune_scores(&mut self, now: UnixMillis, number: u32) {
        let mut next = self.hosts.hosts.get(number).map_or(NONE, |host| host.first);
        while let Some(container) = self.hosts.containers.get(next) {
            next = container.next;
            if let Some(scored) = self.scores.slab.get_mut(container.score) {
                scored.score.prune(now);
            }
        }
    }

    /// Whether a host has announced this container.
    pub fn has(&self, node: NodeId, container: ContainerId) -> bool {
        self.place(node, container).is_some()
    }

    /// Whether a container is listed now: its host has been heard lately.
    pub fn has_listed(&self, now: UnixMillis, node: NodeId, container: ContainerId) -> bool {
        self.find_listed(now, node, container).is_some()
    }

    /// The number of the host of a container that is listed, and the container's place.
    fn find_listed(
        &self,
        now: UnixMillis,
        node: NodeId,
        container: ContainerId,
    ) -> Option<(u32, u32)> {
        let number = self.hosts.number(node)?;
        let host = self.hosts.hosts.get(number).filter(|host| host.is_listed(now))?;
        let (place, _) = self.hosts.container(host, container)?;
        Some((number, place))
    }

    /// Where a host is.
    pub fn locate(&self, node: NodeId) -> Option<NodeAddr> {
        self.hosts.addr(self.hosts.hosts.get(self.hosts.number(node)?)?)
    }

    /// The region that a host claims.
    pub fn region_of(&self, node: NodeId) -> Option<&Region> {
        self.regions.name(self.hosts.hosts.get(self.hosts.number(node)?)?.region)
    }

    /// How many hosts are known.
    pub fn hosts(&self) -> usize {
        self.hosts.hosts.len()
    }

    /// The regions in which there are hosts.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().map(|(_, region)| region)
    }

    /// How many containers are known.
    pub fn containers(&self) -> usize {
        self.hosts.containers.len()
    }

    pub(crate) fn operator_number(&self, account: AccountId) -> Option<u32> {
        self.operators.get(&account)
    }

    /// How many slots are kept, ended holds that have not been forgotten included.
    pub fn holds(&self) -> usize {
        self.holds.len()
    }

    /// A number that rises with each word of a host by which something may have become free; not
    /// where holds end.
    pub const fn gains(&self) -> u64 {
        self.gains
    }

    /// About how many bytes of memory hosts, containers and the index take.
    pub fn bytes(&self) -> usize {
        self.hosts.bytes()
            + self.index.bytes()
            + self.timers.bytes()
            + self.owners.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests;
