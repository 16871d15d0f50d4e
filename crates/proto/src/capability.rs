//! What a host says it has, and what an indexer offers of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::{
    AccountId, AppId, CapacityType, Class, ContainerId, Feature, NodeId, OfferId, Price, Region,
    Resources, Tier, UnixMillis,
};

use crate::addr::NodeAddr;
use crate::eip712::Domain;
use crate::order::{Delegation, SignedByAccount};
use crate::receipt::Matched;
use crate::signed::Signable;

/// One kind of container of a host, leasable `slots` times at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOffer {
    /// Its name on the network.
    pub id: ContainerId,
    /// Its normalised hardware kind.
    pub class: Class,
    /// What one lease of it gets.
    pub resources: Resources,
    /// How many leases it can carry at once, at least 1.
    pub slots: u32,
    /// What one lease costs.
    pub price: Price,
    /// How strongly a lease is isolated.
    pub tier: Tier,
    /// What it can do beyond its sizes, each once.
    pub features: Vec<Feature>,
    /// The branch of its GPU driver, as 550.
    pub driver: Option<u16>,
    /// What is ready to run on it, at most [`Self::APPS_MAX`].
    pub apps: Vec<AppId>,
    /// Its terms as spot capacity, if it is offered as such.
    pub spot: Option<SpotTerms>,
    /// Its terms as reserved capacity, if it is offered as such.
    pub reserved: Option<ReservedTerms>,
}

/// Leased below the price of others, and taken back with notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotTerms {
    /// What it costs: less than on demand.
    pub price: Price,
    /// From the notice to the end, in seconds: within [`Self::NOTICE_SECONDS`].
    pub notice_seconds: u16,
}

impl SpotTerms {
    /// The shortest and the longest notice.
    pub const NOTICE_SECONDS: std::ops::RangeInclusive<u16> = 5..=600;
}

/// Leased for a term, used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedTerms {
    /// What it costs: at most what it costs on demand.
    pub price: Price,
    /// The shortest term in seconds: within [`Self::TERM_SECONDS`].
    pub term_seconds_min: u32,
    /// The longest term in seconds: within the same, and not below the shortest.
    pub term_seconds_max: u32,
    /// How long a payment may be late, in seconds: within [`Self::GRACE_SECONDS`]. Then the
    /// reservation ends.
    pub grace_seconds: u16,
}

impl ReservedTerms {
    /// The shortest and the longest term. The longest is how far off the escrow looks at an order's
    /// end: until then nobody but the operator closes what is set aside for it.
    pub const TERM_SECONDS: std::ops::RangeInclusive<u32> = 5..=30 * 86_400;
    /// The shortest and the longest delay of a payment. An hour is paid ahead.
    pub const GRACE_SECONDS: std::ops::RangeInclusive<u16> = 1..=3_600;

    /// Whether its numbers are within bounds.
    pub fn is_sound(&self) -> bool {
        let (min, max) = (self.term_seconds_min, self.term_seconds_max);
        Self::TERM_SECONDS.contains(&min)
            && Self::TERM_SECONDS.contains(&max)
            && min <= max
            && Self::GRACE_SECONDS.contains(&self.grace_seconds)
    }

    /// Whether a container can be had for such a term.
    pub fn admits(&self, term_seconds: u64) -> bool {
        (u64::from(self.term_seconds_min)..=u64::from(self.term_seconds_max))
            .contains(&term_seconds)
    }
}

impl ContainerOffer {
    /// The most applications that are named as ready.
    pub const APPS_MAX: usize = 16;

    /// What it costs by capacity type, where it is offered so.
    pub fn price_of(&self, capacity: CapacityType) -> Option<Price> {
        match capacity {
            CapacityType::OnDemand => Some(self.price),
            CapacityType::Spot => self.spot.map(|terms| terms.price),
            CapacityType::Reserved => self.reserved.map(|terms| terms.price),
        }
    }

