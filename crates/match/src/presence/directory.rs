//! Which session is a host's first: a table by node key with open addressing.
//!
//! Node keys are chosen by strangers, so the place of one follows from numbers that they don't know:
//! nobody can fill one run of places. Four bytes for a place, no key in it: that stands with the
//! session.

use welkin_types::NodeId;

use super::Owner;

const VACANT: u32 = u32::MAX;
const PLACES_MIN: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Directory {
    seed: [u64; 8],
    /// First sessions; a power of two, at most two thirds of them taken.
    places: Vec<u32>,
    taken: usize,
}

impl Directory {
    pub(super) const fn new(seed: [u64; 8]) -> Self {
        Self { seed, places: Vec::new(), taken: 0 }
    }

    /// Bytes that it takes.
    pub(super) const fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    /// The host's first session.
    pub(super) fn get(&self, owners: &[Owner], host: NodeId) -> Option<u32> {
        self.find(owners, host).map(|place| self.places[place])
    }

    /// Sets the first session of its owner, which stands in `owners` already.
    pub(super) fn set(&mut self, owners: &[Owner], session: u32) {
        let host = owners[session as usize].host;
        if let Some(place) = self.find(owners, host) {
            self.places[place] = session;
            return;
        }
        if (self.taken + 1) * 3 > self.places.len() * 2 {
            self.grow(owners);
        }
        self.put(owners, session);
        self.taken += 1;
    }

    /// Forgets a host, whose first session must still stand in `owners`.
    pub(super) fn remove(&mut self, owners: &[Owner], host: NodeId) {
        let Some(mut hole) = self.find(owners, host) else { return };
        self.taken -= 1;
        // What follows without a gap moves up, unless it would come before its own place.
        let mask = self.places.len() - 1;
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let session = self.places[next];
            if session == VACANT {
                break;
            }
            let own = self.place_of(owners[session as usize].host);
            if (next.wrapping_sub(own) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.places[hole] = session;
                hole = next;
            }
        }
        self.places[hole] = VACANT;
    }

    fn find(&self, owners: &[Owner], host: NodeId) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut place = self.place_of(host);
        loop {
            let session = self.places[place];
            if session == VACANT {
                return None;
            }
            if owners[session as usize].host == host {
                return Some(place);
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }

    fn put(&mut self, owners: &[Owner], session: u32) {
        let mut place = self.place_of(owners[session as usize].host);
        while self.places[place] != VACANT {
            place = (place + 1) & (self.places.len() - 1);
        }
        self.places[place] = session;
    }

    fn grow(&mut self, owners: &[Owner]) {
        let count = (self.places.len() * 2).max(PLACES_MIN);
        let before = std::mem::replace(&mut self.places, vec![VACANT; count]);
        for session in before.into_iter().filter(|session| *session != VACANT) {
            self.put(owners, session);
        }
    }

    /// A multilinear hash, of which the upper half is used.
    fn place_of(&self, host: NodeId) -> usize {
        let words = host.as_bytes().as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let hash = words.zip(self.seed).fold(0_u64, |hash, (word, seed)| {
            hash.wrapping_add(u64::from(word).wrapping_mul(seed | 1))
        });
        (hash >> 32) as usize & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn owner(host: u8) -> Owner {
        let host = NodeId::from_bytes([host; 32]);
        Owner { host, ..Owner::NOBODY }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_holds_what_a_map_holds(
            steps in prop::collection::vec((any::<bool>(), 0..=255_u8), 0..600),
            seed in prop::array::uniform8(0..4_u64),
        ) {
            // A weak seed makes long runs.
            let mut directory = Directory::new(seed);
            let mut owners = Vec::new();
            let mut model = BTreeMap::new();
            for (is_set, host) in steps {
                if is_set {
                    owners.push(owner(host));
                    let session = u32::try_from(owners.len() - 1).unwrap();
                    directory.set(&owners, session);
                    model.insert(host, session);
                } else {
                    directory.remove(&owners, owner(host).host);
                    model.remove(&host);
                }
                prop_assert_eq!(directory.taken, model.len());
            }
            for host in 0..=255 {
                let found = directory.get(&owners, owner(host).host);
                prop_assert_eq!(found, model.get(&host).copied());
            }
        }
    }
}
