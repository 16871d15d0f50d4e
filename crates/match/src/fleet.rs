//! The hosts of a region, as they describe themselves.
//!
//! Everything is bounded: hosts by [`HOSTS_MAX`], their containers by
//! [`Capability::CONTAINERS_MAX`], holds by [`HOLDS_MAX`] and [`HOLDS_PER_BUYER_MAX`], scores by
//! [`SCORES_MAX`]. A container belongs to the host that announces it: another host that announces
//! the same id has another container.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::check::Report;
use welkin_proto::index::{Beat, Hold, Listing};
use welkin_proto::{Capability, ContainerOffer, NodeAddr};
use welkin_types::{AccountId, ContainerId, NodeId, OfferId, Region, UnixMillis};

use crate::filter::Facts;
use crate::mirror::Mirror;
use crate::score::{ReportRefusal, Score};

/// The most hosts.
pub const HOSTS_MAX: usize = 1 << 18;
/// The most holds at once.
pub const HOLDS_MAX: usize = 1 << 14;
/// The most holds for one buyer at once.
pub const HOLDS_PER_BUYER_MAX: usize = 64;
/// The longest hold, in milliseconds.
pub const HOLD_MS_MAX: u64 = 30_000;
/// The most containers of which checks are remembered.
pub const SCORES_MAX: usize = 1 << 20;
/// A host that has said nothing for so many milliseconds is not offered. It beats every 10 s.
pub const SILENT_MS: u64 = 25_000;
/// A host that has been silent or disconnected for so many milliseconds is no longer listed.
pub const STALE_MS: u64 = 120_000;

/// Why an announcement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceRefusal {
    /// There are as many hosts as there may be.
    #[error("this indexer has {HOSTS_MAX} hosts and takes no more")]
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

/// One host.
#[derive(Clone, Debug)]
struct Host {
    addr: NodeAddr,
    operator: AccountId,
    region: Region,
    revision: u64,
    issued: UnixMillis,
    expires: UnixMillis,
    containers: BTreeMap<ContainerId, Container>,
    /// The last beat of this announcement.
    sequence: Option<u64>,
    is_draining: bool,
    /// When it was last heard.
    heard: UnixMillis,
    /// Whether its connection is lost.
    has_left: bool,
    /// Tells this announcement from others.
    number: u64,
}

/// One container with what its host last said is free.
#[derive(Clone, Debug)]
struct Container {
    offer: ContainerOffer,
    free: u32,
}

impl Host {
    fn is_offered(&self, now: UnixMillis) -> bool {
        let is_heard = now.0.saturating_sub(self.heard.0) <= SILENT_MS;
        is_heard && !self.has_left && !self.is_draining && self.expires >= now
    }

    fn is_listed(&self, now: UnixMillis) -> bool {
        now.0.saturating_sub(self.heard.0) <= STALE_MS && self.expires >= now
    }

    fn announced(operator: AccountId, capability: Capability, now: UnixMillis) -> Self {
        let containers = capability.containers.into_iter().map(|offer| {
            let free = offer.slots;
            (offer.id, Container { offer, free })
        });
        Self {
            addr: capability.addr,
            operator,
            region: capability.region,
            revision: capability.revision,
            issued: capability.issued,
            expires: capability.expires,
            containers: containers.collect(),
            sequence: None,
            is_draining: false,
            heard: now,
            has_left: false,
            number: 0,
        }
    }
}

/// The hosts, holds and scores of an indexer.
///
/// ```
/// use welkin_match::{Fleet, Found, Query};
/// use welkin_types::task::Needs;
/// use welkin_types::{AccountId, UnixMillis};
/// let (mut fleet, needs) = (Fleet::default(), Needs::default());
/// let buyer = AccountId::from_bytes([1; 20]);
/// let query = Query { needs: &needs, exclude: &[], buyer, count: 1, tie: 7 };
/// assert!(matches!(fleet.find(UnixMillis(0), &query), Found::WhyNot(_)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    hosts: BTreeMap<NodeId, Host>,
    holds: BTreeMap<(NodeId, ContainerId, OfferId), Hold>,
    scores: BTreeMap<(NodeId, ContainerId), Score>,
    /// Announcements so far.
    announced: u64,
    /// The containers in the index, as far as it is up to date.
    pub(crate) mirror: Mirror,
}

