//! What a checker says that an epoch came to, once its evidence is closed.
//!
//! 1. Each checker of the epoch collects the published evidence, settles it by itself, signs what came
//!    out ([`Cosign`]) and tells the indexers.
//! 2. Anybody asks an indexer for these words and compares them with its own settlement.

use serde::{Deserialize, Serialize};

use crate::signed::Signable;

/// The most words on one epoch that an indexer keeps and shows.
pub const COSIGNS_MAX: usize = 1_024;

/// "From the published evidence of this epoch I get that."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cosign {
    /// Which epoch.
    pub epoch: u64,
    /// The digest of the evidence as it is settled from.
    #[serde(with = "crate::hexed")]
    pub evidence: [u8; 32],
    /// The root of the claims upon an empty book, as of the epoch by itself.
    #[serde(with = "crate::hexed")]
    pub root: [u8; 32],
}

impl Signable for Cosign {
    const KIND: &'static str = "cosign";
}
