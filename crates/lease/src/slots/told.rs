//! What a host's heartbeats say of its leases and devices.

use std::collections::BTreeMap;

use welkin_types::{ContainerId, LeaseId};

use super::{Devices, Slots};

/// The first 8 bytes of a lease's id.
fn beginning(lease: LeaseId) -> u64 {
    lease.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Slots {
    /// The exclusive or of the first 8 bytes of the ids of each container's leases; containers
    /// without a lease are left out.
    pub fn lease_digests(&self) -> BTreeMap<ContainerId, u64> {
        let mut digests = BTreeMap::new();
        for (lease, tenant) in &self.leases {
            *digests.entry(tenant.container).or_insert(0) ^= beginning(*lease);
        }
        digests
    }

    /// The devices of a container, each with whether no lease has it, in the order of its slots.
    pub fn devices_told(&self, container: ContainerId) -> Vec<(&String, bool)> {
        let is_taken =
            |device: &String| self.leases.values().any(|tenant| tenant.devices.contains(device));
        let slots = self.slots.get(&container).map_or(&[][..], Vec::as_slice);
        let devices = slots.iter().flat_map(Devices::iter);
        devices.map(|device| (device, !is_taken(device))).collect()
    }
}
