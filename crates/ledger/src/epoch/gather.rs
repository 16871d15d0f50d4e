//! From published statements to evidence: what anybody verifies before an epoch is settled.
//!
//! Every statement is opened with its signature, and must be of the epoch, of a checker that the
//! public seed assigned, and about a container that takes part. What fails is refused and counted
//! by its reason. The order of statements does not matter.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use welkin_proto::check::{Finding, Report};
use welkin_proto::epoch::{Heading, ROLL_CONTAINERS_MAX, Roll, Statement};
use welkin_proto::exam::{ExamReport, Verdict as ExamVerdict};
use welkin_proto::{Receipt, ReceiptFile, Signed, encode};
use welkin_types::{AccountId, Class, ContainerId, LeaseId, LeaseState, NodeId, UnixMillis};

mod span;
#[cfg(test)]
mod tests;
mod worth;

pub use span::Span;

/// Checkers of a container in a period: 2N + 1.
const COMMITTEE: u8 = 3;

/// Why a statement does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Its signature is not that of who says it.
    Forged,
    /// It can't be read, or a number is out of bounds.
    Malformed,
    /// It is of another time.
    Late,
    /// The public seed has not assigned its author.
    Unassigned,
    /// It is by or about somebody who does not take part.
    Stranger,
    /// The same a second time.
    Repeated,
    /// Its author says another thing, too: both.
    Contradicting,
    /// A receipt that does not hold, or that its buyer promised nothing for.
    Unsound,
}

impl Unfit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Forged,
        Self::Malformed,
        Self::Late,
        Self::Unassigned,
        Self::Stranger,
        Self::Repeated,
        Self::Contradicting,
        Self::Unsound,
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
        }
    }
}

/// A checker at a container in a minute: what the public seed assigns or not.
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
    /// Probes, by container, minute and checker.
    pub probes: Vec<Report>,
    /// Challenges, likewise.
    pub exams: Vec<ExamReport>,
    /// Finished leases, by their hosts: a lease's name is its buyer's choice.
    pub leases: BTreeMap<(LeaseId, NodeId), LeaseSeconds>,
    /// How many statements were refused, and why.
    pub refused: BTreeMap<Unfit, u64>,
    /// How many checkers judge a container.
    pub committee: u8,
}

/// Verifies statements. `is_assigned` recomputes the assignment from the heading's seed.
pub fn gather(
    heading: &Heading,
    statements: &[Statement],
    is_assigned: impl FnMut(Seat) -> bool,
) -> Gathered {
    let mut sieve = Sieve::new(heading, is_assigned);
    for statement in statements {
        if let Err(why) = sieve.open(statement) {
            sieve.refuse(why, 1);
        }
    }
    sieve.finish()
}

/// Why a statement does not count by itself, whoever is assigned and whatever else was said.
pub fn unfit(heading: &Heading, statement: &Statement) -> Option<Unfit> {
    Sieve::new(heading, |_| true).open(statement).err()
}

type Seated<T> = BTreeMap<Seat, BTreeMap<Vec<u8>, T>>;
/// Receipts of one lease, the best last: by seconds that the buyer stands for, and by digest.
type Receipts = BTreeMap<(u64, [u8; 32]), Receipt>;
/// A host's containers and the class that each claims.
type Offered = Vec<(ContainerId, Class)>;
/// For whom nodes take part, with what.
type Rolls = BTreeMap<NodeId, (AccountId, Offered)>;
/// Where containers are, whose they are and what they claim.
type Places = BTreeMap<ContainerId, (NodeId, AccountId, Class)>;

/// What was opened so far; nothing in it depends on the order of statements.
struct Sieve<'a, F> {
    heading: &'a Heading,
    is_assigned: F,
    span: Span,
    refused: BTreeMap<Unfit, u64>,
    rolls: BTreeMap<NodeId, BTreeSet<(AccountId, Offered)>>,
    probes: Seated<Report>,
    exams: Seated<ExamReport>,
    /// By lease and host, for a lease's name is its buyer's choice.
    leases: BTreeMap<(LeaseId, NodeId), Receipts>,
}

