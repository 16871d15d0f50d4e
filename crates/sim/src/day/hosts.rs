//! The hosts: each alone decides about its slots.
//!
//! Free slots and those that leases hold are together what a container has, at all times. A lease
//! that takes back spot capacity inherits the slots of those it ends, never before their notice is
//! over.

use welkin_match::index::{Features, Row, RowId};
use welkin_match::synth::{Fleet, MODELS, SITES, Use};

use super::Violation;
use super::config::{NOTICE_S, SECOND};
use super::demand::Arrival;

/// No lease.
pub(super) const NONE: u32 = u32::MAX;

/// A container and the truth about it.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) row: RowId,
    pub(super) host: u32,
    pub(super) region: u8,
    pub(super) site: u8,
    pub(super) class: u8,
    pub(super) made_for: Use,
    pub(super) is_online: bool,
    /// It takes no more leases and leaves when it has none.
    pub(super) is_draining: bool,
    pub(super) slots: u16,
    pub(super) free: u16,
    /// Rises with every change.
    pub(super) sequence: u32,
    pub(super) cpu: u16,
    pub(super) quality: u16,
    pub(super) memory: u32,
    pub(super) disk: u32,
    pub(super) price: u32,
    pub(super) operator: u32,
    pub(super) features: Features,
    /// The application that ran last: its image is there and a sandbox of it is prepared.
    pub(super) app: Option<u16>,
    /// Its network fails until then.
    pub(super) blip_until: u64,
    online_since: u64,
    /// For how long it was there, and for how long slots were leased: both in microseconds.
    pub(super) online: u64,
    pub(super) leased: u64,
    /// Its newest lease.
    first: u32,
}

impl Container {
    fn new((row, slots): &(Row, u16), id: RowId, region: u8) -> Self {
        Self {
            row: id,
            host: row.host,
            region,
            site: row.location,
            class: row.class,
            made_for: MODELS[usize::from(row.class)].made_for,
            is_online: true,
            is_draining: false,
            slots: *slots,
            free: *slots,
            sequence: 0,
            cpu: row.cpu,
            quality: row.quality,
            memory: row.memory,
            disk: row.disk,
            price: row.price,
            operator: row.operator,
            features: row.features,
            app: row.apps.first().copied(),
            blip_until: 0,
            online_since: 0,
            online: 0,
            leased: 0,
            first: NONE,
        }
    }

    /// What it tells indexers.
    pub(super) const fn offered(&self) -> u16 {
        if self.is_online && !self.is_draining { self.free } else { 0 }
    }
}

/// What a buyer wants of a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) arrival: Arrival,
    /// When the buyer asked.
    pub(super) since: u64,
    pub(super) indexer: u8,
    pub(super) slots: u16,
    /// Whether the application is started from nothing.
    pub(super) is_cold: bool,
    pub(super) has_waited: bool,
}

/// A lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) order: Order,
    pub(super) container: u32,
    /// Slots that it holds.
    pub(super) held: u16,
    /// It runs since then; 0 if it waits for slots.
    pub(super) started: u64,
    /// When it was told that it ends; 0 if it was not.
    pub(super) noticed: u64,
    /// Who inherits its slots.
    heir: u32,
    next: u32,
    /// Tells it from those that had the same place; odd while it is there.
    pub(super) generation: u32,
}

/// What a host answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The lease runs.
    Accepted(u32),
    /// The lease runs when those that were told have ended.
    Noticed { lease: u32, told: Vec<u32> },
    /// So many slots are free.
    Busy(u16),
    /// None.
    Silence,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) lease: Lease,
    /// The lease that runs from here on, for it has all its slots.
    pub(super) begun: Option<u32>,
}

/// All hosts with their leases.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) containers: Vec<Container>,
    pub(super) leases: Vec<Lease>,
    vacant: Vec<u32>,
    /// By region: slots of hosts that are there, and those that leases hold.
    pub(super) there: [u64; 3],
    pub(super) held: [u64; 3],
    /// What was before does not count.
    pub(super) counted_from: u64,
    pub(super) violation: Option<Violation>,
}

/// The region of a city.
pub(super) fn region_of(site: usize) -> u8 {
    match SITES[site].longitude {
        ..-300 => 2,
        600.. => 0,
        _ => 1,
    }
}

/// The fleet of a seed, by region.
pub(super) fn fleet(seed: u64, count: usize) -> Vec<(Row, u16)> {
    let mut fleet = Fleet::new(seed);
    let mut rows: Vec<_> = std::iter::from_fn(|| fleet.container()).take(count).collect();
    rows.sort_by_key(|(row, _)| region_of(row.location.into()));
    rows
}

