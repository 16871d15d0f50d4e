//! Which of a checker's containers it examines when, and what its findings teach it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{debug, info};
use welkin_check::TARGETS_MAX;
use welkin_check::challenge::{ClassTable, Refusals, Unmet, Windows};
use welkin_proto::exam::{ExamRefusal, ExamReport, Verdict};
use welkin_proto::index::Listing;
use welkin_proto::{Turn, TurnProof};
use welkin_types::{Class, ContainerId, NodeId};

use super::exam::{ExamError, Target, Who, Window, examine_all, fitting};
use super::residency::{Pace, look};
use crate::outside;

/// The most challenges at once: verifying one takes a core for a while.
const AT_ONCE: usize = 4;
/// The most rates that are learnt from in an epoch, by class.
const SAMPLES_MAX: usize = 1_024;

/// The most containers that are asked again, and refusals that wait for a list.
const UNMET_MAX: usize = 4_096;
/// The most containers whose refusals are counted.
const REFUSALS_MAX: usize = TARGETS_MAX;
/// Of 256 challenges so many ask whether memory is there, instead of what the devices compute.
const LOOKS_OF_256: u8 = 32;
/// The most looks at memory at once: they wait most of the time.
const LOOKS_AT_ONCE: usize = 32;
/// Refusals are counted at least so long, in minutes, where epochs are shorter.
const COUNTED_MINUTES: u64 = 60;
/// What was not listed for so many minutes is forgotten: a list is walked in less.
const LISTED_MINUTES: u64 = 60;
/// How often that is looked at, in minutes.
const FORGET_EVERY: u64 = 10;

/// A checker's challenges.
#[derive(Debug)]
pub(super) struct Exams {
    who: Who,
    /// Of a hundred probes so many come with a challenge.
    percent: u8,
    /// What is listed, no more than a checker knows.
    targets: BTreeMap<Place, Listed>,
    table: Arc<ClassTable>,
    samples: BTreeMap<Class, Vec<u64>>,
    /// What was slower than its class, and is challenged again before it is told.
    unmet: Unmet<Place, Verdict>,
    /// The same of memory that was not there.
    absent: Unmet<Place, Verdict>,
    /// Whose memory was not there when it was last looked at: nothing good is told of them until it is.
    without: BTreeSet<Place>,
    pace: Pace,
    refusals: Refusals<Place>,
    /// Those of containers beside another for any other reason than that they are in use.
    beside_refusals: Refusals<Place>,
    /// Which containers of a host are challenged together.
    windows: Windows,
    /// When each was last asked: a host takes one challenge a minute.
    asked: BTreeMap<Place, u64>,
    /// Refusals of which the next word on the container shows whether a lease explains them.
    doubts: Vec<Doubt>,
    /// Hosts to be asked about for that.
    doubted: BTreeSet<NodeId>,
    /// When it was last forgotten what is not listed.
    forgotten: u64,
    epoch: u64,
    /// When refusals were last begun to be counted.
    counted_from: u64,
    under_way: JoinSet<Ended>,
    /// At whose memory these look: that takes longer than a minute may have left.
    looked_at: BTreeSet<Place>,
}

/// A container at its host.
type Place = (NodeId, ContainerId);

/// A finding of one container by itself.
const fn alone(report: ExamReport) -> Window {
    Window { report, is_whole: true, slowest: 0, refusals: Vec::new() }
}

/// A container, as it was listed last.
#[derive(Clone, Debug)]
struct Listed {
    target: Target,
    /// Whether it has an idle slot.
    is_idle: bool,
    /// Whether not all of its slots are free.
    has_lease: bool,
    /// In which minute.
    minute: u64,
}

/// A challenge that has ended.
#[derive(Debug)]
struct Ended {
    target: Target,
    minute: u64,
    /// What shows that this checker was to come then.
    proof: Option<TurnProof>,
    had_lease: bool,
    is_look: bool,
    /// With whether they had a lease.
    beside: Vec<(ContainerId, bool)>,
    found: Result<Window, ExamError>,
}

/// A fair refusal while the container seemed to have no lease.
#[derive(Debug)]
struct Doubt {
    place: Place,
    minute: u64,
    proof: Option<TurnProof>,
    why: ExamRefusal,
    /// Whether another of its host was meant.
    is_beside: bool,
}

