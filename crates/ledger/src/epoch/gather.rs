//! From published statements to evidence: what anybody verifies before an epoch is settled.
//!
//! Every statement is opened with its signature, and must be of the epoch, of a checker that has drawn
//! it or stands in, and about a container that takes part. What fails is refused and counted
//! by its reason. The order of statements does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sha2::{Digest as _, Sha256};
use welkin_proto::check::{Finding, Sheet};
use welkin_proto::epoch::{
    Heading, ROLL_CONTAINERS_MAX, ROLL_EARLY_SECONDS, Roll, Span, Statement,
};
use welkin_proto::exam::{EXAM_ROUNDS_MAX, ExamReport, Verdict as ExamVerdict};
use welkin_proto::settle::Listed;
use welkin_proto::{Receipt, ReceiptFile, Seating, Signed, TurnProof, container_ids, encode};
use welkin_types::{AccountId, Class, ContainerId, LeaseId, LeaseState, NodeId, UnixMillis};

mod committee;
mod digests;
mod probes;
#[cfg(test)]
mod tests;
mod worth;

use super::terms::WHOLE_BP;
use digests::Measured;
pub use digests::SideDigests;
pub use probes::Probed;
use probes::keep_seats;

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
    /// Probes, by minute, container and checker.
    pub probes: Vec<Probed>,
    /// Challenges, likewise.
    pub exams: Vec<ExamReport>,
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

type Seated<T> = BTreeMap<Seat, BTreeMap<Vec<u8>, T>>;

/// Keeps those that are so; how many were not.
fn keep<T>(seated: &mut Seated<T>, mut is_so: impl FnMut(&T) -> bool) -> usize {
    let mut left_out = 0;
    for said in seated.values_mut() {
        let before = said.len();
        said.retain(|_, report| is_so(report));
        left_out += before - said.len();
    }
    seated.retain(|_, said| !said.is_empty());
    left_out
}

/// Receipts of one lease, the best last: by seconds that the buyer stands for, by whether it signed, and
/// by digest.
type Receipts = BTreeMap<(u64, bool, [u8; 32]), Receipt>;
/// A host's containers and the class that each claims.
type Offered = Vec<(ContainerId, Class)>;
/// The rolls of a node by when they were signed.
type Said = BTreeMap<UnixMillis, BTreeSet<(AccountId, Offered)>>;
/// For whom nodes take part, with what.
type Rolls = BTreeMap<NodeId, (AccountId, Offered)>;
/// Where containers are, whose they are and what they claim.
type Places = BTreeMap<ContainerId, (NodeId, AccountId, Class)>;

