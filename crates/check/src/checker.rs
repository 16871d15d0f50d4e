//! A checker: probes what it is assigned, once a minute each, and reports what it found.
//!
//! The rule: handle once, then poll until [`Output::Idle`], only then handle again.
//!
//! - A container is probed only in minutes for which the public assignment names this checker,
//!   and at most once in each.
//! - At most [`Config::probes_max`] probes are under way; what can't begin within its minute is
//!   not made up.
//! - Every probe ends in one report: with what was found, or unreachable at its deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use welkin_proto::NodeAddr;
use welkin_proto::check::{Finding, Report};
use welkin_proto::index::Listing;
use welkin_proto::settle::EpochView;
use welkin_types::{ContainerId, NodeId, UnixMillis};

use crate::assignment::{assigned_to, epoch_of, minute_of, second_of_minute};

/// The most containers that a checker knows; further ones are left out.
pub const TARGETS_MAX: usize = 1 << 16;
/// The most checkers of an epoch; an epoch with more is not used.
pub const CHECKERS_MAX: usize = 100_000;
/// How many epochs are remembered, the newest.
pub const EPOCHS_MAX: usize = 4;

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
    },
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
    epochs: BTreeMap<u64, EpochView>,
    targets: BTreeMap<Target, NodeAddr>,
    /// The present minute.
    minute: u64,
    /// When to begin which probe of this minute.
    due: BTreeSet<(UnixMillis, Target)>,
    /// What was begun in this minute.
    begun: BTreeSet<Target>,
    /// Deadlines of the probes under way.
    under_way: BTreeMap<(Target, u64), UnixMillis>,
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
            targets: BTreeMap::new(),
            minute: 0,
            due: BTreeSet::new(),
            begun: BTreeSet::new(),
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
        }
        let has_news = match input {
            Input::Tick => false,
            Input::Epoch(view) => self.on_epoch(view),
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
        self.epochs.insert(view.epoch, view);
        if self.epochs.len() > EPOCHS_MAX {
            self.epochs.pop_first();
        }
        true
    }

    fn on_listings(&mut self, listings: Vec<Listing>) -> bool {
        let targets = listings.into_iter().take(TARGETS_MAX);
        self.targets = targets.map(|row| ((row.addr.node, row.container.id), row.addr)).collect();
        true
    }

    fn on_probe_done(&mut self, probe: (Target, u64), finding: Finding) {
        let deadline = self.under_way.remove(&probe);
        let ((host, container), minute) = probe;
        // After its deadline a probe has found nothing, whatever comes.
        let finding = if deadline.is_some_and(|deadline| deadline < self.now) {
            Finding::Unreachable
        } else {
            finding
        };
        let report = Report { checker: self.me, host, container, minute, finding };
        self.reports.extend(deadline.map(|_| report));
    }

    fn on_deadlines(&mut self) {
        let over = self.under_way.iter().filter(|(_, deadline)| **deadline < self.now);
        let over: Vec<_> = over.map(|(probe, _)| *probe).collect();
        over.into_iter().for_each(|probe| self.on_probe_done(probe, Finding::Unreachable));
    }

    /// Plans what is left of the present minute.
    fn plan(&mut self) {
        self.due.clear();
        let minute = self.minute;
        let view = self.epochs.values().find(|v| v.epoch == epoch_of(minute, v.epoch_seconds));
        let Some(EpochView { seed, checkers, .. }) = view else { return };
        let containers: BTreeSet<_> =
            self.targets.keys().map(|(_, container)| *container).collect();
        let containers: Vec<_> = containers.into_iter().collect();
        let mine = assigned_to(seed, minute, checkers, &containers, self.me, self.config.committee);
        let mine: BTreeSet<_> = mine.into_iter().collect();
        let is_left = |target: &&Target| mine.contains(&target.1) && !self.begun.contains(target);
        let due = self.targets.keys().filter(is_left).map(|target| {
            let second = second_of_minute(seed, minute, self.me, target.1);
            (UnixMillis(minute * 60_000 + u64::from(second) * 1_000), *target)
        });
        self.due = due.collect();
    }

    fn poll_probe(&mut self) -> Option<Output> {
        let (_, target) = *self.due.first().filter(|(at, _)| *at <= self.now)?;
        if self.under_way.len() >= self.config.probes_max {
            return None;
        }
        self.due.pop_first();
        let addr = self.targets.get(&target)?.clone();
        let deadline = UnixMillis(self.now.0.saturating_add(self.config.deadline_ms));
        self.begun.insert(target);
        self.under_way.insert((target, self.minute), deadline);
        Some(Output::Probe { addr, container: target.1, minute: self.minute, deadline })
    }

    /// The next deadline, beginning of a probe or beginning of a minute.
    fn wake_at(&self) -> UnixMillis {
        let minute = UnixMillis((self.minute + 1).saturating_mul(60_000));
        let deadline = self.under_way.values().min().map(|at| UnixMillis(at.0.saturating_add(1)));
        // What is due already waits for the end of another probe.
        let due = self.due.first().map(|(at, _)| *at).filter(|at| *at > self.now);
        [Some(minute), deadline, due].into_iter().flatten().min().unwrap_or(minute)
    }
}

#[cfg(test)]
mod tests;
