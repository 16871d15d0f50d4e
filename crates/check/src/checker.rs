//! A checker: probes what it is assigned, once a minute each, and reports what it found.
//!
//! The rule: handle once, then poll until [`Output::Idle`], only then handle again.
//!
//! - A container is probed only in minutes for which this checker has drawn it, or stands in because
//!   an indexer says that it is short of checkers; at most once in each.
//! - At most [`Config::probes_max`] probes are under way; what can't begin within its minute is
//!   not made up.
//! - Every probe ends in one report: with what was found, or unreachable at its deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use welkin_proto::check::{Finding, Report, SHORT_MAX, ShortAsk};
use welkin_proto::index::Listing;
use welkin_proto::settle::EpochView;
use welkin_proto::{NodeAddr, Turn, TurnProof};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use crate::assignment::{epoch_of, minute_of};
use crate::sortition::{Committees, Lot, SHORT_SECOND, Ticket, VrfPublic};

/// The most containers that a checker knows; further ones are left out.
pub const TARGETS_MAX: usize = 1 << 16;
/// The most checkers of an epoch; an epoch with more is not used.
pub const CHECKERS_MAX: usize = 100_000;
/// How many epochs are remembered, the newest.
pub const EPOCHS_MAX: usize = 4;
/// How many minutes' lots are remembered.
const LOTS_MAX: usize = 2;

/// How a checker works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many checkers check a container in a minute.
    pub committee: usize,
    /// The most probes under way.
    pub probes_max: usize,
    /// How long a probe may take, in milliseconds.
    pub deadline_ms: u64,
}

impl Default for Config {
    /// Three checkers a container, 32 probes at once of at most 5 s.
    fn default() -> Self {
        Self { committee: 3, probes_max: 32, deadline_ms: 5_000 }
    }
}

/// What a checker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The seed and checkers of an epoch near the present one. What is known of one does not
    /// change.
    Epoch(EpochView),
    /// What this checker has drawn for a minute, as [`Checker::ticket_wanted`] asked for it.
    Drawn {
        /// The proof.
        turn: Turn,
        /// Whom it visits when.
        lot: Lot,
    },
    /// Which of the containers asked for are short of checkers; where nobody could say so, all.
    Short {
        /// In the last minute of which period.
        minute: u64,
        /// The containers.
        containers: Vec<ContainerId>,
    },
    /// All containers that there are.
    Listings(Vec<Listing>),
    /// A probe has ended. One that is not under way is ignored.
    ProbeDone {
        /// Which host was asked.
        host: NodeId,
        /// For which container.
        container: ContainerId,
        /// For which minute.
        minute: u64,
        /// What was found.
        finding: Finding,
    },
}

/// What a checker wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask this host about this container, and say what was found with [`Input::ProbeDone`].
    Probe {
        /// Where.
        addr: NodeAddr,
        /// Which container.
        container: ContainerId,
        /// For which minute.
        minute: u64,
        /// When the answer must be there.
        deadline: UnixMillis,
        /// What was drawn for the minute; none where this checker stands in.
        turn: Option<Turn>,
    },
    /// Ask the indexers who is short of checkers, and say so with [`Input::Short`].
    AskShort(ShortAsk),
    /// Sign this and send it to the indexers.
    Report(Report),
    /// Nothing until then, or until there is other input.
    Idle {
        /// When to handle [`Input::Tick`] next.
        wake_at: UnixMillis,
    },
}

/// One container of one host.
type Target = (NodeId, ContainerId);

/// An epoch, with its committees.
#[derive(Clone, Debug)]
struct Known {
    epoch_seconds: u64,
    committees: Committees,
}

/// The checker's machine. Handle once, then poll until [`Output::Idle`].
///
/// ```
/// use welkin_check::{Checker, Config, Input, Output};
/// use welkin_types::{NodeId, UnixMillis};
/// let mut checker = Checker::new(NodeId::from_bytes([1; 32]), Config::default());
/// checker.handle(UnixMillis(90_000), Input::Tick);
/// assert_eq!(checker.poll(), Output::Idle { wake_at: UnixMillis(120_000) });
/// ```
#[derive(Clone, Debug)]
pub struct Checker {
    me: NodeId,
    config: Config,
    now: UnixMillis,
    epochs: BTreeMap<u64, Known>,
    /// By minute.
    lots: BTreeMap<u64, (Lot, TurnProof)>,
    targets: BTreeMap<Target, NodeAddr>,
    /// The present minute.
    minute: u64,
    /// When to begin which probe of this minute.
    due: BTreeSet<(UnixMillis, Target)>,
    /// What was begun in this minute.
    begun: BTreeSet<Target>,
    /// What this checker may stand in for in this minute, and whether it has asked who is short.
    standing: BTreeSet<Target>,
    has_asked: bool,
    /// What is short of checkers, of that.
    short: BTreeSet<Target>,
    /// Deadlines of the probes under way, and what shows that they were drawn.
    under_way: BTreeMap<(Target, u64), (UnixMillis, Option<TurnProof>)>,
    /// Reports to be polled; no more than there were probes under way.
    reports: VecDeque<Report>,
}