    /// What is out of bounds, if anything.
    fn out_of_bounds(&self) -> Option<&'static str> {
        let price = self.price.hour();
        let is_listed_once =
            |features: &[Feature]| features.windows(2).all(|pair| pair.first() < pair.get(1));
        if self.slots == 0 || self.slots > Capability::SLOTS_MAX {
            return Some("slots");
        }
        if self.resources.gpus.len() > Resources::GPUS_MAX {
            return Some("too many GPUs in a container");
        }
        if price > welkin_types::Usd::MAX {
            return Some("price");
        }
        if !is_listed_once(&self.features) {
            return Some("features that are not in order");
        }
        if self.apps.len() > Self::APPS_MAX {
            return Some("too many applications of a container");
        }
        let is_spot_sound = |terms: &SpotTerms| {
            terms.price.hour() < price && SpotTerms::NOTICE_SECONDS.contains(&terms.notice_seconds)
        };
        if !self.spot.as_ref().is_none_or(is_spot_sound) {
            return Some("spot terms");
        }
        let is_reserved_sound =
            |terms: &ReservedTerms| terms.price.hour() <= price && terms.is_sound();
        if !self.reserved.as_ref().is_none_or(is_reserved_sound) {
            return Some("reserved terms");
        }
        None
    }
}

/// The name of a host's container: the first half of SHA-256("welkin/container/1" ‖ the host's key ‖
/// the container's place in the host's list, 4 bytes, big-endian). No other host has one of that name.
pub fn container_id(host: NodeId, index: u32) -> ContainerId {
    let mut hash = Sha256::new();
    hash.update(b"welkin/container/1");
    hash.update(host.as_bytes());
    hash.update(index.to_be_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    ContainerId::from_bytes(id)
}

/// All names that a host's containers can have.
pub fn container_ids(host: NodeId) -> BTreeSet<ContainerId> {
    (0..).take(Capability::CONTAINERS_MAX).map(|index| container_id(host, index)).collect()
}

/// The name under which an image counts as ready: the first half of SHA-256("welkin/image/1" ‖ the
/// image as a task names it).
pub fn app_of_image(image: &str) -> AppId {
    let mut hash = Sha256::new();
    hash.update(b"welkin/image/1");
    hash.update(image.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    AppId::from_bytes(id)
}

/// A host's signed statement of what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// The host and the ways to it.
    pub addr: NodeAddr,
    /// Who is paid, and the operator's permission for this node.
    pub operator: SignedByAccount<Delegation>,
    /// Where it stands.
    pub region: Region,
    /// What it leases, at most [`Self::CONTAINERS_MAX`].
    pub containers: Vec<ContainerOffer>,
    /// Rises with each change.
    pub revision: u64,
    /// When it was signed.
    pub issued: UnixMillis,
    /// When it ends unless renewed.
    pub expires: UnixMillis,
}

/// Why a capability is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// A list is longer than allowed, or a number is out of range.
    #[error("the capability is out of bounds: {0}")]
    Bounds(&'static str),
    /// The node that signed is not the node described.
    #[error("the capability describes another node than its signer")]
    Node,
    /// No account vouches for the node at this time.
    #[error("no operator account vouches for the node")]
    Operator,
    /// Too old.
    #[error("the capability has expired")]
    Expired,
    /// A container is not named after the host's key.
    #[error("a container is not the host's: its name does not follow from the host's key")]
    Foreign,
}

impl Signable for Capability {
    const KIND: &'static str = "capability";
}

impl Capability {
    /// The most kinds of container that one host lists.
    pub const CONTAINERS_MAX: usize = 64;
    /// The most leases that one container carries at once.
    pub const SLOTS_MAX: u32 = 4_096;

    /// Checks bounds, signer and operator; returns the operator's account.
    ///
    /// # Errors
    ///
    /// [`CapabilityError`] saying what is wrong.
    pub fn check(
        &self,
        domain: &Domain,
        signer: NodeId,
        now: UnixMillis,
    ) -> Result<AccountId, CapabilityError> {
        if self.addr.node != signer {
            return Err(CapabilityError::Node);
        }
        if self.expires < now {
            return Err(CapabilityError::Expired);
        }
        if !self.addr.is_bounded() {
            return Err(CapabilityError::Bounds("too many addresses"));
        }
        if self.containers.len() > Self::CONTAINERS_MAX {
            return Err(CapabilityError::Bounds("too many containers"));
        }
        let ids: BTreeSet<_> = self.containers.iter().map(|container| container.id).collect();
        if ids.len() != self.containers.len() {
            return Err(CapabilityError::Bounds("a container is listed twice"));
        }
        let in_order = (0..).zip(&self.containers);
        if !in_order.into_iter().all(|(index, c)| c.id == container_id(signer, index))
            && !ids.is_subset(&container_ids(signer))
        {
            return Err(CapabilityError::Foreign);
        }
        if let Some(what) = self.containers.iter().find_map(ContainerOffer::out_of_bounds) {
            return Err(CapabilityError::Bounds(what));
        }
        self.operator.account(domain, self.addr.node, now).map_err(|_| CapabilityError::Operator)
    }
}

/// One candidate that an indexer offers to a buyer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Used once.
    pub id: OfferId,
    /// For whom.
    pub buyer: AccountId,
    /// Where to go.
    pub addr: NodeAddr,
    /// Who is paid.
    pub operator: AccountId,
    /// Which container.
    pub container: ContainerId,
    /// Its kind.
    pub class: Class,
    /// What the lease gets.
    pub resources: Resources,
    /// On what terms.
    pub capacity: CapacityType,
    /// From the notice to the end, in seconds, where it may be taken back; else 0.
    pub notice_seconds: u16,
    /// For which terms it can be had, where it is reserved.
    pub reserved: Option<ReservedTerms>,
    /// What it costs on these terms.
    pub price: Price,
    /// How it is isolated.
    pub tier: Tier,
    /// Where it stands.
    pub region: Region,
    /// Share of checks that found it online, in hundredths of a percent; `None` before the first.
    pub online_bp: Option<u16>,
    /// After this the hold is gone.
    pub expires: UnixMillis,
    /// The indexer that makes it, and who is paid for that.
    pub matched: Option<Matched>,
}

