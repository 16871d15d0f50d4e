//! What is known of hosts as blocks of bytes, for a snapshot and for a log.
//!
//! A snapshot is written in small parts while the fleet goes on changing: each part is complete in
//! itself, and what was announced meanwhile stands in the log as well. Heartbeats are not logged.

use std::collections::BTreeMap;

use welkin_proto::encode;
use welkin_types::{AccountId, AppId, NodeId, Region, UnixMillis};

use super::block::{self, put_bytes};
use super::hosts::{self, Container, Host};
use super::slab::NONE;
use super::{Fleet, block::Kind};
use crate::index::RowId;

/// So many hosts are written at once.
const HOSTS_AT_ONCE: u32 = 256;
/// So many scores are written at once.
const SCORES_AT_ONCE: u32 = 512;

pub(super) const DRAINING: u8 = 1;
pub(super) const LEFT: u8 = 2;

/// Names that the hosts of a block use, by their places here.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Names {
    pub(super) operators: Vec<AccountId>,
    pub(super) regions: Vec<Region>,
    pub(super) kinds: Vec<hosts::Kind>,
    pub(super) apps: Vec<AppId>,
}

/// The places of numbers in [`Names`].
#[derive(Debug, Default)]
struct Places {
    names: Names,
    operators: BTreeMap<u32, u32>,
    regions: BTreeMap<u32, u32>,
    kinds: BTreeMap<u32, u32>,
    apps: BTreeMap<u32, u32>,
}

/// The place of a number, a new one if it has none.
fn place_of<K: Clone>(
    places: &mut BTreeMap<u32, u32>,
    names: &mut Vec<K>,
    (number, name): (u32, Option<&K>),
) -> u32 {
    let (Some(name), next) = (name, u32::try_from(names.len()).unwrap_or(NONE)) else {
        return NONE;
    };
    *places.entry(number).or_insert_with(|| {
        names.push(name.clone());
        next
    })
}

impl Fleet {
    /// Appends a block with the hosts from number `from` on; returns where the next one begins, if
    /// there are more.
    pub fn dump_hosts(&self, now: UnixMillis, from: u32, out: &mut Vec<u8>) -> Option<u32> {
        let end = from.saturating_add(HOSTS_AT_ONCE).min(self.hosts.hosts.end());
        self.dump_range(now, from..end, out);
        (end < self.hosts.hosts.end()).then_some(end)
    }

    /// Appends a block with one host, if it is known: what a log says of an announcement.
    pub fn dump_host(&self, now: UnixMillis, node: NodeId, out: &mut Vec<u8>) {
        if let Some(number) = self.hosts.number(node) {
            self.dump_range(now, number..number + 1, out);
        }
    }

    /// Appends a block that says that a host has left.
    pub fn dump_leave(&self, now: UnixMillis, node: NodeId, out: &mut Vec<u8>) {
        let Some(host) = self.hosts.number(node).and_then(|number| self.hosts.hosts.get(number))
        else {
            return;
        };
        let mut body = node.as_bytes().to_vec();
        body.extend(host.issued.0.to_le_bytes());
        block::append(out, Kind::Left, now, &body);
    }

    /// Appends a block with the scores from number `from` on; returns where the next one begins, if
    /// there are more.
    pub fn dump_scores(&self, now: UnixMillis, from: u32, out: &mut Vec<u8>) -> Option<u32> {
        let end = from.saturating_add(SCORES_AT_ONCE).min(self.scores.slab.end());
        let mut body = Vec::new();
        for scored in (from..end).filter_map(|number| self.scores.slab.get(number)) {
            body.extend(scored.node.as_bytes());
            body.extend(scored.container.as_bytes());
            let runs: Vec<_> = scored.score.entries().collect();
            body.extend(u16::try_from(runs.len()).unwrap_or(u16::MAX).to_le_bytes());
            for run in runs.into_iter().take(u16::MAX.into()) {
                body.extend(run.from.to_le_bytes());
                body.extend(run.len.to_le_bytes());
                body.extend([run.online, run.checks]);
            }
        }
        if !body.is_empty() {
            block::append(out, Kind::Scores, now, &body);
        }
        (end < self.scores.slab.end()).then_some(end)
    }

