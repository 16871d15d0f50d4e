//! What checkers measure of a host's network, place and disk, on a connection of
//! [`crate::ALPN_EXAM`], and what they report.
//!
//! 1. [`crate::exam::ExamAsk::Measure`] says what; the host answers [`crate::exam::ExamReply::Ready`],
//!    or refuses: [`crate::exam::ExamReply::Refused`].
//! 2. A download: the blocks follow as they are. An upload: the checker sends them as they are and
//!    ends its side; the host answers their hash. A disk: the host writes the blocks and answers where
//!    their chain ends, then reads as an [`crate::exam::ExamProbe`] says (one walker) and answers what
//!    it read.
//!
//! Rates are taken by the checker's clock. The finding goes to indexers as a signed [`SiteReport`].

use serde::{Deserialize, Serialize};
use welkin_types::{ContainerId, NodeId, Region};

use crate::signed::Signable;
use crate::turn::TurnProof;

/// The most blocks of 64 KiB that cross a network at once.
pub const NETWORK_BLOCKS_MAX: u32 = 64;
/// The most that a disk keeps.
pub const DISK_BLOCKS_MAX: u32 = 256;
/// The most reads of it.
pub const DISK_STEPS_MAX: u32 = 256;

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MeasureKind {
    /// The host sends.
    Download,
    /// The checker sends.
    Upload,
    /// The host writes and reads.
    Disk,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasureWork {
    /// The minute (since 1970) for which the checker is assigned.
    pub minute: u64,
    /// The container.
    pub container: ContainerId,
    /// What the blocks follow from.
    pub seed: [u8; 32],
    /// What.
    pub kind: MeasureKind,
    /// Blocks of 64 KiB.
    pub blocks: u32,
}

impl MeasureWork {
    /// Whether it is within the protocol's bounds.
    pub const fn is_bounded(&self) -> bool {
        let most = match self.kind {
            MeasureKind::Download | MeasureKind::Upload => NETWORK_BLOCKS_MAX,
            MeasureKind::Disk => DISK_BLOCKS_MAX,
        };
        self.blocks > 0 && self.blocks <= most
    }
}

/// What was measured; rates in KiB a second, at least so much, none where the host refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The least round trip, in microseconds.
    pub rtt_us: u32,
    /// Where the checker is, as far as it says so.
    pub from: Option<Region>,
    /// From the host.
    pub down_kib_s: Option<u32>,
    /// To the host.
    pub up_kib_s: Option<u32>,
    /// Written to its disk.
    pub write_kib_s: Option<u32>,
    /// Read from it.
    pub read_kib_s: Option<u32>,
    /// Direct addresses that the host names, of those that were tried.
    pub ports_named: u8,
    /// Those of them at which it answers.
    pub ports_open: u8,
    /// Whether an answer was wrong: what was sent or read is not what it should be.
    pub is_wrong: bool,
}

/// A checker's signed finding about network and disk of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Who found it.
    pub checker: NodeId,
    /// Where the container is.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// The minute (since 1970) for which the checker was assigned.
    pub minute: u64,
    /// What was found.
    pub site: Site,
    /// What it has drawn for the minute: it shows that it was to come.
    pub turn: Option<TurnProof>,
}

impl Signable for SiteReport {
    const KIND: &'static str = "site-report";
}

/// What round trips say of the place that a host claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceFinding {
    /// Nobody who says where it is has measured, or the region is no place.
    Unknown,
    /// Most checkers do not refute it.
    Possible,
    /// Light is too slow for it, say more than half of a committee.
    Refuted,
}

/// What checkers measured of a container lately, as an indexer adds it up: medians.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteView {
    /// Where the container is.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// Checkers whose last finding counts.
    pub checkers: u32,
    /// Those of them that got a wrong answer.
    pub wrong: u32,
    /// What they found: the middle of each; of round trips the least.
    pub site: Site,
    /// Whether the place can be as claimed.
    pub place: PlaceFinding,
    /// The minute of the last finding.
    pub minute: u64,
}