/// What was opened so far; nothing in it depends on the order of statements.
struct Sieve<'a, F> {
    heading: &'a Heading,
    seating: F,
    span: Span,
    refused: BTreeMap<Unfit, u64>,
    rolls: BTreeMap<NodeId, Said>,
    /// By their hashes: who says the same again adds nothing.
    sheets: BTreeSet<[u8; 32]>,
    /// What was found where, some of it twice; several findings at one seat contradict each other.
    probes: Vec<Probed>,
    /// Those of the probes that somebody made who stands in, with its rank.
    stand_ins: BTreeMap<Seat, u8>,
    exams: Seated<ExamReport>,
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
            sheets: BTreeSet::new(),
            probes: Vec::new(),
            stand_ins: BTreeMap::new(),
            exams: BTreeMap::new(),
            leases: BTreeMap::new(),
            measured: Measured::default(),
        }
    }

    fn open(&mut self, statement: &Statement) -> Result<(), Unfit> {
        match statement {
            Statement::Roll(signed) => self.roll(signed),
            Statement::Sheet(signed) => self.sheet(signed),
            Statement::Exam(signed) => self.exam(signed),
            Statement::Lease(file) => self.lease(file),
            Statement::Digests(digests) => {
                self.measured.open(&self.heading.domain, &self.span, digests)
            }
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
        let earliest = start.0.saturating_sub(ROLL_EARLY_SECONDS * 1_000);
        if !(earliest..self.span.closes().saturating_mul(1_000)).contains(&roll.issued.0) {
            return Err(Unfit::Late);
        }
        let account = roll.account.account(domain, signed.signer(), start);
        let account = account.map_err(|_| Unfit::Forged)?;
        let is_bounded = roll.containers.len() <= ROLL_CONTAINERS_MAX;
        if !is_bounded || roll.containers.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Unfit::Malformed);
        }
        // Nobody speaks for a container of another host.
        let own = container_ids(signed.signer());
        if roll.containers.iter().any(|(container, _)| !own.contains(container)) {
            return Err(Unfit::Forged);
        }
        let of_it = self.rolls.entry(signed.signer()).or_default();
        let known = of_it.entry(roll.issued).or_default();
        if known.insert((account, roll.containers)) { Ok(()) } else { Err(Unfit::Repeated) }
    }

    /// Of what its author was not assigned only that is refused. What stands on two sheets alike, for an
    /// indexer that did not list all of the first, counts once.
    fn sheet(&mut self, signed: &Signed<Sheet>) -> Result<(), Unfit> {
        let sheet = signed.open(&self.heading.domain).map_err(unopened)?;
        if sheet.checker != signed.signer() {
            return Err(Unfit::Forged);
        }
        if !sheet.is_sound() {
            return Err(Unfit::Malformed);
        }
        self.span.period_of(sheet.minute).ok_or(Unfit::Late)?;
        let bytes = encode(&sheet).map_err(|_| Unfit::Malformed)?;
        if !self.sheets.insert(Sha256::digest(&bytes).into()) {
            return Err(Unfit::Repeated);
        }
        let Sheet { checker, minute, turn, .. } = sheet;
        for report in sheet.reports() {
            let seat = Seat { minute, container: report.container, checker };
            match (self.seating)(seat, turn) {
                Seating::Nobody => {
                    self.refuse(Unfit::Unassigned, 1);
                    continue;
                }
                Seating::StandIn(rank) => drop(self.stand_ins.insert(seat, rank)),
                Seating::Drawn => (),
            }
            self.probes.push(Probed { seat, finding: report.finding });
        }
        Ok(())
    }

    fn exam(&mut self, signed: &Signed<ExamReport>) -> Result<(), Unfit> {
        let report = signed.open(&self.heading.domain).map_err(unopened)?;
        if report.checker != signed.signer() {
            return Err(Unfit::Forged);
        }
        let ExamReport { checker, container, minute, turn, .. } = report;
        let seat = Seat { minute, container, checker };
        // Nobody stands in at a challenge: it would be known before.
        if self.seated(seat, turn)? != Seating::Drawn {
            return Err(Unfit::Unassigned);
        }
        if report.verdict == ExamVerdict::Wrong {
            self.proof_of_wrong(&report)?;
        } else if report.evidence.is_some() {
            return Err(Unfit::Malformed);
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
            && work.minute == report.minute
            && u32::try_from(commitment.roots.len()).is_ok_and(|roots| roots <= EXAM_ROUNDS_MAX);
        if is_its { Ok(()) } else { Err(Unfit::Malformed) }
    }

    fn seated(&mut self, seat: Seat, turn: Option<TurnProof>) -> Result<Seating, Unfit> {
        self.span.period_of(seat.minute).ok_or(Unfit::Late)?;
        match (self.seating)(seat, turn) {
            Seating::Nobody => Err(Unfit::Unassigned),
            seating => Ok(seating),
        }
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
        let key = (seconds, file.ack.is_some(), Sha256::digest(&bytes).into());
        let known = self.leases.entry((receipt.lease, receipt.host)).or_default();
        if known.insert(key, receipt).is_none() { Ok(()) } else { Err(Unfit::Repeated) }
    }

    fn finish(mut self) -> Gathered {
        let mut rolls = BTreeMap::new();
        for (node, said) in std::mem::take(&mut self.rolls) {
            if let Some(roll) = self.one_roll(said) {
                rolls.insert(node, roll);
            }
        }
        let checkers = self.checkers(&rolls);
        let containers = containers(&rolls);
        // Before what contradicts falls: of a container at another host a checker may have been told
        // something untrue, and its word about the right one is none the worse.
        let takes_part = |checker: &NodeId, host: NodeId, container: &ContainerId| {
            let is_there = containers.get(container).is_some_and(|(at, ..)| *at == host);
            checkers.contains_key(checker) && is_there
        };
        let (mut probes, mut exams) =
            (std::mem::take(&mut self.probes), std::mem::take(&mut self.exams));
        probes::sort(&mut probes);
        // A sheet names containers by their hosts: what takes part is where it was found.
        let strangers = keep_seats(&mut probes, |seat| {
            checkers.contains_key(&seat.checker) && containers.contains_key(&seat.container)
        });
        self.refuse(Unfit::Stranger, strangers);
        let strangers =
            keep(&mut exams, |report| takes_part(&report.checker, report.host, &report.container));
        self.refuse(Unfit::Stranger, strangers);
        // Nobody judges what is its own; who stands in may fill its place.
        let is_others = |checker: &NodeId, container: &ContainerId| {
            let account = checkers.get(checker).map(|(_, account)| account);
            account != containers.get(container).map(|(_, account, _)| account)
        };
        let own = keep_seats(&mut probes, |seat| is_others(&seat.checker, &seat.container));
        self.refuse(Unfit::Own, own);
        let own = keep(&mut exams, |report| is_others(&report.checker, &report.container));
        self.refuse(Unfit::Own, own);
        self.refuse(Unfit::Contradicting, probes::drop_torn(&mut probes));
        let exams = self.single(exams);
        let checkers_all = u8::try_from(self.heading.view.checkers.len()).unwrap_or(u8::MAX);
        let committee = checkers_all.clamp(1, COMMITTEE);
        let (probes, spare) = committee::filled(probes, &self.stand_ins, &self.span, committee);
        self.refuse(Unfit::Spare, spare);
        let mut leases = self.delivered(&containers);
        let measured = std::mem::take(&mut self.measured);
        let judges = |checker: &NodeId, container: &ContainerId| {
            let is_checker = checkers.contains_key(checker);
            let unfit = if is_checker { Unfit::Own } else { Unfit::Stranger };
            (is_checker && is_others(checker, container)).then_some(()).ok_or(unfit)
        };
        measured.join(&mut leases, judges, |why, count| self.refuse(why, count));
        Gathered {
            epoch: self.heading.view.epoch,
            span: self.span,
            checkers,
            containers,
            probes,
            exams,
            leases,
            refused: self.refused,
            committee,
        }
    }

    /// What the rolls of a node come to. The earliest says for whom; what any of them names takes
    /// part, in the class that the earliest names it in, so that nobody withdraws what was found bad.
    /// Of the same moment there is only one.
    fn one_roll(&mut self, said: Said) -> Option<(AccountId, Offered)> {
        let mut whole: Option<(AccountId, BTreeMap<ContainerId, Class>)> = None;
        for (_, rolls) in said {
            let count = rolls.len();
            let one = rolls.into_iter().next().filter(|_| count == 1);
            let account = whole.as_ref().map(|(account, _)| *account);
            match one.filter(|(its, _)| account.is_none_or(|account| account == *its)) {
                Some((account, offered)) => {
                    let (_, all) = whole.get_or_insert_with(|| (account, BTreeMap::new()));
                    for (container, class) in offered {
                        all.entry(container).or_insert(class);
                    }
                }
                None => self.refuse(Unfit::Contradicting, count),
            }
        }
        whole.map(|(account, all)| (account, all.into_iter().collect()))
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

    /// Those of the epoch's list that say for whom they work. In a file of somebody's making a number
    /// may stand twice: the first one has it.
    fn checkers(&mut self, rolls: &Rolls) -> BTreeMap<NodeId, (u32, AccountId)> {
        let listed: BTreeSet<_> = self.heading.view.checkers.iter().copied().collect();
        let (mut taken, mut checkers) = (BTreeSet::new(), BTreeMap::new());
        for Listed { node, number, .. } in listed {
            let is_new = !checkers.contains_key(&node) && taken.insert(number);
            if let Some((account, _)) = rolls.get(&node).filter(|_| is_new) {
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
            let Some(((bound, is_signed, _), receipt)) = said.pop_last() else { continue };
            let is_there = containers.get(&receipt.container).is_some_and(|(host, account, _)| {
                *host == receipt.host && *account == receipt.operator
            });
            let seconds = seconds_of(&self.span, &receipt, bound);
            match (is_there, seconds.is_empty()) {
                (false, _) => self.refuse(Unfit::Stranger, 1),
                (true, true) if bound == 0 => self.refuse(Unfit::Unsound, 1),
                (true, true) => self.refuse(Unfit::Late, 1),
                (true, false) => {
                    let (minutes, digests) = (minutes_of(&self.span, &receipt), Vec::new());
                    let (quality_bp, matched) = (WHOLE_BP, matched_by(&receipt, is_signed));
                    leases.insert(
                        lease,
                        LeaseSeconds { receipt, seconds, minutes, digests, quality_bp, matched },
                    );
                }
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

/// Which host a container is at: the one whose key it is named after.
fn containers(rolls: &Rolls) -> Places {
    let mut places = Places::new();
    for (host, (account, offered)) in rolls {
        for (container, class) in offered {
            places.entry(*container).or_insert_with(|| (*host, *account, class.clone()));
        }
    }
    places
}

pub(super) const fn is_online(finding: Finding) -> bool {
    matches!(finding, Finding::Online { .. })
}

/// Who is paid for the match: whom both sides have signed for, and who is neither of them.
fn matched_by(receipt: &Receipt, is_signed: bool) -> Option<AccountId> {
    let account = receipt.matched.filter(|_| is_signed)?.account;
    (account != receipt.buyer && account != receipt.operator).then_some(account)
}

/// The minutes of a session that overlap the epoch, counted from when it began to run.
fn minutes_of(span: &Span, receipt: &Receipt) -> Range<u32> {
    let mut running = receipt.stages.windows(2).filter(|p| p[0].state == LeaseState::Running);
    let Some(pair) = running.next() else { return 0..0 };
    let (began, ended) = (pair[0].at.0, pair[1].at.0.min(span.end().saturating_mul(1_000)));
    let number = |minutes: u64| u32::try_from(minutes).unwrap_or(u32::MAX);
    let from = span.start.saturating_mul(1_000).saturating_sub(began) / 60_000;
    let to = ended.saturating_sub(began).max(1).div_ceil(60_000);
    number(from)..number(to)
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