impl Hosts {
    pub(super) fn new(rows: &[(Row, u16)], ids: &[RowId]) -> Self {
        let containers = rows.iter().zip(ids);
        let containers: Vec<_> = containers
            .map(|(row, id)| Container::new(row, *id, region_of(row.0.location.into())))
            .collect();
        let mut there = [0; 3];
        for container in &containers {
            there[usize::from(container.region)] += u64::from(container.slots);
        }
        Self {
            containers,
            leases: Vec::new(),
            vacant: Vec::new(),
            there,
            held: [0; 3],
            counted_from: 0,
            violation: None,
        }
    }

    pub(super) fn container(&self, number: u32) -> &Container {
        &self.containers[number as usize]
    }

    pub(super) fn container_mut(&mut self, number: u32) -> &mut Container {
        &mut self.containers[number as usize]
    }

    /// A lease, if it is still the one that was meant.
    pub(super) fn lease(&self, number: u32, generation: u32) -> Option<&Lease> {
        self.leases.get(number as usize).filter(|lease| lease.generation == generation)
    }

    /// Slots that spot leases hold which nobody has taken back yet.
    pub(super) fn takeable(&self, number: u32) -> u16 {
        self.spot_leases(number).map(|lease| self.leases[lease as usize].held).sum()
    }

    fn spot_leases(&self, number: u32) -> impl Iterator<Item = u32> {
        self.leases_of(number).filter(|lease| {
            let lease = &self.leases[*lease as usize];
            lease.order.arrival.is_spot && lease.noticed == 0 && lease.started != 0
        })
    }

    fn leases_of(&self, number: u32) -> impl Iterator<Item = u32> {
        let known = |lease: u32| (lease != NONE).then_some(lease);
        let first = known(self.containers[number as usize].first);
        std::iter::successors(first, move |lease| known(self.leases[*lease as usize].next))
    }

    /// A buyer asks for a container; `is_taking` says that spot leases may have to end for it.
    pub(super) fn claim(&mut self, now: u64, number: u32, order: Order, is_taking: bool) -> Answer {
        let container = &self.containers[number as usize];
        if !container.is_online || container.blip_until > now {
            return Answer::Silence;
        }
        let free = container.offered();
        if free >= order.slots {
            return Answer::Accepted(self.open(now, number, order, order.slots));
        }
        if !is_taking || container.is_draining || order.arrival.is_spot {
            return Answer::Busy(free);
        }
        let mut missing = order.slots - free;
        let mut told = Vec::new();
        for lease in self.spot_leases(number) {
            if missing > 0 {
                told.push(lease);
                missing = missing.saturating_sub(self.leases[lease as usize].held);
            }
        }
        if missing > 0 {
            return Answer::Busy(free);
        }
        let heir = self.open(now, number, order, free);
        for lease in &told {
            let lease = &mut self.leases[*lease as usize];
            (lease.noticed, lease.heir) = (now, heir);
        }
        Answer::Noticed { lease: heir, told }
    }

    fn open(&mut self, now: u64, number: u32, order: Order, held: u16) -> u32 {
        let place =
            self.vacant.pop().unwrap_or_else(|| u32::try_from(self.leases.len()).unwrap_or(NONE));
        let container = &mut self.containers[number as usize];
        if container.free < held {
            self.violation = Some(Violation::LeasedTwice { container: number });
        }
        container.free = container.free.saturating_sub(held);
        container.sequence += 1;
        self.held[usize::from(container.region)] += u64::from(held);
        let last = self.leases.get(place as usize).map_or(0, |lease| lease.generation);
        let lease = Lease {
            order,
            container: number,
            held,
            started: if held == order.slots { now } else { 0 },
            noticed: 0,
            heir: NONE,
            next: container.first,
            generation: last + 1,
        };
        container.first = place;
        if place as usize == self.leases.len() {
            self.leases.push(lease);
        } else {
            self.leases[place as usize] = lease;
        }
        place
    }

    /// A lease that was told ends: its notice must be over.
    pub(super) fn take_back(&mut self, now: u64, number: u32) -> Ended {
        let noticed = self.leases[number as usize].noticed;
        if noticed == 0 || now < noticed + NOTICE_S * SECOND {
            self.violation = Some(Violation::NoNotice { lease: number });
        }
        self.end(now, number)
    }

