//! What is out of service, and who still has it.

use std::collections::BTreeSet;

use welkin_types::{ContainerId, LeaseId};

use super::{Devices, Slots};

/// What can be out of service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// The whole machine: processor, memory, disk, clock.
    Host,
    /// One device, by the host's name for it.
    Device(String),
}

impl Slots {
    /// Takes a unit out of service: none of its slots is free or given until [`Self::readmit`].
    /// Says whether it was in service.
    pub fn withdraw(&mut self, unit: Unit) -> bool {
        self.withdrawn.insert(unit)
    }

    /// Brings a unit back; returns the leases that waited and have a slot now, as
    /// [`Self::release`] does.
    #[must_use]
    pub fn readmit(&mut self, unit: &Unit) -> Vec<(LeaseId, Devices)> {
        self.withdrawn.remove(unit);
        self.serve_waiting()
    }

    /// The leases that have something of a unit, and the lanes of reservations that do.
    pub fn occupants(&self, unit: &Unit) -> Vec<LeaseId> {
        let has = |devices: &Devices| match unit {
            Unit::Host => true,
            Unit::Device(device) => devices.contains(device),
        };
        let own = self.leases.iter().filter(|(_, tenant)| has(&tenant.devices));
        let guests = self.guests.iter().filter(|(_, reservation)| {
            self.leases.get(&reservation.lane()).is_some_and(|tenant| has(&tenant.devices))
        });
        own.map(|(lease, _)| *lease).chain(guests.map(|(lease, _)| *lease)).collect()
    }

    /// Whether all of what a lease, or the lane of a reservation, has is in service.
    pub fn is_usable(&self, lease: LeaseId) -> bool {
        self.leases.get(&lease).is_none_or(|tenant| self.are_in_service(&tenant.devices))
    }

    /// The units of a container that are out of service.
    pub fn withdrawn_of(&self, container: ContainerId) -> Vec<&Unit> {
        let slots = self.slots.get(&container).map_or(&[][..], Vec::as_slice);
        let is_its = |unit: &&Unit| match unit {
            Unit::Host => true,
            Unit::Device(device) => slots.iter().any(|devices| devices.contains(device)),
        };
        self.withdrawn.iter().filter(is_its).collect()
    }

    pub(super) fn are_in_service(&self, devices: &Devices) -> bool {
        are_in_service(&self.withdrawn, devices)
    }
}

pub(super) fn are_in_service(withdrawn: &BTreeSet<Unit>, devices: &Devices) -> bool {
    withdrawn.iter().all(|unit| match unit {
        Unit::Host => false,
        Unit::Device(device) => !devices.contains(device),
    })
}
