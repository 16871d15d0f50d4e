//! How a reservation ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a reservation is over: a code for machines, a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationEnd {
    /// The term is over.
    Term,
    /// The buyer ended it.
    Cancelled,
    /// The buyer paid no more.
    Unpaid,
    /// The host can't keep it.
    HostFailed,
}

impl ReservationEnd {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Term, Self::Cancelled, Self::Unpaid, Self::HostFailed];

    /// Whether the buyer ended it before its time.
    pub const fn is_buyers(self) -> bool {
        matches!(self, Self::Cancelled | Self::Unpaid)
    }

    /// The reason's code, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Cancelled => "cancelled",
            Self::Unpaid => "unpaid",
            Self::HostFailed => "host_failed",
        }
    }

    /// A sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Term => "the term is over",
            Self::Cancelled => "its buyer ended it",
            Self::Unpaid => "its buyer paid no more",
            Self::HostFailed => "the host could not keep it",
        }
    }
}

impl fmt::Display for ReservationEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_match_serde() {
        for end in ReservationEnd::ALL {
            assert_eq!(serde_json::to_value(end).unwrap(), end.code());
        }
    }
}
