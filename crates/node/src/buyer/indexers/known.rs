//! In which order indexers are asked, and how they are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use welkin_match::latency;
use welkin_match::regions::{RegionView, view};
use welkin_match::trust::{Standing, draw, standing};
use welkin_proto::NodeAddr;
use welkin_proto::gossip::{Reported, Tally};
use welkin_proto::index::WhyNot;
use welkin_types::evidence::Ppm;
use welkin_types::{AccountId, NodeId, Region};

use super::{Indexers, State, locked};
use crate::outside;

/// Regions whose round trip is measured at a time.
const PROBED_MAX: usize = 6;
/// How long measuring may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// A measurement serves for so long.
const PROBE_EVERY: Duration = Duration::from_secs(10 * 60);

/// An indexer, as this account sees it.
#[derive(Clone, Debug, Serialize)]
pub struct KnownIndexer {
    /// Which.
    pub node: NodeId,
    /// The ways to it.
    #[serde(serialize_with = "as_text")]
    pub addr: NodeAddr,
    /// The part of the world that it serves, where its card is known.
    pub region: Option<Region>,
    /// Who runs it.
    pub operator: Option<AccountId>,
    /// Its share of the questions that it would get in its region, in millionths.
    pub share_ppm: u32,
    /// Its weight, in millionths.
    pub weight_ppm: u32,
    /// What share of its offers is good for certain, in millionths.
    pub offers_good_ppm: u32,
    /// Offers that count, in thousandths.
    pub offers_milli: u64,
    /// Receipts of its choices that recompute, as long as this account remembers.
    pub receipts_proved: u32,
    /// Those that don't.
    pub receipts_disproved: u32,
    /// What lowered its weight, the worst first.
    pub why: Vec<&'static str>,
    /// The round trip to its region in microseconds, measured or by distance.
    pub rtt_us: Option<u32>,
    /// Slots that are free in its region, by the middle of what its indexers say.
    pub free: Option<u64>,
}

/// Adds what another region's indexer says to what the first one said.
pub(in crate::buyer) fn add(first: &mut WhyNot, other: WhyNot) {
    const NEAREST_MAX: usize = 3;
    first.containers = first.containers.saturating_add(other.containers);
    for (filter, count) in other.removed {
        match first.removed.iter_mut().find(|(known, _)| *known == filter) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => first.removed.push((filter, count)),
        }
    }
    first.removed.sort_by_key(|(filter, _)| *filter);
    first.nearest.extend(other.nearest);
    first.nearest.truncate(NEAREST_MAX);
}

fn as_text<S: serde::Serializer>(addr: &NodeAddr, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(addr)
}

/// The indexers of each region, in the order of the regions, and at the end all others: those of which
/// no card is known yet, and those whose card has come since the regions were looked at.
fn by_group(
    all: &BTreeMap<NodeId, (NodeAddr, Option<Region>)>,
    order: &[Region],
) -> Vec<Vec<NodeId>> {
    let mut groups = vec![Vec::new(); order.len() + 1];
    for (node, (_, region)) in all {
        let place = order.iter().position(|known| Some(known) == region.as_ref());
        groups[place.unwrap_or(order.len())].push(*node);
    }
    groups
}

impl State {
    /// What others report of an indexer; what it and its operator's say of it counts nothing.
    fn reported_of(&self, indexer: NodeId) -> Vec<Reported> {
        let operator = |node: &NodeId| self.cards.get(node).map(|carded| carded.operator);
        let own = operator(&indexer);
        let others = self
            .reported
            .iter()
            .filter(|(from, _)| **from != indexer && (own.is_none() || operator(from) != own));
        let about = others.flat_map(|(_, said)| said.iter());
        about.filter(|said| said.indexer == indexer).copied().collect()
    }

    /// Receipts of an indexer that this account has computed again: those that hold, and others.
    fn receipts(&self, indexer: NodeId) -> (u32, u32) {
        let sum = |sum: (u32, u32), tally: &Tally| {
            (sum.0.saturating_add(tally.proved), sum.1.saturating_add(tally.disproved))
        };
        self.ledger.hours_of(indexer).map(|(_, tally)| tally).fold((0, 0), sum)
    }