impl Exams {
    pub(super) fn new(who: Who, percent: u8) -> Self {
        Self {
            who,
            percent: percent.min(100),
            targets: BTreeMap::new(),
            table: Arc::new(ClassTable::published()),
            samples: BTreeMap::new(),
            unmet: Unmet::new(UNMET_MAX),
            absent: Unmet::new(UNMET_MAX),
            without: BTreeSet::new(),
            pace: Pace::default(),
            refusals: Refusals::new(REFUSALS_MAX),
            beside_refusals: Refusals::new(REFUSALS_MAX),
            windows: Windows::default(),
            asked: BTreeMap::new(),
            doubts: Vec::new(),
            doubted: BTreeSet::new(),
            forgotten: 0,
            epoch: 0,
            counted_from: 0,
            under_way: JoinSet::new(),
            looked_at: BTreeSet::new(),
        }
    }

    /// Takes in some of what is on offer: what has an idle slot may be examined. Where several indexers
    /// list a container, the fewest free slots count: a lease that one of them knows explains a refusal.
    /// Returns what is found of those of them that refused, where this answers what was asked about a host:
    /// a page of a walk may be of before the refusal.
    pub(super) fn list(&mut self, listings: &[Listing], is_answer: bool) -> Vec<ExamReport> {
        let mut free = BTreeMap::<Place, &Listing>::new();
        for row in listings {
            let known = free.entry((row.addr.node, row.container.id)).or_insert(row);
            if row.free < known.free {
                *known = row;
            }
        }
        let minute = welkin_check::minute_of(outside::now());
        for (place, row) in &free {
            if self.targets.len() < TARGETS_MAX || self.targets.contains_key(place) {
                let (is_idle, has_lease) = (row.free > 0, row.free < row.container.slots);
                let target = Target::of(row);
                self.targets.insert(*place, Listed { target, is_idle, has_lease, minute });
            }
        }
        self.forget(minute);
        if !is_answer {
            return Vec::new();
        }
        let doubts = std::mem::take(&mut self.doubts).into_iter();
        let (told, open) = doubts.partition(|doubt: &Doubt| free.contains_key(&doubt.place));
        self.doubts = open;
        told.iter().filter_map(|doubt| self.settle(doubt)).collect()
    }

    /// Forgets what is listed no more, now and then: it may be a lot to look at.
    fn forget(&mut self, minute: u64) {
        if minute < self.forgotten + FORGET_EVERY {
            return;
        }
        self.forgotten = minute;
        self.targets.retain(|_, listed| listed.minute + LISTED_MINUTES >= minute);
        let targets = &self.targets;
        self.unmet.retain(|place| targets.contains_key(place));
        self.absent.retain(|place| targets.contains_key(place));
        self.without.retain(|place| targets.contains_key(place));
        self.asked.retain(|place, _| targets.contains_key(place));
        self.doubts.retain(|doubt| doubt.minute + LISTED_MINUTES >= minute);
    }

