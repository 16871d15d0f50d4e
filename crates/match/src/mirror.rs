//! The fleet in the index: hosts, kinds and regions as numbers, brought up to date before a search.
//!
//! Whatever changes a host marks it; the passing of time is kept as one moment for each host. So a
//! search first writes what has changed since the last one, and only that.

use std::collections::{BTreeMap, BTreeSet};

use welkin_types::task::{GpuAsk, Needs};
use welkin_types::{AccountId, ContainerId, Gpu, NodeId, Region, UnixMillis};

use crate::filter::{Facts, has_gpus};
use crate::fleet::Fleet;
use crate::index::{ClassSet, Features, Index, PRICE_MAX, Row, RowId, SLOTS_MAX, ring_of};

/// A kind of hardware or a region that there is no number left for shares these with others like
/// it. The caller checks what is found, so they cost time only.
const OTHER_CLASS: u8 = 254;
const OTHER_LOCATION: u8 = 127;
/// The number of an operator or host that has none.
const NOBODY: u32 = u32::MAX;

/// What the index has of one host.
#[derive(Clone, Debug)]
struct Mirrored {
    announcement: u64,
    /// Whether it has a number; and the names of which it uses the numbers.
    is_numbered: bool,
    operator: Option<AccountId>,
    region: Option<Region>,
    rows: Vec<(RowId, Option<Kind>)>,
    due: Option<UnixMillis>,
}

/// The GPUs of a container, without the identities of devices.
type Kind = Vec<(String, String, u64)>;

/// The index and what its numbers mean.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) index: Index,
    hosts: BTreeMap<NodeId, Mirrored>,
    /// The container of each row.
    owners: Vec<Option<(NodeId, ContainerId)>>,
    marked: BTreeSet<NodeId>,
    due: BTreeSet<(UnixMillis, NodeId)>,
    host_numbers: Numbers<NodeId>,
    operators: Numbers<AccountId>,
    regions: Numbers<Region>,
    kinds: Numbers<Kind>,
}

impl Mirror {
    /// Something of this host has changed.
    pub(crate) fn mark(&mut self, node: NodeId) {
        self.marked.insert(node);
    }

    /// Brings the index up to date.
    pub(crate) fn refresh(&mut self, fleet: &Fleet, now: UnixMillis) {
        while let Some((due, node)) = self.due.first().copied()
            && due <= now
        {
            self.due.remove(&(due, node));
            self.marked.insert(node);
        }
        for node in std::mem::take(&mut self.marked) {
            self.write(fleet, now, node);
        }
    }

    /// The container of a row.
    pub(crate) fn owner(&self, row: RowId) -> Option<(NodeId, ContainerId)> {
        self.owners.get(row.number() as usize).copied().flatten()
    }

    /// Numbers of the hosts that are known.
    pub(crate) fn hosts(&self, nodes: &[NodeId]) -> Vec<u32> {
        nodes.iter().filter_map(|node| self.host_numbers.get(node)).collect()
    }

    /// Numbers of the operators that are known; never empty where `accounts` is not.
    pub(crate) fn operators(&self, accounts: &[AccountId]) -> Vec<u32> {
        accounts.iter().map(|account| self.operators.get(account).unwrap_or(NOBODY)).collect()
    }

    /// The kinds of hardware that are asked for, and perhaps others.
    pub(crate) fn classes(&self, ask: Option<&GpuAsk>) -> ClassSet {
        let Some(ask) = ask else { return ClassSet::ALL };
        let fits = self.kinds.iter().filter(|(kind, _)| {
            let gpus: Vec<_> = kind
                .iter()
                .map(|(model, form, vram_bytes)| Gpu {
                    model: model.clone(),
                    form: form.clone(),
                    vram_bytes: *vram_bytes,
                    uuid: String::new(),
                })
                .collect();
            has_gpus(&gpus, ask)
        });
        let fits = fits.filter_map(|(_, number)| u8::try_from(number).ok());
        fits.chain([OTHER_CLASS]).collect()
    }

    /// The regions that are asked for, and perhaps others.
    pub(crate) fn locations(&self, needs: &Needs) -> u128 {
        if needs.regions.is_empty() {
            return u128::MAX;
        }
        let known = needs.regions.iter().filter_map(|region| self.regions.get(region));
        known.fold(1 << OTHER_LOCATION, |set, number| set | 1 << number)
    }

