//! All that is listed, host by host: for those who are to know everything.

use welkin_proto::index::Listing;
use welkin_types::{CapacityType, NodeId, UnixMillis};

use super::Fleet;

impl Fleet {
    /// More than any host's number. A host keeps its number for as long as it is listed, so who looks at
    /// all of them misses none that was listed all the time.
    pub fn hosts_end(&self) -> u32 {
        self.hosts.hosts.end()
    }

    /// What the host with this number lists; nothing where there is none.
    pub fn listed_at(&self, now: UnixMillis, number: u32) -> Vec<Listing> {
        let containers = self.hosts.numbers(number).into_iter();
        let facts = containers
            .filter_map(|number| self.facts_of(now, number, (None, CapacityType::OnDemand)));
        facts.filter_map(|facts| self.listing_of(facts)).collect()
    }

    /// What this host lists.
    pub fn listed_of(&self, now: UnixMillis, node: NodeId) -> Vec<Listing> {
        let number = self.hosts.number(node);
        number.map(|number| self.listed_at(now, number)).unwrap_or_default()
    }
}
