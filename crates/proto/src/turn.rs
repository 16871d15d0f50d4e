//! A checker's turn: the proof of what it has drawn for a minute.
//!
//! A checker proves the epoch's seed, a minute and its number with the key that it registered. There is
//! one output, which says whom it checks in that minute and at which second. Until it shows the proof
//! nobody else knows it; then it tells of that minute and of no other. `welkin_check::sortition` has
//! the arithmetic.

use serde::{Deserialize, Serialize};

/// The proof of a verifiable random function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TurnProof {
    /// The output, before it is hashed.
    pub output: [u8; 32],
    /// The challenge of the proof that it is the key's.
    pub challenge: [u8; 32],
    /// The response to it.
    pub response: [u8; 32],
}

impl TurnProof {
    /// The length of a proof.
    pub const BYTES: usize = 96;

    /// The proof in these bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (mut output, mut challenge, mut response) = ([0; 32], [0; 32], [0; 32]);
        output.copy_from_slice(&bytes[..32]);
        challenge.copy_from_slice(&bytes[32..64]);
        response.copy_from_slice(&bytes[64..]);
        Self { output, challenge, response }
    }

    /// Its bytes, one part after the other.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(&self.output);
        bytes[32..64].copy_from_slice(&self.challenge);
        bytes[64..].copy_from_slice(&self.response);
        bytes
    }
}

/// "This is what I have drawn for this minute."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which minute (since 1970).
    pub minute: u64,
    /// The proof.
    pub proof: TurnProof,
}

/// How a checker comes to a container in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seating {
    /// It has drawn it, or there are no more checkers than a committee.
    Drawn,
    /// It is publicly named to stand in where others are missing: in this place, from 0.
    StandIn(u8),
    /// Not at all.
    Nobody,
}