    fn standing(&self, indexer: NodeId) -> Standing {
        standing(&self.ledger, &self.reported_of(indexer), indexer, outside::now())
    }
}

impl Indexers {
    /// All that can be asked: those with cards, and those that the network's file names.
    fn all(&self, state: &State) -> BTreeMap<NodeId, (NodeAddr, Option<Region>)> {
        let named = self.seeds.iter().map(|seed| (seed.node, (seed.clone(), None)));
        let carded = state.cards.iter().map(|(node, carded)| {
            (*node, (carded.card.addr.clone(), Some(carded.card.region.clone())))
        });
        named.chain(carded).collect()
    }

    /// The round trip to a region: as measured, else by distance from where this buyer stands.
    pub(in crate::buyer) fn rtt(&self, region: &Region) -> Option<u32> {
        let measured = locked(&self.state).round_trips.get(region).map(|rtt| rtt.mean_us);
        measured.or_else(|| latency::default_rtt(&self.here()?, region))
    }

    /// Round trips to regions: as they were measured, else by distance from where this buyer stands.
    pub(in crate::buyer) fn round_trips(&self) -> Vec<(Region, u32)> {
        let measured: BTreeMap<Region, u32> = {
            let state = locked(&self.state);
            let all = state.round_trips.iter();
            all.map(|(region, rtt)| (region.clone(), rtt.mean_us)).collect()
        };
        let here = self.here();
        let named = latency::regions().filter_map(|name| name.parse::<Region>().ok());
        let others = named.filter(|region| !measured.contains_key(region));
        let by_distance: Vec<_> = others
            .filter_map(|to| latency::default_rtt(here.as_ref()?, &to).map(|rtt| (to, rtt)))
            .collect();
        let all = measured.into_iter().chain(by_distance);
        all.take(welkin_proto::index::ROUND_TRIPS_MAX).collect()
    }

    /// Measures the way to the nearest regions, all at once, as far as that was not done lately:
    /// a connection to one indexer of each.
    pub(in crate::buyer) async fn probe(&self) {
        let now = outside::now();
        let nodes: Vec<_> = {
            let state = locked(&self.state);
            let is_fresh = |region: &Region| {
                let known = state.round_trips.get(region);
                known.is_some_and(|rtt| now.since(rtt.at) < PROBE_EVERY)
            };
            let mut by_region: BTreeMap<&Region, &NodeAddr> = BTreeMap::new();
            for carded in state.cards.values().filter(|carded| !is_fresh(&carded.card.region)) {
                by_region.entry(&carded.card.region).or_insert(&carded.card.addr);
            }
            let addr = |region: &Region| by_region.get(region).map(|addr| (*addr).clone());
            let here = self.here();
            let rtt = |to: &Region| latency::default_rtt(here.as_ref()?, to);
            let nearest = latency::nearest(by_region.keys().copied(), rtt);
            nearest.iter().take(PROBED_MAX).filter_map(|(region, _)| addr(region)).collect()
        };
        let mut probes = JoinSet::new();
        for addr in nodes {
            let caller = self.caller(&addr);
            probes.spawn(async move { caller.connection().await.ok().map(|_| addr.node) });
        }
        let all = async {
            while let Some(probed) = probes.join_next().await {
                if let Ok(Some(node)) = probed {
                    self.measure(node);
                }
            }
        };
        // What has not answered by then is far or gone; neither is wanted.
        let _ = tokio::time::timeout(PROBE_TIMEOUT, all).await;
    }

    /// The regions that some indexer serves.
    pub(in crate::buyer) fn regions(&self) -> BTreeSet<Region> {
        let state = locked(&self.state);
        state.cards.values().map(|carded| carded.card.region.clone()).collect()
    }

    /// What regions have, by what their indexers say.
    pub(in crate::buyer) fn views(&self) -> BTreeMap<Region, RegionView> {
        view(locked(&self.state).summaries.values())
    }