impl Fleet {
    /// Takes a host's announcement, which the caller has checked with [`Capability::check`].
    ///
    /// Until the first beat a container counts as free as far as it was before; a new one, wholly.
    ///
    /// # Errors
    ///
    /// [`AnnounceRefusal`] saying why not.
    pub fn announce(
        &mut self,
        now: UnixMillis,
        operator: AccountId,
        capability: Capability,
    ) -> Result<(), AnnounceRefusal> {
        if capability.expires < now {
            return Err(AnnounceRefusal::Expired);
        }
        if capability.containers.len() > Capability::CONTAINERS_MAX {
            return Err(AnnounceRefusal::Bounds);
        }
        let node = capability.addr.node;
        let known = self.hosts.get(&node).filter(|host| host.is_listed(now));
        if known.is_none() && self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(&node) {
            return Err(AnnounceRefusal::Full);
        }
        // A host that lost its disk begins with revision 1 again: it has left before.
        let is_outdated = known.is_some_and(|host| {
            capability.issued < host.issued
                || (capability.revision < host.revision && !host.has_left)
        });
        if let Some(host) = known.filter(|_| is_outdated) {
            let (known, given) = (host.revision, capability.revision);
            return Err(AnnounceRefusal::Outdated { known, given });
        }
        let mut host = Host::announced(operator, capability, now);
        if let Some(known) = known {
            host.is_draining = known.is_draining;
            for (id, container) in &mut host.containers {
                let before = known.containers.get(id).map_or(u32::MAX, |known| known.free);
                container.free = container.free.min(before);
            }
        }
        self.announced += 1;
        host.number = self.announced;
        self.hosts.insert(node, host);
        self.mirror.mark(node);
        Ok(())
    }

    /// Takes a host's present state. More than its slots are never free; a container that is not
    /// in it has none free.
    ///
    /// # Errors
    ///
    /// [`BeatRefusal`] saying why not; then nothing is changed.
    pub fn beat(&mut self, now: UnixMillis, node: NodeId, beat: &Beat) -> Result<(), BeatRefusal> {
        let host = self.hosts.get_mut(&node).ok_or(BeatRefusal::Unknown)?;
        if host.has_left {
            return Err(BeatRefusal::Unknown);
        }
        if beat.revision != host.revision {
            return Err(BeatRefusal::Revision { known: host.revision, given: beat.revision });
        }
        if host.sequence.is_some_and(|last| beat.sequence <= last) {
            return Err(BeatRefusal::Sequence);
        }
        if beat.free.len() > Capability::CONTAINERS_MAX {
            return Err(BeatRefusal::Bounds);
        }
        let is_first = host.sequence.replace(beat.sequence).is_none();
        host.is_draining = beat.draining;
        host.heard = host.heard.max(now);
        let free: BTreeMap<_, _> = beat.free.iter().copied().collect();
        let mut taken = Vec::new();
        for (id, container) in &mut host.containers {
            let before = container.free;
            container.free = free.get(id).copied().unwrap_or(0).min(container.offer.slots);
            if !is_first && container.free < before {
                taken.push((*id, before - container.free));
            }
        }
        // A slot that was taken was, in all likelihood, one that was kept: it counts once.
        self.mirror.mark(node);
        taken.into_iter().for_each(|(id, count)| self.drop_oldest_holds(now, (node, id), count));
        Ok(())
    }

