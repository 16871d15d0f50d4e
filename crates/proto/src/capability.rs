//! What a host says it has, and what an indexer offers of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use welkin_types::{
    AccountId, Class, ContainerId, NodeId, OfferId, Price, Region, Resources, Tier, UnixMillis,
};

use crate::addr::NodeAddr;
use crate::eip712::Domain;
use crate::order::{Delegation, SignedByAccount};
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
        for container in &self.containers {
            if container.slots == 0 || container.slots > Self::SLOTS_MAX {
                return Err(CapabilityError::Bounds("slots"));
            }
            if container.resources.gpus.len() > Resources::GPUS_MAX {
                return Err(CapabilityError::Bounds("too many GPUs in a container"));
            }
            if container.price.hour() > welkin_types::Usd::MAX {
                return Err(CapabilityError::Bounds("price"));
            }
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
    /// What it costs.
    pub price: Price,
    /// How it is isolated.
    pub tier: Tier,
    /// Where it stands.
    pub region: Region,
    /// Share of checks that found it online, in hundredths of a percent; `None` before the first.
    pub online_bp: Option<u16>,
    /// After this the hold is gone.
    pub expires: UnixMillis,
}

impl Signable for Offer {
    const KIND: &'static str = "offer";
}
