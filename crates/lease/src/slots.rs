//! Which slots of the host are taken. The host alone decides; indexers only guess.
//!
//! A slot may own devices, named by the host; a lease gets those of its slot.
//!
//! Where no slot is free an order on demand may take the one of a spot lease ([`Slots::preempt`]):
//! the cheapest of the container ends first, among equals the youngest, which loses the least. The
//! order waits for its slot and has the first that comes free, whoever leaves it.
//!
//! A reservation has a slot as a lease has one, under the name of its lane, and keeps it with nothing
//! running. At most one lease at a time is a guest of it ([`Slots::claim_on`]); the slot of a
//! reservation that is over comes free when its guest is gone.
//!
//! A device, or the whole host, may be out of service ([`Slots::withdraw`]): its slots are not free and
//! none of them is given, to a lease or to a guest of a reservation; who has one keeps it.
//!
//! Invariants: leases and live holds of a container never exceed its slots. No device is of two
//! leases at a time, also where a changed configuration gives a device to another slot while an old
//! lease still has it. Fencing numbers rise with every claim and are never used twice, also over
//! restarts (the caller stores the last). No more orders wait for a container than spot leases of it
//! are on their way out, and none ends for two orders.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::index::Hold;
use welkin_types::{
    AccountId, CapacityType, ContainerId, LeaseId, OfferId, Price, ReservationId, UnixMillis,
};

/// The most holds at once; further ones are not kept (a hold is a courtesy, not a right).
const HOLDS_MAX: usize = 4_096;

/// Why a slot was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The host does not have this container.
    #[error("this host has no such container")]
    Unknown,
    /// Every slot is taken.
    #[error("all {slots} slots of the container are taken")]
    Busy {
        /// How many there are.
        slots: u32,
    },
    /// The lease id is in use.
    #[error("the lease id is in use")]
    Duplicate,
    /// There is no such reservation, or it is over.
    #[error("there is no such reservation here, or it is over")]
    Unreserved,
    /// What the reservation has is out of service.
    #[error("what the reservation has is out of service until it has passed a test")]
    OutOfService,
    /// Something runs on the reservation.
    #[error("the reservation is in use by {by}: stop that first")]
    InUse {
        /// What.
        by: LeaseId,
    },
}

/// The devices of one slot or lease, by the host's names for them.
pub type Devices = BTreeSet<String>;

/// What an order wants of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The lease that it makes.
    pub lease: LeaseId,
    /// Of which container.
    pub container: ContainerId,
    /// The offer that it came from, if any: it names the hold.
    pub offer: Option<OfferId>,
    /// For whom.
    pub buyer: AccountId,
    /// Under which terms.
    pub capacity: CapacityType,
    /// At which price.
    pub price: Price,
}

/// A slot that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease's fencing number.
    pub fencing: u64,
    /// What it has for itself.
    pub devices: Devices,
}

/// A spot lease has to end for an order, which waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The spot lease.
    pub victim: LeaseId,
    /// The fencing number of the lease that waits.
    pub fencing: u64,
}

/// A lease that has a slot.
#[derive(Clone, Debug)]
struct Tenant {
    container: ContainerId,
    devices: Devices,
    /// What it pays and its fencing number, where it is a spot lease.
    spot: Option<(Price, u64)>,
    /// Whether it has to end for another.
    is_leaving: bool,
}

impl Tenant {
    fn preemptible(&self) -> Option<(Price, u64)> {
        self.spot.filter(|_| !self.is_leaving)
    }
}

/// A lease that waits for one.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    lease: LeaseId,
    container: ContainerId,
}

/// The host's slots.
#[derive(Debug, Default)]
pub struct Slots {
    /// The devices of each slot.
    slots: BTreeMap<ContainerId, Vec<Devices>>,
    leases: BTreeMap<LeaseId, Tenant>,
    /// By fencing number: first come, first served.
    waiting: BTreeMap<u64, Waiter>,
    holds: BTreeMap<OfferId, Hold>,
    /// The leases that have the slot of a reservation.
    guests: BTreeMap<LeaseId, ReservationId>,
    fencing: u64,
    withdrawn: BTreeSet<Unit>,
}

mod reserved;
mod service;
mod told;

pub use service::Unit;

impl Slots {
    /// Makes the slots of these containers, each with its devices; `fencing` is the last number used.
    pub fn new(
        containers: impl IntoIterator<Item = (ContainerId, Vec<Devices>)>,
        fencing: u64,
    ) -> Self {
        Self { slots: containers.into_iter().collect(), fencing, ..Self::default() }
    }