    /// A host's connection is lost: its containers are listed for [`STALE_MS`] and not offered.
    pub fn leave(&mut self, now: UnixMillis, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node).filter(|host| !host.has_left) {
            host.has_left = true;
            host.heard = host.heard.max(now);
            self.mirror.mark(node);
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
        let known = self.hosts.get(&host).ok_or(HoldRefusal::Unknown)?;
        let container = known.containers.get(&hold.container).ok_or(HoldRefusal::Unknown)?;
        let key = (host, hold.container, hold.offer);
        if self.holds.contains_key(&key) {
            return Err(HoldRefusal::Repeated);
        }
        let is_buyers = |kept: &&Hold| kept.buyer == hold.buyer && kept.expires > now;
        if self.free(now, host, known, container, None) == 0 {
            if self.free(now, host, known, container, Some(hold.buyer)) == 0 {
                return Err(HoldRefusal::NotFree);
            }
            let own = self.holds_of(host, hold.container).filter(is_buyers);
            let oldest = own.min_by_key(|kept| (kept.expires, kept.offer)).map(|kept| kept.offer);
            self.holds.retain(|(at, of, offer), _| {
                (*at, *of, Some(*offer)) != (host, hold.container, oldest)
            });
            self.mirror.mark(host);
        }
        if self.holds.len() >= HOLDS_MAX {
            return Err(HoldRefusal::Full);
        }
        if self.holds.values().filter(is_buyers).count() >= HOLDS_PER_BUYER_MAX {
            return Err(HoldRefusal::Buyer);
        }
        self.holds.insert(key, hold);
        self.mirror.mark(host);
        Ok(())
    }

    /// Ends a hold before its time; nothing if there is none.
    pub fn release_hold(&mut self, host: NodeId, container: ContainerId, offer: OfferId) {
        self.holds.remove(&(host, container, offer));
        self.mirror.mark(host);
    }

    /// Counts a report, whose signature and assignment the caller has checked.
    ///
    /// # Errors
    ///
    /// [`ReportRefusal`] saying why it does not count.
    pub fn report(&mut self, now: UnixMillis, report: &Report) -> Result<(), ReportRefusal> {
        let key = (report.host, report.container);
        let host = self.hosts.get(&report.host).filter(|host| host.is_listed(now));
        let is_known = host.is_some_and(|host| host.containers.contains_key(&report.container));
        if !is_known || (self.scores.len() >= SCORES_MAX && !self.scores.contains_key(&key)) {
            return Err(ReportRefusal::Unknown);
        }
        self.mirror.mark(report.host);
        self.scores.entry(key).or_default().add(now, report)
    }

    /// Forgets hosts that are gone, holds that have ended and checks that are too old. To be
    /// called every few seconds; nothing that has ended counts in between.
    pub fn expire(&mut self, now: UnixMillis) {
        let mirror = &mut self.mirror;
        self.hosts.retain(|node, host| {
            let is_listed = host.is_listed(now);
            if !is_listed {
                mirror.mark(*node);
            }
            is_listed
        });
        self.holds.retain(|_, hold| hold.expires > now);
        self.scores.retain(|_, score| {
            score.prune(now);
            !score.is_empty()
        });
    }

    /// Where a host is.
    pub fn locate(&self, node: NodeId) -> Option<&NodeAddr> {
        self.hosts.get(&node).map(|host| &host.addr)
    }

    /// How many hosts are known.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// How many slots are kept, ended holds that have not been forgotten included.
    pub fn holds(&self) -> usize {
        self.holds.len()
    }