impl<'a, F: FnMut(Seat) -> bool> Sieve<'a, F> {
    fn new(heading: &'a Heading, is_assigned: F) -> Self {
        let view = &heading.view;
        Self {
            heading,
            is_assigned,
            span: Span::of(view.epoch, view.epoch_seconds),
            refused: BTreeMap::new(),
            rolls: BTreeMap::new(),
            probes: BTreeMap::new(),
            exams: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    fn open(&mut self, statement: &Statement) -> Result<(), Unfit> {
        match statement {
            Statement::Roll(signed) => self.roll(signed),
            Statement::Probe(signed) => self.probe(signed),
            Statement::Exam(signed) => self.exam(signed),
            Statement::Lease(file) => self.lease(file),
        }
    }

    fn refuse(&mut self, why: Unfit, count: usize) {
        if count > 0 {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            *self.refused.entry(why).or_default() += count;
        }
    }

    fn roll(&mut self, signed: &Signed<Roll>) -> Result<(), Unfit> {
        let domain = &self.heading.domain;
        let roll = signed.open(domain).map_err(unopened)?;
        if roll.epoch != self.heading.view.epoch {
            return Err(Unfit::Late);
        }
        let start = UnixMillis(self.span.start.saturating_mul(1_000));
        let account = roll.account.account(domain, signed.signer(), start);
        let account = account.map_err(|_| Unfit::Forged)?;
        let is_bounded = roll.containers.len() <= ROLL_CONTAINERS_MAX;
        if !is_bounded || roll.containers.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Unfit::Malformed);
        }
        let known = self.rolls.entry(signed.signer()).or_default();
        if known.insert((account, roll.containers)) { Ok(()) } else { Err(Unfit::Repeated) }
    }

    fn probe(&mut self, signed: &Signed<Report>) -> Result<(), Unfit> {
        let report = signed.open(&self.heading.domain).map_err(unopened)?;
        if report.checker != signed.signer() {
            return Err(Unfit::Forged);
        }
        let Report { checker, container, minute, .. } = report;
        let seat = self.seated(Seat { minute, container, checker })?;
        insert(&mut self.probes, seat, encode(&report), report)
    }

    fn exam(&mut self, signed: &Signed<ExamReport>) -> Result<(), Unfit> {
        let report = signed.open(&self.heading.domain).map_err(unopened)?;
        if report.checker != signed.signer() {
            return Err(Unfit::Forged);
        }
        let ExamReport { checker, container, minute, .. } = report;
        let seat = self.seated(Seat { minute, container, checker })?;
        if report.verdict == ExamVerdict::Wrong {
            self.proof_of_wrong(&report)?;
        }
        insert(&mut self.exams, seat, encode(&report), report)
    }

    /// Nobody is said to have computed wrongly without what it signed.
    fn proof_of_wrong(&self, report: &ExamReport) -> Result<(), Unfit> {
        let signed = report.evidence.as_ref().ok_or(Unfit::Malformed)?;
        let commitment = signed.open_by(&self.heading.domain, report.host).map_err(unopened)?;
        let work = &commitment.work;
        let is_its = commitment.checker == report.checker
            && work.container == report.container
            && work.minute == report.minute;
        if is_its { Ok(()) } else { Err(Unfit::Malformed) }
    }

    fn seated(&mut self, seat: Seat) -> Result<Seat, Unfit> {
        self.span.period_of(seat.minute).ok_or(Unfit::Late)?;
        if (self.is_assigned)(seat) { Ok(seat) } else { Err(Unfit::Unassigned) }
    }

