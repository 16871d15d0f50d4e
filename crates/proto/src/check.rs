//! What checkers and hosts say to each other, and what a checker reports.
//!
//! 1. The checker opens a stream with [`Probe`]: a nonce and the minute for which it is assigned.
//! 2. The host answers [`ProbeReply`], signed, with the nonce and what is free.
//! 3. The checker takes the round trip by its own clock and sends a signed [`Report`] to indexers.
//!
//! A probe asks what anybody may ask, so it shows the host nothing of what was drawn: the report does.

use serde::{Deserialize, Serialize};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use crate::signed::Signable;
use crate::turn::TurnProof;

/// A checker's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Fresh random bytes.
    pub nonce: [u8; 16],
    /// The minute (since 1970) for which the checker is assigned.
    pub minute: u64,
}

/// A host's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// The checker's nonce.
    pub nonce: [u8; 16],
    /// Who asked.
    pub checker: NodeId,
    /// The containers and their free slots.
    pub free: Vec<(ContainerId, u32)>,
    /// The host's time.
    pub at: UnixMillis,
}

impl Signable for ProbeReply {
    const KIND: &'static str = "probe-reply";
}

/// What a checker found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// Answered in time; the round trip in microseconds by the checker's clock.
    Online {
        /// Round trip in microseconds.
        rtt_us: u32,
    },
    /// Could not be reached, or did not answer in time.
    Unreachable,
    /// Answered something that is not an answer.
    Malformed,
    /// Answered, but does not know the container.
    NotListed,
}

/// A checker's signed finding about one container in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who found it.
    pub checker: NodeId,
    /// Where the container is.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// The minute (since 1970).
    pub minute: u64,
    /// What was found.
    pub finding: Finding,
    /// What it has drawn for the minute: it shows that it was to come. Without it, it has stood in.
    pub turn: Option<TurnProof>,
}

impl Signable for Report {
    const KIND: &'static str = "report";
}
