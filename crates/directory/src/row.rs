//! The rows of a directory, and what changes them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use welkin_types::{AccountId, ContainerId, NodeId, UnixMillis, Usd};

/// The most sessions of one host: one for each of its containers.
pub const SESSIONS_MAX: usize = 64;

/// A host as it last announced itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its key.
    pub node: NodeId,
    /// Who is paid.
    pub operator: AccountId,
    /// Which of its announcements this is.
    pub revision: u64,
    /// When it was signed.
    pub issued: UnixMillis,
    /// When it ends unless renewed.
    pub expires: UnixMillis,
    /// The signed capability as it came, so that whoever reads it can check it.
    pub capability: Vec<u8>,
    /// Its sessions of heartbeats, at most [`SESSIONS_MAX`].
    pub sessions: Vec<SessionRow>,
}

/// A session of heartbeats. The key follows from the indexer's secret, the epoch and the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Whose beats.
    pub container: ContainerId,
    /// Its number.
    pub session: u32,
    /// The epoch of its key.
    pub key_epoch: u32,
    /// What its key follows from beside the epoch and the names.
    pub salt: u32,
}

const SESSION_BYTES: usize = 28;

/// Sessions as bytes: container, number, epoch and salt of each, big-endian.
pub fn pack_sessions(sessions: &[SessionRow]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sessions.len() * SESSION_BYTES);
    for session in sessions {
        bytes.extend_from_slice(session.container.as_bytes());
        bytes.extend_from_slice(&session.session.to_be_bytes());
        bytes.extend_from_slice(&session.key_epoch.to_be_bytes());
        bytes.extend_from_slice(&session.salt.to_be_bytes());
    }
    bytes
}

/// The inverse of [`pack_sessions`]; `None` if these are no sessions, or too many.
pub fn unpack_sessions(bytes: &[u8]) -> Option<Vec<SessionRow>> {
    let (rows, rest) = bytes.as_chunks::<SESSION_BYTES>();
    if !rest.is_empty() || rows.len() > SESSIONS_MAX {
        return None;
    }
    let unpacked = rows.iter().map(|row| {
        let (container, numbers) = row.split_first_chunk::<16>()?;
        let (session, numbers) = numbers.split_first_chunk::<4>()?;
        let (epoch, salt) = numbers.split_first_chunk::<4>()?;
        Some(SessionRow {
            container: ContainerId::from_bytes(*container),
            session: u32::from_be_bytes(*session),
            key_epoch: u32::from_be_bytes(*epoch),
            salt: u32::from_be_bytes(*salt.first_chunk()?),
        })
    });
    unpacked.collect()
}

/// How an operator has behaved at this indexer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRow {
    /// Who.
    pub operator: AccountId,
    /// Announcements taken.
    pub announced: u64,
    /// Announcements refused.
    pub refused: u64,
    /// Why the last one was, if any; at most [`Self::WHY_BYTES_MAX`] bytes.
    pub why: String,
    /// When it was first seen.
    pub first: UnixMillis,
    /// When it was last seen.
    pub last: UnixMillis,
}

impl StandingRow {
    /// The longest reason that is kept.
    pub const WHY_BYTES_MAX: usize = 200;
}

/// How long one row of prices lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Span {
    /// Kept for a day.
    Minute,
    /// Kept for a month.
    Hour,
    /// Kept for two years.
    Day,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its number in a table.
    pub const fn code(self) -> i16 {
        match self {
            Self::Minute => 0,
            Self::Hour => 1,
            Self::Day => 2,
        }
    }

    /// How long its rows are kept.
    pub const fn kept(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 86_400,
            Self::Hour => 31 * 86_400,
            Self::Day => 731 * 86_400,
        })
    }
}

/// What was asked for an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prices {
    /// The least.
    pub min: Usd,
    /// As many asked more as asked less.
    pub median: Usd,
    /// The most.
    pub max: Usd,
}

/// What a class cost in a region during one span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceRow {
    /// The hardware class.
    pub class: String,
    /// The region.
    pub region: String,
    /// How long it lasts.
    pub span: Span,
    /// When it began.
    pub at: UnixMillis,
    /// On demand, if any was offered.
    pub on_demand: Option<Prices>,
    /// Pre-emptible, if any was offered.
    pub spot: Option<Prices>,
    /// Slots free, on average.
    pub free: u32,
    /// Slots in all.
    pub total: u32,
}

/// A row that is set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A host announced itself.
    Host(HostRow),
    /// A host is forgotten.
    HostGone(NodeId),
    /// An operator's standing.
    Standing(StandingRow),
    /// A row of prices.
    Price(PriceRow),
}

/// What a change is about: of two changes with one key only the later counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A host.
    Host(NodeId),
    /// An operator.
    Standing(AccountId),
    /// Class, region, span and beginning.
    Price(String, String, Span, UnixMillis),
}

impl Change {
    /// What it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Host(row) => Key::Host(row.node),
            Self::HostGone(node) => Key::Host(*node),
            Self::Standing(row) => Key::Standing(row.operator),
            Self::Price(row) => Key::Price(row.class.clone(), row.region.clone(), row.span, row.at),
        }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let owned = match self {
            Self::Host(row) => row.capability.len() + row.sessions.len() * SESSION_BYTES,
            Self::HostGone(_) => 0,
            Self::Standing(row) => row.why.len(),
            Self::Price(row) => 2 * (row.class.len() + row.region.len()),
        };
        size_of::<Self>() + size_of::<Key>() + owned
    }
}

/// A process that may lead. Drawn at random at its start, so that a process that was started again
/// is another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HolderId([u8; 16]);

impl HolderId {
    /// From random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One time of leading. Terms only rise; what is written in an older term than the present is
/// refused by the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term(pub u64);

/// What came of asking to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The one who asked leads.
    Leads(Term),
    /// Another one leads, for so long unless it renews.
    Waits(Duration),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sessions_come_back_and_nothing_else_passes(
            rows in proptest::collection::vec(any::<([u8; 16], u32, u32, u32)>(), 0..=SESSIONS_MAX),
            noise in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(container, session, key_epoch, salt)| SessionRow {
                    container: ContainerId::from_bytes(container), session, key_epoch, salt,
                })
                .collect();
            prop_assert_eq!(unpack_sessions(&pack_sessions(&rows)), Some(rows));
            if let Some(read) = unpack_sessions(&noise) {
                prop_assert_eq!(pack_sessions(&read), noise);
            }
        }
    }

    #[test]
    fn too_many_sessions_are_none() {
        assert_eq!(unpack_sessions(&[0; SESSION_BYTES * (SESSIONS_MAX + 1)]), None);
    }
}
