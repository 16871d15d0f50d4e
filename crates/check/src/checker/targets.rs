//! The containers that a checker knows.
//!
//! A list is learnt page by page, and who is silent is on none: so what was listed once stays known
//! until the epoch is over, and at least for a period, in which the list is walked again.

use std::collections::BTreeMap;

use welkin_proto::NodeAddr;
use welkin_proto::index::Listing;
use welkin_types::{ContainerId, NodeId, UnixMillis};

/// The most containers that a checker knows; where there are more, those go first that are listed no
/// more, and further ones are left out.
pub const TARGETS_MAX: usize = 1 << 19;
/// What was listed is known at least so long, in milliseconds: indexers list for as long who is silent.
pub(super) const KEPT_MS_MIN: u64 = 120_000;
/// What was listed since is not given up for others, in milliseconds: a list is walked in less.
pub(crate) const LISTED_MS: u64 = 3_600_000;
/// Who did not answer so often in succession counts as silent: one packet may be lost.
const SILENCES: u8 = 2;

/// One container of one host.
pub(super) type Target = (NodeId, ContainerId);

/// How a host answered when it was visited last. Places are kept apart by it: who is silent takes a
/// place for seconds, and announcing oneself costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It answered one of the last two visits.
    Heard,
    /// It has not answered yet, where it is now.
    New,
    /// It was silent.
    Silent,
}

impl Standing {
    pub(super) const ALL: [Self; 3] = [Self::Heard, Self::New, Self::Silent];
}

#[derive(Clone, Debug)]
struct Host {
    addr: NodeAddr,
    has_answered: bool,
    /// Visits in succession that found nobody.
    silences: u8,
    /// In order of their ids, each with when it was listed last.
    containers: Vec<(ContainerId, UnixMillis)>,
}

impl Host {
    fn place(&self, id: ContainerId) -> Result<usize, usize> {
        self.containers.binary_search_by_key(&id, |(id, _)| *id)
    }
}

/// What was listed.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    hosts: BTreeMap<NodeId, Host>,
    /// Containers of all hosts.
    len: usize,
    max: usize,
}

impl Targets {
    pub(super) const fn new() -> Self {
        Self { hosts: BTreeMap::new(), len: 0, max: TARGETS_MAX }
    }

    /// Takes in what is listed; what of it is new.
    pub(super) fn list(&mut self, now: UnixMillis, rows: Vec<Listing>) -> Vec<Target> {
        let mut new = Vec::new();
        if self.len + rows.len() > self.max {
            self.forget(UnixMillis(now.0.saturating_sub(LISTED_MS)));
        }
        for row in rows {
            let (node, id) = (row.addr.node, row.container.id);
            let has_room = self.len < self.max;
            let Some(host) = self.hosts.get_mut(&node) else {
                if has_room {
                    let containers = vec![(id, now)];
                    let host =
                        Host { addr: row.addr, has_answered: false, silences: 0, containers };
                    self.hosts.insert(node, host);
                    self.len += 1;
                    new.push((node, id));
                }
                continue;
            };
            // Where it is now it has to answer first: else a new address a minute would keep its places.
            if host.addr != row.addr {
                (host.has_answered, host.silences) = (false, 0);
                host.addr = row.addr;
            }
            match host.place(id) {
                Ok(place) => host.containers[place].1 = now,
                Err(place) if has_room => {
                    host.containers.insert(place, (id, now));
                    self.len += 1;
                    new.push((node, id));
                }
                Err(_) => (),
            }
        }
        new
    }

    /// Forgets what was not listed since.
    pub(super) fn forget(&mut self, since: UnixMillis) {
        self.hosts.retain(|_, host| {
            host.containers.retain(|(_, listed)| *listed >= since);
            !host.containers.is_empty()
        });
        self.len = self.hosts.values().map(|host| host.containers.len()).sum();
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Target> + '_ {
        self.hosts.iter().flat_map(|(node, host)| {
            host.containers.iter().map(move |(container, _)| (*node, *container))
        })
    }

    /// Where a container is, and how its host stands.
    pub(super) fn place(&self, (node, id): Target) -> Option<(&NodeAddr, Standing)> {
        let host = self.hosts.get(&node)?;
        host.place(id).ok()?;
        Some((&host.addr, self.standing(node)))
    }

    /// How a host stands; one that is not known has not answered yet.
    pub(super) fn standing(&self, node: NodeId) -> Standing {
        match self.hosts.get(&node) {
            Some(host) if host.silences >= SILENCES => Standing::Silent,
            Some(host) if host.has_answered => Standing::Heard,
            Some(_) | None => Standing::New,
        }
    }

    /// A visit to a host has ended.
    pub(super) fn visited(&mut self, node: NodeId, has_answered: bool) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if has_answered {
            (host.has_answered, host.silences) = (true, 0);
        } else {
            host.silences = host.silences.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;

    #[test]
    fn where_there_is_no_room_those_go_that_are_listed_no_more() {
        let mut targets = Targets { max: 4, ..Targets::new() };
        let rows = |of: std::ops::Range<u8>| of.map(|number| listing(100, number)).collect();
        let hour = LISTED_MS;
        assert_eq!(targets.list(UnixMillis(0), rows(0..4)).len(), 4);
        assert_eq!(targets.list(UnixMillis(hour), rows(2..6)), []);
        let new = targets.list(UnixMillis(hour + 1), rows(2..9));
        assert_eq!(new.len(), 2);
        assert_eq!(targets.keys().count(), 4);
        assert!(targets.keys().all(|(_, id)| (2..6).contains(&id.as_bytes()[0])));
    }

    #[test]
    fn a_host_stands_as_it_answered_last_where_it_is_now() {
        let mut targets = Targets::new();
        let host = listing(100, 1).addr.node;
        targets.list(UnixMillis(0), vec![listing(100, 1), listing(100, 2)]);
        let mut after = |has_answered| {
            targets.visited(host, has_answered);
            targets.standing(host)
        };
        let (heard, new, silent) = (Standing::Heard, Standing::New, Standing::Silent);
        let visits = [false, false, true, false, true, false, false, false, true];
        let stands = [new, silent, heard, heard, heard, heard, silent, silent, heard];
        assert_eq!(visits.map(&mut after), stands);
        // At another address it is to be heard first.
        let mut moved = listing(100, 1);
        moved.addr.direct = vec![([127, 0, 0, 1], 1).into()];
        targets.list(UnixMillis(1), vec![moved.clone()]);
        assert_eq!(targets.standing(host), new);
        // All its containers are there now.
        let second = targets.place((host, ContainerId::from_bytes([2; 16])));
        assert_eq!(second, Some((&moved.addr, new)));
    }
}
