//! Names that hosts and buyers compare by: hardware classes and regions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a {kind}: use 1 to {max} of a-z, 0-9, `-` and `.`, beginning with a letter",
    max = NAME_LEN_MAX
)]
pub struct NameError {
    /// What was given, cut to 80 characters.
    text: String,
    /// What was wanted.
    kind: &'static str,
}

/// The longest name.
const NAME_LEN_MAX: usize = 32;

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    text.len() <= NAME_LEN_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(allowed)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                if is_name(&text) {
                    return Ok(Self(text));
                }
                Err(NameError { text: text.chars().take(80).collect(), kind: $kind })
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name! {
    /// A normalised kind of hardware, for example `h100-sxm-80` or `cpu-8`, by which containers
    /// are compared, priced and rewarded.
    Class, "class"
}
name! {
    /// A part of the world, for example `eu-west`. `local` is this machine.
    Region, "region"
}

impl Class {
    /// The class of a container without a GPU: `cpu-N`, N its whole cores, at least 1.
    pub fn cpu(cpu_milli: u32) -> Self {
        Self(format!("cpu-{}", (cpu_milli / 1_000).max(1)))
    }
}

impl Region {
    /// The region of everything on one machine.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("eu-west".parse::<Region>().is_ok());
        for bad in ["", "EU", "9x", "a b", &"a".repeat(33), "é"] {
            assert!(bad.parse::<Class>().is_err(), "{bad}");
        }
        assert_eq!(Class::cpu(500).as_str(), "cpu-1");
        assert_eq!(Class::cpu(8_000).as_str(), "cpu-8");
    }
}