    /// Every listed container as the filters see it, in order. What is kept for `besides` counts
    /// as free.
    pub(crate) fn facts(
        &self,
        now: UnixMillis,
        besides: Option<AccountId>,
    ) -> impl Iterator<Item = Facts<'_>> {
        let listed = self.hosts.iter().filter(move |(_, host)| host.is_listed(now));
        listed.flat_map(move |(node, host)| {
            host.containers.values().map(move |container| Facts {
                node: *node,
                operator: host.operator,
                region: &host.region,
                container: &container.offer,
                free: self.free(now, *node, host, container, besides),
                online_bp: self.score(now, *node, container.offer.id).0,
            })
        })
    }

    /// One container as the filters see it. What is kept for `besides` counts as free.
    pub(crate) fn facts_of(
        &self,
        now: UnixMillis,
        (node, id): (NodeId, ContainerId),
        besides: Option<AccountId>,
    ) -> Option<Facts<'_>> {
        let host = self.hosts.get(&node).filter(|host| host.is_listed(now))?;
        let container = host.containers.get(&id)?;
        Some(Facts {
            node,
            operator: host.operator,
            region: &host.region,
            container: &container.offer,
            free: self.free(now, node, host, container, besides),
            online_bp: self.score(now, node, id).0,
        })
    }

    /// A host's announcement, by number, and its containers as the filters see them, listed or not.
    pub(crate) fn host_facts(
        &self,
        now: UnixMillis,
        node: NodeId,
    ) -> Option<(u64, impl Iterator<Item = Facts<'_>>)> {
        let host = self.hosts.get(&node)?;
        let facts = host.containers.values().map(move |container| Facts {
            node,
            operator: host.operator,
            region: &host.region,
            container: &container.offer,
            free: self.free(now, node, host, container, None),
            online_bp: self.score(now, node, container.offer.id).0,
        });
        Some((host.number, facts))
    }

    /// When the passing of time next changes what is said of a host.
    pub(crate) fn next_change(&self, now: UnixMillis, node: NodeId) -> Option<UnixMillis> {
        let host = self.hosts.get(&node)?;
        let after = |time: u64| UnixMillis(time.saturating_add(1));
        let silent = after(host.heard.0.saturating_add(SILENT_MS));
        let silence = [silent, after(host.expires.0)].into_iter().filter(|_| host.is_offered(now));
        let held = host.containers.keys().flat_map(|id| self.holds_of(node, *id));
        let scored = host.containers.keys().filter_map(|id| self.scores.get(&(node, *id)));
        silence
            .chain(held.map(|hold| hold.expires))
            .chain(scored.filter_map(Score::next_change))
            .filter(|change| *change > now)
            .min()
    }

    /// The containers of which something is kept for a buyer.
    pub(crate) fn held_for(&self, buyer: AccountId) -> BTreeSet<(NodeId, ContainerId)> {
        let own = self.holds.iter().filter(|(_, hold)| hold.buyer == buyer);
        own.map(|((node, container, _), _)| (*node, *container)).collect()
    }

    /// The container's row of the market.
    pub(crate) fn listing_of(&self, now: UnixMillis, facts: &Facts<'_>) -> Option<Listing> {
        let host = self.hosts.get(&facts.node)?;
        Some(Listing {
            addr: host.addr.clone(),
            operator: facts.operator,
            container: facts.container.clone(),
            region: facts.region.clone(),
            free: facts.free,
            is_confirmed: true,
            online_bp: facts.online_bp,
            checks: self.score(now, facts.node, facts.container.id).1,
        })
    }

    /// Slots that may be offered: none of a host that is not there, and none that is kept, unless
    /// for `besides`.
    fn free(
        &self,
        now: UnixMillis,
        node: NodeId,
        host: &Host,
        container: &Container,
        besides: Option<AccountId>,
    ) -> u32 {
        if !host.is_offered(now) {
            return 0;
        }
        let kept = self
            .holds_of(node, container.offer.id)
            .filter(|hold| hold.expires > now && Some(hold.buyer) != besides);
        container.free.saturating_sub(u32::try_from(kept.count()).unwrap_or(u32::MAX))
    }

    fn score(&self, now: UnixMillis, node: NodeId, container: ContainerId) -> (Option<u16>, u32) {
        self.scores.get(&(node, container)).map_or((None, 0), |score| score.window(now))
    }

    fn holds_of(&self, node: NodeId, container: ContainerId) -> impl Iterator<Item = &Hold> {
        let first = (node, container, OfferId::from_bytes([0; 16]));
        let last = (node, container, OfferId::from_bytes([0xff; 16]));
        self.holds.range(first..=last).map(|(_, hold)| hold)
    }

    fn drop_oldest_holds(
        &mut self,
        now: UnixMillis,
        (node, container): (NodeId, ContainerId),
        count: u32,
    ) {
        let present = self.holds_of(node, container).filter(|hold| hold.expires > now);
        let mut oldest: Vec<_> = present.map(|hold| (hold.expires, hold.offer)).collect();
        oldest.sort_unstable();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for (_, offer) in oldest.into_iter().take(count) {
            self.holds.remove(&(node, container, offer));
        }
    }
}

#[cfg(test)]
mod tests;