#[cfg(test)]
mod tests {
    use welkin_types::Usd;

    use super::*;
    use crate::{AccountKey, NodeKey};

    fn offer(id: ContainerId) -> ContainerOffer {
        ContainerOffer {
            id,
            class: Class::cpu(1_000),
            resources: Resources {
                cpu_milli: 1_000,
                memory_bytes: 1 << 30,
                disk_bytes: 1 << 30,
                gpus: Vec::new(),
            },
            slots: 1,
            price: Price::per_hour(Usd::from_micros(1_000)),
            tier: Tier::None,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        }
    }

    #[test]
    fn a_host_offers_no_container_of_another() {
        let (key, account) = (NodeKey::from_secret(&[1; 32]), AccountKey::from_secret(&[2; 32]));
        let (node, other) = (key.id(), NodeKey::from_secret(&[3; 32]).id());
        let message = Delegation { node, expires: UnixMillis(u64::MAX) };
        let operator = SignedByAccount::sign(&Domain::LOCAL, &account.unwrap(), message).unwrap();
        let check = |ids: &[ContainerId]| {
            let capability = Capability {
                addr: NodeAddr { node, relay: None, direct: Vec::new() },
                operator: operator.clone(),
                region: Region::local(),
                containers: ids.iter().copied().map(offer).collect(),
                revision: 1,
                issued: UnixMillis(0),
                expires: UnixMillis(1),
            };
            capability.check(&Domain::LOCAL, node, UnixMillis(1)).map(drop)
        };
        let own = |index| container_id(node, index);
        assert_eq!(check(&[own(0), own(1)]), Ok(()));
        // In any order, and not all.
        assert_eq!(check(&[own(63), own(2)]), Ok(()));
        for foreign in [container_id(other, 0), own(64), ContainerId::from_bytes([7; 16])] {
            assert_eq!(check(&[own(0), foreign]), Err(CapabilityError::Foreign));
        }
    }
}
