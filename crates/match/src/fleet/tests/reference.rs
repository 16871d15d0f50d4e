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
    /// `besides` is free.
    pub(super) fn rows(&self, now: u64, besides: Option<AccountId>) -> Vec<Listing> {
        let mut rows = Vec::new();
        for known in self.known.iter().filter(|known| now - known.heard <= STALE_MS) {
            for (offer, free) in known.capability.containers.iter().zip(&known.free) {
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
        let mut rows = self.rows(now, None);
        if rows.iter().all(|row| !fails(row, query).is_empty()) {
            let besides = self.rows(now, Some(query.buyer));
            if besides.iter().any(|row| fails(row, query).is_empty()) {
                rows = besides;
            }
        }
        let fitting = || rows.iter().filter(|row| fails(row, query).is_empty());
        if fitting().next().is_none() {
            return Err(why_not(rows, query));
        }
        let point = draw(&mut (query.tie ^ 0x7469_6573)) >> 32;
        let cost = |row: &Listing| {
            let lacking = 10_000 - u64::from(row.online_bp.unwrap_or(0));
            row.container.price.hour().micros() + lacking
        };
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
    test(Filter::Price, row.container.price.hour() <= most);
    let least = needs.reliability_min_bp;
    test(Filter::Reliability, least == 0 || row.online_bp.is_some_and(|share| share >= least));
    test(Filter::Excluded, !query.exclude.contains(&row.addr.node));
    test(Filter::Free, row.free > 0);
    fails
}