    /// A lease ends.
    pub(super) fn end(&mut self, now: u64, number: u32) -> Ended {
        let lease = self.leases[number as usize];
        self.leases[number as usize].generation += 1;
        self.vacant.push(number);
        self.unlink(lease.container, number, lease.next);
        let from = lease.started.max(self.counted_from);
        let used = now.saturating_sub(from) * u64::from(lease.held);
        let container = &mut self.containers[lease.container as usize];
        container.leased += if lease.started == 0 { 0 } else { used };
        container.sequence += 1;
        let mut released = lease.held;
        let mut begun = None;
        if lease.heir != NONE {
            // The heir stands in the list of the same container until it ends itself, and then
            // nobody has it as an heir any more.
            let heir = &mut self.leases[lease.heir as usize];
            let taken = released.min(heir.order.slots - heir.held);
            heir.held += taken;
            released -= taken;
            if heir.held == heir.order.slots && heir.started == 0 {
                heir.started = now;
                begun = Some(lease.heir);
            }
        }
        container.free += released;
        let region = usize::from(container.region);
        self.held[region] -= u64::from(released);
        if container.is_draining || !container.is_online {
            self.there[region] -= u64::from(released);
        }
        if lease.started == 0 {
            self.disinherit(lease.container, number);
        }
        Ended { lease, begun }
    }

    fn unlink(&mut self, container: u32, number: u32, next: u32) {
        let container = &mut self.containers[container as usize];
        if container.first == number {
            container.first = next;
            return;
        }
        let mut at = container.first;
        while at != NONE {
            let lease = &mut self.leases[at as usize];
            if lease.next == number {
                lease.next = next;
                return;
            }
            at = lease.next;
        }
    }

    /// An heir is gone before it had its slots.
    fn disinherit(&mut self, container: u32, heir: u32) {
        let mut at = self.containers[container as usize].first;
        while at != NONE {
            let lease = &mut self.leases[at as usize];
            if lease.heir == heir {
                lease.heir = NONE;
            }
            at = lease.next;
        }
    }

    /// A host leaves: with its leases, or when they have ended.
    pub(super) fn leave(&mut self, now: u64, number: u32, is_draining: bool) -> Vec<Lease> {
        let container = &mut self.containers[number as usize];
        let from = container.online_since.max(self.counted_from);
        container.online += now.saturating_sub(from);
        container.sequence += 1;
        let region = usize::from(container.region);
        self.there[region] -= u64::from(container.free);
        if is_draining {
            container.is_draining = true;
            return Vec::new();
        }
        container.is_online = false;
        let mut lost = Vec::new();
        while self.containers[number as usize].first != NONE {
            let first = self.containers[number as usize].first;
            lost.push(self.end(now, first).lease);
        }
        lost
    }

    /// A host is there again.
    pub(super) fn join(&mut self, now: u64, number: u32) {
        let container = &mut self.containers[number as usize];
        (container.is_online, container.is_draining) = (true, false);
        (container.online_since, container.blip_until) = (now, 0);
        container.sequence += 1;
        self.there[usize::from(container.region)] += u64::from(container.free);
    }

    /// Counts from here on.
    pub(super) fn count_from(&mut self, now: u64) {
        self.counted_from = now;
        for container in &mut self.containers {
            (container.online, container.leased) = (0, 0);
        }
    }

    /// Counts up to here what still runs; returns each lease's indexer and slot-microseconds.
    pub(super) fn count_to(&mut self, now: u64) -> Vec<(u8, u64)> {
        let mut used_by = Vec::new();
        for lease in &self.leases {
            if lease.generation % 2 == 1 && lease.started != 0 {
                let used = now.saturating_sub(lease.started.max(self.counted_from));
                let used = used * u64::from(lease.held);
                self.containers[lease.container as usize].leased += used;
                used_by.push((lease.order.indexer, used));
            }
        }
        for container in &mut self.containers {
            if container.is_online && !container.is_draining {
                let from = container.online_since.max(self.counted_from);
                container.online += now.saturating_sub(from);
            }
        }
        used_by
    }

    /// Checks the laws for every container.
    ///
    /// # Errors
    ///
    /// The first [`Violation`].
    pub(super) fn check(&self) -> Result<(), Violation> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        let mut held_by_region = [0; 3];
        for (number, container) in (0_u32..).zip(&self.containers) {
            let held: u16 = self.leases_of(number).map(|id| self.leases[id as usize].held).sum();
            if held + container.free != container.slots {
                return Err(Violation::SlotsLost { container: number });
            }
            if !container.is_online && held > 0 {
                return Err(Violation::LeasedWhileGone { container: number });
            }
            held_by_region[usize::from(container.region)] += u64::from(held);
        }
        if held_by_region != self.held {
            return Err(Violation::SlotsLost { container: NONE });
        }
        Ok(())
    }
}
