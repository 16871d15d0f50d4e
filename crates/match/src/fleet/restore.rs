//! Takes in what was known before a restart.
//!
//! It is a help, not the truth: whoever is taken in is unconfirmed until its host is heard, counts a
//! little less until then, and falls silent like any other that does not beat.

use welkin_proto::{Capability, ContainerOffer, decode};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::block::{Block, Kind as What, Reader};
use super::dump::{DRAINING, LEFT, Names};
use super::hosts::{Container, Host, Kind, Page, WAYS, Words};
use super::rows::{CAPACITIES, app_of, class_of, location_of};
use super::slab::NONE;
use super::{CONTAINERS_MAX, Fleet, HOSTS_MAX, SCORES_MAX, rows};
use crate::index::{Features, Index, PRICE_MAX, QUALITY_MAX, Row, RowId};
use crate::score::{Run, Score};

/// The numbers of a block's names, each in use once for as long as the block is read.
struct Numbers {
    operators: Vec<u32>,
    regions: Vec<u32>,
    kinds: Vec<u32>,
    apps: Vec<u32>,
}

/// Rows that are put into the index together at the end, with the container of each.
type Rows = Vec<(Row, u32, usize)>;

impl Fleet {
    /// A fleet from the blocks of a snapshot, in which no host comes twice. A block that can't be
    /// read is left out. `most` says for how many hosts there is to be room.
    pub fn restore<'a>(
        now: UnixMillis,
        seed: u64,
        most: usize,
        blocks: impl Iterator<Item = Block<'a>>,
    ) -> Self {
        let mut fleet = Self::new(seed);
        let most = most.min(HOSTS_MAX);
        fleet.hosts.reserve(most);
        let mut rows = Vec::with_capacity(most);
        for block in blocks {
            if block.kind == What::Hosts {
                fleet.take_hosts(now, block, &mut rows);
            }
        }
        fleet.insert_all(rows);
        fleet
    }

    /// Takes in a further block: of a log, or of scores. Returns whether it could be read.
    pub fn take_up(&mut self, now: UnixMillis, block: Block<'_>) -> bool {
        match block.kind {
            What::Hosts => {
                let mut rows = Vec::new();
                let is_read = self.take_hosts(now, block, &mut rows).is_some();
                for (row, container, way) in rows {
                    if let Ok(row) = self.index.insert(&row) {
                        self.place_row(row, container, way);
                    }
                }
                is_read
            }
            What::Left => self.take_leave(block).is_some(),
            What::Scores => self.take_scores(now, block).is_some(),
        }
    }

    fn insert_all(&mut self, rows: Rows) {
        let places: Vec<_> = rows.iter().map(|(_, container, way)| (*container, *way)).collect();
        // Every row is within bounds, and there is room for all.
        let Ok(index) = Index::build(rows.into_iter().map(|(row, ..)| row)) else { return };
        self.index = index;
        self.owners.reserve(places.len());
        for (number, (container, way)) in (0_u32..).zip(places) {
            self.place_row(RowId(number), container, way);
        }
    }

    fn place_row(&mut self, row: RowId, container: u32, way: usize) {
        self.own_row(row, container);
        if let Some(container) = self.hosts.containers.get_mut(container) {
            container.rows[way] = row.number();
        }
    }

    fn take_hosts(&mut self, now: UnixMillis, block: Block<'_>, rows: &mut Rows) -> Option<()> {
        let mut reader = Reader(block.body);
        let names: Names = decode(reader.bytes()?).ok()?;
        let count = reader.u32()?;
        let (mut hosts, words) = (Reader(reader.bytes()?), reader.bytes()?);
        let numbers = self.take_names(&names);
        let page = Page { bytes: words.into(), used: 1 };
        let page = self.hosts.pages.insert(page);
        let mut at = 0;
        let mut is_read = Some(());
        for _ in 0..count {
            is_read = self.take_host(now, (&mut hosts, &numbers), (page, &mut at, words), rows);
            if is_read.is_none() {
                break;
            }
        }
        self.give_back_names(&numbers);
        self.hosts.drop_words(&Words::Page { page, at: 0, len: 0 });
        is_read
    }

    fn take_names(&mut self, names: &Names) -> Numbers {
        let kinds = names.kinds.iter().map(|gpus| self.kinds.take(&Kind(gpus.clone())));
        Numbers {
            operators: names.operators.iter().map(|name| self.operators.take(name)).collect(),
            regions: names.regions.iter().map(|name| self.regions.take(name)).collect(),
            kinds: kinds.collect(),
            apps: names.apps.iter().map(|name| self.apps.take(name)).collect(),
        }
    }

    fn give_back_names(&mut self, numbers: &Numbers) {
        numbers.operators.iter().for_each(|number| self.operators.give_back(*number));
        numbers.regions.iter().for_each(|number| self.regions.give_back(*number));
        numbers.kinds.iter().for_each(|number| self.kinds.give_back(*number));
        numbers.apps.iter().for_each(|number| self.apps.give_back(*number));
    }

    fn take_host(
        &mut self,
        now: UnixMillis,
        (reader, numbers): (&mut Reader<'_>, &Numbers),
        (page, at, words): (u32, &mut u32, &[u8]),
        rows: &mut Rows,
    ) -> Option<()> {
        let node = NodeId::from_bytes(reader.take()?);
        let operator = *numbers.operators.get(reader.u32()? as usize)?;
        let region = *numbers.regions.get(reader.u32()? as usize)?;
        let age = reader.u32()?;
        let (revision, issued) = (reader.u64()?, UnixMillis(reader.u64()?));
        let expires = UnixMillis(reader.u64()?);
        let (flags, count, len) = (reader.u8()?, reader.u8()?, reader.u32()?);
        let words_at = *at;
        *at = at.checked_add(len)?;
        if *at as usize > words.len() || usize::from(count) > Capability::CONTAINERS_MAX {
            return None;
        }
        let host = Host {
            node,
            operator,
            region,
            revision,
            issued,
            expires,
            sequence: None,
            heard: UnixMillis(now.0.saturating_sub(age.into())),
            due: u64::MAX,
            first: NONE,
            is_draining: flags & DRAINING != 0,
            has_left: flags & LEFT != 0,
            is_unconfirmed: true,
            words: Words::Page { page, at: words_at, len },
        };
        let is_wanted = self.make_way(&host);
        let number = if is_wanted { self.add_host(host) } else { NONE };
        let (mut first, rows_before, mut is_read) = (NONE, rows.len(), Some(()));
        for _ in 0..count {
            match self.take_container((reader, numbers), (number, first), len, rows) {
                Some(taken) => first = taken,
                None => {
                    is_read = None;
                    break;
                }
            }
        }
        if let Some(host) = self.hosts.hosts.get_mut(number) {
            host.first = first;
            self.arm(now, number);
        }
        if is_read.is_none() {
            // Half a host is none.
            rows.truncate(rows_before);
            self.forget(number);
        }
        is_read
    }

    /// Forgets an older announcement of the host; whether there is room and none newer.
    fn make_way(&mut self, host: &Host) -> bool {
        if let Some(number) = self.hosts.number(host.node) {
            let known = self.hosts.hosts.get(number);
            if known.is_some_and(|known| known.issued > host.issued) {
                return false;
            }
            self.forget(number);
        }
        self.hosts.hosts.len() < HOSTS_MAX
    }

    fn add_host(&mut self, host: Host) -> u32 {
        self.operators.take_again(host.operator, 1);
        self.regions.take_again(host.region, 1);
        if let Words::Page { page, .. } = host.words
            && let Some(page) = self.hosts.pages.get_mut(page)
        {
            page.used += 1;
        }
        self.hosts.insert(host)
    }

    /// Reads one container; with no host it is only passed over.
    fn take_container(
        &mut self,
        (reader, numbers): (&mut Reader<'_>, &Numbers),
        (host, next): (u32, u32),
        words: u32,
        rows: &mut Rows,
    ) -> Option<u32> {
        let id = ContainerId::from_bytes(reader.take()?);
        let kind = *numbers.kinds.get(reader.u32()? as usize)?;
        let (at, len, checks) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (slots, free) = (reader.u16()?, reader.u16()?);
        let (spot_used, online) = (reader.u16()?, reader.u16()?);
        let prices = [reader.u32()?, reader.u32()?, reader.u32()?];
        let sizes = match reader.u8()? {
            0 => None,
            _ => {
                Some((reader.u16()?, [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?]))
            }
        };
        let count = reader.u8()?;
        if usize::from(count) > ContainerOffer::APPS_MAX {
            return None;
        }
        let mut apps = Vec::with_capacity(count.into());
        for _ in 0..count {
            apps.push(*numbers.apps.get(reader.u32()? as usize)?);
        }
        let slots = rows::small(slots.into());
        let free = free.min(slots);
        let is_sound = at.checked_add(len).is_some_and(|end| end <= words);
        if !is_sound {
            return None;
        }
        if host == NONE || self.hosts.containers.len() >= CONTAINERS_MAX {
            return Some(next);
        }
        self.kinds.take_again(kind, 1);
        apps.iter().for_each(|app| self.apps.take_again(*app, 1));
        let node = self.hosts.hosts.get(host)?.node;
        let apps = Some(apps.into_boxed_slice()).filter(|apps| !apps.is_empty());
        let container = Container {
            id,
            host,
            next,
            rows: [NONE; WAYS],
            kind,
            at: (at, len),
            score: self.scores.number(node, id).unwrap_or(NONE),
            apps,
            slots,
            free,
            spot_used: spot_used.min(slots - free),
            kept: u16::try_from(self.holds.of(node, id).count()).unwrap_or(u16::MAX),
            quality: 0,
            online_bp: Some(online).filter(|online| *online <= QUALITY_MAX),
            checks,
            is_said: false,
        };
        let number = self.hosts.containers.insert(container);
        if let Some((cpu, [memory, disk, features, ring])) = sizes {
            let row = Row { cpu, memory, disk, features: Features(features), ring, ..EMPTY };
            self.rows_again(number, (&row, prices), rows);
        }
        Some(number)
    }

    /// The rows of a container, with what is free.
    fn rows_again(&mut self, number: u32, (row, prices): (&Row, [u32; WAYS]), rows: &mut Rows) {
        let Some(container) = self.hosts.containers.get(number) else { return };
        let Some(host) = self.hosts.hosts.get(container.host) else { return };
        let now = host.heard;
        let quality = self.quality(now, host, container);
        let apps = container.apps.as_deref().unwrap_or_default().iter();
        let ways = CAPACITIES.iter().fold(Features::default(), |all, (_, way)| all | *way);
        let row = Row {
            host: container.host,
            operator: host.operator,
            class: class_of(container.kind),
            location: location_of(host.region),
            quality,
            features: row.features.without(ways),
            apps: apps.filter_map(|app| app_of(*app)).collect(),
            ..row.clone()
        };
        for (way, price) in prices.into_iter().enumerate().filter(|(_, price)| *price <= PRICE_MAX)
        {
            let (capacity, feature) = CAPACITIES[way];
            let free = self.free(now, (host, container), (None, capacity));
            let features = row.features | feature;
            let row = Row { price, free: rows::small(free), features, ..row.clone() };
            rows.push((row, number, way));
        }
        if let Some(container) = self.hosts.containers.get_mut(number) {
            container.quality = quality;
        }
    }

    fn take_leave(&mut self, block: Block<'_>) -> Option<()> {
        let mut reader = Reader(block.body);
        let (node, issued) = (NodeId::from_bytes(reader.take()?), reader.u64()?);
        if let Some(number) = self.hosts.number(node)
            && self.hosts.hosts.get(number).is_some_and(|host| host.issued.0 <= issued)
        {
            self.forget(number);
        }
        Some(())
    }

    fn take_scores(&mut self, now: UnixMillis, block: Block<'_>) -> Option<()> {
        let mut reader = Reader(block.body);
        while !reader.0.is_empty() {
            let node = NodeId::from_bytes(reader.take()?);
            let id = ContainerId::from_bytes(reader.take()?);
            let mut runs = Vec::new();
            for _ in 0..reader.u16()? {
                let (from, len) = (reader.u32()?, reader.u16()?);
                runs.push(Run { from, len, online: reader.u8()?, checks: reader.u8()? });
            }
            let score = Score::from_entries(&runs)?;
            let is_new = self.scores.number(node, id).is_none();
            if is_new && self.scores.slab.len() < SCORES_MAX {
                let number = self.scores.insert(node, id, score);
                if let Some(place) = self.place(node, id)
                    && let Some(container) = self.hosts.containers.get_mut(place)
                {
                    container.score = number;
                    self.write_rows(now, place);
                }
            }
        }
        Some(())
    }
}

const EMPTY: Row = Row {
    host: NONE,
    operator: NONE,
    class: rows::OTHER_CLASS,
    location: rows::OTHER_LOCATION,
    price: 0,
    quality: 0,
    free: 0,
    cpu: 0,
    memory: 0,
    disk: 0,
    features: Features(0),
    ring: 0,
    apps: Vec::new(),
};
