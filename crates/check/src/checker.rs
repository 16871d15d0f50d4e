//! A checker: probes what it is assigned, once a minute each, and reports what it found.
//!
//! The rule: handle once, then poll until [`Output::Idle`], only then handle again.
//!
//! - A container is probed only in minutes for which this checker has drawn it, or is named to stand
//!   in; at most once in each.
//! - What was listed is known until the end of the epoch, whether it is still listed or not: so who
//!   falls silent is visited on, and found silent.
//! - At most [`Config::probes_max`] probes of hosts that answered lately are under way, and fewer of
//!   those that have not answered yet, and of those that were silent: each has places of its own, so
//!   that the dead keep nobody from visiting the living. What can't begin within its minute is not
//!   made up.
//! - Every probe ends in one report: with what was found, or unreachable at its deadline.

mod targets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use welkin_proto::check::{Finding, Report};
use welkin_proto::epoch::COMMITTEE;
use welkin_proto::index::Listing;
use welkin_proto::settle::{CHECKERS_MAX, EpochView};
use welkin_proto::{NodeAddr, Turn, TurnProof};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use crate::assignment::{epoch_of, minute_of};
use crate::sortition::{Committees, Lot, Ticket, VrfPublic};
pub(crate) use targets::LISTED_MS;
pub use targets::TARGETS_MAX;
use targets::{KEPT_MS_MIN, Standing, Target, Targets};

/// How many epochs are remembered, the newest.
pub const EPOCHS_MAX: usize = 4;
/// How many minutes' lots are remembered.
const LOTS_MAX: usize = 2;

/// How a checker works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many checkers check a container in a minute.
    pub committee: usize,
    /// The most probes under way of hosts that answered lately.
    pub probes_max: usize,
    /// The most of hosts that have not answered yet.
    pub new_max: usize,
    /// The most of hosts that were silent when they were visited last.
    pub silent_max: usize,
    /// How long a probe may take, in milliseconds.
    pub deadline_ms: u64,
}

impl Default for Config {
    /// The network's checkers a container, 32 probes at once of at most 5 s, as many more of new hosts and 16 of
    /// silent ones.
    fn default() -> Self {
        let committee = usize::from(COMMITTEE);
        Self { committee, probes_max: 32, new_max: 32, silent_max: 16, deadline_ms: 5_000 }
    }
}

impl Config {
    const fn places(&self, standing: Standing) -> usize {
        match standing {
            Standing::Heard => self.probes_max,
            Standing::New => self.new_max,
            Standing::Silent => self.silent_max,
        }
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
    /// Containers that there are: some of them, what was known before stays.
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
        /// Whether the host was silent when it was visited last: there will hardly be anybody to ask
        /// for more.
        is_silent: bool,
    },
    /// Sign this and send it to the indexers.
    Report(Report),
    /// Nothing until then, or until there is other input.
    Idle {
        /// When to handle [`Input::Tick`] next.
        wake_at: UnixMillis,
    },
}

/// An epoch, with its committees.
#[derive(Clone, Debug)]
struct Known {
    epoch_seconds: u64,
    committees: Committees,
}

/// A probe under way.
#[derive(Clone, Copy, Debug)]
struct Begun {
    deadline: UnixMillis,
    /// What shows that it was drawn.
    proof: Option<TurnProof>,
    /// Whose places it takes one of.
    standing: Standing,
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
    targets: Targets,
    /// The present minute.
    minute: u64,
    /// When to begin which probe of this minute, by how its host stood then.
    due: BTreeSet<(Standing, UnixMillis, Target)>,
    /// What was begun in this minute.
    begun: BTreeSet<Target>,
    under_way: BTreeMap<(Target, u64), Begun>,
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
            targets: Targets::new(),
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
            Input::Drawn { turn, lot } => self.on_drawn(&turn, lot),
            Input::Listings(listings) => {
                self.on_listings(listings);
                false
            }
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

