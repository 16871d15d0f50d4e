//! What verified statements say of one container, as observations of its score.

use std::collections::BTreeMap;

use welkin_check::score::{Dimension, Ppm, payer_weight};
use welkin_ledger::epoch::{Gathered, LeaseSeconds, Probed};
use welkin_proto::Receipt;
use welkin_proto::check::Finding;
use welkin_proto::exam::Verdict;
use welkin_types::{Class, ContainerId, Fault, LeaseState, Reason};

/// The weight of a check.
pub(super) const CHECK: u32 = 1_000_000;
/// A start that takes no longer is worth 1, in milliseconds …
const START_GOOD_MS: u64 = 1_000;
/// … and one that takes so long nothing.
const START_BAD_MS: u64 = 60_000;

/// One observation, by the formulas of `docs/reference/evaluation.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Of what.
    pub dimension: Dimension,
    /// Its value.
    pub value: Ppm,
    /// Its weight, in millionths.
    pub weight_ppm: u32,
    /// What was found.
    pub what: String,
    /// Who says so.
    pub by: String,
}

/// All observations of a container in an epoch, the oldest first.
pub fn observations(gathered: &Gathered, container: ContainerId) -> Vec<Observation> {
    let mut all = Vec::new();
    let at_it = |probed: &&Probed| probed.seat.container == container;
    for Probed { seat, finding } in gathered.probes.iter().filter(at_it) {
        let (value, what) = match finding {
            Finding::Online { rtt_us } => (Ppm::ONE, format!("online, {rtt_us} us")),
            Finding::Unreachable => (Ppm::ZERO, "unreachable".to_owned()),
            Finding::Malformed => (Ppm::ZERO, "answered something malformed".to_owned()),
            Finding::NotListed => (Ppm::ZERO, "does not know the container".to_owned()),
        };
        let (at, by) = (seat.minute.saturating_mul(60), seat.checker.to_string());
        let dimension = Dimension::Availability;
        all.push(Observation { at, dimension, value, weight_ppm: CHECK, what, by });
    }
    let claimed = gathered.containers.get(&container).map(|(_, _, class)| class);
    for report in gathered.exams.iter().filter(|report| report.container == container) {
        let Some((value, what)) = exam(&report.verdict, claimed) else { continue };
        let (at, by) = (report.minute.saturating_mul(60), report.checker.to_string());
        let dimension = Dimension::Hardware;
        all.push(Observation { at, dimension, value, weight_ppm: CHECK, what, by });
    }
    let fees = Fees::of(gathered, container);
    for of in leases(gathered, container) {
        lease(&of.receipt, fees.weight(of), &mut all);
    }
    // A lease may be in the evidence of two epochs: how it began and how it ended is seen once.
    all.retain(|seen| gathered.span.period_of(seen.at / 60).is_some());
    super::quality::observe(gathered, container, &fees, &mut all);
    super::network::observe(gathered, container, &mut all);
    hours(gathered, container, &mut all);
    all.sort_by(|a, b| (a.at, a.dimension, &a.by).cmp(&(b.at, b.dimension, &b.by)));
    all
}

/// A refusal that is fair says nothing.
fn exam(verdict: &Verdict, claimed: Option<&Class>) -> Option<(Ppm, String)> {
    Some(match verdict {
        Verdict::Proved { class: Some(class), .. } if Some(class) == claimed => {
            (Ppm::ONE, format!("proved {class}"))
        }
        Verdict::Proved { class: Some(class), .. } => {
            (Ppm::new(500_000), format!("proved {class}, a lower class"))
        }
        Verdict::Proved { class: None, .. } => (Ppm::ZERO, "slower than all classes".to_owned()),
        Verdict::Refused(why) if why.is_fair() => return None,
        Verdict::Refused(why) => (Ppm::ZERO, format!("refused: {why}")),
        Verdict::TooSlow => (Ppm::ZERO, "too slow".to_owned()),
        Verdict::Wrong => (Ppm::ZERO, "computed wrongly".to_owned()),
        Verdict::Resident { mib } => (Ppm::ONE, format!("{mib} MiB of memory were there")),
        Verdict::NotResident => (Ppm::ZERO, "memory was not there".to_owned()),
        Verdict::Evasive => (Ppm::ZERO, "refused more often than it answered".to_owned()),
    })
}

fn leases(gathered: &Gathered, container: ContainerId) -> impl Iterator<Item = &LeaseSeconds> {
    gathered.leases.values().filter(move |lease| lease.receipt.container == container)
}

