//! What is kept of hosts and containers: small fixed parts by number, and what was announced as it
//! is on the wire, decoded only for those that are offered.

use welkin_proto::{CodecError, ContainerOffer, NodeAddr, decode, encode};
use welkin_types::{ContainerId, Gpu, NodeId, Resources, UnixMillis};

#[cfg(doc)]
use super::slab::NONE;
use super::slab::Slab;
use super::table::Table;
use super::{SILENT_MS, STALE_MS};

/// The ways in which a container is leased, each a row of the index.
pub(super) const WAYS: usize = 3;

/// One host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeId,
    /// The operator's and the region's numbers.
    pub(super) operator: u32,
    pub(super) region: u32,
    pub(super) revision: u64,
    pub(super) issued: UnixMillis,
    pub(super) expires: UnixMillis,
    /// The last beat of this announcement.
    pub(super) sequence: Option<u64>,
    /// When it was last heard.
    pub(super) heard: UnixMillis,
    /// For when it is armed.
    pub(super) due: u64,
    /// Its first container; each knows the next.
    pub(super) first: u32,
    pub(super) is_draining: bool,
    /// Whether its connection is lost.
    pub(super) has_left: bool,
    /// Whether it is known from before a restart only.
    pub(super) is_unconfirmed: bool,
    pub(super) words: Words,
}

impl Host {
    pub(super) fn is_offered(&self, now: UnixMillis) -> bool {
        let is_heard = now.0.saturating_sub(self.heard.0) <= SILENT_MS;
        is_heard && !self.has_left && !self.is_draining && self.expires >= now
    }

    pub(super) fn is_listed(&self, now: UnixMillis) -> bool {
        now.0.saturating_sub(self.heard.0) <= STALE_MS && self.expires >= now
    }
}

/// What a host announced: its address, then its containers, each as on the wire, then the signatures.
#[derive(Clone, Debug)]
pub(super) enum Words {
    Own(Box<[u8]>),
    /// A part of a page that was read at the start.
    Page {
        page: u32,
        at: u32,
        len: u32,
    },
}

impl Host {
    /// Something of each part of it.
    pub(super) fn touched(&self) -> u64 {
        let words = match &self.words {
            Words::Own(_) => 0,
            Words::Page { page, .. } => u64::from(*page),
        };
        let named = u64::from(self.node.as_bytes()[0]);
        named ^ self.heard.0 ^ self.revision ^ self.expires.0 ^ self.due ^ words
    }
}

impl Container {
    /// Something of each part of it.
    pub(super) fn touched(&self) -> u64 {
        let named = u64::from(self.id.as_bytes()[0]);
        named ^ u64::from(self.host ^ self.score) ^ u64::from(self.free ^ self.kept)
    }
}

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    /// Its host's number.
    pub(crate) host: u32,
    /// The host's next container.
    pub(super) next: u32,
    /// Its rows in the index, by way of leasing; [`NONE`] where it has none.
    pub(super) rows: [u32; WAYS],
    /// The number of its kind of hardware.
    pub(super) kind: u32,
    /// Its place in what the host announced.
    pub(super) at: (u32, u32),
    pub(super) score: u32,
    /// The numbers of what is ready on it.
    pub(super) apps: Option<Box<[u32]>>,
    pub(super) slots: u16,
    /// What the host said no lease has.
    pub(super) free: u16,
    /// What the host said spot leases have, which end for others.
    pub(super) spot_used: u16,
    /// Slots that are kept, ended holds that have not been cleared included.
    pub(super) kept: u16,
    /// The quality that the index has.
    pub(super) quality: u16,
    /// The online score at the last restart, and from how many checks, until scores are read.
    pub(super) online_bp: Option<u16>,
    pub(super) checks: u32,
    /// Whether the host has said since its announcement what is free.
    pub(super) is_said: bool,
}

/// A page of words that were read at the start, until the last host in it has announced anew.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) bytes: Box<[u8]>,
    pub(super) used: u32,
}

/// All hosts and containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    pub(super) hosts: Slab<Host>,
    pub(super) containers: Slab<Container>,
    pub(super) by_node: Table,
    pub(super) pages: Slab<Page>,
    /// Bytes of words that are not in pages.
    pub(super) own_bytes: usize,
}

impl Hosts {
    pub(super) fn new(seed: u64) -> Self {
        Self { by_node: Table::new(seed), ..Self::default() }
    }

    /// Makes room for so many hosts with a container each.
    pub(super) fn reserve(&mut self, more: usize) {
        self.hosts.reserve(more);
        self.containers.reserve(more);
        self.by_node.reserve(more);
    }

    pub(crate) fn number(&self, node: NodeId) -> Option<u32> {
        let print = self.by_node.print(&[node.as_bytes()]);
        self.by_node
            .find(print, |number| self.hosts.get(number).is_some_and(|host| host.node == node))
    }

    pub(super) fn insert(&mut self, host: Host) -> u32 {
        let print = self.by_node.print(&[host.node.as_bytes()]);
        let number = self.hosts.insert(host);
        self.by_node.insert(print, number);
        number
    }

    /// Adds a host that is not found by its name before [`Self::enter_all`].
    pub(super) fn insert_nameless(&mut self, host: Host) -> u32 {
        self.hosts.insert(host)
    }

