//! What the containers of an epoch did, in weights, and which checkers were right about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Capacity, Delivery, Evidence, Verdict};
use super::terms::{PERIODS_MAX, SCORE_WHOLE, Terms};

/// What is remembered of a container from one epoch to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The online score, in parts of [`SCORE_WHOLE`].
    pub score: u16,
    /// The class that was proven last; none if the last challenge failed.
    pub proven: Option<u16>,
    /// In which epoch.
    pub proven_in: u32,
}

impl Default for Standing {
    /// A new container begins at the whole score, with nothing proven.
    fn default() -> Self {
        Self { score: SCORE_WHOLE, proven: None, proven_in: 0 }
    }
}

/// What one container did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Capacity × idle seconds × score.
    pub(crate) idle: u128,
    /// Capacity × delivered seconds × quality, on the same scale.
    pub(crate) delivered: u128,
    /// Capacity × seconds in which it was there.
    pub(crate) active: u128,
}

/// What all of them did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Works {
    /// By the container's place.
    pub(crate) containers: Vec<Work>,
    /// By the container's place.
    pub(crate) standings: Vec<Standing>,
    /// Correct tasks, by the licence's place.
    pub(crate) tasks: Vec<u32>,
    /// Seconds that count for who matched them, by the indexer's place.
    pub(crate) matched: Vec<u64>,
}

/// What was decided about one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    Online,
    Offline,
    /// No majority: it neither earns nor costs anything.
    #[default]
    Open,
}

/// Delivered in one period.
#[derive(Clone, Copy, Debug, Default)]
struct Delivered {
    seconds: u64,
    /// Seconds × basis points.
    good: u64,
}

/// Goes through sorted evidence once.
pub(crate) fn measure(
    terms: &Terms,
    epoch: u32,
    before: &BTreeMap<welkin_types::ContainerId, Standing>,
    evidence: &Evidence,
) -> Works {
    let roster = &evidence.roster;
    let mut works = Works {
        containers: Vec::with_capacity(roster.containers().len()),
        standings: Vec::with_capacity(roster.containers().len()),
        tasks: vec![0; roster.licences().len()],
        matched: vec![0; roster.indexers().len()],
    };
    let (mut verdicts, mut capacities) = (&evidence.verdicts[..], &evidence.capacities[..]);
    let mut deliveries = &evidence.deliveries[..];
    for (place, container) in (0_u32..).zip(roster.containers()) {
        let mut standing = before.get(&container.id).copied().unwrap_or_default();
        let own = take_while(&mut capacities, |c| c.container == place);
        prove(terms, epoch, own, &mut standing, &mut works.tasks);
        let own = take_while(&mut verdicts, |v| v.container() == place);
        let outcomes = judge(terms, own, &mut works.tasks);
        let own = take_while(&mut deliveries, |d| d.container == place);
        let is_fresh = epoch.saturating_sub(standing.proven_in) <= terms.proof_epochs;
        let proven = standing.proven.filter(|_| is_fresh).map_or(0, |class| terms.capacity(class));
        let is_halted = evidence.halted.binary_search(&place).is_ok();
        let may_earn = container.is_staked && !is_halted;
        let capacity = if may_earn { terms.capacity(container.class).min(proven) } else { 0 };
        // Who matched earns where the host does: a made-up session needs hardware that is proven.
        let is_earned = |period: u8| {
            let outcome = outcomes.get(usize::from(period));
            capacity > 0 && outcome.is_some_and(|outcome| *outcome != Outcome::Offline)
        };
        let delivered = deliver(terms, own, is_earned, &mut works.matched);
        let work = add_up(terms, capacity, &outcomes, &delivered, &mut standing);
        works.containers.push(work);
        works.standings.push(standing);
    }
    works
}

/// Takes the first entries of a sorted list.
pub(super) fn take_while<'a, T>(list: &mut &'a [T], is_mine: impl Fn(&T) -> bool) -> &'a [T] {
    let end = list.iter().position(|entry| !is_mine(entry)).unwrap_or(list.len());
    let (mine, rest) = list.split_at(end);
    *list = rest;
    mine
}

/// The proven class is the lower median of the findings by capacity, if more than half of a
/// committee found at least that much, and more than half at most that much. Whoever found it did a
/// correct task. Where findings are missing and those that are there disagree, nothing is decided:
/// else N of 2N + 1 could take a proof away from whom some of the others could not ask.
fn prove(
    terms: &Terms,
    epoch: u32,
    findings: &[Capacity],
    standing: &mut Standing,
    tasks: &mut [u32],
) {
    if findings.len() <= usize::from(terms.committee / 2) {
        return;
    }
    let value = |class: Option<u16>| (class.map_or(0, |class| terms.capacity(class)), class);
    let mut sorted: Vec<_> = findings.iter().map(|finding| value(finding.class)).collect();
    sorted.sort_unstable();
    let median = sorted[(sorted.len() - 1) / 2];
    let least = sorted.len().max(usize::from(terms.committee)) / 2 + 1;
    let at_most = sorted.partition_point(|found| found.0 <= median.0);
    let below = sorted.partition_point(|found| found.0 < median.0);
    if at_most < least || sorted.len() - below < least {
        return;
    }
    let class = median.1;
    (standing.proven, standing.proven_in) = (class, epoch);
    for finding in findings.iter().filter(|finding| finding.class == class) {
        add_task(tasks, finding.licence);
    }
}