    /// Keeps a slot for an offer's buyer; says whether one was free.
    pub fn hold(&mut self, now: UnixMillis, hold: Hold) -> bool {
        self.expire(now);
        let is_free = self.free(now, hold.container) > 0 && self.holds.len() < HOLDS_MAX;
        if is_free {
            self.holds.insert(hold.offer, hold);
        }
        is_free
    }

    /// Gives a slot to a lease. A hold of the same offer and buyer is used up; those of others count
    /// as taken.
    ///
    /// # Errors
    ///
    /// [`ClaimError`] if there is none to give.
    pub fn claim(&mut self, now: UnixMillis, wanted: &Wanted) -> Result<Claim, ClaimError> {
        let Wanted { lease, container, buyer, .. } = *wanted;
        self.expire(now);
        let busy = self.check(wanted)?;
        let held = wanted
            .offer
            .and_then(|offer| self.holds.get(&offer))
            .filter(|hold| hold.container == container && hold.buyer == buyer);
        let held = held.map(|hold| hold.offer);
        if held.is_none() && self.free(now, container) == 0 {
            return Err(busy);
        }
        // A hold counts slots only, and an old lease may have the devices of the one that was meant.
        let devices = self.first_unleased(container).cloned().ok_or(busy)?;
        if let Some(offer) = held {
            self.holds.remove(&offer);
        }
        self.fencing += 1;
        let is_spot = wanted.capacity == CapacityType::Spot;
        let spot = is_spot.then_some((wanted.price, self.fencing));
        self.leases
            .insert(lease, Tenant { container, devices: devices.clone(), spot, is_leaving: false });
        Ok(Claim { fencing: self.fencing, devices })
    }

    /// Chooses the spot lease that has to end for a lease on demand, which from now on waits for a
    /// slot: [`Self::release`] says when it has one.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Busy`] where no spot lease is left that could end, or the order is for spot.
    pub fn preempt(&mut self, wanted: &Wanted) -> Result<Preemption, ClaimError> {
        let busy = self.check(wanted)?;
        if wanted.capacity == CapacityType::Spot {
            return Err(busy);
        }
        let withdrawn = &self.withdrawn;
        let of_container = self.leases.iter_mut().filter(|(_, tenant)| {
            let is_usable = service::are_in_service(withdrawn, &tenant.devices);
            tenant.container == wanted.container && is_usable
        });
        let (_, victim, tenant) = of_container
            .filter_map(|(lease, tenant)| {
                let (price, fencing) = tenant.preemptible()?;
                Some(((price, std::cmp::Reverse(fencing)), *lease, tenant))
            })
            .min_by_key(|(rank, _, _)| *rank)
            .ok_or(busy)?;
        tenant.is_leaving = true;
        self.fencing += 1;
        let waiter = Waiter { lease: wanted.lease, container: wanted.container };
        self.waiting.insert(self.fencing, waiter);
        Ok(Preemption { victim, fencing: self.fencing })
    }

    /// Takes a preemption back that came to nothing: the spot lease stays, nobody waits for it.
    pub fn spare(&mut self, preemption: Preemption) {
        self.waiting.remove(&preemption.fencing);
        if let Some(tenant) = self.leases.get_mut(&preemption.victim) {
            tenant.is_leaving = false;
        }
    }

    /// The devices of a lease that has a slot.
    pub fn devices(&self, lease: LeaseId) -> Option<&Devices> {
        let host = self.guests.get(&lease).map_or(lease, |reservation| reservation.lane());
        self.leases.get(&host).map(|tenant| &tenant.devices)
    }

    /// Whether the order is for a container that there is and under a name that is free; the error
    /// for when it is full.
    fn check(&self, wanted: &Wanted) -> Result<ClaimError, ClaimError> {
        let slots = self.slots.get(&wanted.container).ok_or(ClaimError::Unknown)?;
        let is_waiting = self.waiting.values().any(|waiter| waiter.lease == wanted.lease);
        if is_waiting || self.is_used(wanted.lease) {
            return Err(ClaimError::Duplicate);
        }
        Ok(ClaimError::Busy { slots: count(slots.len()) })
    }

