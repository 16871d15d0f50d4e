//! Containers as the filters see them, and as rows of the market.

use welkin_proto::index::Listing;
use welkin_types::{AccountId, CapacityType, ContainerId, NodeId, UnixMillis};

use super::Fleet;
use super::hosts::{Container, Host};
use super::slab::NONE;
use crate::filter::Facts;
use crate::index::RowId;

impl Fleet {
    /// Every listed container as the filters see it, in no order that means anything.
    pub(crate) fn facts(
        &self,
        now: UnixMillis,
        way: CapacityType,
    ) -> impl Iterator<Item = Facts<'_>> {
        let numbers = 0..self.hosts.containers.end();
        numbers.filter_map(move |number| self.facts_of(now, number, (None, way)))
    }

    /// More than any container's number.
    pub(crate) fn numbers_end(&self) -> u32 {
        self.hosts.containers.end()
    }

    /// One container as the filters see it, if it is listed, with what is free when it is leased in
    /// this way. What is kept for `besides` counts as free.
    pub(crate) fn facts_of(
        &self,
        now: UnixMillis,
        number: u32,
        (besides, way): (Option<AccountId>, CapacityType),
    ) -> Option<Facts<'_>> {
        let container = self.hosts.containers.get(number)?;
        let host = self.hosts.hosts.get(container.host).filter(|host| host.is_listed(now))?;
        let (online_bp, checks) = self.score_of(now, container);
        Some(Facts {
            node: host.node,
            host: container.host,
            operator: *self.operators.name(host.operator)?,
            region: self.regions.name(host.region)?,
            container: self.hosts.offer(host, container)?,
            free: self.free(now, (host, container), (besides, way)),
            online_bp,
            checks,
            quality: self.quality(now, host, container),
            is_confirmed: !host.is_unconfirmed,
        })
    }

    /// A number that changes when something else is announced under a container's number, if it is
    /// listed. Whoever makes it collide makes its own price count wrongly and nothing else.
    pub(crate) fn print_of(&self, now: UnixMillis, number: u32) -> Option<u64> {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let container = self.hosts.containers.get(number)?;
        let host = self.hosts.hosts.get(container.host).filter(|host| host.is_listed(now))?;
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let names = word(host.node.as_bytes()) ^ word(container.id.as_bytes()).rotate_left(32);
        let announced = host.revision.wrapping_mul(ODD) ^ u64::from(container.at.0);
        Some(names.wrapping_mul(ODD) ^ announced)
    }

    /// Slots that are free of leases on demand, as the host says. What is kept for seconds counts
    /// as free: this is for counts that stand longer.
    pub(crate) fn unleased(&self, now: UnixMillis, number: u32) -> u32 {
        let Some(container) = self.hosts.containers.get(number) else { return 0 };
        let host = self.hosts.hosts.get(container.host).filter(|host| host.is_offered(now));
        host.map_or(0, |_| u32::from(container.free + container.spot_used))
    }

    /// The container of a row.
    pub(crate) fn owner(&self, row: RowId) -> Option<u32> {
        self.owners.get(row.number() as usize).copied().filter(|number| *number != NONE)
    }

    /// Whether the index says of a row what is so now.
    pub(crate) fn is_fresh(&self, now: UnixMillis, row: RowId) -> bool {
        let container = self.owner(row).and_then(|number| self.hosts.containers.get(number));
        container.is_some_and(|container| {
            let host = self.hosts.hosts.get(container.host);
            host.is_some_and(|host| {
                host.is_offered(now) && self.quality(now, host, container) == container.quality
            })
        })
    }

    /// The number of a container.
    pub(crate) fn place(&self, node: NodeId, id: ContainerId) -> Option<u32> {
        let host = self.hosts.hosts.get(self.hosts.number(node)?)?;
        self.hosts.container(host, id).map(|(number, _)| number)
    }

    /// The containers of which something is kept for a buyer.
    pub(crate) fn held_for(&self, now: UnixMillis, buyer: AccountId) -> Vec<u32> {
        let own = self.holds.of_buyer(now, buyer);
        let mut places: Vec<_> = own.filter_map(|(node, id)| self.place(node, id)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The container's row of the market.
    pub(crate) fn listing_of(&self, facts: Facts<'_>) -> Option<Listing> {
        Some(Listing {
            addr: self.hosts.addr(self.hosts.hosts.get(facts.host)?)?,
            operator: facts.operator,
            container: facts.container,
            region: facts.region.clone(),
            free: facts.free,
            is_confirmed: facts.is_confirmed,
            online_bp: facts.online_bp,
            checks: facts.checks,
        })
    }

    /// Slots that may be offered: none of a host that is not there, and none that is kept, unless
    /// for `besides`. What spot leases have is free for all but them, for they end then.
    pub(super) fn free(
        &self,
        now: UnixMillis,
        (host, container): (&Host, &Container),
        (besides, way): (Option<AccountId>, CapacityType),
    ) -> u32 {
        if !host.is_offered(now) {
            return 0;
        }
        let ending = match way {
            CapacityType::OnDemand | CapacityType::Reserved => container.spot_used,
            CapacityType::Spot => 0,
        };
        let free = u32::from(container.free + ending);
        if container.kept == 0 {
            return free;
        }
        let kept = self
            .holds
            .of(host.node, container.id)
            .filter(|hold| hold.expires > now && Some(hold.buyer) != besides);
        free.saturating_sub(u32::try_from(kept.count()).unwrap_or(u32::MAX))
    }

    /// The online score of a container and the number of checks.
    pub(super) fn score_of(&self, now: UnixMillis, container: &Container) -> (Option<u16>, u32) {
        let score = self.scores.get(container.score);
        score.map_or((container.online_bp, container.checks), |score| score.window(now))
    }
}
