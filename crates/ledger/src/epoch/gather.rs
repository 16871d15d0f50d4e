//! From published statements to evidence: what anybody verifies before an epoch is settled.
//!
//! Every statement is opened with its signature, and must be of the epoch, of a checker that has drawn
//! it or stands in, and about a container that takes part. What fails is refused and counted
//! by its reason. The order of statements does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use welkin_proto::check::Finding;
use welkin_proto::epoch::{Heading, Span, Statement};
use welkin_proto::exam::ExamReport;
use welkin_proto::site::SiteReport;
use welkin_proto::{Receipt, Seating, TurnProof};
use welkin_types::{AccountId, Class, ContainerId, LeaseId, NodeId, Region};

mod committee;
mod digests;
mod findings;
mod leases;
mod probes;
mod rolls;
#[cfg(test)]
mod tests;
mod worth;

use digests::Measured;
pub use digests::SideDigests;
use findings::{Parts, Seated};
use leases::Receipts;
pub use probes::Probed;
use rolls::Said;

/// Checkers of a container in a period: 2N + 1.
const COMMITTEE: u8 = welkin_proto::epoch::COMMITTEE;

/// Why a statement does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Its signature is not that of who says it, or it speaks for another's container.
    Forged,
    /// It can't be read, or a number is out of bounds.
    Malformed,
    /// It is of another time.
    Late,
    /// Its author has not shown that it has drawn it, and does not stand in.
    Unassigned,
    /// It is by or about somebody who does not take part.
    Stranger,
    /// The same a second time.
    Repeated,
    /// Its author says another thing, too: both.
    Contradicting,
    /// A receipt that does not hold, or that its buyer promised nothing for.
    Unsound,
    /// Its author stands in where nobody is missing.
    Spare,
    /// Its author works for the account whose container it is about.
    Own,
}

impl Unfit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Forged,
        Self::Malformed,
        Self::Late,
        Self::Unassigned,
        Self::Stranger,
        Self::Repeated,
        Self::Contradicting,
        Self::Unsound,
        Self::Spare,
        Self::Own,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::Late => "late",
            Self::Unassigned => "unassigned",
            Self::Stranger => "stranger",
            Self::Repeated => "repeated",
            Self::Contradicting => "contradicting",
            Self::Unsound => "unsound",
            Self::Spare => "spare",
            Self::Own => "own",
        }
    }
}

/// A checker at a container in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The minute since 1970.
    pub minute: u64,
    /// Which container.
    pub container: ContainerId,
    /// Which checker.
    pub checker: NodeId,
}

/// What a lease delivered in the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSeconds {
    /// Its receipt, signed by host and buyer.
    pub receipt: Receipt,
    /// Seconds by period.
    pub seconds: Vec<(u8, u16)>,
    /// Which minutes of the session are of the epoch, counted from its begin.
    pub minutes: Range<u32>,
    /// What its sides measured, by side.
    pub digests: Vec<SideDigests>,
    /// The quality of its seconds in basis points: all until somebody rates it by the digests.
    pub quality_bp: u16,
    /// Who matched it, if that earns: both sides have signed it, and it is neither of them.
    pub matched: Option<AccountId>,
}

/// Verified statements of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// Which epoch.
    pub epoch: u64,
    /// When it is.
    pub span: Span,
    /// Checkers by their numbers, with the accounts that are paid for them.
    pub checkers: BTreeMap<NodeId, (u32, AccountId)>,
    /// Containers with their host, its account and the class that it claims.
    pub containers: BTreeMap<ContainerId, (NodeId, AccountId, Class)>,
    /// Where hosts have said that they stand.
    pub regions: BTreeMap<NodeId, BTreeSet<Region>>,
    /// Probes, by minute, container and checker.
    pub probes: Vec<Probed>,
    /// Challenges, likewise.
    pub exams: Vec<ExamReport>,
    /// Measurements of networks and disks, likewise.
    pub sites: Vec<SiteReport>,
    /// Finished leases, by their hosts: a lease's name is its buyer's choice.
    pub leases: BTreeMap<(LeaseId, NodeId), LeaseSeconds>,
    /// How many statements were refused, and why; of a sheet that is one, each of its containers.
    pub refused: BTreeMap<Unfit, u64>,
    /// How many checkers judge a container.
    pub committee: u8,
}

