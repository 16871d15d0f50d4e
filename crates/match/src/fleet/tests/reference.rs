//! A naive indexer: lists that are scanned, nothing kept that can be counted again.

use std::collections::BTreeSet;

use super::*;
use welkin_proto::index::{Nearest, WhyNot};

/// A host as it last said.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) capability: Capability,
    pub(super) operator: AccountId,
    pub(super) free: Vec<u32>,
    pub(super) spot_used: Vec<u32>,
    pub(super) sequence: Option<u64>,
    pub(super) is_draining: bool,
    pub(super) heard: u64,
    pub(super) has_left: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Reference {
    pub(super) known: Vec<Known>,
    pub(super) holds: Vec<(NodeId, Hold)>,
    pub(super) reports: Vec<Report>,
}

impl Reference {
    /// Every row, with what is free, in the order of host and container. What is kept for
    /// `besides` is free, and so is what spot leases have, but for them.
    pub(super) fn rows(
        &self,
        now: u64,
        besides: Option<AccountId>,
        way: CapacityType,
    ) -> Vec<Listing> {
        let mut rows = Vec::new();
        for known in self.known.iter().filter(|known| now - known.heard <= STALE_MS) {
            let said = known.free.iter().zip(&known.spot_used);
            for (offer, (free, used)) in known.capability.containers.iter().zip(said) {
                let free = free + if way == CapacityType::Spot { 0 } else { *used };
                let is_there = now - known.heard <= SILENT_MS && !known.has_left;
                let mut kept = self.kept(now, known.capability.addr.node, offer.id);
                kept.retain(|hold| Some(hold.buyer) != besides);
                let kept = kept.len();
                let free = free.saturating_sub(u32::try_from(kept).unwrap());
                let checks: Vec<_> = self
                    .reports
                    .iter()
                    .filter(|r| r.host == known.capability.addr.node && r.container == offer.id)
                    .filter(|r| r.minute + 1_440 > now / 60_000)
                    .map(|r| matches!(r.finding, Finding::Online { .. }))
                    .collect();
                let online = checks.iter().filter(|online| **online).count();
                let online_bp = (online * 10_000).checked_div(checks.len());
                rows.push(Listing {
                    addr: known.capability.addr.clone(),
                    operator: known.operator,
                    container: offer.clone(),
                    region: known.capability.region.clone(),
                    is_confirmed: true,
                    free: if is_there && !known.is_draining { free } else { 0 },
                    online_bp: online_bp.map(|share| u16::try_from(share).unwrap()),
                    checks: u32::try_from(checks.len()).unwrap(),
                });
            }
        }
        rows.sort_by_key(|row| (row.addr.node, row.container.id));
        rows
    }

    pub(super) fn kept(&self, now: u64, host: NodeId, container: ContainerId) -> Vec<Hold> {
        let kept = self.holds.iter().filter(|(node, hold)| {
            *node == host && hold.container == container && hold.expires.0 > now
        });
        kept.map(|(_, hold)| *hold).collect()
    }

    pub(super) fn find(&self, now: u64, query: &Query<'_>) -> Result<Vec<Listing>, WhyNot> {
        let way = query.needs.capacity;
        let mut rows = self.rows(now, None, way);
        if rows.iter().all(|row| !fails(row, query).is_empty()) {
            let besides = self.rows(now, Some(query.buyer), way);
            if besides.iter().any(|row| fails(row, query).is_empty()) {
                rows = besides;
            }
        }
        let fitting = || rows.iter().filter(|row| fails(row, query).is_empty());
        if fitting().next().is_none() {
            return Err(why_not(rows, query));
        }
        let point = draw(&mut (query.tie ^ 0x7469_6573)) >> 32;
        let cost = |row: &Listing| cost(row, query);
        let ring = |row: &Listing| {
            let mut state = 0x7765_6c6b_696e;
            for byte in row.addr.node.as_bytes().iter().chain(row.container.id.as_bytes()) {
                state = draw(&mut (state ^ u64::from(*byte)));
            }
            ((state >> 32) + (1 << 32) - point) % (1 << 32)
        };
        let count = usize::from(query.count.clamp(1, 16));
        let (mut picked, mut waiting, mut hosts) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut tie = query.tie;
        loop {
            let mut left: Vec<_> =
                fitting().filter(|row| !hosts.contains(&row.addr.node)).cloned().collect();
            left.sort_by_key(|row| (cost(row), ring(row)));
            let is_all = left.len() < count;
            let Some(near_max) = left.first().map(|best| cost(best) + cost(best) / 50) else {
                break;
            };
            let mut near = left.iter().filter(|row| cost(row) <= near_max).count().min(64);
            left.truncate(near.max(count));
            while picked.len() < count && !left.is_empty() {
                let mut place = 0;
                if near > 0 {
                    let [a, b] = [draw(&mut tie), draw(&mut tie)].map(|word| word % near as u64);
                    place = usize::try_from(a.min(b)).unwrap();
                    near -= 1;
                }
                let row = left.remove(place);
                if hosts.insert(row.addr.node) { &mut picked } else { &mut waiting }.push(row);
            }
            if is_all || picked.len() == count {
                break;
            }
        }
        picked.extend(waiting);
        picked.truncate(count);
        Ok(picked)
    }
}