    /// Whether nothing more will be found of a minute, as far as is known now.
    pub fn is_over(&self, minute: u64) -> bool {
        let is_due = minute == self.minute && !self.due.is_empty();
        !is_due && self.under_way.keys().all(|(_, of)| *of != minute)
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

    fn known(&self, minute: u64) -> Option<&Known> {
        self.epochs
            .iter()
            .find(|(epoch, known)| **epoch == epoch_of(minute, known.epoch_seconds))
            .map(|(_, known)| known)
    }

    /// What is new is planned by itself: there may be many that are known.
    fn on_listings(&mut self, listings: Vec<Listing>) {
        let new = self.targets.list(self.now, listings);
        let due: Vec<_> = new.into_iter().filter_map(|target| self.due_of(target)).collect();
        self.due.extend(due);
    }

    fn on_probe_done(&mut self, probe: (Target, u64), finding: Finding) {
        let Some(begun) = self.under_way.remove(&probe) else { return };
        let ((host, container), minute) = probe;
        // After its deadline a probe has found nothing, whatever comes.
        let finding = if begun.deadline < self.now { Finding::Unreachable } else { finding };
        self.targets.visited(host, finding != Finding::Unreachable);
        let (checker, turn) = (self.me, begun.proof);
        self.reports.push_back(Report { checker, host, container, minute, finding, turn });
    }

    fn on_deadlines(&mut self) {
        let over = self.under_way.iter().filter(|(_, begun)| begun.deadline < self.now);
        let over: Vec<_> = over.map(|(probe, _)| *probe).collect();
        over.into_iter().for_each(|probe| self.on_probe_done(probe, Finding::Unreachable));
    }

    /// Plans what is left of the present minute.
    fn plan(&mut self) {
        self.due.clear();
        let Some(known) = self.known(self.minute) else { return };
        let span = *known.committees.span();
        let kept_ms = (u64::from(span.period_seconds) * 1_000).max(KEPT_MS_MIN);
        let lately = self.now.0.saturating_sub(kept_ms);
        self.targets.forget(UnixMillis(span.start.saturating_mul(1_000).min(lately)));
        let due = self.targets.keys().filter_map(|target| self.due_of(target));
        self.due = due.collect();
    }

    /// When to begin with a container in the present minute, if that is to be done.
    fn due_of(&self, target: Target) -> Option<(Standing, UnixMillis, Target)> {
        let (minute, (host, container)) = (self.minute, target);
        let Known { committees, .. } = self.known(minute)?;
        let (lot, _) = self.lots.get(&minute)?;
        let is_mine = committees.visits(lot, minute, container)
            || committees.stand_ins(minute, container).contains(&self.me);
        let second = u64::from(lot.second(container));
        let at = UnixMillis(minute.saturating_mul(60_000) + second * 1_000);
        let standing = self.targets.standing(host);
        (is_mine && !self.begun.contains(&target)).then_some((standing, at, target))
    }

    /// What shows that a container was drawn for the present minute; none where this checker stands in.
    fn turn(&self, container: ContainerId) -> Option<Turn> {
        let minute = self.minute;
        let (lot, proof) = self.lots.get(&minute)?;
        let is_drawn = self.known(minute)?.committees.visits(lot, minute, container);
        is_drawn.then_some(Turn { minute, proof: *proof })
    }

    fn poll_probe(&mut self) -> Option<Output> {
        let mut next = || Standing::ALL.into_iter().find_map(|of| self.poll_probe_of(of));
        // What is sorted anew may belong to those that were looked at before.
        next().or_else(next)
    }

    fn poll_probe_of(&mut self, standing: Standing) -> Option<Output> {
        let (target, addr) = loop {
            let next = self.next_due(standing)?;
            let (_, at, target) = next;
            let taken = self.under_way.values().filter(|begun| begun.standing == standing);
            if at > self.now || taken.count() >= self.config.places(standing) {
                return None;
            }
            self.due.remove(&next);
            match self.targets.place(target) {
                Some((addr, now)) if now == standing => break (target, addr.clone()),
                // It was visited since, beside another container of its host.
                Some((_, now)) => drop(self.due.insert((now, at, target))),
                // One that was forgotten meanwhile keeps no other one waiting.
                None => (),
            }
        };
        let deadline = UnixMillis(self.now.0.saturating_add(self.config.deadline_ms));
        let (minute, turn) = (self.minute, self.turn(target.1));
        self.begun.insert(target);
        let proof = turn.map(|turn| turn.proof);
        self.under_way.insert((target, minute), Begun { deadline, proof, standing });
        let is_silent = standing == Standing::Silent;
        Some(Output::Probe { addr, container: target.1, minute, deadline, turn, is_silent })
    }

    /// What is due next of those that stood so.
    fn next_due(&self, standing: Standing) -> Option<(Standing, UnixMillis, Target)> {
        const LEAST: Target = (NodeId::from_bytes([0; 32]), ContainerId::from_bytes([0; 16]));
        let next = self.due.range((standing, UnixMillis(0), LEAST)..).next();
        next.copied().filter(|(of, ..)| *of == standing)
    }

    /// The next deadline, beginning of a probe or beginning of a minute.
    fn wake_at(&self) -> UnixMillis {
        let minute = UnixMillis((self.minute + 1).saturating_mul(60_000));
        let deadline =
            self.under_way.values().map(|begun| begun.deadline.0.saturating_add(1)).min();
        // What is due already waits for the end of another probe.
        let due = Standing::ALL.into_iter().filter_map(|standing| self.next_due(standing));
        let due = due.map(|(_, at, _)| at).filter(|at| *at > self.now).min();
        [Some(minute), deadline.map(UnixMillis), due].into_iter().flatten().min().unwrap_or(minute)
    }
}

#[cfg(test)]
mod tests;
