//! Takes in what was known before a restart.
//!
//! It is a help, not the truth: whoever is taken in is unconfirmed until its host is heard, counts a
//! little less until then, and falls silent like any other that does not beat.

use welkin_proto::{Capability, ContainerOffer, decode};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::block::{Block, Kind as What, Reader};
use super::dump::{DRAINING, LEFT, Names};
use super::hosts::{Container, Host, Page, WAYS, Words};
use super::rows::{CAPACITIES, app_of, class_of, location_of};
use super::slab::NONE;
use super::{CONTAINERS_MAX, Fleet, HOSTS_MAX, SCORES_MAX, rows};
use crate::index::{Features, PRICE_MAX, QUALITY_MAX, Row, RowId};
use crate::score::{Run, Score};

/// The numbers of a block's names, each in use once for as long as the block is read.
struct Numbers {
    operators: Vec<u32>,
    regions: Vec<u32>,
    kinds: Vec<u32>,
    apps: Vec<u32>,
}

/// How rows get into the index: at once, or all together at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    AtOnce,
    AtTheEnd,
}

/// A block of hosts whose names have been read, which needs no fleet.
#[derive(Debug)]
pub struct ReadHosts {
    words: Box<[u8]>,
    names: Names,
    count: u32,
    hosts: Vec<u8>,
}

impl ReadHosts {
    /// Reads the names of a block of hosts; `None` where it is none, or not sound.
    pub fn of(block: Block<'_>) -> Option<Self> {
        let mut reader = Reader(block.body);
        let words = reader.bytes().filter(|_| block.has_hosts())?.into();
        let names = decode(reader.bytes()?).ok()?;
        let count = reader.u32()?;
        Some(Self { words, names, count, hosts: reader.bytes()?.to_vec() })
    }
}

/// A fleet that is being read from a snapshot, in which no host comes twice.
#[derive(Debug)]
pub struct Restoring(Fleet);

impl Restoring {
    /// Begins with nothing. `most` says for how many hosts there is to be room.
    pub fn new(seed: u64, most: usize) -> Self {
        let (mut fleet, most) = (Fleet::new(seed), most.min(HOSTS_MAX));
        fleet.hosts.reserve(most);
        fleet.index.reserve(most);
        fleet.owners.reserve(most);
        Self(fleet)
    }

    /// Takes a block of hosts in, and its words out of it; returns whether all of it could be read.
    pub fn take(&mut self, now: UnixMillis, hosts: &mut ReadHosts) -> bool {
        self.0.take_hosts(now, hosts, Listed::AtTheEnd).is_some()
    }

    /// The fleet. What is left to be done has two parts that share nothing: `both` runs them, best
    /// at once; what it does not run is run after it.
    pub fn finish(
        self,
        both: impl FnOnce(&mut (dyn FnMut() + Send), &mut (dyn FnMut() + Send)),
    ) -> Fleet {
        let Self(mut fleet) = self;
        let (mut doubles, mut is_listed) = (None, false);
        let (hosts, index) = (&mut fleet.hosts, &mut fleet.index);
        let mut name = || {
            doubles.get_or_insert_with(|| hosts.enter_all());
        };
        let mut list = || {
            if !std::mem::replace(&mut is_listed, true) {
                index.list_all();
            }
        };
        both(&mut name, &mut list);
        name();
        list();
        doubles.unwrap_or_default().into_iter().for_each(|number| fleet.forget(number));
        fleet
    }
}

impl Fleet {
    /// Takes in a further block: of a log, or of scores. Returns whether it could be read.
    pub fn take_up(&mut self, now: UnixMillis, block: Block<'_>) -> bool {
        match block.kind {
            What::Hosts => {
                let hosts = ReadHosts::of(block);
                hosts.is_some_and(|mut hosts| {
                    self.take_hosts(now, &mut hosts, Listed::AtOnce).is_some()
                })
            }
            What::Left => self.take_leave(block.body).is_some(),
            What::Scores => self.take_scores(now, block.body).is_some(),
        }
    }

    fn take_hosts(&mut self, now: UnixMillis, hosts: &mut ReadHosts, listed: Listed) -> Option<()> {
        let ReadHosts { words, names, count, hosts } = hosts;
        let (mut hosts, end) = (Reader(hosts), u32::try_from(words.len()).ok()?);
        let words = std::mem::take(words);
        let numbers = self.take_names(names);
        let page = self.hosts.pages.insert(Page { bytes: words, used: 1 });
        let (mut at, mut is_read) = (0, Some(()));
        for _ in 0..*count {
            let place = (page, &mut at, end);
            is_read = self.take_host(now, (&mut hosts, &numbers), place, listed);
            if is_read.is_none() {
                break;
            }
        }
        self.give_back_names(&numbers);
        self.hosts.drop_words(&Words::Page { page, at: 0, len: 0 });
        is_read
    }

