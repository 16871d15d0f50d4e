//! What checkers and hosts say to each other in a hardware challenge, and what a checker reports.
//!
//! On a connection of [`crate::ALPN_EXAM`] each stream is one question of the checker:
//!
//! 1. [`ExamAsk::Ping`], answered at once by [`ExamReply::Pong`]: the round trip, by the checker's
//!    clock.
//! 2. [`ExamAsk::Begin`] gives one device its work. The host answers [`ExamReply::Refused`], or does
//!    the work and answers [`ExamReply::Committed`], signed, so that a wrong commitment can be shown
//!    to others.
//! 3. The checker sends [`ExamRows`]; the host answers each row by [`ExamReply::Row`], in the order
//!    asked for, and [`ExamReply::Opened`]. A host that has an order to serve answers
//!    [`ExamReply::Refused`] at any moment: leases come first.
//!
//! The finding goes to indexers as a signed [`ExamReport`].

use serde::{Deserialize, Serialize};
use welkin_types::{Class, ContainerId, NodeId};

use crate::signed::{Signable, Signed};

/// The most rounds of a challenge by this protocol.
pub const EXAM_ROUNDS_MAX: u32 = 64;
/// The largest matrices by this protocol, so that a row fits a frame.
pub const EXAM_N_MAX: u32 = 1 << 17;
/// The most rows opened of a challenge, all rounds together.
pub const EXAM_ROWS_MAX: usize = 4_096;

/// The first frame of a stream, from the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExamAsk {
    /// "Are you there?"
    Ping([u8; 16]),
    /// One device's work.
    Begin(ExamWork),
}

/// One device's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamWork {
    /// The minute (since 1970) for which the checker is assigned.
    pub minute: u64,
    /// The container.
    pub container: ContainerId,
    /// Which device of one of its idle slots.
    pub device: u32,
    /// What the matrices follow from.
    pub seed: [u8; 32],
    /// Rows and columns.
    pub n: u32,
    /// Products, each seeded by the one before.
    pub rounds: u32,
}

impl ExamWork {
    /// Whether it is within the protocol's bounds.
    pub const fn is_bounded(&self) -> bool {
        let is_sized = self.n > 0 && self.n < EXAM_N_MAX;
        is_sized && self.rounds > 0 && self.rounds <= EXAM_ROUNDS_MAX
    }
}

/// Which rows to open, by round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamRows {
    /// Row numbers, at most [`EXAM_ROWS_MAX`] in all.
    pub rounds: Vec<Vec<u32>>,
}

impl ExamRows {
    /// Whether there are no more than may be.
    pub fn is_bounded(&self) -> bool {
        let rows: usize = self.rounds.iter().map(Vec::len).sum();
        rows <= EXAM_ROWS_MAX && self.rounds.len() <= 64
    }
}

/// From the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExamReply {
    /// It is there.
    Pong([u8; 16]),
    /// The work is done.
    Committed(Box<Signed<ExamCommitment>>),
    /// A row that was asked for.
    Row(OpenedRow),
    /// That was the last row.
    Opened,
    /// The work is not done, or no longer.
    Refused(ExamRefusal),
}

/// A host's word for what it computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamCommitment {
    /// For whom.
    pub checker: NodeId,
    /// The work.
    pub work: ExamWork,
    /// The Merkle root of each round's product.
    pub roots: Vec<[u8; 32]>,
}

impl Signable for ExamCommitment {
    const KIND: &'static str = "exam-commitment";
}

/// A row of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedRow {
    /// Which.
    pub index: u32,
    /// Its entries.
    pub row: Vec<i32>,
    /// The siblings from its leaf to the root.
    pub path: Vec<[u8; 32]>,
}

/// Why a host does not do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ExamRefusal {
    /// The checker is not assigned to the container in this minute.
    #[error("the checker is not assigned to this container now")]
    NotAssigned,
    /// No slot is idle, or the device is at another challenge.
    #[error("the container is in use: ask again when a slot is idle")]
    Busy,
    /// The checker had its challenge of this minute, or the share of time for challenges is spent.
    #[error("the time for challenges is spent: ask again later")]
    TooMany,
    /// There is no such device, or the work does not fit it.
    #[error("there is no such device, or the work does not fit it")]
    TooLarge,
    /// This host has no kernels for the device.
    #[error("this host's program has no kernels for the device")]
    NoKernels,
    /// An order came, and leases come first.
    #[error("an order came first: ask again when a slot is idle")]
    Ordered,
    /// The device failed.
    #[error("the device failed at the work")]
    Failed,
    /// What was asked for was not committed to.
    #[error("nothing to open: begin again")]
    NothingToOpen,
}

impl ExamRefusal {
    /// Whether a host may say so without being thought of worse.
    pub const fn is_fair(self) -> bool {
        matches!(self, Self::NotAssigned | Self::Busy | Self::TooMany | Self::Ordered)
    }
}

/// What a challenge came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The work was done.
    Proved {
        /// Millions of multiply-adds a second by the checker's clock: of the slowest device.
        mmac_per_s: u64,
        /// The class whose band that is, the claimed one or a lower one; `None` below all.
        class: Option<Class>,
    },
    /// The host would not.
    Refused(ExamRefusal),
    /// The commitment or the rows came too late.
    TooSlow,
    /// The work was wrong.
    Wrong,
}

/// A checker's signed finding about the hardware of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamReport {
    /// Who found it.
    pub checker: NodeId,
    /// Where the container is.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// The minute (since 1970) for which the checker was assigned.
    pub minute: u64,
    /// Rows and columns of the work.
    pub n: u32,
    /// Its rounds.
    pub rounds: u32,
    /// What was found.
    pub verdict: Verdict,
    /// What the host signed, where that was wrong.
    pub evidence: Option<Box<Signed<ExamCommitment>>>,
}

impl Signable for ExamReport {
    const KIND: &'static str = "exam-report";
}

/// What challenges found of a container lately, as an indexer adds it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Where the container is.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// The class that most checkers proved; `None` where most found another thing.
    pub class: Option<Class>,
    /// The middle of the rates, in millions of multiply-adds a second.
    pub mmac_per_s: u64,
    /// Checkers whose last finding was a proof.
    pub proved: u32,
    /// Checkers whose last finding was none.
    pub failed: u32,
    /// The minute of the last finding.
    pub minute: u64,
}