impl Checker {
    /// A checker that knows nothing yet.
    pub const fn new(me: NodeId, config: Config) -> Self {
        Self {
            me,
            config,
            now: UnixMillis(0),
            epochs: BTreeMap::new(),
            lots: BTreeMap::new(),
            targets: BTreeMap::new(),
            minute: 0,
            due: BTreeSet::new(),
            begun: BTreeSet::new(),
            standing: BTreeSet::new(),
            has_asked: false,
            short: BTreeSet::new(),
            under_way: BTreeMap::new(),
            reports: VecDeque::new(),
        }
    }

    /// Takes an input. A time before the last one is taken as the last one.
    pub fn handle(&mut self, now: UnixMillis, input: Input) {
        self.now = self.now.max(now);
        let is_known_minute = minute_of(self.now) == self.minute;
        if !is_known_minute {
            self.minute = minute_of(self.now);
            self.begun.clear();
            self.standing.clear();
            self.short.clear();
            self.has_asked = false;
        }
        let has_news = match input {
            Input::Tick => false,
            Input::Epoch(view) => self.on_epoch(view),
            Input::Drawn { turn, lot } => self.on_drawn(&turn, lot),
            Input::Short { minute, containers } => self.on_short(minute, containers),
            Input::Listings(listings) => self.on_listings(listings),
            Input::ProbeDone { host, container, minute, finding } => {
                self.on_probe_done(((host, container), minute), finding);
                false
            }
        };
        self.on_deadlines();
        if has_news || !is_known_minute {
            self.plan();
        }
    }

    /// The next thing to do. Every report that is due comes before further probes.
    pub fn poll(&mut self) -> Output {
        if let Some(report) = self.reports.pop_front() {
            return Output::Report(report);
        }
        if let Some(ask) = self.poll_short() {
            return Output::AskShort(ask);
        }
        if let Some(probe) = self.poll_probe() {
            return probe;
        }
        Output::Idle { wake_at: self.wake_at() }
    }

    /// The epoch to ask the settlement service for, if the present minute's is not known. Before
    /// the first epoch is known its length is not either: then `epoch_seconds` is taken.
    pub fn epoch_wanted(&self, now: UnixMillis, epoch_seconds: u64) -> Option<u64> {
        let known = self.epochs.values().next_back();
        let seconds = known.map_or(epoch_seconds, |view| view.epoch_seconds);
        let epoch = epoch_of(minute_of(now), seconds);
        (!self.epochs.contains_key(&epoch)).then_some(epoch)
    }

    /// What to prove with which key so that [`Input::Drawn`] can be said of the present minute; none if
    /// that was said, or if this checker is not of the epoch.
    pub fn ticket_wanted(&self, now: UnixMillis) -> Option<(u64, Ticket, VrfPublic)> {
        let minute = minute_of(now);
        if self.lots.contains_key(&minute) {
            return None;
        }
        let (ticket, key) = self.known(minute)?.committees.ticket(self.me, minute)?;
        Some((minute, ticket, key))
    }

    /// How many probes are under way.
    pub fn probes(&self) -> usize {
        self.under_way.len()
    }

    fn on_epoch(&mut self, view: EpochView) -> bool {
        // Epochs far away are of no use and would push the near ones out.
        let is_near = epoch_of(self.minute, view.epoch_seconds).abs_diff(view.epoch) <= 2;
        let is_known = self.epochs.contains_key(&view.epoch);
        if view.checkers.len() > CHECKERS_MAX || is_known || !is_near {
            return false;
        }
        let committees = Committees::new(&view, self.config.committee);
        self.epochs.insert(view.epoch, Known { epoch_seconds: view.epoch_seconds, committees });
        if self.epochs.len() > EPOCHS_MAX {
            self.epochs.pop_first();
        }
        true
    }

    /// One that is known does not change: what was begun by it is not begun again.
    fn on_drawn(&mut self, turn: &Turn, lot: Lot) -> bool {
        let is_new = !self.lots.contains_key(&turn.minute) && turn.minute == self.minute;
        if is_new {
            self.lots.insert(turn.minute, (lot, turn.proof));
        }
        while self.lots.len() > LOTS_MAX {
            self.lots.pop_first();
        }
        is_new
    }

