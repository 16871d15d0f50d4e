//! What checkers and hosts say to each other in a hardware challenge, and what a checker reports.
//!
//! On a connection of [`crate::ALPN_EXAM`] each stream is one question of the checker:
//!
//! 0. [`ExamAsk::Turn`]: what the checker has drawn for this minute, so that the host can tell that it
//!    is to come. Where there are no more checkers than a committee nothing is to be shown.
//! 1. [`ExamAsk::Ping`], answered at once by [`ExamReply::Pong`]: the round trip, by the checker's
//!    clock.
//! 2. [`ExamAsk::Begin`] gives one device its work. The host answers [`ExamReply::Refused`], or does
//!    the work and answers [`ExamReply::Committed`], signed, so that a wrong commitment can be shown
//!    to others.
//! 3. The checker sends [`ExamRows`]; the host answers each row by [`ExamReply::Row`], in the order
//!    asked for, and [`ExamReply::Opened`]. A host that has an order to serve answers
//!    [`ExamReply::Refused`] at any moment: leases come first.
//!
//!
//! Memory is asked for apart: after [`ExamAsk::Fill`] the host fills a device's memory and answers
//! [`ExamReply::Filled`]; then the checker sends [`ExamProbe`]s on the same stream, some seconds
//! apart, each answered at once by [`ExamReply::Walked`].
//!
//! The finding goes to indexers as a signed [`ExamReport`].

use serde::{Deserialize, Serialize};
use welkin_types::{Class, ContainerId, NodeId};

use crate::signed::{Signable, Signed};
use crate::turn::{Turn, TurnProof};

/// The most rounds of a challenge by this protocol.
pub const EXAM_ROUNDS_MAX: u32 = 64;
/// The largest matrices by this protocol, so that a row fits a frame.
pub const EXAM_N_MAX: u32 = 1 << 17;
/// The most rows opened of a challenge, all rounds together.
pub const EXAM_ROWS_MAX: usize = 4_096;
/// The most double rounds of a unit of memory.
pub const DOUBLE_ROUNDS_MAX: u32 = 1 << 10;
/// The most probes of memory that was filled once.
pub const EXAM_PROBES_MAX: u32 = 3;
/// The most walks of a probe, so that their ends fit a frame.
pub const EXAM_WALKERS_MAX: u32 = 1 << 12;
/// The most steps of a walk.
pub const EXAM_STEPS_MAX: u32 = 1 << 16;
/// The most steps of all walks of a probe: seconds of work.
pub const EXAM_VISITS_MAX: u32 = 1 << 25;

/// The first frame of a stream, from the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExamAsk {
    /// "Are you there?"
    Ping([u8; 16]),
    /// One device's work.
    Begin(ExamWork),
    /// "Fill a device's memory with this, and let me look at it."
    Fill(FillWork),
    /// "Let me measure your network, or your disk."
    Measure(crate::site::MeasureWork),
    /// A device's work in one window with that of another container of the host, to which the checker
    /// is assigned.
    Beside {
        /// That container.
        assigned: ContainerId,
        /// The work.
        work: ExamWork,
    },
    /// What the checker has drawn for the minute, before any work: answered [`ExamReply::Ready`], or
    /// refused where it is not its own.
    Turn(Turn),
}

/// What a device's memory is to be filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillWork {
    /// The minute (since 1970) for which the checker is assigned.
    pub minute: u64,
    /// The container.
    pub container: ContainerId,
    /// Which device of one of its idle slots.
    pub device: u32,
    /// What the units follow from.
    pub seed: [u8; 32],
    /// Units of 64 bytes.
    pub units: u32,
    /// What each takes to compute.
    pub double_rounds: u32,
}

impl FillWork {
    /// Whether it is within the protocol's bounds.
    pub const fn is_bounded(&self) -> bool {
        let is_sized = self.units > 0 && self.double_rounds > 0;
        is_sized && self.double_rounds <= DOUBLE_ROUNDS_MAX
    }
}

/// "Walk through it from here." After [`ExamReply::Filled`], at most [`EXAM_PROBES_MAX`] times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamProbe {
    /// Fresh random bytes, from which the first places follow.
    pub nonce: [u8; 32],
    /// Walks side by side.
    pub walkers: u32,
    /// Units that each visits.
    pub steps: u32,
}

impl ExamProbe {
    /// Whether it is within the protocol's bounds.
    pub const fn is_bounded(&self) -> bool {
        let is_small = self.walkers <= EXAM_WALKERS_MAX && self.steps <= EXAM_STEPS_MAX;
        let is_short = self.walkers.saturating_mul(self.steps) <= EXAM_VISITS_MAX;
        self.walkers > 0 && self.steps > 0 && is_small && is_short
    }
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalkEnd {
    /// The unit that it would visit next.
    pub place: u32,
    /// What it has seen.
    pub seen: (u32, u32),
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
        rows <= EXAM_ROWS_MAX && self.rounds.len() <= EXAM_ROUNDS_MAX as usize
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
    /// The memory is filled.
    Filled,
    /// Where all walks ended, in their order.
    Walked(Vec<WalkEnd>),
    /// A measurement begins; or the checker's turn is known.
    Ready,
    /// The hash of what a measurement has sent, written or read.
    Hash([u8; 32]),
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
    /// The checker had its challenge of this minute, the share of time for challenges is spent, or more was
    /// asked for than such a device is asked.
    #[error("the time for challenges is spent, or not enough for so much: ask again later")]
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
    /// Refused with fair words, more often than it answered, while it had no lease.
    Evasive,
    /// Memory was there at all probes: of the device that was asked.
    Resident {
        /// How much of it was filled.
        mib: u32,
    },
    /// Memory was not there, or not what it was filled with.
    NotResident,
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
    /// What it has drawn for the minute: it shows that it was to come.
    pub turn: Option<TurnProof>,
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
    /// Checkers whose last look at its memory found it there.
    pub resident: u32,
    /// Checkers whose last look at its memory did not.
    pub absent: u32,
    /// The minute of the last finding.
    pub minute: u64,
}
