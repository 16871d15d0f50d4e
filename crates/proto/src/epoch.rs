//! The published evidence of an epoch: signed statements, as indexers keep and show them.
//!
//! 1. Hosts and checkers say once an epoch for which account they take part, with a signed [`Roll`].
//! 2. Checkers' reports, finished leases and what was measured of them are kept as they were signed, as [`Statement`]s.
//! 3. Anybody asks an indexer for them, page by page ([`EvidenceAsk`], [`EvidencePage`]).
//!
//! What they are worth, `welkin_ledger::epoch` says; nothing here is believed without its signature.

use serde::{Deserialize, Serialize};
use welkin_types::{Class, ContainerId, Region, UnixMillis};

use crate::check::Sheet;
use crate::digest::SessionDigests;
use crate::eip712::Domain;
use crate::exam::ExamReport;
use crate::order::{Delegation, SignedByAccount};
use crate::receipt::ReceiptFile;
use crate::settle::EpochView;
use crate::signed::{Signable, Signed};
use crate::site::SiteReport;
pub use crate::span::Span;

/// The edition of the evidence: of its statements, and of how they are read.
pub const EVIDENCE_VERSION: u16 = 6;
/// How many checkers look at a container at a time: 2N + 1. With another number evidence is read differently.
pub const COMMITTEE: u8 = 3;
/// The most bytes of one statement.
pub const STATEMENT_BYTES_MAX: usize = 64 << 10;
/// The most bytes of statements on one page; one more statement may stand over it.
pub const PAGE_BYTES_MAX: usize = 256 << 10;
/// A roll may be signed so long before its epoch, in seconds: clocks differ.
pub const ROLL_EARLY_SECONDS: u64 = 60;
/// The most containers of one roll.
pub const ROLL_CONTAINERS_MAX: usize = crate::Capability::CONTAINERS_MAX;

/// "I take part in this epoch, for this account": a host with its containers, a checker with none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// Which epoch.
    pub epoch: u64,
    /// When it was signed, within the epoch or up to [`ROLL_EARLY_SECONDS`] before: of several the
    /// earliest says who is paid and in which class a container is, and none takes a container back.
    pub issued: UnixMillis,
    /// Who is paid: the account's permission for the node that signs.
    pub account: SignedByAccount<Delegation>,
    /// A host's containers and the class that each claims; at most [`ROLL_CONTAINERS_MAX`].
    pub containers: Vec<(ContainerId, Class)>,
    /// Where a host says that it stands; nothing of a checker.
    pub region: Option<Region>,
}

impl Signable for Roll {
    const KIND: &'static str = "roll";
}

/// One statement of an epoch's evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    /// Who takes part.
    Roll(Box<Signed<Roll>>),
    /// Which containers were there in a minute.
    Sheet(Box<Signed<Sheet>>),
    /// What its hardware was found to be.
    Exam(Box<Signed<ExamReport>>),
    /// What its network and disk were found to do.
    Site(Box<Signed<SiteReport>>),
    /// A lease that has ended.
    Lease(Box<ReceiptFile>),
    /// What one side of it measured.
    Digests(Box<SessionDigests>),
}

/// What the statements of an epoch are read by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// [`EVIDENCE_VERSION`]
    pub version: u16,
    /// Where signatures hold.
    pub domain: Domain,
    /// The epoch, its public seed and its checkers.
    pub view: EpochView,
}

impl Heading {
    /// The heading of an epoch by this edition.
    pub const fn new(domain: Domain, view: EpochView) -> Self {
        Self { version: EVIDENCE_VERSION, domain, view }
    }
}

/// "What is known of this epoch?"
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceAsk {
    /// Which epoch.
    pub epoch: u64,
    /// Where to go on: 0 at first, then [`EvidencePage::next`].
    pub from: u64,
}

/// A part of what is known of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidencePage {
    /// What they are read by.
    pub heading: Heading,
    /// Statements in the order in which they came.
    pub statements: Vec<Statement>,
    /// Where to go on; none at the end of what is there now.
    pub next: Option<u64>,
    /// Statements that were not kept for want of room.
    pub left_out: u64,
}