    fn on_short(&mut self, minute: u64, containers: Vec<ContainerId>) -> bool {
        if minute != self.minute {
            return false;
        }
        let containers: BTreeSet<_> = containers.into_iter().collect();
        let short = self.standing.iter().filter(|target| containers.contains(&target.1));
        self.short.extend(short);
        !self.short.is_empty()
    }

    fn known(&self, minute: u64) -> Option<&Known> {
        self.epochs
            .iter()
            .find(|(epoch, known)| **epoch == epoch_of(minute, known.epoch_seconds))
            .map(|(_, known)| known)
    }

    fn on_listings(&mut self, listings: Vec<Listing>) -> bool {
        let targets = listings.into_iter().take(TARGETS_MAX);
        self.targets = targets.map(|row| ((row.addr.node, row.container.id), row.addr)).collect();
        true
    }

    fn on_probe_done(&mut self, probe: (Target, u64), finding: Finding) {
        let begun = self.under_way.remove(&probe);
        let ((host, container), minute) = probe;
        // After its deadline a probe has found nothing, whatever comes.
        let finding = match begun {
            Some((deadline, _)) if deadline < self.now => Finding::Unreachable,
            _ => finding,
        };
        let checker = self.me;
        let report = |turn| Report { checker, host, container, minute, finding, turn };
        self.reports.extend(begun.map(|(_, turn)| report(turn)));
    }

    fn on_deadlines(&mut self) {
        let over = self.under_way.iter().filter(|(_, (deadline, _))| *deadline < self.now);
        let over: Vec<_> = over.map(|(probe, _)| *probe).collect();
        over.into_iter().for_each(|probe| self.on_probe_done(probe, Finding::Unreachable));
    }

    /// Plans what is left of the present minute.
    fn plan(&mut self) {
        self.due.clear();
        let minute = self.minute;
        let Some(Known { committees, .. }) = self.known(minute) else { return };
        let Some((lot, _)) = self.lots.get(&minute) else { return };
        let at = |second: u8| UnixMillis(minute * 60_000 + u64::from(second) * 1_000);
        let (mut due, mut standing) = (BTreeSet::new(), BTreeSet::new());
        for target in self.targets.keys() {
            if committees.visits(lot, minute, target.1) {
                due.insert((at(committees.second(lot, minute, target.1)), *target));
            } else if committees.stand_ins(minute, target.1).contains(&self.me) {
                standing.insert(*target);
            }
        }
        let of_short = self.short.intersection(&standing);
        due.extend(of_short.map(|target| (at(SHORT_SECOND), *target)));
        due.retain(|(_, target)| !self.begun.contains(target));
        (self.due, self.standing) = (due, standing);
    }

    /// Asks who is short, when all that have drawn it should have spoken.
    fn poll_short(&mut self) -> Option<ShortAsk> {
        if self.has_asked || self.now < self.short_at() || self.standing.is_empty() {
            return None;
        }
        self.has_asked = true;
        let containers: BTreeSet<_> =
            self.standing.iter().map(|(_, container)| *container).collect();
        let containers = containers.into_iter().take(SHORT_MAX).collect();
        Some(ShortAsk { minute: self.minute, containers })
    }

    const fn short_at(&self) -> UnixMillis {
        UnixMillis(self.minute.saturating_mul(60_000) + SHORT_SECOND as u64 * 1_000)
    }

    fn poll_probe(&mut self) -> Option<Output> {
        let (_, target) = *self.due.first().filter(|(at, _)| *at <= self.now)?;
        if self.under_way.len() >= self.config.probes_max {
            return None;
        }
        self.due.pop_first();
        let addr = self.targets.get(&target)?.clone();
        let deadline = UnixMillis(self.now.0.saturating_add(self.config.deadline_ms));
        let (minute, is_drawn) = (self.minute, !self.short.contains(&target));
        let proof = self.lots.get(&minute).map(|(_, proof)| *proof).filter(|_| is_drawn);
        let turn = proof.map(|proof| Turn { minute, proof });
        self.begun.insert(target);
        self.under_way.insert((target, minute), (deadline, proof));
        Some(Output::Probe { addr, container: target.1, minute, deadline, turn })
    }

    /// The next deadline, beginning of a probe or beginning of a minute.
    fn wake_at(&self) -> UnixMillis {
        let minute = UnixMillis((self.minute + 1).saturating_mul(60_000));
        let deadline = self.under_way.values().map(|(at, _)| at.0.saturating_add(1)).min();
        let ask = Some(self.short_at()).filter(|_| !self.has_asked && !self.standing.is_empty());
        // What is due already waits for the end of another probe.
        let due = self.due.first().map(|(at, _)| *at).filter(|at| *at > self.now);
        [Some(minute), deadline.map(UnixMillis), due, ask]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(minute)
    }
}

#[cfg(test)]
mod tests;