    /// Enters all hosts under their names. Returns the numbers of those whose name another has that
    /// was announced later, or under a higher number.
    pub(super) fn enter_all(&mut self) -> Vec<u32> {
        let mut doubles = Vec::new();
        self.by_node.reserve(self.hosts.len());
        for number in 0..self.hosts.end() {
            let Some(host) = self.hosts.get(number) else { continue };
            let print = self.by_node.print(&[host.node.as_bytes()]);
            let is_it = |other| self.hosts.get(other).is_some_and(|known| known.node == host.node);
            if let Some(other) = self.by_node.find(print, is_it) {
                let is_older =
                    self.hosts.get(other).is_some_and(|known| known.issued > host.issued);
                if is_older {
                    doubles.push(number);
                    continue;
                }
                self.by_node.remove(print, other);
                doubles.push(other);
            }
            self.by_node.insert(print, number);
        }
        doubles
    }

    /// Takes a host out, whose containers have been taken out.
    pub(super) fn remove(&mut self, number: u32) -> Option<Host> {
        let host = self.hosts.remove(number)?;
        let print = self.by_node.print(&[host.node.as_bytes()]);
        self.by_node.remove(print, number);
        self.drop_words(&host.words);
        Some(host)
    }

    /// Replaces what a host announced.
    pub(super) fn set_words(&mut self, number: u32, words: Box<[u8]>) {
        self.own_bytes += words.len();
        let Some(host) = self.hosts.get_mut(number) else { return };
        let before = std::mem::replace(&mut host.words, Words::Own(words));
        self.drop_words(&before);
    }

    pub(super) fn drop_words(&mut self, words: &Words) {
        match words {
            Words::Own(bytes) => self.own_bytes -= bytes.len(),
            Words::Page { page, .. } => {
                let Some(known) = self.pages.get_mut(*page) else { return };
                known.used -= 1;
                if known.used == 0 {
                    self.pages.remove(*page);
                }
            }
        }
    }

    pub(super) fn words<'a>(&'a self, host: &'a Host) -> &'a [u8] {
        match &host.words {
            Words::Own(bytes) => bytes,
            Words::Page { page, at, len } => self
                .pages
                .get(*page)
                .and_then(|page| page.bytes.get(*at as usize..(*at + *len) as usize))
                .unwrap_or_default(),
        }
    }

    /// The containers of a host, by number.
    pub(super) fn of(&self, host: &Host) -> impl Iterator<Item = (u32, &Container)> + use<'_> {
        let mut next = host.first;
        std::iter::from_fn(move || {
            let number = next;
            let container = self.containers.get(number)?;
            next = container.next;
            Some((number, container))
        })
    }

    /// The numbers of a host's containers.
    pub(super) fn numbers(&self, host: u32) -> Vec<u32> {
        let host = self.hosts.get(host);
        host.map(|host| self.of(host).map(|(number, _)| number).collect()).unwrap_or_default()
    }

    pub(super) fn container(&self, host: &Host, id: ContainerId) -> Option<(u32, &Container)> {
        self.of(host).find(|(_, container)| container.id == id)
    }

    /// The number of the host of the container at a place, if the two have these names.
    pub(super) fn at(&self, place: u32, (node, id): (NodeId, ContainerId)) -> Option<u32> {
        let container = self.containers.get(place).filter(|container| container.id == id)?;
        let host = self.hosts.get(container.host)?;
        (host.node == node).then_some(container.host)
    }

    /// The host of a container.
    pub(crate) fn host_of(&self, container: u32) -> Option<u32> {
        self.containers.get(container).map(|container| container.host)
    }

    /// Where a host says that it is.
    pub(super) fn addr(&self, host: &Host) -> Option<NodeAddr> {
        let words = self.words(host);
        let length = u32::from_le_bytes(*words.first_chunk()?);
        decode(words.get(4..4 + length as usize)?).ok()
    }

    /// A container as it was announced.
    pub(super) fn offer(&self, host: &Host, container: &Container) -> Option<ContainerOffer> {
        let (at, len) = container.at;
        decode(self.words(host).get(at as usize..at as usize + len as usize)?).ok()
    }

    /// What stands behind a host's containers, if anything does.
    pub(super) fn seal<'a>(&'a self, host: &'a Host) -> Option<&'a [u8]> {
        let words = self.words(host);
        let addr = u32::from_le_bytes(*words.first_chunk()?);
        let ends = self.of(host).map(|(_, container)| container.at.0 + container.at.1);
        let end = ends.max().unwrap_or(addr.saturating_add(4));
        words.get(end as usize..).filter(|seal| !seal.is_empty())
    }

    pub(super) fn bytes(&self) -> usize {
        let pages: usize = (0..self.pages.end())
            .filter_map(|number| self.pages.get(number))
            .map(|page| page.bytes.len())
            .sum();
        self.hosts.bytes() + self.containers.bytes() + self.by_node.bytes() + pages + self.own_bytes
    }
}

/// Where containers stand in a host's words: begin and length.
type Places = Vec<(u32, u32)>;

/// A host's words, and where each container stands in them.
pub(super) fn words_of(
    addr: &NodeAddr,
    containers: &[ContainerOffer],
    seal: &[u8],
) -> Result<(Box<[u8]>, Places), CodecError> {
    let small =
        |length: usize| u32::try_from(length).map_err(|_| CodecError::TooLarge { bytes: length });
    let addr = encode(addr)?;
    let mut words = small(addr.len())?.to_le_bytes().to_vec();
    words.extend(addr);
    let mut places = Vec::with_capacity(containers.len());
    for container in containers {
        let encoded = encode(container)?;
        places.push((small(words.len())?, small(encoded.len())?));
        words.extend(encoded);
    }
    words.extend(seal);
    Ok((words.into_boxed_slice(), places))
}

/// A kind of hardware: the GPUs of a container, without the identities of devices.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Kind(pub(crate) Vec<Gpu>);

impl Kind {
    pub(super) fn of(resources: &Resources) -> Self {
        let gpus = resources.gpus.iter();
        Self(gpus.map(|gpu| Gpu { uuid: String::new(), ..gpu.clone() }).collect())
    }
}
