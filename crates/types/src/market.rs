//! How containers are leased and chosen: capacity types, features and policies.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is none of the names of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: choose one of {known}")]
pub struct ChoiceError {
    /// What was given, cut to 80 characters.
    text: String,
    /// What was wanted.
    kind: &'static str,
    /// The names that there are.
    known: String,
}

/// Names of an enumeration, one table for reading and writing.
macro_rules! choice {
    ($name:ident, $kind:literal, { $($variant:ident = $text:literal),* $(,)? }) => {
        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ChoiceError;

            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                    ChoiceError {
                        text: text.chars().take(80).collect(),
                        kind: $kind,
                        known: known.join(", "),
                    }
                })
            }
        }
    };
}

/// On what terms a container is leased.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// Until its buyer ends it.
    #[default]
    OnDemand,
    /// Below the price of others, and taken back with notice when somebody pays that.
    Spot,
    /// For a term, used or not.
    Reserved,
}

choice!(CapacityType, "capacity type", {
    OnDemand = "on-demand",
    Spot = "spot",
    Reserved = "reserved",
});

/// What a container can do beyond its sizes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Encodes H.264 in hardware.
    H264,
    /// Encodes HEVC in hardware.
    Hevc,
    /// Encodes AV1 in hardware.
    Av1,
    /// Its GPUs are joined by a fabric such as `NVLink`.
    Fabric,
    /// What the host has booted is attested.
    Attested,
    /// Memory of its GPUs is closed to the host, attested.
    GpuConfidential,
    /// Reachable without a relay.
    Direct,
    /// Reachable over IPv6.
    Ipv6,
    /// Runs Windows guests.
    Windows,
}

choice!(Feature, "feature", {
    H264 = "h264",
    Hevc = "hevc",
    Av1 = "av1",
    Fabric = "fabric",
    Attested = "attested",
    GpuConfidential = "gpu-confidential",
    Direct = "direct",
    Ipv6 = "ipv6",
    Windows = "windows",
});

/// What a match is to be best in. The weights of each are part of the protocol.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The lowest price; of equal ones the better score.
    #[default]
    Cheapest,
    /// What runs soonest: a ready application saves as much as 20 dollars an hour.
    FastestStart,
    /// The shortest round trip: a millisecond is worth ten cents an hour.
    Closest,
    /// Price, round trip, score and start in balance: a millisecond is worth 0.8 cents an hour, a
    /// percent of the score one cent, a ready application 15 cents, an unbroken container half
    /// a cent.
    Best,
}

choice!(Policy, "policy", {
    Cheapest = "cheapest",
    FastestStart = "fastest-start",
    Closest = "closest",
    Best = "best",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for one in Feature::ALL {
            assert_eq!(one.as_str().parse(), Ok(*one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        for one in CapacityType::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        for one in Policy::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        let error = "nearest".parse::<Policy>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`nearest` is not a policy: choose one of cheapest, fastest-start, closest, best"
        );
    }
}