    fn write(&mut self, fleet: &Fleet, now: UnixMillis, node: NodeId) {
        if let Some(due) = self.hosts.get_mut(&node).and_then(|host| host.due.take()) {
            self.due.remove(&(due, node));
        }
        let Some((announcement, facts)) = fleet.host_facts(now, node) else {
            self.forget(node);
            return;
        };
        let facts: Vec<_> = facts.collect();
        if self.hosts.get(&node).is_none_or(|host| host.announcement != announcement) {
            self.forget(node);
            self.announce(node, announcement, &facts);
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        for ((row, _), facts) in host.rows.iter().zip(&facts) {
            self.index.set_quality(*row, facts.online_bp.unwrap_or(0));
            self.index.beat(*row, now.0 / 1_000, free_of(facts));
        }
        host.due = fleet.next_change(now, node);
        self.due.extend(host.due.map(|due| (due, node)));
    }

    fn announce(&mut self, node: NodeId, announcement: u64, facts: &[Facts<'_>]) {
        let Some(first) = facts.first() else { return };
        let number = self.host_numbers.take(&node, NOBODY);
        let operator = self.operators.take(&first.operator, NOBODY);
        let location = self.regions.take(first.region, OTHER_LOCATION.into());
        let mut rows = Vec::with_capacity(facts.len());
        for facts in facts {
            let kind = kind_of(facts);
            let class = self.kinds.take(&kind, OTHER_CLASS.into());
            let kind = class.map(|_| kind);
            let small = |number: Option<u32>| number.and_then(|number| u8::try_from(number).ok());
            let row = Row {
                host: number.unwrap_or(NOBODY),
                operator: operator.unwrap_or(NOBODY),
                class: small(class).unwrap_or(OTHER_CLASS),
                location: small(location).unwrap_or(OTHER_LOCATION),
                ..row_of(facts)
            };
            // A row within bounds is refused only where the index is full.
            let Ok(row) = self.index.insert(&row) else {
                kind.iter().for_each(|kind| self.kinds.give_back(kind));
                break;
            };
            let place = row.number() as usize;
            if self.owners.len() <= place {
                self.owners.resize(place + 1, None);
            }
            self.owners[place] = Some((node, facts.container.id));
            rows.push((row, kind));
        }
        let host = Mirrored {
            announcement,
            is_numbered: number.is_some(),
            operator: operator.map(|_| first.operator),
            region: location.map(|_| first.region.clone()),
            rows,
            due: None,
        };
        self.hosts.insert(node, host);
    }

    fn forget(&mut self, node: NodeId) {
        let Some(host) = self.hosts.remove(&node) else { return };
        for (row, kind) in &host.rows {
            self.index.remove(*row);
            self.owners[row.number() as usize] = None;
            kind.iter().for_each(|kind| self.kinds.give_back(kind));
        }
        if host.is_numbered {
            self.host_numbers.give_back(&node);
        }
        host.operator.iter().for_each(|operator| self.operators.give_back(operator));
        host.region.iter().for_each(|region| self.regions.give_back(region));
        if let Some(due) = host.due {
            self.due.remove(&(due, node));
        }
    }
}

/// A container's own part of its row. Sizes are rounded down, as they are in a search.
fn row_of(facts: &Facts<'_>) -> Row {
    let container = facts.container;
    let has = &container.resources;
    Row {
        host: NOBODY,
        operator: NOBODY,
        class: OTHER_CLASS,
        location: OTHER_LOCATION,
        price: price_of(container.price.hour().micros()),
        quality: facts.online_bp.unwrap_or(0),
        free: 0,
        cpu: cpu_of(has.cpu_milli),
        memory: memory_of(has.memory_bytes),
        disk: disk_of(has.disk_bytes),
        features: Features::isolation(container.tier),
        ring: ring_of(&[facts.node.as_bytes(), container.id.as_bytes()]),
        apps: Vec::new(),
    }
}

fn kind_of(facts: &Facts<'_>) -> Kind {
    let gpus = facts.container.resources.gpus.iter();
    gpus.map(|gpu| (gpu.model.clone(), gpu.form.clone(), gpu.vram_bytes)).collect()
}

fn free_of(facts: &Facts<'_>) -> u16 {
    u16::try_from(facts.free).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
}

/// A price as the index counts, at most its highest.
pub(crate) fn price_of(micros: u64) -> u32 {
    u32::try_from(micros).unwrap_or(PRICE_MAX).min(PRICE_MAX)
}

/// Whole hundredths of a core.
pub(crate) fn cpu_of(milli: u32) -> u16 {
    u16::try_from(milli / 10).unwrap_or(u16::MAX)
}

/// Whole pages of 64 KiB.
pub(crate) fn memory_of(bytes: u64) -> u32 {
    u32::try_from(bytes >> 16).unwrap_or(u32::MAX)
}

/// Whole MiB.
pub(crate) fn disk_of(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// Small numbers for names, used again when nobody has the name.
#[derive(Clone, Debug)]
struct Numbers<K> {
    /// The number, and how often it is in use.
    known: BTreeMap<K, (u32, u32)>,
    vacant: Vec<u32>,
    next: u32,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), vacant: Vec::new(), next: 0 }
    }
}

impl<K: Ord + Clone> Numbers<K> {
    fn get(&self, name: &K) -> Option<u32> {
        self.known.get(name).map(|(number, _)| *number)
    }

    fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.known.iter().map(|(name, (number, _))| (name, *number))
    }

    /// The name's number, a new one if need be; none where all below `most` are in use.
    fn take(&mut self, name: &K, most: u32) -> Option<u32> {
        if let Some((number, uses)) = self.known.get_mut(name) {
            *uses += 1;
            return Some(*number);
        }
        let number = match self.vacant.pop() {
            Some(number) => number,
            None if self.next < most => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.known.insert(name.clone(), (number, 1));
        Some(number)
    }

    /// One use less.
    fn give_back(&mut self, name: &K) {
        let Some((number, uses)) = self.known.get_mut(name) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.vacant.push(*number);
            self.known.remove(name);
        }
    }
}