    /// In which order to ask: region by region, within one by weight. The wanted regions come
    /// first, then the nearest; those that say that nothing is free come last. Indexers of which
    /// no card is known yet are of the first group.
    pub(in crate::buyer) fn order(&self, wanted: &[Region]) -> Vec<Vec<NodeAddr>> {
        let views = self.views();
        let regions: Vec<_> = self.regions().into_iter().collect();
        let mut order: Vec<Region> = latency::nearest(regions.iter(), |to| self.rtt(to))
            .into_iter()
            .map(|(region, _)| region)
            .collect();
        let is_empty = |region: &Region| views.get(region).is_some_and(|view| view.free() == 0);
        order.sort_by_key(|region| (!wanted.contains(region), is_empty(region)));
        let state = locked(&self.state);
        let all = self.all(&state);
        let mut groups = Vec::new();
        for of_it in by_group(&all, &order) {
            let weighed = of_it.into_iter().map(|node| (node, state.standing(node).weight));
            let drawn = draw(weighed.collect(), u64::from_le_bytes(outside::random()));
            let addrs = drawn.iter().filter_map(|node| all.get(node)).map(|(addr, _)| addr.clone());
            groups.push(addrs.collect::<Vec<_>>());
        }
        let unknown = groups.pop().unwrap_or_default();
        match groups.first_mut() {
            Some(first) => first.extend(unknown),
            None => groups.push(unknown),
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// The groups of an order, those first whose region has the cheapest free container.
    pub(in crate::buyer) fn cheapest_first(
        &self,
        mut groups: Vec<Vec<NodeAddr>>,
    ) -> Vec<Vec<NodeAddr>> {
        let views = self.views();
        let state = locked(&self.state);
        groups.sort_by_cached_key(|group| {
            let card = group.first().and_then(|addr| state.cards.get(&addr.node));
            let view = card.and_then(|carded| views.get(&carded.card.region));
            let price = view.and_then(RegionView::cheapest);
            (price.is_none(), price)
        });
        groups
    }

    /// All indexers as this account sees them, by region, the best first.
    pub(in crate::buyer) fn list(&self) -> Vec<KnownIndexer> {
        let views = self.views();
        let rows: Vec<_> = {
            let state = locked(&self.state);
            let all = self.all(&state);
            all.into_iter()
                .map(|(node, (addr, region))| {
                    let operator = state.cards.get(&node).map(|carded| carded.operator);
                    (node, addr, region, operator, state.standing(node), state.receipts(node))
                })
                .collect()
        };
        let mut sums: BTreeMap<Option<Region>, u64> = BTreeMap::new();
        for (_, _, region, _, standing, _) in &rows {
            *sums.entry(region.clone()).or_default() += u64::from(standing.weight.ppm());
        }
        let mut list: Vec<_> = rows
            .into_iter()
            .map(|(node, addr, region, operator, standing, receipts)| KnownIndexer {
                node,
                addr,
                share_ppm: Ppm::of(
                    standing.weight.ppm().into(),
                    sums.get(&region).copied().unwrap_or(0),
                )
                .ppm(),
                weight_ppm: standing.weight.ppm(),
                offers_good_ppm: standing.offers.ppm(),
                offers_milli: standing.offers_milli,
                receipts_proved: receipts.0,
                receipts_disproved: receipts.1,
                why: standing.marks.iter().map(|mark| mark.as_str()).collect(),
                rtt_us: region.as_ref().and_then(|region| self.rtt(region)),
                free: region.as_ref().and_then(|region| views.get(region)).map(RegionView::free),
                region,
                operator,
            })
            .collect();
        list.sort_by(|a, b| {
            (&a.region, b.weight_ppm, a.node).cmp(&(&b.region, a.weight_ppm, b.node))
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indexer_is_asked_also_where_its_card_came_after_its_region_was_looked_for() {
        let node = |n| NodeId::from_bytes([n; 32]);
        let addr = |n| NodeAddr { node: node(n), relay: None, direct: Vec::new() };
        let region = |name: &str| name.parse::<Region>().unwrap();
        let (here, there) = (region("kr-seoul"), region("jp-tokyo"));
        let of = |n, region| (node(n), (addr(n), region));
        let all =
            BTreeMap::from([of(1, Some(there.clone())), of(2, None), of(3, Some(here.clone()))]);
        let others = |order: &[Region]| by_group(&all, order).pop().unwrap();
        assert_eq!(others(&[]), [node(1), node(2), node(3)]);
        assert_eq!(others(std::slice::from_ref(&here)), [node(1), node(2)]);
        assert_eq!(by_group(&all, &[here, there]), [[node(3)], [node(1)], [node(2)]]);
    }
}