    fn lease(&mut self, file: &ReceiptFile) -> Result<(), Unfit> {
        if file.domain != self.heading.domain {
            return Err(Unfit::Forged);
        }
        let receipt = file.verify().map_err(|_| Unfit::Unsound)?;
        let ended = receipt.stages.last().map_or(0, |stage| stage.at.0);
        let (from, to) =
            (self.span.start.saturating_mul(1_000), self.span.closes().saturating_mul(1_000));
        if ended < from || ended > to {
            return Err(Unfit::Late);
        }
        // Without the buyer's signature under it, only what a voucher of the buyer promises.
        let promised = file.voucher.as_ref().map_or(0, |voucher| voucher.message.seconds);
        let bound = if file.ack.is_some() { u64::MAX } else { promised };
        let seconds = receipt.usage.seconds.min(bound);
        let bytes = encode(file).map_err(|_| Unfit::Malformed)?;
        let key = (seconds, Sha256::digest(&bytes).into());
        let known = self.leases.entry((receipt.lease, receipt.host)).or_default();
        if known.insert(key, receipt).is_none() { Ok(()) } else { Err(Unfit::Repeated) }
    }

    fn finish(mut self) -> Gathered {
        let mut rolls = BTreeMap::new();
        for (node, said) in std::mem::take(&mut self.rolls) {
            let count = said.len();
            match said.into_iter().next().filter(|_| count == 1) {
                Some(roll) => drop(rolls.insert(node, roll)),
                None => self.refuse(Unfit::Contradicting, count),
            }
        }
        let checkers = self.checkers(&rolls);
        let probes = std::mem::take(&mut self.probes);
        let probes = self.single(probes);
        let exams = std::mem::take(&mut self.exams);
        let exams = self.single(exams);
        let containers = containers(&rolls, &probes);
        let takes_part = |checker: &NodeId, host: NodeId, container: &ContainerId| {
            let is_there = containers.get(container).is_some_and(|(at, ..)| *at == host);
            checkers.contains_key(checker) && is_there
        };
        let (all_probes, all_exams) = (probes.len(), exams.len());
        let probes: Vec<_> = probes
            .into_iter()
            .filter(|report| takes_part(&report.checker, report.host, &report.container))
            .collect();
        let exams: Vec<_> = exams
            .into_iter()
            .filter(|report| takes_part(&report.checker, report.host, &report.container))
            .collect();
        self.refuse(Unfit::Stranger, all_probes - probes.len() + all_exams - exams.len());
        let leases = self.delivered(&containers);
        let checkers_all = u8::try_from(self.heading.view.checkers.len()).unwrap_or(u8::MAX);
        Gathered {
            epoch: self.heading.view.epoch,
            span: self.span,
            checkers,
            containers,
            probes,
            exams,
            leases,
            refused: self.refused,
            committee: checkers_all.clamp(1, COMMITTEE),
        }
    }

    /// What each said once; who said several things of one matter said nothing.
    fn single<T>(&mut self, seated: Seated<T>) -> Vec<T> {
        let mut kept = Vec::with_capacity(seated.len());
        for (_, said) in seated {
            let count = said.len();
            match said.into_values().next().filter(|_| count == 1) {
                Some(one) => kept.push(one),
                None => self.refuse(Unfit::Contradicting, count),
            }
        }
        kept
    }

    /// Those of the epoch's list that say for whom they work. A number follows from the key: its
    /// first four bytes, or the next number that is free.
    fn checkers(&mut self, rolls: &Rolls) -> BTreeMap<NodeId, (u32, AccountId)> {
        let listed: BTreeSet<_> = self.heading.view.checkers.iter().copied().collect();
        let mut taken = BTreeSet::new();
        let mut checkers = BTreeMap::new();
        for node in listed {
            let [a, b, c, d, ..] = *node.as_bytes();
            let mut number = u32::from_be_bytes([a, b, c, d]);
            while !taken.insert(number) {
                number = number.wrapping_add(1);
            }
            if let Some((account, _)) = rolls.get(&node) {
                checkers.insert(node, (number, *account));
            }
        }
        let is_nobody = |(node, (_, containers)): &(&NodeId, &(AccountId, Vec<_>))| {
            containers.is_empty() && !checkers.contains_key(node)
        };
        let nobodies = rolls.iter().filter(is_nobody).count();
        self.refuse(Unfit::Stranger, nobodies);
        checkers
    }

