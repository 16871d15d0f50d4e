//! Slots of reservations, and the leases that run on them.

use welkin_types::{LeaseId, ReservationId};

use super::{Claim, ClaimError, Devices, Slots};

impl Slots {
    /// Gives the slot of a reservation to a lease.
    ///
    /// # Errors
    ///
    /// [`ClaimError`] where the reservation is over or in use, or the lease's id is.
    pub fn claim_on(
        &mut self,
        reservation: ReservationId,
        lease: LeaseId,
    ) -> Result<Claim, ClaimError> {
        if self.is_used(lease) || self.waiting.values().any(|waiter| waiter.lease == lease) {
            return Err(ClaimError::Duplicate);
        }
        let tenant = self.leases.get(&reservation.lane());
        let tenant = tenant.filter(|tenant| !tenant.is_leaving && tenant.spot.is_none());
        let devices = tenant.ok_or(ClaimError::Unreserved)?.devices.clone();
        if let Some(by) = self.guest(reservation) {
            return Err(ClaimError::InUse { by });
        }
        if !self.are_in_service(&devices) {
            return Err(ClaimError::OutOfService);
        }
        self.guests.insert(lease, reservation);
        self.fencing += 1;
        Ok(Claim { fencing: self.fencing, devices })
    }

    /// Takes a lease back in that was found on disk after a restart and runs on a reservation. Where
    /// that is not there any more the lease has a slot of its own, until it is gone.
    pub fn restore_on(
        &mut self,
        reservation: ReservationId,
        lease: LeaseId,
        container: welkin_types::ContainerId,
        devices: Devices,
    ) {
        let is_there = self.leases.contains_key(&reservation.lane());
        if is_there && self.guest(reservation).is_none() {
            self.guests.insert(lease, reservation);
        } else {
            self.restore(lease, container, devices, None);
        }
    }

    /// The lease that runs on a reservation.
    pub fn guest(&self, reservation: ReservationId) -> Option<LeaseId> {
        let guest = self.guests.iter().find(|(_, host)| **host == reservation);
        guest.map(|(lease, _)| *lease)
    }

    /// Whether a lease or a reservation has this name.
    pub(super) fn is_used(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease) || self.guests.contains_key(&lease)
    }

    /// A lease or a reservation goes: whose slot comes free with it, if any.
    pub(super) fn leaving(&mut self, lease: LeaseId) -> Option<LeaseId> {
        if let Some(reservation) = self.guests.remove(&lease) {
            // The slot stays with a reservation that is not over.
            let lane = reservation.lane();
            let is_over = self.leases.get(&lane).is_some_and(|tenant| tenant.is_leaving);
            return is_over.then_some(lane);
        }
        if self.guest(ReservationId::of_lane(lease)).is_some() {
            if let Some(tenant) = self.leases.get_mut(&lease) {
                tenant.is_leaving = true;
            }
            return None;
        }
        Some(lease)
    }
}
