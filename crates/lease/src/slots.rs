//! Which slots of the host are taken. The host alone decides; indexers only guess.
//!
//! Invariant: leases and live holds of a container never exceed its slots. Fencing numbers rise
//! with every claim and are never used twice, also over restarts (the caller stores the last).

use std::collections::BTreeMap;

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

/// The host's slots.
#[derive(Debug, Default)]
pub struct Slots {
    slots: BTreeMap<ContainerId, u32>,
    leases: BTreeMap<LeaseId, ContainerId>,
    holds: BTreeMap<OfferId, Hold>,
    fencing: u64,
}

impl Slots {
    /// Makes the slots of these containers; `fencing` is the last number used.
    pub fn new(containers: impl IntoIterator<Item = (ContainerId, u32)>, fencing: u64) -> Self {
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

    /// Gives a slot to a lease and returns its fencing number. A hold of the same offer and buyer
    /// is used up; those of others count as taken.
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
    ) -> Result<u64, ClaimError> {
        self.expire(now);
        let slots = *self.slots.get(&container).ok_or(ClaimError::Unknown)?;
        if self.leases.contains_key(&lease) {
            return Err(ClaimError::Duplicate);
        }
        let held = offer
            .and_then(|offer| self.holds.get(&offer))
            .filter(|hold| hold.container == container && hold.buyer == buyer);
        match held.map(|hold| hold.offer) {
            Some(offer) => {
                self.holds.remove(&offer);
            }
            None if self.free(now, container) == 0 => return Err(ClaimError::Busy { slots }),
            None => (),
        }
        self.leases.insert(lease, container);
        self.fencing += 1;
        Ok(self.fencing)
    }

    /// Takes a lease back in that was found on disk after a restart.
    pub fn restore(&mut self, lease: LeaseId, container: ContainerId) {
        self.leases.insert(lease, container);
    }

    /// Frees the slot of a lease; says whether it had one.
    pub fn release(&mut self, lease: LeaseId) -> bool {
        self.leases.remove(&lease).is_some()
    }

    /// Slots of a container that are neither leased nor held.
    pub fn free(&self, now: UnixMillis, container: ContainerId) -> u32 {
        let slots = self.slots.get(&container).copied().unwrap_or(0);
        let leased = self.leases.values().filter(|taken| **taken == container).count();
        let live = |hold: &&Hold| hold.container == container && hold.expires > now;
        let held = self.holds.values().filter(live).count();
        slots.saturating_sub(u32::try_from(leased + held).unwrap_or(u32::MAX))
    }

    /// Slots of every container that no lease has, held ones included: what an indexer is told,
    /// which counts the holds itself.
    pub fn all_unleased(&self) -> Vec<(ContainerId, u32)> {
        let unleased = |(container, slots): (&ContainerId, &u32)| {
            let leased = self.leases.values().filter(|taken| *taken == container).count();
            let leased = u32::try_from(leased).unwrap_or(u32::MAX);
            (*container, slots.saturating_sub(leased))
        };
        self.slots.iter().map(unleased).collect()
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

    #[test]
    fn a_hold_keeps_others_out_until_it_ends() {
        let mut slots = Slots::new([(BOX, 1)], 0);
        let (mine, other) = (AccountId::from_bytes([1; 20]), AccountId::from_bytes([2; 20]));
        assert!(slots.hold(UnixMillis(0), hold(7, 1, 100)));
        assert!(!slots.hold(UnixMillis(0), hold(8, 2, 100)));
        let busy = Err(ClaimError::Busy { slots: 1 });
        assert_eq!(slots.claim(UnixMillis(1), lease(1), BOX, None, other), busy);
        let offer = Some(OfferId::from_bytes([7; 16]));
        assert_eq!(slots.claim(UnixMillis(1), lease(1), BOX, offer, other), busy);
        assert_eq!(slots.claim(UnixMillis(1), lease(1), BOX, offer, mine), Ok(1));
        assert_eq!(slots.claim(UnixMillis(1), lease(2), BOX, offer, mine), busy);
        assert!(slots.release(lease(1)) && !slots.release(lease(1)));
        assert!(slots.hold(UnixMillis(2), hold(9, 1, 50)));
        assert_eq!(slots.claim(UnixMillis(50), lease(3), BOX, None, other), Ok(2));
    }

    proptest! {
        #[test]
        fn never_more_than_there_are(steps in proptest::collection::vec((0..4_u8, 0..20_u8, 0..3_u8), 0..200)) {
            let mut slots = Slots::new([(BOX, 3)], 0);
            let mut last = 0;
            for (now, (kind, n, buyer)) in (0_u64..).zip(steps) {
                let at = UnixMillis(now);
                match kind {
                    0 => drop(slots.hold(at, hold(n, buyer, now + 10))),
                    1 => drop(slots.release(lease(n))),
                    _ => {
                        let offer = (kind == 2).then(|| OfferId::from_bytes([n; 16]));
                        let who = AccountId::from_bytes([buyer; 20]);
                        if let Ok(fencing) = slots.claim(at, lease(n), BOX, offer, who) {
                            prop_assert!(fencing > last);
                            last = fencing;
                        }
                    }
                }
                prop_assert!(slots.leased() <= 3);
            }
        }
    }
}
