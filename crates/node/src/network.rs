//! What everybody must know of a network to take part in it.

use serde::{Deserialize, Serialize};
use welkin_chain::deployment::Places;
use welkin_proto::{Domain, NodeAddr, RelayAddr};
use welkin_types::AccountId;

/// A network's public facts. As a file it is what `welkin up` writes and what others join by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The chain's id: signatures hold on this chain only.
    pub chain_id: u64,
    /// The settlement contract.
    pub contract: AccountId,
    /// The settlement service.
    #[serde(with = "text")]
    pub settlement: NodeAddr,
    /// Where the chain's node answers JSON-RPC over HTTP, for wallets and tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc: Option<String>,
    /// The indexers, at most 16.
    #[serde(with = "texts")]
    pub indexers: Vec<NodeAddr>,
    /// The relay, if there is one.
    #[serde(default, with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayAddr>,
    /// The block of the chain from which on there is anything to look for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_block: u64,
    /// Where the contracts stand; none on a local network, where their places are fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contracts: Option<Places>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Network {
    /// Where signatures hold.
    pub const fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, contract: self.contract }
    }

    /// Where the contracts stand, where that is known.
    pub fn places(&self) -> Option<Places> {
        let is_local = self.domain() == Domain::LOCAL;
        self.contracts.or_else(|| is_local.then(Places::local))
    }
}

mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

mod texts {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use welkin_proto::NodeAddr;

    const INDEXERS_MAX: usize = 16;

    pub(super) fn serialize<S: Serializer>(list: &[NodeAddr], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<NodeAddr>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        if texts.len() > INDEXERS_MAX {
            return Err(D::Error::custom(format!("at most {INDEXERS_MAX} indexers")));
        }
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

mod maybe_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use welkin_proto::RelayAddr;

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<RelayAddr>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => s.collect_str(value),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<RelayAddr>, D::Error> {
        String::deserialize(d)?.parse().map(Some).map_err(D::Error::custom)
    }
}
