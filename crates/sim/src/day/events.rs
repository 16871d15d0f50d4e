//! What happens by itself: beats arrive, leases end, hosts leave and come back.

use std::cmp::Ordering;

use welkin_match::index::HoldId;

use super::Day;
use super::config::{
    BEAT_EVERY_S, BLIP_EVERY_MINUTES, DRAINING_PERMILLE, INDEXERS_PER_REGION, MINUTE,
    NOTICED_AFTER_S, SECOND, Staleness, presence_minutes,
};
use super::demand::Arrival;
use super::hosts::{Ended, Lease};
use super::requests::State;

/// Something that is going to happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A request reaches an indexer, again.
    Ask { request: u32 },
    /// A request reaches a host.
    Claim { request: u32 },
    /// A request has waited as long as it would.
    GiveUp { request: u32, generation: u32 },
    /// What a container said reaches an indexer.
    Beat { indexer: u8, container: u32, sequence: u32, free: u16, hold: Option<HoldId> },
    /// A container's regular beat reaches an indexer.
    Regular { indexer: u8, container: u32 },
    /// An indexer learns that a host has refused what it held.
    Refused { indexer: u8, hold: HoldId, free: u16 },
    /// The beats of a host are missing.
    Missing { container: u32, sequence: u32 },
    /// A spot lease's notice is over.
    TakeBack { lease: u32, generation: u32 },
    /// A host leaves.
    Leave,
    /// A host comes back.
    Join { container: u32 },
    /// A host's network fails for a moment.
    Blip,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    pub(super) at: u64,
    /// Those of one time happen in the order in which they were planned.
    pub(super) order: u64,
    pub(super) event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Day {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Ask { request } => self.ask(request),
            Event::Claim { request } => self.claim(request),
            Event::GiveUp { request, generation } => {
                if self.requests.is_waiting(request, generation) {
                    self.give_up(request);
                }
            }
            Event::Beat { indexer, container, sequence, free, hold } => {
                if let Some(hold) = hold {
                    self.indexers[usize::from(indexer)].index.confirm(hold);
                }
                self.beat(indexer, container, (sequence, free));
            }
            Event::Regular { indexer, container } => {
                let truth = self.hosts.container(container);
                if truth.is_online {
                    let said = (truth.sequence, truth.offered());
                    self.beat(indexer, container, said);
                }
            }
            Event::Refused { indexer, hold, free } => {
                self.indexers[usize::from(indexer)].index.refused(hold, free);
            }
            Event::Missing { container, sequence } => {
                if self.hosts.container(container).sequence == sequence {
                    self.tell_at_once(container);
                }
            }
            Event::TakeBack { lease, generation } => self.take_back(lease, generation),
            Event::Leave => self.leave(),
            Event::Join { container } => {
                self.hosts.join(self.now, container);
                self.tell(container, None);
            }
            Event::Blip => self.blip(),
        }
    }

    /// An indexer takes a beat; who waits is served if more is free.
    fn beat(&mut self, indexer: u8, container: u32, (sequence, free): (u32, u16)) {
        self.stats.counts.beats += 1;
        let truth = &self.hosts.containers[container as usize];
        let is_more = self.indexers[usize::from(indexer)].beat(self.now, truth, sequence, free);
        if usize::from(indexer).is_multiple_of(INDEXERS_PER_REGION) {
            self.set_takeable(container);
        }
        if is_more && self.indexers[usize::from(indexer)].is_anyone_waiting() {
            self.serve(indexer, container);
        }
    }

    fn set_takeable(&mut self, container: u32) {
        let truth = self.hosts.container(container);
        if !truth.features.meets(welkin_match::index::Features::SPOT) {
            return;
        }
        let taken =
            if truth.is_online && !truth.is_draining { self.hosts.takeable(container) } else { 0 };
        let free = if taken == 0 { 0 } else { taken + truth.offered() };
        let (row, region) = (truth.row, usize::from(truth.region));
        self.takeable[region].beat(row, self.now / SECOND, free);
    }

    /// Every indexer of the region knows a container's state from here on.
    pub(super) fn tell_at_once(&mut self, container: u32) {
        let truth = &self.hosts.containers[container as usize];
        let first = usize::from(truth.region) * INDEXERS_PER_REGION;
        for indexer in &mut self.indexers[first..first + INDEXERS_PER_REGION] {
            indexer.beat(self.now, truth, truth.sequence, truth.offered());
        }
        self.set_takeable(container);
    }

    /// A container tells its region's indexers what has changed; the one that matched a new lease
    /// learns that its hold has done its work.
    pub(super) fn tell(&mut self, container: u32, matched: Option<(u8, HoldId)>) {
        let truth = self.hosts.container(container);
        let (sequence, free) = (truth.sequence, truth.offered());
        let (first, blip_until) = (truth.region * 3, truth.blip_until);
        for indexer in first..first + 3 {
            let hold = matched.filter(|(by, _)| *by == indexer).map(|(_, hold)| hold);
            let (delay, is_lost) = match self.config.staleness {
                Staleness::Network => {
                    (self.network.within(10_000, 150_000), self.network.permille(10))
                }
                Staleness::Fixed(age) => (self.network.within(age * 4 / 5, age * 6 / 5), false),
            };
            let at = self.now.max(blip_until);
            if is_lost || at > self.now {
                let next = at + self.network.within(0, BEAT_EVERY_S * SECOND);
                self.push(next, Event::Regular { indexer, container });
            } else {
                self.push(at + delay, Event::Beat { indexer, container, sequence, free, hold });
            }
        }
    }

    /// A lease has run to its end.
    pub(super) fn end_lease(&mut self, lease: u32, generation: u32) {
        if self.hosts.lease(lease, generation).is_none() {
            return;
        }
        let ended = self.hosts.end(self.now, lease);
        if ended.lease.noticed != 0 {
            self.stats.counts.ended_in_notice += 1;
        }
        self.after_end(&ended);
    }

    /// A spot lease's notice is over: its buyer has saved its work and asks again.
    fn take_back(&mut self, lease: u32, generation: u32) {
        if self.hosts.lease(lease, generation).is_none() {
            return;
        }
        let ended = self.hosts.take_back(self.now, lease);
        self.stats.counts.taken_back += 1;
        self.after_end(&ended);
        self.resume(&ended.lease);
    }

    fn after_end(&mut self, ended: &Ended) {
        self.account(&ended.lease);
        if let Some(begun) = ended.begun {
            self.begun(begun);
        }
        self.tell(ended.lease.container, None);
    }

    fn account(&mut self, lease: &Lease) {
        self.note(lease.container ^ 1 << 31);
        if lease.started != 0 {
            let from = lease.started.max(self.hosts.counted_from);
            let used = self.now.saturating_sub(from) * u64::from(lease.held);
            self.stats.delivered[usize::from(lease.order.indexer)] += used;
        }
    }

    /// The buyer of a lease that ended too early asks for what is left.
    fn resume(&mut self, lease: &Lease) {
        let arrival = lease.order.arrival;
        let done = if lease.started == 0 { 0 } else { self.now - lease.started };
        let length = arrival.length.saturating_sub(done);
        if length < MINUTE {
            return;
        }
        let number = self.luck.word();
        let request = self.requests.add(Arrival { length, number, ..arrival }, self.now);
        self.requests.at_mut(request).state = State::Asking;
        self.stats.counts.requests += 1;
        self.stats.buyers[arrival.buyer as usize].0 += 1;
        let after = self.luck.within(SECOND, 5 * SECOND);
        self.push(self.now + after, Event::Ask { request });
    }

    fn leave(&mut self) {
        let count = u32::try_from(self.hosts.containers.len()).unwrap_or(1);
        let (shortest, _) = presence_minutes(welkin_match::synth::Use::Consumer);
        let wait = self.churn.exponential(shortest * MINUTE / u64::from(count));
        self.push(self.now + wait, Event::Leave);
        let number = self.churn.below(count);
        let container = self.hosts.container(number);
        let (there, away) = presence_minutes(container.made_for);
        let is_there = container.is_online && !container.is_draining;
        if !is_there || self.churn.within(0, there) >= shortest {
            return;
        }
        let is_draining = self.churn.permille(DRAINING_PERMILLE);
        let lost = self.hosts.leave(self.now, number, is_draining);
        if is_draining {
            self.tell(number, None);
        } else {
            let (low, high) = NOTICED_AFTER_S;
            let noticed = self.now + self.churn.within(low * SECOND, high * SECOND);
            let sequence = self.hosts.container(number).sequence;
            self.push(noticed, Event::Missing { container: number, sequence });
        }
        self.stats.counts.lost += lost.len() as u64;
        for lease in &lost {
            self.account(lease);
            self.resume(lease);
        }
        let back = self.churn.exponential(away * MINUTE);
        self.push(self.now + back, Event::Join { container: number });
    }

    fn blip(&mut self) {
        let count = u32::try_from(self.hosts.containers.len()).unwrap_or(1);
        let wait = self.churn.exponential(BLIP_EVERY_MINUTES * MINUTE / u64::from(count));
        self.push(self.now + wait, Event::Blip);
        let number = self.churn.below(count);
        let until = self.now + self.churn.within(SECOND, 20 * SECOND);
        self.hosts.container_mut(number).blip_until = until;
    }

    /// Makes the digest depend on what has happened.
    pub(super) fn note(&mut self, what: u32) {
        let word = self.digest ^ self.now ^ u64::from(what) << 32;
        self.digest = crate::chance::Chance::new(word).word();
    }
}