/// Weights written out, by policy.
fn cost(row: &Listing, query: &Query<'_>) -> u64 {
    let (price, latency, quality, cold, fragment) = match query.needs.policy {
        Policy::Cheapest => (1, 0, 1, 0, 0),
        Policy::FastestStart => (1, 2_000, 100, 20_000_000, 0),
        Policy::Closest => (1, 10_000, 10, 0, 0),
        Policy::Best => (1, 800, 100, 150_000, 5_000),
    };
    let trip = query.round_trips_us.iter().find(|(region, _)| *region == row.region);
    let trip = trip.map_or(65_535, |(_, us)| u64::from(us / 100));
    let trip = if query.round_trips_us.is_empty() { 0 } else { trip };
    let is_cold = query.needs.app.is_some_and(|app| !row.container.apps.contains(&app));
    price * price_of(row, query).hour().micros()
        + latency * trip
        + quality * (10_000 - u64::from(row.online_bp.unwrap_or(0)))
        + cold * u64::from(is_cold)
        + fragment * u64::from(row.free.saturating_sub(1))
}

fn price_of(row: &Listing, query: &Query<'_>) -> Price {
    match query.needs.capacity {
        CapacityType::OnDemand => row.container.price,
        CapacityType::Spot => row.container.spot.map_or(row.container.price, |terms| terms.price),
        CapacityType::Reserved => {
            row.container.reserved.map_or(row.container.price, |terms| terms.price)
        }
    }
}

/// Sebastiano Vigna's `SplitMix64`.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn why_not(rows: Vec<Listing>, query: &Query<'_>) -> WhyNot {
    let mut removed: Vec<(Filter, u32)> = Vec::new();
    for row in &rows {
        let first = fails(row, query)[0];
        match removed.iter_mut().find(|(filter, _)| *filter == first) {
            Some((_, count)) => *count += 1,
            None => removed.push((first, 1)),
        }
    }
    removed.sort_unstable();
    let containers = u32::try_from(rows.len()).unwrap();
    let mut nearest: Vec<_> = rows
        .into_iter()
        .map(|listing| Nearest { fails: fails(&listing, query), listing })
        .collect();
    nearest.sort_by_key(|near| (near.fails.len(), near.listing.container.price));
    nearest.truncate(3);
    WhyNot { containers, removed, nearest }
}

/// Written out, one test after the other.
fn fails(row: &Listing, query: &Query<'_>) -> Vec<Filter> {
    let (needs, has) = (query.needs, &row.container.resources);
    let mut fails = Vec::new();
    let mut test = |filter: Filter, is_passed: bool| {
        if !is_passed {
            fails.push(filter);
        }
    };
    let gpu = match &needs.gpu {
        None => true,
        Some(ask) => {
            let count = u16::try_from(has.gpus.len()).unwrap();
            count >= ask.count.min
                && count <= ask.count.max.unwrap_or(u16::MAX)
                && has.gpus.iter().filter(|gpu| ask.accepts(gpu)).count() == has.gpus.len()
        }
    };
    test(Filter::Gpu, gpu);
    test(Filter::Cpu, needs.cpu_milli_min <= has.cpu_milli);
    test(Filter::Memory, needs.memory_bytes_min <= has.memory_bytes);
    test(Filter::Disk, needs.disk_bytes_min <= has.disk_bytes);
    let tier = row.container.tier;
    test(Filter::Isolation, tier >= Tier::Container && tier >= needs.isolation_min);
    test(Filter::Region, needs.regions.is_empty() || needs.regions.contains(&row.region));
    let is_allowed =
        needs.operators_allow.is_empty() || needs.operators_allow.contains(&row.operator);
    test(Filter::Operator, is_allowed && !needs.operators_deny.contains(&row.operator));
    let most = needs.max_per_hour.unwrap_or(Usd::MAX);
    test(Filter::Price, price_of(row, query).hour() <= most);
    let least = needs.reliability_min_bp;
    test(Filter::Reliability, least == 0 || row.online_bp.is_some_and(|share| share >= least));
    for_terms(row, query, &mut test);
    test(Filter::Excluded, !query.exclude.contains(&row.addr.node));
    test(Filter::Free, row.free > 0);
    fails
}

fn for_terms(row: &Listing, query: &Query<'_>, test: &mut impl FnMut(Filter, bool)) {
    let (needs, container) = (query.needs, &row.container);
    let lacks = |feature: &&Feature| !container.features.iter().any(|other| other == *feature);
    test(Filter::Feature, needs.features.iter().find(lacks).is_none());
    let driver = needs.driver_min.unwrap_or(0);
    test(Filter::Driver, driver == 0 || container.driver.is_some_and(|has| has >= driver));
    let trip = query.round_trips_us.iter().find(|(region, _)| *region == row.region);
    let is_near = |most| trip.is_some_and(|(_, us)| *us <= most);
    test(Filter::RoundTrip, needs.rtt_us_max.is_none_or(is_near));
    let is_offered = match needs.capacity {
        CapacityType::OnDemand => true,
        CapacityType::Spot => container.spot.is_some(),
        CapacityType::Reserved => container.reserved.is_some(),
    };
    test(Filter::Capacity, is_offered);
    let is_ready = needs.app.is_some_and(|app| container.apps.contains(&app));
    test(Filter::App, !needs.is_app_required || is_ready);
}