    /// The hosts that refused since this was asked last: it is to be seen whether they have a lease.
    pub(super) fn doubted(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.doubted)
    }

    fn doubt(&mut self, doubt: Doubt) {
        if self.doubts.len() < UNMET_MAX {
            self.doubted.insert(doubt.place.0);
            self.doubts.push(doubt);
        }
    }

    /// A container with an idle slot.
    pub(super) fn target(&self, host: NodeId, container: ContainerId) -> Option<&Target> {
        self.idle(&(host, container)).map(|listed| &listed.target)
    }

    fn idle(&self, place: &Place) -> Option<&Listed> {
        self.targets.get(place).filter(|listed| listed.is_idle)
    }

    /// A probe begins: by chance, which no host can foresee, a challenge goes with it; always, where the
    /// last one found less than the claimed class or was refused.
    pub(super) fn begin(
        &mut self,
        host: NodeId,
        container: ContainerId,
        minute: u64,
        turn: Option<Turn>,
    ) {
        let [die, kind] = outside::random();
        let place = (host, container);
        let Some(Listed { target, has_lease: had_lease, .. }) = self.idle(&place).cloned() else {
            return;
        };
        if self.is_asked(&place, minute) {
            return;
        }
        let beside = self.beside(&target, minute);
        // Who is challenged with others is so as often in all as who is challenged alone.
        let share = 256 / u32::try_from(beside.len() + 1).unwrap_or(u32::MAX);
        let is_chosen = u32::from(die) * 100 < u32::from(self.percent) * share
            || self.unmet.is_open(&place)
            || self.absent.is_open(&place)
            || self.refusals.is_open(&place);
        // Until it is known whether memory is there, that is what is asked.
        let is_look = self.absent.is_open(&place)
            || self.without.contains(&place)
            || (kind < LOOKS_OF_256 && !self.unmet.is_open(&place));
        let works = self.under_way.len().saturating_sub(self.looked_at.len());
        let has_room = if is_look { self.looked_at.len() < LOOKS_AT_ONCE } else { works < AT_ONCE };
        if !is_chosen || !has_room {
            return;
        }
        self.asked.insert(place, minute);
        if is_look {
            self.looked_at.insert(place);
        } else {
            self.asked.extend(beside.iter().map(|other| ((host, other.container), minute)));
        }
        let had_lease_of =
            |other: &Target| self.idle(&(host, other.container)).is_none_or(|it| it.has_lease);
        let partners = beside.iter().map(|other| (other.container, had_lease_of(other))).collect();
        let who = Who { turn, ..self.who.clone() };
        let (table, pace, proof) = (Arc::clone(&self.table), self.pace, who.proof(minute));
        self.under_way.spawn(async move {
            let found = match is_look {
                true => look(&who, &target, minute, pace).await.map(alone),
                false => examine_all(&who, &target, &beside, minute, &table).await,
            };
            Ended { target, minute, proof, had_lease, is_look, beside: partners, found }
        });
    }

    /// Whether it has a challenge in this minute, or one of before that is under way: it would refuse
    /// another for that.
    fn is_asked(&self, place: &Place, minute: u64) -> bool {
        self.asked.get(place) == Some(&minute) || self.looked_at.contains(place)
    }

    /// Others of its host and class that are challenged together with a container.
    fn beside(&self, target: &Target, minute: u64) -> Vec<Target> {
        let host = target.addr.node;
        let of_host =
            (host, ContainerId::from_bytes([0; 16]))..=(host, ContainerId::from_bytes([255; 16]));
        let like = |listed: &&Listed| listed.is_idle && listed.target.class == target.class;
        let like = self.targets.range(of_host).map(|(_, listed)| listed).filter(like);
        let like: Vec<_> = like.map(|listed| listed.target.container).collect();
        let partners = self.windows.partners(target.container, &like, &outside::random());
        let is_due = |other: &&ContainerId| !self.is_asked(&(host, **other), minute);
        let due = partners.iter().filter(is_due);
        let found = due.filter_map(|other| self.idle(&(host, *other)));
        let found: Vec<_> = found.map(|listed| listed.target.clone()).collect();
        fitting(target, &found)
    }

    /// The next finding; pending while there is none.
    pub(super) async fn next(&mut self) -> Option<ExamReport> {
        let Some(Ok(ended)) = self.under_way.join_next().await else {
            return std::future::pending().await;
        };
        let Ended { target, minute, proof, had_lease, is_look, beside, found } = ended;
        let place = (target.addr.node, target.container);
        if is_look {
            self.looked_at.remove(&place);
        }
        match found {
            Ok(window) => {
                self.refusals.answered(place);
                if !is_look && window.is_whole {
                    self.windows.fast(target.container);
                } else if !is_look {
                    let beside: Vec<_> = beside.iter().map(|(other, _)| *other).collect();
                    self.windows.slow(target.container, &beside);
                }
                if !is_look {
                    let at = (minute, proof);
                    self.heard_beside(target.addr.node, at, &beside, &window.refusals);
                }
                self.note(target.class.clone(), &window.report);
                self.told(&target.class, window)
            }
            Err(ExamError::NotNow(why)) if !had_lease => {
                debug!(host = %target.addr.node, %why, "a challenge is refused");
                self.doubt(Doubt { place, minute, proof, why, is_beside: false });
                None
            }
            Err(error) => {
                debug!(error = %crate::chain(&error), "a challenge came to nothing");
                None
            }
        }
    }

    /// Counts what the others of a window did: else a host with one device for two containers would refuse
    /// for the one that is not meant. Who says that its slot or device is in use is counted as if it had been
    /// asked by itself. That there is no time left may be so because it is asked for others' sake, too: that
    /// is counted apart, against its answers in windows.
    fn heard_beside(
        &mut self,
        host: NodeId,
        (minute, proof): (u64, Option<TurnProof>),
        beside: &[(ContainerId, bool)],
        refusals: &[(ContainerId, ExamRefusal)],
    ) {
        for (container, had_lease) in beside {
            let place = (host, *container);
            match refusals.iter().find(|(of, _)| of == container) {
                None => {
                    self.refusals.answered(place);
                    self.beside_refusals.answered(place);
                }
                Some((_, why)) if !had_lease => {
                    self.doubt(Doubt { place, minute, proof, why: *why, is_beside: true });
                }
                Some(_) => (),
            }
        }
    }

    /// Counts a refusal, now that a later list says whether a lease has begun.
    fn settle(&mut self, doubt: &Doubt) -> Option<ExamReport> {
        let Doubt { place: place @ (host, container), minute, proof: turn, why, is_beside } =
            *doubt;
        let had_lease = self.targets.get(&place).is_none_or(|listed| listed.has_lease);
        let is_in_use = matches!(why, ExamRefusal::Busy | ExamRefusal::Ordered);
        let counts =
            if is_beside && !is_in_use { &mut self.beside_refusals } else { &mut self.refusals };
        if !counts.refused(place, had_lease, is_in_use) {
            return None;
        }
        info!(%host, %container, %why, "it refuses challenges more often than it answers");
        let (checker, verdict, evidence) = (self.who.checker, Verdict::Evasive, None);
        let (n, rounds) = (0, 0);
        Some(ExamReport { checker, host, container, minute, n, rounds, verdict, evidence, turn })
    }

    /// The report as it is told, if it is: a network can make hardware look slower and never faster, so
    /// less than the claimed class is told after three challenges, and the best of them.
    ///
    /// A window is asked again as a whole, and the try in which its slowest was fastest counts: else those
    /// that share a device would take turns at it.
    fn told(&mut self, claimed: &Class, window: Window) -> Option<ExamReport> {
        let Window { report, is_whole, slowest, .. } = window;
        let place = (report.host, report.container);
        match &report.verdict {
            Verdict::Resident { .. } => {
                self.absent.settled(&place);
                self.without.remove(&place);
                return Some(report);
            }
            Verdict::NotResident => {
                let verdict = self.absent.slow(place, 0, Verdict::NotResident)?;
                if self.without.len() < UNMET_MAX {
                    self.without.insert(place);
                }
                return Some(ExamReport { verdict, ..report });
            }
            Verdict::Proved { .. } if self.without.contains(&place) => return None,
            _ => (),
        }
        let rate = match &report.verdict {
            Verdict::Proved { class: Some(class), .. } if class == claimed && is_whole => None,
            Verdict::Proved { .. } | Verdict::TooSlow => Some(slowest),
            Verdict::Wrong | Verdict::Refused(_) | Verdict::Evasive => None,
            // Told above.
            Verdict::Resident { .. } | Verdict::NotResident => return None,
        };
        let Some(rate) = rate else {
            self.unmet.settled(&place);
            return Some(report);
        };
        let verdict = self.unmet.slow(place, rate, report.verdict.clone())?;
        Some(ExamReport { verdict, ..report })
    }

    fn note(&mut self, claimed: Class, report: &ExamReport) {
        if let Verdict::Proved { mmac_per_s, class: Some(class) } = &report.verdict
            && *class == claimed
        {
            let samples = self.samples.entry(claimed).or_default();
            if samples.len() < SAMPLES_MAX {
                samples.push(*mmac_per_s);
            }
        }
    }

    /// A new epoch: what was seen in the last one is learnt.
    pub(super) fn on_epoch(&mut self, epoch: u64) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        let minute = welkin_check::minute_of(outside::now());
        if minute.saturating_sub(self.counted_from) >= COUNTED_MINUTES {
            self.counted_from = minute;
            self.refusals.clear();
            self.beside_refusals.clear();
        }
        let table = Arc::make_mut(&mut self.table);
        for (class, samples) in std::mem::take(&mut self.samples) {
            table.learn(&class, &samples);
        }
    }
}

#[cfg(test)]
mod tests;
