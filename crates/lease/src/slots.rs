//! Which slots of the host are taken. The host alone decides; indexers only guess.
//!
//! A slot may own devices, named by the host; a lease gets those of its slot.
//!
//! Invariants: leases and live holds of a container never exceed its slots. No device is of two
//! leases at a time, also where a changed configuration gives a device to another slot while an old
//! lease still has it. Fencing numbers rise with every claim and are never used twice, also over
//! restarts (the caller stores the last).

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::index::Hold;
use welkin_types::{AccountId, ContainerId, LeaseId, OfferId, UnixMillis};

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
}

/// The devices of one slot or lease, by the host's names for them.
pub type Devices = BTreeSet<String>;

/// A slot that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease's fencing number.
    pub fencing: u64,
    /// What it has for itself.
    pub devices: Devices,
}

/// The host's slots.
#[derive(Debug, Default)]
pub struct Slots {
    /// The devices of each slot.
    slots: BTreeMap<ContainerId, Vec<Devices>>,
    leases: BTreeMap<LeaseId, (ContainerId, Devices)>,
    holds: BTreeMap<OfferId, Hold>,
    fencing: u64,
}

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
    pub fn claim(
        &mut self,
        now: UnixMillis,
        lease: LeaseId,
        container: ContainerId,
        offer: Option<OfferId>,
        buyer: AccountId,
    ) -> Result<Claim, ClaimError> {
        self.expire(now);
        let slots = self.slots.get(&container).ok_or(ClaimError::Unknown)?;
        let busy = ClaimError::Busy { slots: count(slots.len()) };
        if self.leases.contains_key(&lease) {
            return Err(ClaimError::Duplicate);
        }
        let held = offer
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
        self.leases.insert(lease, (container, devices.clone()));
        self.fencing += 1;
        Ok(Claim { fencing: self.fencing, devices })
    }

    /// Takes a lease back in that was found on disk after a restart, with what it has.
    pub fn restore(&mut self, lease: LeaseId, container: ContainerId, devices: Devices) {
        self.leases.insert(lease, (container, devices));
    }

    /// Frees the slot of a lease; says whether it had one.
    pub fn release(&mut self, lease: LeaseId) -> bool {
        self.leases.remove(&lease).is_some()
    }

    /// Slots of a container that are neither leased nor held.
    pub fn free(&self, now: UnixMillis, container: ContainerId) -> u32 {
        let live = |hold: &&Hold| hold.container == container && hold.expires > now;
        let held = self.holds.values().filter(live).count();
        self.unleased(container).saturating_sub(count(held))
    }

    /// Slots of every container that no lease has, held ones included: what an indexer is told,
    /// which counts the holds itself.
    pub fn all_unleased(&self) -> Vec<(ContainerId, u32)> {
        self.slots.keys().map(|container| (*container, self.unleased(*container))).collect()
    }

    fn unleased(&self, container: ContainerId) -> u32 {
        let slots = self.slots.get(&container).map_or(&[][..], Vec::as_slice);
        let leased = self.leases.values().filter(|(taken, _)| *taken == container).count();
        let usable = slots.iter().filter(|devices| self.are_unleased(devices)).count();
        count(usable.min(slots.len().saturating_sub(leased)))
    }

    /// The devices of a slot that a new lease may have.
    fn first_unleased(&self, container: ContainerId) -> Option<&Devices> {
        let slots = self.slots.get(&container).filter(|_| self.unleased(container) > 0)?;
        slots.iter().find(|devices| self.are_unleased(devices))
    }

    fn are_unleased(&self, devices: &Devices) -> bool {
        devices.is_empty() || self.leases.values().all(|(_, taken)| taken.is_disjoint(devices))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOX: ContainerId = ContainerId::from_bytes([1; 16]);

    fn lease(n: u8) -> LeaseId {
        LeaseId::from_bytes([n; 16])
    }

    fn hold(n: u8, buyer: u8, expires: u64) -> Hold {
        Hold {
            offer: OfferId::from_bytes([n; 16]),
            container: BOX,
            buyer: AccountId::from_bytes([buyer; 20]),
            expires: UnixMillis(expires),
        }
    }

    fn plain(slots: usize) -> [(ContainerId, Vec<Devices>); 1] {
        [(BOX, vec![Devices::new(); slots])]
    }

    fn devices(names: &[&str]) -> Devices {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn fencing(claim: Result<Claim, ClaimError>) -> Result<u64, ClaimError> {
        claim.map(|claim| claim.fencing)
    }

    #[test]
    fn a_hold_keeps_others_out_until_it_ends() {
        let mut slots = Slots::new(plain(1), 0);
        let (mine, other) = (AccountId::from_bytes([1; 20]), AccountId::from_bytes([2; 20]));
        assert!(slots.hold(UnixMillis(0), hold(7, 1, 100)));
        assert!(!slots.hold(UnixMillis(0), hold(8, 2, 100)));
        let busy = Err(ClaimError::Busy { slots: 1 });
        assert_eq!(slots.claim(UnixMillis(1), lease(1), BOX, None, other), busy);
        let offer = Some(OfferId::from_bytes([7; 16]));
        assert_eq!(slots.claim(UnixMillis(1), lease(1), BOX, offer, other), busy);
        assert_eq!(fencing(slots.claim(UnixMillis(1), lease(1), BOX, offer, mine)), Ok(1));
        assert_eq!(slots.claim(UnixMillis(1), lease(2), BOX, offer, mine), busy);
        assert!(slots.release(lease(1)) && !slots.release(lease(1)));
        assert!(slots.hold(UnixMillis(2), hold(9, 1, 50)));
        assert_eq!(fencing(slots.claim(UnixMillis(50), lease(3), BOX, None, other)), Ok(2));
    }

    #[test]
    fn a_device_stays_with_its_lease() {
        let buyer = AccountId::from_bytes([1; 20]);
        let own = vec![devices(&["a"]), devices(&["b"])];
        let mut slots = Slots::new([(BOX, own)], 0);
        let claim = |slots: &mut Slots, n| {
            slots.claim(UnixMillis(0), lease(n), BOX, None, buyer).map(|claim| claim.devices)
        };
        assert_eq!(claim(&mut slots, 1), Ok(devices(&["a"])));
        assert_eq!(claim(&mut slots, 2), Ok(devices(&["b"])));
        assert_eq!(claim(&mut slots, 3), Err(ClaimError::Busy { slots: 2 }));
        assert!(slots.release(lease(1)));
        assert_eq!(claim(&mut slots, 3), Ok(devices(&["a"])));

        // After a restart with another configuration an old lease still has both.
        let (old, new) = (ContainerId::from_bytes([2; 16]), vec![devices(&["b"]), devices(&["c"])]);
        let mut slots = Slots::new([(BOX, new)], 9);
        slots.restore(lease(1), old, devices(&["a", "b"]));
        assert_eq!(slots.all_unleased(), [(BOX, 1)]);
        assert!(slots.hold(UnixMillis(0), hold(7, 1, 100)));
        assert!(!slots.hold(UnixMillis(0), hold(8, 1, 100)));
        let offer = Some(OfferId::from_bytes([7; 16]));
        let claimed = slots.claim(UnixMillis(1), lease(2), BOX, offer, buyer).unwrap();
        assert_eq!(claimed, Claim { fencing: 10, devices: devices(&["c"]) });
        assert!(slots.release(lease(1)));
        assert_eq!(slots.all_unleased(), [(BOX, 1)]);
    }

    proptest! {
        #[test]
        fn never_more_than_there_are(steps in proptest::collection::vec((0..4_u8, 0..20_u8, 0..3_u8), 0..200)) {
            let own = vec![devices(&["a", "b"]), devices(&["c", "d"]), devices(&["e"])];
            let mut slots = Slots::new([(BOX, own)], 0);
            let mut last = 0;
            for (now, (kind, n, buyer)) in (0_u64..).zip(steps) {
                let at = UnixMillis(now);
                match kind {
                    0 => drop(slots.hold(at, hold(n, buyer, now + 10))),
                    1 => drop(slots.release(lease(n))),
                    _ => {
                        let offer = (kind == 2).then(|| OfferId::from_bytes([n; 16]));
                        let who = AccountId::from_bytes([buyer; 20]);
                        if let Ok(claim) = slots.claim(at, lease(n), BOX, offer, who) {
                            prop_assert!(claim.fencing > last && !claim.devices.is_empty());
                            last = claim.fencing;
                        }
                    }
                }
                prop_assert!(slots.leased() <= 3);
                let all: Vec<_> = slots.leases.values().flat_map(|(_, own)| own).collect();
                prop_assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
            }
        }
    }
}
