//! A checker's private lot of a minute: which containers it visits in it, and when.
//!
//! Every container has a place on a circle of 2⁶⁴ in every minute: the first 8 bytes of SHA-256 of
//! `"welkin/check/place/1" 0x00`, the epoch's seed (32 bytes), the minute (8 bytes, big-endian) and the
//! container (16 bytes). A checker has an arc on it that begins where SHA-256 of
//! `"welkin/check/arc/1" 0x00` and its output says (likewise) and is committee / checkers of the
//! circle long. It visits what lies on its arc: of each container a committee on average, by chance
//! that nobody can influence. No list of containers is needed to tell whether one is on it.
//!
//! The second is SHA-256 of `"welkin/check/second/3" 0x00`, the output and the container, the first 8
//! bytes modulo [`PROBE_SECONDS`]. Who stands in comes at the second of its own lot, too.

use std::fmt;

use sha2::{Digest as _, Sha256};
use welkin_types::ContainerId;

use crate::assignment::PROBE_SECONDS;

/// The output of a checker's ticket of a minute. It is not printed: it is a secret until it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lot([u8; 32]);

impl fmt::Debug for Lot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lot(..)")
    }
}

impl Lot {
    /// The lot of an output.
    pub const fn new(output: [u8; 32]) -> Self {
        Self(output)
    }

    /// Where the arc begins.
    pub(super) fn start(&self) -> u64 {
        let hash = Sha256::new().chain_update(b"welkin/check/arc/1\0").chain_update(self.0);
        first(hash)
    }

    /// The second of the minute at which its holder probes a container.
    pub fn second(&self, container: ContainerId) -> u8 {
        let hash = Sha256::new()
            .chain_update(b"welkin/check/second/3\0")
            .chain_update(self.0)
            .chain_update(container.as_bytes());
        u8::try_from(first(hash) % u64::from(PROBE_SECONDS)).unwrap_or(0)
    }
}

/// Where a container is on the circle in a minute.
pub(super) fn place(seed: &[u8; 32], minute: u64, container: ContainerId) -> u64 {
    let hash = Sha256::new()
        .chain_update(b"welkin/check/place/1\0")
        .chain_update(seed)
        .chain_update(minute.to_be_bytes())
        .chain_update(container.as_bytes());
    first(hash)
}

/// The first 8 bytes of a hash as a big-endian number.
pub(super) fn first(hash: Sha256) -> u64 {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