    fn take_names(&mut self, names: &Names) -> Numbers {
        let kinds = names.kinds.iter().map(|kind| self.kinds.take(kind));
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
        (page, at, end): (u32, &mut u32, u32),
        listed: Listed,
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
        if *at > end || usize::from(count) > Capability::CONTAINERS_MAX {
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
        let is_wanted = match listed {
            Listed::AtOnce => self.make_way(&host),
            Listed::AtTheEnd => self.hosts.hosts.len() < HOSTS_MAX,
        };
        let number = if is_wanted { self.add_host(host, listed) } else { NONE };
        let (mut first, mut is_read) = (NONE, Some(()));
        for _ in 0..count {
            match self.take_container((reader, numbers), (number, first), len, listed) {
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
            self.take_back(number, listed);
            self.forget(number);
        }
        is_read
    }

    /// Takes back the rows of a host that are not listed yet.
    fn take_back(&mut self, host: u32, listed: Listed) {
        if listed == Listed::AtOnce {
            return;
        }
        for number in self.hosts.numbers(host) {
            let Some(container) = self.hosts.containers.get_mut(number) else { continue };
            for row in std::mem::replace(&mut container.rows, [NONE; WAYS]) {
                if row != NONE {
                    self.index.take_back(RowId(row));
                    self.owners[row as usize] = NONE;
                }
            }
        }
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

    fn add_host(&mut self, host: Host, listed: Listed) -> u32 {
        self.operators.take_again(host.operator, 1);
        self.regions.take_again(host.region, 1);
        if let Words::Page { page, .. } = host.words
            && let Some(page) = self.hosts.pages.get_mut(page)
        {
            page.used += 1;
        }
        match listed {
            Listed::AtOnce => self.hosts.insert(host),
            Listed::AtTheEnd => self.hosts.insert_nameless(host),
        }
    }

    /// Reads one container; with no host it is only passed over.
    fn take_container(
        &mut self,
        (reader, numbers): (&mut Reader<'_>, &Numbers),
        (host, next): (u32, u32),
        words: u32,
        listed: Listed,
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
        let mut apps = [NONE; ContainerOffer::APPS_MAX];
        let apps = apps.get_mut(..usize::from(count))?;
        for app in &mut *apps {
            *app = *numbers.apps.get(reader.u32()? as usize)?;
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
        let apps = (!apps.is_empty()).then(|| Box::from(&*apps));
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
            self.rows_again(number, row, prices, listed);
        }
        Some(number)
    }

    /// The rows of a container, with what is free.
    fn rows_again(&mut self, number: u32, row: Row, prices: [u32; WAYS], listed: Listed) {
        let Some(container) = self.hosts.containers.get(number) else { return };
        let Some(host) = self.hosts.hosts.get(container.host) else { return };
        let now = host.heard;
        let quality = self.quality(now, host, container);
        let apps = container.apps.as_deref().unwrap_or_default().iter();
        let ways = CAPACITIES.iter().fold(Features::default(), |all, (_, way)| all | *way);
        let features = row.features.without(ways);
        let mut row = Row {
            host: container.host,
            operator: host.operator,
            class: class_of(container.kind),
            location: location_of(host.region),
            quality,
            apps: apps.filter_map(|app| app_of(*app)).collect(),
            ..row
        };
        let mut rows = [NONE; WAYS];
        for (way, (capacity, feature)) in CAPACITIES.into_iter().enumerate() {
            row.price = prices[way];
            if row.price > PRICE_MAX {
                continue;
            }
            let Some(container) = self.hosts.containers.get(number) else { return };
            let Some(host) = self.hosts.hosts.get(container.host) else { return };
            row.free = rows::small(self.free(now, (host, container), (None, capacity)));
            row.features = features | feature;
            let entered = match listed {
                Listed::AtOnce => self.index.insert(&row),
                Listed::AtTheEnd => self.index.push(&row),
            };
            // A row within bounds is refused only where the index is full.
            if let Ok(row) = entered {
                rows[way] = row.number();
                self.own_row(row, number);
            }
        }
        if let Some(container) = self.hosts.containers.get_mut(number) {
            (container.rows, container.quality) = (rows, quality);
        }
    }

    fn take_leave(&mut self, body: &[u8]) -> Option<()> {
        let mut reader = Reader(body);
        let (node, issued) = (NodeId::from_bytes(reader.take()?), reader.u64()?);
        if let Some(number) = self.hosts.number(node)
            && self.hosts.hosts.get(number).is_some_and(|host| host.issued.0 <= issued)
        {
            self.forget(number);
        }
        Some(())
    }

    fn take_scores(&mut self, now: UnixMillis, body: &[u8]) -> Option<()> {
        let mut reader = Reader(body);
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
