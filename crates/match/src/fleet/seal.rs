//! What hosts have signed, as they did: for those who believe no indexer's word.
//!
//! An announcement is kept in parts, which others need. The signatures stand behind its words, and the
//! whole is put together again when somebody asks for it: 140 bytes a host instead of all of it twice.

use welkin_proto::{
    AccountSignature, Capability, Delegation, NodeSignature, Signed, SignedByAccount, decode,
    encode,
};
use welkin_types::{NodeId, UnixMillis};

use super::Fleet;
use super::hosts::Host;

/// The signatures of an announcement: the host's, and that of the account that vouches for it. Without
/// them it can't be shown as it was signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal(Vec<u8>);

/// The host's signature, and the end and the signature of its account's permission.
type Parts = (NodeSignature, UnixMillis, AccountSignature);

impl Seal {
    /// The seal of an announcement, which was read from what is signed. One that was signed in another
    /// form than it is written in here has none: it could not be put together again.
    pub fn of(signed: &Signed<Capability>, capability: &Capability) -> Self {
        let again = Signed::from_parts(capability, capability.addr.node, signed.signature());
        let is_same = again.is_ok_and(|again| again == *signed);
        let Delegation { node, expires } = capability.operator.message;
        if !is_same || node != capability.addr.node {
            return Self::default();
        }
        let parts: Parts = (signed.signature(), expires, capability.operator.signature);
        Self(encode(&parts).unwrap_or_default())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Fleet {
    /// What a listed host has signed last, as it did; none where it was not kept.
    pub fn signed_of(&self, now: UnixMillis, node: NodeId) -> Option<Signed<Capability>> {
        let host = self.hosts.hosts.get(self.hosts.number(node)?)?;
        self.signed(host).filter(|_| host.is_listed(now))
    }

    fn signed(&self, host: &Host) -> Option<Signed<Capability>> {
        let (signature, expires, of_account): Parts = decode(self.hosts.seal(host)?).ok()?;
        let message = Delegation { node: host.node, expires };
        let mut containers: Vec<_> = self.hosts.of(host).map(|(_, container)| container).collect();
        containers.sort_unstable_by_key(|container| container.at);
        let offers = containers.into_iter().map(|container| self.hosts.offer(host, container));
        let capability = Capability {
            addr: self.hosts.addr(host)?,
            operator: SignedByAccount { message, signature: of_account },
            region: self.regions.name(host.region)?.clone(),
            containers: offers.collect::<Option<_>>()?,
            revision: host.revision,
            issued: host.issued,
            expires: host.expires,
        };
        Signed::from_parts(&capability, host.node, signature).ok()
    }
}