/// Verifies statements. `seating` tells from the heading's seed, and from the proof that is shown, how a
/// checker comes to a container.
pub fn gather(
    heading: &Heading,
    statements: &[Statement],
    seating: impl FnMut(Seat, Option<TurnProof>) -> Seating,
) -> Gathered {
    let mut sieve = Sieve::new(heading, seating);
    for statement in statements {
        if let Err(why) = sieve.open(statement) {
            sieve.refuse(why, 1);
        }
    }
    sieve.finish()
}

/// Why a statement does not count by itself, whoever is assigned and whatever else was said.
pub fn unfit(heading: &Heading, statement: &Statement) -> Option<Unfit> {
    Sieve::new(heading, |_, _| Seating::Drawn).open(statement).err()
}

/// What was opened so far; nothing in it depends on the order of statements.
struct Sieve<'a, F> {
    heading: &'a Heading,
    seating: F,
    span: Span,
    refused: BTreeMap<Unfit, u64>,
    rolls: BTreeMap<NodeId, Said>,
    regions: BTreeMap<NodeId, BTreeSet<Region>>,
    /// By their hashes: who says the same again adds nothing.
    sheets: BTreeSet<[u8; 32]>,
    /// What was found where, some of it twice; several findings at one seat contradict each other.
    probes: Vec<Probed>,
    /// Those of the probes that somebody made who stands in, with its rank.
    stand_ins: BTreeMap<Seat, u8>,
    exams: Seated<ExamReport>,
    sites: Seated<SiteReport>,
    /// By lease and host, for a lease's name is its buyer's choice.
    leases: BTreeMap<(LeaseId, NodeId), Receipts>,
    measured: Measured,
}

impl<'a, F: FnMut(Seat, Option<TurnProof>) -> Seating> Sieve<'a, F> {
    fn new(heading: &'a Heading, seating: F) -> Self {
        let view = &heading.view;
        Self {
            heading,
            seating,
            span: Span::of(view.epoch, view.epoch_seconds),
            refused: BTreeMap::new(),
            rolls: BTreeMap::new(),
            regions: BTreeMap::new(),
            sheets: BTreeSet::new(),
            probes: Vec::new(),
            stand_ins: BTreeMap::new(),
            exams: BTreeMap::new(),
            sites: BTreeMap::new(),
            leases: BTreeMap::new(),
            measured: Measured::default(),
        }
    }

    fn open(&mut self, statement: &Statement) -> Result<(), Unfit> {
        match statement {
            Statement::Roll(signed) => self.roll(signed),
            Statement::Sheet(signed) => self.sheet(signed),
            Statement::Exam(signed) => self.exam(signed),
            Statement::Site(signed) => self.site(signed),
            Statement::Lease(file) => self.lease(file),
            Statement::Digests(digests) => {
                self.measured.open(&self.heading.domain, &self.span, digests)
            }
        }
    }
}

impl<F> Sieve<'_, F> {
    fn refuse(&mut self, why: Unfit, count: usize) {
        if count > 0 {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            *self.refused.entry(why).or_default() += count;
        }
    }

    fn finish(mut self) -> Gathered {
        let rolls = self.enrolled();
        let (checkers, containers) = (self.checkers(&rolls), rolls::containers(&rolls));
        let parts = Parts { checkers, containers };
        let probes = self.judged_probes(&parts);
        let (exams, sites) = (std::mem::take(&mut self.exams), std::mem::take(&mut self.sites));
        let exams = self.judged(exams, &parts, |report| report.host);
        let sites = self.judged(sites, &parts, |report| report.host);
        let checkers_all = u8::try_from(self.heading.view.checkers.len()).unwrap_or(u8::MAX);
        let committee = checkers_all.clamp(1, COMMITTEE);
        let (probes, spare) = committee::filled(probes, &self.stand_ins, &self.span, committee);
        self.refuse(Unfit::Spare, spare);
        let mut leases = self.delivered(&parts.containers);
        let measured = std::mem::take(&mut self.measured);
        measured.join(&mut leases, &parts, |why, count| self.refuse(why, count));
        let Parts { checkers, containers } = parts;
        Gathered {
            epoch: self.heading.view.epoch,
            span: self.span,
            checkers,
            containers,
            regions: self.regions,
            probes,
            exams,
            sites,
            leases,
            refused: self.refused,
            committee,
        }
    }
}

const fn unopened(error: welkin_proto::SignatureError) -> Unfit {
    use welkin_proto::SignatureError;
    match error {
        SignatureError::Body(_) => Unfit::Malformed,
        _ => Unfit::Forged,
    }
}

pub(super) const fn is_online(finding: Finding) -> bool {
    matches!(finding, Finding::Online { .. })
}
