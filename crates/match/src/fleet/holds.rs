//! Slots that are kept for buyers, by container, by buyer and by when they end.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::index::Hold;
use welkin_types::{AccountId, ContainerId, NodeId, OfferId, UnixMillis};

/// Where a hold is, and its offer.
pub(super) type Key = (NodeId, ContainerId, OfferId);

#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    all: BTreeMap<Key, Hold>,
    buyers: BTreeSet<(AccountId, Key)>,
    ends: BTreeSet<(UnixMillis, Key)>,
}

impl Holds {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.all.contains_key(key)
    }

    pub(super) fn insert(&mut self, host: NodeId, hold: Hold) {
        let key = (host, hold.container, hold.offer);
        self.remove(&key);
        self.buyers.insert((hold.buyer, key));
        self.ends.insert((hold.expires, key));
        self.all.insert(key, hold);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Hold> {
        let hold = self.all.remove(key)?;
        self.buyers.remove(&(hold.buyer, *key));
        self.ends.remove(&(hold.expires, *key));
        Some(hold)
    }

    /// Takes out a hold that has ended.
    pub(super) fn pop_ended(&mut self, now: UnixMillis) -> Option<Key> {
        let (_, key) = self.ends.first().copied().filter(|(expires, _)| *expires <= now)?;
        self.remove(&key);
        Some(key)
    }

    /// The holds of a container, ended ones included.
    pub(super) fn of(&self, host: NodeId, container: ContainerId) -> impl Iterator<Item = &Hold> {
        let first = (host, container, OfferId::from_bytes([0; 16]));
        let last = (host, container, OfferId::from_bytes([0xff; 16]));
        self.all.range(first..=last).map(|(_, hold)| hold)
    }

    /// The holds of a buyer that have not ended: bounded by what a buyer may hold, and by those
    /// that have ended since they were last cleared.
    pub(super) fn of_buyer(
        &self,
        now: UnixMillis,
        buyer: AccountId,
    ) -> impl Iterator<Item = (NodeId, ContainerId)> {
        let least = (NodeId::from_bytes([0; 32]), ContainerId::from_bytes([0; 16]));
        let first = (buyer, (least.0, least.1, OfferId::from_bytes([0; 16])));
        let own = self.buyers.range(first..).take_while(move |(of, _)| *of == buyer);
        let is_present = move |key: &Key| self.all.get(key).is_some_and(|hold| hold.expires > now);
        own.map(|(_, key)| *key).filter(is_present).map(|(host, container, _)| (host, container))
    }
}
