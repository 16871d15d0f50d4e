//! What the scripted hosts and buyers remember, and what they say to each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use welkin_ledger::Meter;
use welkin_proto::index::Beat;
use welkin_proto::{
    AccountKey, Capability, ContainerOffer, Delegation, KeyError, NodeAddr, Offer, Order,
    SignedByAccount, Voucher, container_id,
};
use welkin_types::task::Needs;
use welkin_types::{
    AccountId, Class, ContainerId, LeaseId, NodeId, Price, Region, Resources, Tier, UnixMillis, Usd,
};

use crate::chance::Chance;

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Host to indexer, on a connection of this number.
    Announce {
        host: usize,
        connection: u64,
        capability: Box<Capability>,
    },
    Beat {
        host: usize,
        connection: u64,
        beat: Beat,
    },
    /// The indexer notices that a connection is lost.
    Lost {
        host: usize,
        connection: u64,
    },
    /// Buyer to indexer and back.
    Match {
        buyer: usize,
        want: u64,
    },
    Offers {
        buyer: usize,
        want: u64,
        offers: Vec<Offer>,
    },
    /// Buyer to host and back.
    Open {
        host: usize,
        buyer: usize,
        want: u64,
        order: Box<SignedByAccount<Order>>,
    },
    Answer {
        buyer: usize,
        want: u64,
        lease: LeaseId,
        is_accepted: bool,
    },
    Usage {
        buyer: usize,
        lease: LeaseId,
        seconds: u64,
    },
    Voucher {
        host: usize,
        voucher: Box<SignedByAccount<Voucher>>,
    },
    Stop {
        host: usize,
        lease: LeaseId,
    },
}

/// A scripted host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) key: AccountKey,
    pub(crate) node: NodeId,
    pub(crate) delegation: SignedByAccount<Delegation>,
    pub(crate) containers: Vec<ContainerOffer>,
    pub(crate) is_up: bool,
    /// Rises with each start.
    pub(crate) connection: u64,
    pub(crate) sequence: u64,
    pub(crate) leases: BTreeMap<LeaseId, HostLease>,
    /// On its disk: ended or refused leases are not begun again.
    pub(crate) ended: BTreeSet<LeaseId>,
}

/// A lease as its host sees it.
#[derive(Debug)]
pub(crate) struct HostLease {
    pub(crate) buyer: usize,
    pub(crate) container: ContainerId,
    pub(crate) price: Price,
    pub(crate) budget: Usd,
    pub(crate) meter: Meter,
    /// The best voucher that what is aside covers.
    pub(crate) newest: Option<SignedByAccount<Voucher>>,
    pub(crate) covered_seconds: u64,
    pub(crate) vouchers: u32,
}

impl Host {
    pub(crate) fn new(
        number: u8,
        domain: &welkin_proto::Domain,
        chance: &mut Chance,
    ) -> Result<Self, KeyError> {
        let key = AccountKey::from_secret(&[100 + number; 32])?;
        let node = NodeId::from_bytes([number; 32]);
        let message = Delegation { node, expires: UnixMillis(u64::MAX) };
        let delegation = SignedByAccount::sign(domain, &key, message)?;
        let kinds = 1 + u8::try_from(chance.index(2)).unwrap_or(0);
        let containers = (0..kinds).map(|kind| container(node, kind, chance)).collect();
        Ok(Self {
            key,
            node,
            delegation,
            containers,
            is_up: false,
            connection: 0,
            sequence: 0,
            leases: BTreeMap::new(),
            ended: BTreeSet::new(),
        })
    }

    pub(crate) fn capability(&self, now: u64) -> Capability {
        Capability {
            addr: NodeAddr { node: self.node, relay: None, direct: Vec::new() },
            operator: self.delegation.clone(),
            region: Region::local(),
            containers: self.containers.clone(),
            revision: self.connection,
            issued: UnixMillis(now),
            expires: UnixMillis(u64::MAX),
        }
    }

    /// How many leases a container carries.
    pub(crate) fn carried(&self, container: ContainerId) -> u32 {
        let leases = self.leases.values().filter(|lease| lease.container == container);
        u32::try_from(leases.count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn beat(&mut self) -> Beat {
        self.sequence += 1;
        let free = self.containers.iter().map(|container| {
            (container.id, container.slots.saturating_sub(self.carried(container.id)))
        });
        Beat {
            revision: self.connection,
            sequence: self.sequence,
            free: free.collect(),
            spot: Vec::new(),
            draining: false,
        }
    }
}

/// Few prices, so that there are equally cheap ones.
fn container(host: NodeId, kind: u8, chance: &mut Chance) -> ContainerOffer {
    let micros = 3_600_000 * (1 + chance.between(0, 3));
    ContainerOffer {
        id: container_id(host, kind.into()),
        class: Class::cpu(1_000 * (1 + u32::from(kind))),
        resources: Resources {
            cpu_milli: 1_000 * (1 + u32::from(kind)),
            memory_bytes: 4 << 30,
            disk_bytes: 16 << 30,
            gpus: Vec::new(),
        },
        slots: 1 + u32::try_from(chance.index(2)).unwrap_or(0),
        price: Price::per_hour(Usd::from_micros(micros)),
        tier: Tier::Container,
        features: Vec::new(),
        driver: None,
        apps: Vec::new(),
        spot: None,
        reserved: None,
    }
}

/// A scripted buyer.
#[derive(Debug)]
pub(crate) struct Buyer {
    pub(crate) key: AccountKey,
    pub(crate) wants: BTreeMap<u64, Want>,
    pub(crate) leases: BTreeMap<LeaseId, BuyerLease>,
    /// Every lease that was ever ordered, to get abandoned money back.
    pub(crate) ordered: BTreeSet<LeaseId>,
}

/// A task that looks for a host.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) needs: Needs,
    pub(crate) tried: Vec<NodeId>,
    pub(crate) offers: VecDeque<Offer>,
    /// The order that waits for an answer, and what it is for.
    pub(crate) open: Option<(Order, usize)>,
    pub(crate) since: u64,
}

/// A lease as its buyer sees it.
#[derive(Debug)]
pub(crate) struct BuyerLease {
    pub(crate) host: usize,
    pub(crate) operator: AccountId,
    pub(crate) price: Price,
    pub(crate) budget: Usd,
    pub(crate) meter: Meter,
    /// When it has had enough.
    pub(crate) until: u64,
    pub(crate) heard: u64,
}

impl Buyer {
    pub(crate) fn new(number: u8) -> Result<Self, KeyError> {
        Ok(Self {
            key: AccountKey::from_secret(&[50 + number; 32])?,
            wants: BTreeMap::new(),
            leases: BTreeMap::new(),
            ordered: BTreeSet::new(),
        })
    }
}