    fn delivered(&mut self, containers: &Places) -> BTreeMap<(LeaseId, NodeId), LeaseSeconds> {
        let mut leases = BTreeMap::new();
        for (lease, mut said) in std::mem::take(&mut self.leases) {
            self.refuse(Unfit::Repeated, said.len().saturating_sub(1));
            let Some(((bound, _), receipt)) = said.pop_last() else { continue };
            let is_there = containers.get(&receipt.container).is_some_and(|(host, account, _)| {
                *host == receipt.host && *account == receipt.operator
            });
            let seconds = seconds_of(&self.span, &receipt, bound);
            match (is_there, seconds.is_empty()) {
                (false, _) => self.refuse(Unfit::Stranger, 1),
                (true, true) if bound == 0 => self.refuse(Unfit::Unsound, 1),
                (true, true) => self.refuse(Unfit::Late, 1),
                (true, false) => drop(leases.insert(lease, LeaseSeconds { receipt, seconds })),
            }
        }
        leases
    }
}

const fn unopened(error: welkin_proto::SignatureError) -> Unfit {
    use welkin_proto::SignatureError;
    match error {
        SignatureError::Body(_) => Unfit::Malformed,
        _ => Unfit::Forged,
    }
}

fn insert<T>(
    seated: &mut Seated<T>,
    seat: Seat,
    bytes: Result<Vec<u8>, welkin_proto::CodecError>,
    said: T,
) -> Result<(), Unfit> {
    let bytes = bytes.map_err(|_| Unfit::Malformed)?;
    let known = seated.entry(seat).or_default().insert(bytes, said);
    if known.is_none() { Ok(()) } else { Err(Unfit::Repeated) }
}

/// Which host a container is at. Of several that claim it, the one where assigned checkers have
/// found it most often.
fn containers(rolls: &Rolls, probes: &[Report]) -> Places {
    let mut found: BTreeMap<(ContainerId, NodeId), u64> = BTreeMap::new();
    for report in probes.iter().filter(|report| is_online(report)) {
        *found.entry((report.container, report.host)).or_default() += 1;
    }
    let mut best: BTreeMap<ContainerId, (u64, (NodeId, AccountId, Class))> = BTreeMap::new();
    for (host, (account, offered)) in rolls {
        for (container, class) in offered {
            let count = found.get(&(*container, *host)).copied().unwrap_or(0);
            let is_better = best.get(container).is_none_or(|(most, _)| count > *most);
            if is_better {
                best.insert(*container, (count, (*host, *account, class.clone())));
            }
        }
    }
    best.into_iter().map(|(container, (_, at))| (container, at)).collect()
}

pub(super) const fn is_online(report: &Report) -> bool {
    matches!(report.finding, Finding::Online { .. })
}

/// Seconds in `running` by period, a begun one counted, at most what the buyer stands for in all.
fn seconds_of(span: &Span, receipt: &Receipt, bound: u64) -> Vec<(u8, u16)> {
    let running = |from: u64, to: u64| -> u64 {
        let pairs = receipt.stages.windows(2);
        let overlap = pairs
            .filter(|pair| pair[0].state == LeaseState::Running)
            .map(|pair| pair[1].at.0.min(to).saturating_sub(pair[0].at.0.max(from)));
        overlap.fold(0, u64::saturating_add).div_ceil(1_000)
    };
    let before = running(0, span.start.saturating_mul(1_000));
    let mut left = bound.saturating_sub(before);
    let mut seconds = Vec::new();
    for period in 0..span.periods {
        let (from, to) = span.bounds(period);
        let here = running(from, to).min(left).min(u64::from(span.period_seconds));
        left -= here;
        if here > 0 {
            seconds.push((period, u16::try_from(here).unwrap_or(u16::MAX)));
        }
    }
    seconds
}