/// What was promised for a container in an epoch, in fees.
pub(super) struct Fees(u64);

impl Fees {
    pub(super) fn of(gathered: &Gathered, container: ContainerId) -> Self {
        Self(leases(gathered, container).map(fee_micros).fold(0, u64::saturating_add))
    }

    /// What a buyer's word on one lease weighs: on all of them together as all fees do, so that who splits
    /// a lease into many, or over many accounts, gains nothing.
    pub(super) fn weight(&self, lease: &LeaseSeconds) -> u32 {
        let weight = u128::from(payer_weight(self.0)) * u128::from(fee_micros(lease));
        u32::try_from(weight.checked_div(self.0.into()).unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

/// The part of a lease's fee that its seconds in the epoch are of all its seconds.
fn fee_micros(lease: &LeaseSeconds) -> u64 {
    let here: u128 = lease.seconds.iter().map(|(_, seconds)| u128::from(*seconds)).sum();
    let all = u128::from(lease.receipt.usage.seconds.max(1));
    let fee = u128::from(lease.receipt.fee.micros()) * here.min(all) / all;
    u64::try_from(fee).unwrap_or(u64::MAX)
}

/// Hours in which it was found there: good ones, unless a lease of it was lost or ended by its host's
/// fault then.
fn hours(gathered: &Gathered, container: ContainerId, all: &mut Vec<Observation>) {
    let span = gathered.span;
    let mut hours: BTreeMap<u8, (u32, u32)> = BTreeMap::new();
    for Probed { seat, finding } in &gathered.probes {
        if seat.container == container
            && let Some(period) = span.period_of(seat.minute)
        {
            let (online, found) = hours.entry(period).or_default();
            *online += u32::from(matches!(finding, Finding::Online { .. }));
            *found += 1;
        }
    }
    let mut faults: BTreeMap<u8, String> = BTreeMap::new();
    for LeaseSeconds { receipt, .. } in leases(gathered, container) {
        let last = receipt.stages.last().filter(|last| is_hosts_fault(last.state, last.reason));
        let period = last.and_then(|last| Some((span.period_of(last.at.0 / 60_000)?, last.reason)));
        if let Some((period, reason)) = period {
            faults.insert(period, format!("{} ended: {}", receipt.lease, reason.code()));
        }
    }
    let there = hours.into_iter().filter(|(_, (online, found))| 2 * online > *found);
    let there = there.map(|(period, _)| period).filter(|period| !faults.contains_key(period));
    let good: Vec<_> =
        there.map(|period| (period, Ppm::ONE, "no fault of the host".to_owned())).collect();
    let bad = faults.into_iter().map(|(period, what)| (period, Ppm::ZERO, what));
    all.extend(good.into_iter().chain(bad).map(|(period, value, what)| Observation {
        at: span.bounds(period).1 / 1_000,
        dimension: Dimension::Health,
        value,
        weight_ppm: CHECK,
        what,
        by: "receipts".to_owned(),
    }));
}

/// How it started, and how it ended.
fn lease(receipt: &Receipt, weight_ppm: u32, all: &mut Vec<Observation>) {
    let (Some(first), Some(last)) = (receipt.stages.first(), receipt.stages.last()) else { return };
    let by = receipt.buyer.to_string();
    let running = receipt.stages.iter().find(|stage| stage.state == LeaseState::Running);
    if let Some(running) = running {
        let took = u64::try_from(running.at.since(first.at).as_millis()).unwrap_or(u64::MAX);
        let late = took.clamp(START_GOOD_MS, START_BAD_MS) - START_GOOD_MS;
        let whole = START_BAD_MS - START_GOOD_MS;
        let (at, what) = (running.at.0 / 1_000, format!("{} started in {took} ms", receipt.lease));
        let (dimension, value) = (Dimension::Start, Ppm::of(whole - late, whole));
        all.push(Observation { at, dimension, value, weight_ppm, what, by: by.clone() });
    }
    let value = if is_hosts_fault(last.state, last.reason) { Ppm::ZERO } else { Ppm::ONE };
    let what = format!("{} ended: {}", receipt.lease, last.reason.code());
    let (at, dimension) = (last.at.0 / 1_000, Dimension::Sessions);
    all.push(Observation { at, dimension, value, weight_ppm, what, by });
}

fn is_hosts_fault(state: LeaseState, reason: Reason) -> bool {
    state == LeaseState::Lost || reason.fault() == Some(Fault::Host)
}