fn add_task(tasks: &mut [u32], licence: u32) {
    let place = usize::try_from(licence).unwrap_or(usize::MAX);
    if let Some(count) = tasks.get_mut(place) {
        *count = count.saturating_add(1);
    }
}

/// By period. A side wins with more than half of the verdicts, and more than half of a committee.
pub(super) fn judge(
    terms: &Terms,
    verdicts: &[Verdict],
    tasks: &mut [u32],
) -> [Outcome; PERIODS_MAX as usize] {
    let mut outcomes = [Outcome::Open; PERIODS_MAX as usize];
    for group in verdicts.chunk_by(|a, b| a.period() == b.period()) {
        let online = group.iter().filter(|verdict| verdict.is_online()).count();
        let least = group.len().max(usize::from(terms.committee)) / 2 + 1;
        let outcome = match (online >= least, group.len() - online >= least) {
            (true, _) => Outcome::Online,
            (_, true) => Outcome::Offline,
            _ => continue,
        };
        outcomes[usize::from(group[0].period()) % outcomes.len()] = outcome;
        for verdict in group {
            if verdict.is_online() == (outcome == Outcome::Online) {
                add_task(tasks, verdict.licence());
            }
        }
    }
    outcomes
}

/// By period, and to whoever matched it. More seconds than a period has are cut in proportion.
fn deliver(
    terms: &Terms,
    deliveries: &[Delivery],
    is_earned: impl Fn(u8) -> bool,
    matched: &mut [u64],
) -> [Delivered; PERIODS_MAX as usize] {
    let mut delivered = [Delivered::default(); PERIODS_MAX as usize];
    let most = u64::from(terms.period_seconds);
    for delivery in deliveries {
        let slot = &mut delivered[usize::from(delivery.period) % usize::from(PERIODS_MAX)];
        slot.seconds += u64::from(delivery.seconds);
        slot.good += u64::from(delivery.seconds) * u64::from(delivery.quality_bp);
    }
    for delivery in deliveries.iter().filter(|delivery| is_earned(delivery.period)) {
        let sum = delivered[usize::from(delivery.period) % usize::from(PERIODS_MAX)].seconds;
        let seconds = u64::from(delivery.matched);
        // Below 2^32: both are 16 bits wide.
        let counted = if sum > most { seconds * most / sum } else { seconds };
        if let Some(total) = matched.get_mut(usize::from(delivery.indexer)) {
            *total += counted;
        }
    }
    for slot in delivered.iter_mut().filter(|slot| slot.seconds > most) {
        let good = u128::from(slot.good) * u128::from(most) / u128::from(slot.seconds);
        slot.good = u64::try_from(good).unwrap_or(u64::MAX);
        slot.seconds = most;
    }
    delivered
}

/// A second in a lease counts as delivered, any other second of an online period as idle. In a period in
/// which it was offline a container has delivered nothing, whatever host and buyer have signed: else the
/// two together, who may be one, would be paid for a machine that is switched off.
fn add_up(
    terms: &Terms,
    capacity: u32,
    outcomes: &[Outcome],
    delivered: &[Delivered],
    standing: &mut Standing,
) -> Work {
    let mut work = Work::default();
    let capacity = u128::from(capacity);
    for (outcome, delivered) in outcomes.iter().zip(delivered).take(usize::from(terms.periods())) {
        standing.score = match outcome {
            Outcome::Online => standing.score.saturating_add(terms.score_up).min(SCORE_WHOLE),
            Outcome::Offline => standing.score.saturating_sub(terms.score_down),
            Outcome::Open => standing.score,
        };
        let nothing = Delivered::default();
        let (idle, delivered) = match outcome {
            Outcome::Online => {
                (u64::from(terms.period_seconds).saturating_sub(delivered.seconds), delivered)
            }
            Outcome::Open => (0, delivered),
            Outcome::Offline => (0, &nothing),
        };
        let score = u128::from(standing.score) * u128::from(terms.idle_bp);
        work.idle += capacity * u128::from(idle) * score;
        work.delivered += capacity * u128::from(delivered.good) * u128::from(SCORE_WHOLE);
        work.active += capacity * u128::from(idle + delivered.seconds);
    }
    work
}
