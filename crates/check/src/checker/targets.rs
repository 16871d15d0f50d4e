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
const LISTED_MS: u64 = 3_600_000;

/// One container of one host.
pub(super) type Target = (NodeId, ContainerId);

#[derive(Clone, Debug)]
struct Known {
    addr: NodeAddr,
    /// When it was listed last.
    listed: UnixMillis,
}

/// What was listed.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    known: BTreeMap<Target, Known>,
    max: usize,
}

impl Targets {
    pub(super) const fn new() -> Self {
        Self { known: BTreeMap::new(), max: TARGETS_MAX }
    }

    /// Takes in what is listed; what of it is new.
    pub(super) fn list(&mut self, now: UnixMillis, rows: Vec<Listing>) -> Vec<Target> {
        let mut new = Vec::new();
        if self.known.len() + rows.len() > self.max {
            self.forget(UnixMillis(now.0.saturating_sub(LISTED_MS)));
        }
        for row in rows {
            let target = (row.addr.node, row.container.id);
            let known = Known { addr: row.addr, listed: now };
            if let Some(before) = self.known.get_mut(&target) {
                *before = known;
            } else if self.known.len() < self.max {
                self.known.insert(target, known);
                new.push(target);
            }
        }
        new
    }

    /// Forgets what was not listed since.
    pub(super) fn forget(&mut self, since: UnixMillis) {
        self.known.retain(|_, known| known.listed >= since);
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Target> + '_ {
        self.known.keys().copied()
    }

    /// Where a container is.
    pub(super) fn addr(&self, target: Target) -> Option<&NodeAddr> {
        self.known.get(&target).map(|known| &known.addr)
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
}
