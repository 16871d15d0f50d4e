//! The same answers by a plain scan of everything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::spread::Stream;

/// Containers by number, with what is free besides holds.
pub(super) type Rows = BTreeMap<u32, Row>;

pub(super) fn fits(row: &Row, search: &Search<'_>) -> bool {
    let latency = match search.latency {
        [] => 0,
        known => known.get(usize::from(row.location)).copied().unwrap_or(u16::MAX),
    };
    let bit = |features: Features, bit: u32| features.0 & (1 << bit) != 0;
    row.free >= search.slots
        && search.classes.contains(row.class)
        && row.cpu >= search.cpu
        && row.memory >= search.memory
        && row.disk >= search.disk
        && row.price <= search.price_max
        && row.quality >= search.quality_min
        && (0..26).all(|number| bit(row.features, number) || !bit(search.features, number))
        && row.features.0 >> 26 >= search.features.0 >> 26
        && search.locations & (1 << row.location) != 0
        && latency <= search.latency_max
        && (search.operators_allow.is_empty() || search.operators_allow.contains(&row.operator))
        && !search.operators_deny.contains(&row.operator)
        && !search.hosts_exclude.contains(&row.host)
        && (!search.is_app_required || row.apps.contains(&search.app.unwrap()))
}

pub(super) fn cost(row: &Row, search: &Search<'_>) -> u64 {
    let w = &search.weights;
    let latency = search.latency.get(usize::from(row.location)).copied();
    let latency = latency.unwrap_or(if search.latency.is_empty() { 0 } else { u16::MAX });
    let is_cold = search.app.is_some_and(|app| !row.apps.contains(&app));
    let products = [
        (w.price, u64::from(row.price)),
        (w.latency, latency.into()),
        (w.quality, u64::from(10_000 - row.quality)),
        (w.cold, u64::from(is_cold)),
        (w.fragment, u64::from(row.free - search.slots)),
    ];
    products.iter().map(|(weight, number)| u64::from(*weight) * number).sum()
}

/// What is chosen, and what it costs.
pub(super) fn find(rows: &Rows, search: &Search<'_>) -> Vec<(u32, u64)> {
    let count = usize::from(search.count);
    let (mut drawn, mut waiting, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut stream = Stream::new(search.request);
    loop {
        let mut list: Vec<_> = rows
            .iter()
            .filter(|(_, row)| fits(row, search) && !used.contains(&row.host))
            .map(|(id, row)| (cost(row, search), row.ring.wrapping_sub(search.point()), *id))
            .collect();
        list.sort_unstable();
        let is_all = list.len() < count;
        let Some((best, ..)) = list.first().copied() else { break };
        let near_max = best + best * u64::from(search.slack) / 10_000;
        let mut near: Vec<_> = list.iter().copied().take_while(|c| c.0 <= near_max).collect();
        near.truncate(search.width.into());
        let mut far = list.split_off(near.len());
        far.truncate(count.saturating_sub(near.len()));
        far.sort_by_key(|candidate| Reverse(*candidate));
        while drawn.len() < count {
            let (cost, _, id) = if near.is_empty() {
                let Some(next) = far.pop() else { break };
                next
            } else {
                let [a, b] = [(); 2].map(|()| stream.word() % near.len() as u64);
                near.remove(usize::try_from(a.min(b)).unwrap())
            };
            let is_new = used.insert(rows[&id].host);
            if is_new { &mut drawn } else { &mut waiting }.push((id, cost));
        }
        if is_all || drawn.len() == count {
            break;
        }
    }
    drawn.extend(waiting);
    drawn.truncate(count);
    drawn
}
