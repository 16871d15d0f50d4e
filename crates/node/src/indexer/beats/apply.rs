//! What a beat says, told to the fleet.

use std::collections::BTreeMap;

use welkin_match::{Fleet, Taken};
use welkin_proto::index::Beat;
use welkin_types::{ContainerId, NodeId, UnixMillis};

/// What was last said of each host's containers: the fleet is told of a host as a whole.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<NodeId, Host>);

#[derive(Debug)]
struct Host {
    revision: u64,
    sequence: u64,
    free: BTreeMap<ContainerId, u32>,
}

impl Known {
    pub(super) fn enrol(&mut self, host: NodeId, revision: u64) {
        self.0.insert(host, Host { revision, sequence: 0, free: BTreeMap::new() });
    }

    pub(super) fn end(&mut self, host: NodeId) {
        self.0.remove(&host);
    }

    /// Returns whether the fleet knows the host as the beat describes it; if not, the host is to
    /// announce itself again.
    pub(super) fn beat(&mut self, fleet: &mut Fleet, now: UnixMillis, taken: &Taken) -> bool {
        let vitals = &taken.vitals;
        if vitals.is_leaving {
            fleet.leave(now, taken.host);
            return true;
        }
        let Some(host) = self.0.get_mut(&taken.host) else { return false };
        if u64::from(vitals.revision) != host.revision & u64::from(u32::MAX) {
            return false;
        }
        host.sequence += 1;
        host.free.insert(taken.container, vitals.free.into());
        let beat = Beat {
            revision: host.revision,
            sequence: host.sequence,
            free: host.free.iter().map(|(id, free)| (*id, *free)).collect(),
            draining: vitals.is_draining,
        };
        fleet.beat(now, taken.host, &beat).is_ok()
    }
}