    /// Takes a lease back in that was found on disk after a restart, with what it has. `spot` is what
    /// it pays and its fencing number, where it is a spot lease that is not on its way out.
    pub fn restore(
        &mut self,
        lease: LeaseId,
        container: ContainerId,
        devices: Devices,
        spot: Option<(Price, u64)>,
    ) {
        self.leases.insert(lease, Tenant { container, devices, spot, is_leaving: false });
    }

    /// Frees the slot of a lease, or ends its wait for one. Returns the leases that waited and have a
    /// slot now, each with its devices.
    #[must_use]
    pub fn release(&mut self, lease: LeaseId) -> Vec<(LeaseId, Devices)> {
        let Some(lease) = self.leaving(lease) else { return Vec::new() };
        self.leases.remove(&lease);
        self.waiting.retain(|_, waiter| waiter.lease != lease);
        self.serve_waiting()
    }

    /// Gives slots that have come free to those who wait.
    fn serve_waiting(&mut self) -> Vec<(LeaseId, Devices)> {
        let mut given = Vec::new();
        let waiting: Vec<(u64, Waiter)> =
            self.waiting.iter().map(|(fencing, waiter)| (*fencing, *waiter)).collect();
        for (fencing, Waiter { lease, container }) in waiting {
            let Some(devices) = self.first_unleased(container).cloned() else { continue };
            self.waiting.remove(&fencing);
            let tenant =
                Tenant { container, devices: devices.clone(), spot: None, is_leaving: false };
            self.leases.insert(lease, tenant);
            given.push((lease, devices));
        }
        given
    }

    /// Slots of a container that are neither leased nor held.
    pub fn free(&self, now: UnixMillis, container: ContainerId) -> u32 {
        let live = |hold: &&Hold| hold.container == container && hold.expires > now;
        let held = self.holds.values().filter(live).count();
        self.unleased(container).saturating_sub(count(held))
    }

    /// Slots of every container that no lease has and that are in service, held ones included: what an indexer is told,
    /// which counts the holds itself.
    pub fn all_unleased(&self) -> Vec<(ContainerId, u32)> {
        self.slots.keys().map(|container| (*container, self.unleased(*container))).collect()
    }

    /// Slots that an order on demand can have although they are taken: those of spot leases that are
    /// not on their way out, by container, where there are any.
    pub fn all_preemptible(&self) -> Vec<(ContainerId, u32)> {
        let of = |container| {
            let is_its = |tenant: &&Tenant| {
                let is_usable = self.are_in_service(&tenant.devices);
                tenant.container == container && tenant.preemptible().is_some() && is_usable
            };
            (container, count(self.leases.values().filter(is_its).count()))
        };
        self.slots.keys().copied().map(of).filter(|(_, count)| *count > 0).collect()
    }

    /// Whether an order on demand could have a slot of this container that a spot lease has.
    pub fn is_preemptible(&self, container: ContainerId) -> bool {
        self.all_preemptible().iter().any(|(one, _)| *one == container)
    }

    fn unleased(&self, container: ContainerId) -> u32 {
        let slots = self.slots.get(&container).map_or(&[][..], Vec::as_slice);
        let leased = self.leases.values().filter(|tenant| tenant.container == container).count();
        let usable = slots.iter().filter(|devices| self.are_unleased(devices)).count();
        count(usable.min(slots.len().saturating_sub(leased)))
    }

    /// The devices of a slot that nobody has or waits for, if there is one: what may be tested.
    pub fn idle(&self, now: UnixMillis, container: ContainerId) -> Option<&Devices> {
        if self.free(now, container) == 0 {
            return None;
        }
        self.first_unleased(container)
    }

    /// The devices of a slot that a new lease may have.
    fn first_unleased(&self, container: ContainerId) -> Option<&Devices> {
        let slots = self.slots.get(&container).filter(|_| self.unleased(container) > 0)?;
        slots.iter().find(|devices| self.are_unleased(devices))
    }

    fn are_unleased(&self, devices: &Devices) -> bool {
        let mut leases = self.leases.values();
        let are_unused =
            devices.is_empty() || leases.all(|tenant| tenant.devices.is_disjoint(devices));
        are_unused && self.are_in_service(devices)
    }

    /// How many leases there are.
    pub fn leased(&self) -> usize {
        self.leases.len()
    }

    /// The last fencing number given.
    pub const fn fencing(&self) -> u64 {
        self.fencing
    }

    fn expire(&mut self, now: UnixMillis) {
        self.holds.retain(|_, hold| hold.expires > now);
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
