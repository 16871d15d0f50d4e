//! Identities: one type for each kind of thing that can be named.
//!
//! In text an identity carries a prefix, so that nobody pastes one kind where another is meant.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected `{prefix}` and {digits} hexadecimal digits")]
pub struct IdError {
    /// What was given, cut to 80 characters.
    text: String,
    /// What was wanted.
    kind: &'static str,
    /// How it begins.
    prefix: &'static str,
    /// How long it is behind the prefix.
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Makes an identity from its bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        /// Text where people read it, bytes on the wire.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                <[u8; $len]>::serialize(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    return text.parse().map_err(D::Error::custom);
                }
                <[u8; $len]>::deserialize(deserializer).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError {
                    text: text.chars().take(80).collect(),
                    kind: $kind,
                    prefix: $prefix,
                    digits: 2 * $len,
                };
                let digits = text.strip_prefix($prefix).ok_or_else(error)?;
                let mut bytes = [0; $len];
                parse_hex(digits, &mut bytes).ok_or_else(error)?;
                Ok(Self(bytes))
            }
        }
    };
}

/// Fills `bytes` from exactly twice as many hexadecimal digits.
fn parse_hex(digits: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(())
}

id! {
    /// Names a machine or a client on the network: its ed25519 public key.
    NodeId, "node id", "nod_", 32
}
id! {
    /// Names who pays or is paid: an EVM address (the last 20 bytes of the key's Keccak-256).
    AccountId, "account", "0x", 20
}
id! {
    /// Names one transaction of the settlement chain: its Keccak-256.
    TxId, "transaction", "0x", 32
}
id! {
    /// Names an image or application that can be ready on a container: the first half of a SHA-256.
    AppId, "application id", "app_", 16
}
id! {
    /// Names one container: a leasable endpoint of a host.
    ContainerId, "container id", "ctr_", 16
}
id! {
    /// Names one lease. Chosen by the buyer at random.
    LeaseId, "lease id", "lse_", 16
}
id! {
    /// Names one reservation: a container kept for one buyer for a term. Chosen by the buyer at random.
    ReservationId, "reservation id", "rsv_", 16
}
id! {
    /// Names several leases that were placed together. Chosen by the buyer at random.
    GangId, "gang id", "gng_", 16
}
id! {
    /// Names one offer of an indexer. Used once.
    OfferId, "offer id", "off_", 16
}
id! {
    /// Names one place in an indexer's queue.
    TicketId, "ticket", "tkt_", 16
}

impl ReservationId {
    /// The name under which money is set aside and promised for it: the contracts know leases only.
    pub const fn lane(self) -> LeaseId {
        LeaseId::from_bytes(self.0)
    }

    /// The reservation whose money this is the name of.
    pub const fn of_lane(lane: LeaseId) -> Self {
        Self(lane.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; 16]) {
            let id = LeaseId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn json_is_text(bytes: [u8; 20]) {
            let id = AccountId::from_bytes(bytes);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("\"{id}\""));
            prop_assert_eq!(serde_json::from_str::<AccountId>(&json).unwrap(), id);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<NodeId>();
        }
    }

    #[test]
    fn a_wrong_kind_is_refused_with_what_was_expected() {
        let error = "ctr_00".parse::<LeaseId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ctr_00` is not a lease id: expected `lse_` and 32 hexadecimal digits"
        );
    }
}