    fn dump_range(&self, now: UnixMillis, range: std::ops::Range<u32>, out: &mut Vec<u8>) {
        let mut places = Places::default();
        let (mut hosts, mut words) = (Vec::new(), Vec::new());
        let mut count = 0_u32;
        for host in range.filter_map(|number| self.hosts.hosts.get(number)) {
            if !host.is_listed(now) {
                continue;
            }
            count += 1;
            self.dump_one(now, host, &mut places, &mut hosts);
            words.extend_from_slice(self.hosts.words(host));
        }
        if count == 0 {
            return;
        }
        // Names of a few hundred hosts fit into a frame.
        let Ok(names) = encode(&places.names) else { return };
        let mut body = Vec::with_capacity(names.len() + hosts.len() + words.len() + 16);
        put_bytes(&mut body, &words);
        put_bytes(&mut body, &names);
        body.extend(count.to_le_bytes());
        put_bytes(&mut body, &hosts);
        block::append(out, Kind::Hosts, now, &body);
    }

    fn dump_one(&self, now: UnixMillis, host: &Host, places: &mut Places, out: &mut Vec<u8>) {
        let name = (host.operator, self.operators.name(host.operator));
        let operator = place_of(&mut places.operators, &mut places.names.operators, name);
        let name = (host.region, self.regions.name(host.region));
        let region = place_of(&mut places.regions, &mut places.names.regions, name);
        let age = u32::try_from(now.0.saturating_sub(host.heard.0)).unwrap_or(u32::MAX);
        let flags =
            if host.is_draining { DRAINING } else { 0 } | if host.has_left { LEFT } else { 0 };
        let containers: Vec<_> = self.hosts.of(host).map(|(_, container)| container).collect();
        out.extend(host.node.as_bytes());
        for number in [operator, region, age] {
            out.extend(number.to_le_bytes());
        }
        for number in [host.revision, host.issued.0, host.expires.0] {
            out.extend(number.to_le_bytes());
        }
        out.extend([flags, u8::try_from(containers.len()).unwrap_or(u8::MAX)]);
        let words = u32::try_from(self.hosts.words(host).len()).unwrap_or(NONE);
        out.extend(words.to_le_bytes());
        for container in containers {
            self.dump_container(now, container, places, out);
        }
    }

    fn dump_container(
        &self,
        now: UnixMillis,
        container: &Container,
        places: &mut Places,
        out: &mut Vec<u8>,
    ) {
        let name = (container.kind, self.kinds.name(container.kind));
        let kind = place_of(&mut places.kinds, &mut places.names.kinds, name);
        let (online, checks) = self.score_of(now, container);
        out.extend(container.id.as_bytes());
        for number in [kind, container.at.0, container.at.1, checks] {
            out.extend(number.to_le_bytes());
        }
        let online = online.unwrap_or(u16::MAX);
        for number in [container.slots, container.free, container.spot_used, online] {
            out.extend(number.to_le_bytes());
        }
        let rows = container.rows.map(|row| self.index.row(RowId(row)));
        for row in &rows {
            out.extend(row.as_ref().map_or(NONE, |row| row.price).to_le_bytes());
        }
        if let Some(row) = rows.into_iter().flatten().next() {
            out.push(1);
            out.extend(row.cpu.to_le_bytes());
            for number in [row.memory, row.disk, row.features.0, row.ring] {
                out.extend(number.to_le_bytes());
            }
        } else {
            out.push(0);
        }
        let apps = container.apps.as_deref().unwrap_or_default();
        out.push(u8::try_from(apps.len()).unwrap_or(u8::MAX));
        for app in apps.iter().take(u8::MAX.into()) {
            let name = (*app, self.apps.name(*app));
            let place = place_of(&mut places.apps, &mut places.names.apps, name);
            out.extend(place.to_le_bytes());
        }
    }
}
