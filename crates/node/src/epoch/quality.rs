//! How good the sessions of an epoch were, by the formula of `docs/reference/evaluation.md`.

use std::collections::BTreeMap;

use welkin_check::score::{Dimension, Ppm, Said, SessionQuality, agreed, checkers_agree};
use welkin_ledger::epoch::{Gathered, LeaseSeconds, SideDigests};
use welkin_proto::digest::Side;
use welkin_types::{ContainerId, NodeId};

use super::card::{CHECK, Fees, Observation};

/// What checkers that were buyers agree on, by container.
type Found = BTreeMap<ContainerId, Ppm>;

/// Gives every lease the quality that its seconds earn by.
pub(super) fn rate(gathered: &mut Gathered) {
    let found = found(gathered);
    for lease in gathered.leases.values_mut() {
        let checkers = found.get(&lease.receipt.container).copied();
        lease.quality_bp = quality(lease, checkers).settled.basis_points();
    }
}

fn of_side(lease: &LeaseSeconds, side: Side) -> impl Iterator<Item = &SideDigests> {
    lease.digests.iter().filter(move |digests| digests.side == side)
}

fn quality(lease: &LeaseSeconds, checkers: Option<Ppm>) -> SessionQuality {
    let series = |side| of_side(lease, side).map(|digests| &digests.series);
    // A checker that was the buyer has said the same as a buyer; where it did not, its later word counts.
    let buyer = series(Side::Buyer).chain(series(Side::Checker)).collect();
    let said = Said { host: series(Side::Host).collect(), buyer };
    said.quality(lease.minutes.clone(), checkers)
}

/// What a checker that was the buyer found.
fn by_checker(lease: &LeaseSeconds) -> Option<(NodeId, Ppm)> {
    let of = of_side(lease, Side::Checker).next()?;
    let series = of_side(lease, Side::Checker).map(|digests| &digests.series);
    let said = Said { host: Vec::new(), buyer: series.collect() };
    Some((of.checker?, said.quality(lease.minutes.clone(), None).buyer?))
}

fn found(gathered: &Gathered) -> Found {
    let mut said: BTreeMap<(ContainerId, NodeId), Vec<Ppm>> = BTreeMap::new();
    for lease in gathered.leases.values() {
        if let Some((checker, value)) = by_checker(lease) {
            said.entry((lease.receipt.container, checker)).or_default().push(value);
        }
    }
    let mut each: BTreeMap<ContainerId, Vec<Ppm>> = BTreeMap::new();
    for ((container, _), values) in said {
        each.entry(container).or_default().extend(agreed(&values));
    }
    let agree = |(container, values): (_, Vec<_>)| Some((container, checkers_agree(&values)?));
    each.into_iter().filter_map(agree).collect()
}

/// The sessions of a container, as observations of its score. Each weighs as
/// the fees that were paid; what a checker found in its own weighs as one check.
pub(super) fn observe(
    gathered: &Gathered,
    container: ContainerId,
    fees: &Fees,
    all: &mut Vec<Observation>,
) {
    let checkers = found(gathered).get(&container).copied();
    let mut by_checkers: BTreeMap<NodeId, (u64, Vec<Ppm>)> = BTreeMap::new();
    let leases = gathered.leases.values().filter(|lease| lease.receipt.container == container);
    for lease in leases {
        let receipt = &lease.receipt;
        let said = quality(lease, checkers);
        let at = receipt.stages.last().map_or(0, |stage| stage.at.0 / 1_000);
        let share = |share: Option<Ppm>| {
            share.map_or_else(|| "says nothing".to_owned(), |share| share.to_string())
        };
        if let Some((checker, value)) = by_checker(lease) {
            let (last, values) = by_checkers.entry(checker).or_default();
            *last = at.max(*last);
            values.push(value);
            continue;
        }
        let (weight_ppm, by) = (fees.weight(lease), receipt.buyer.to_string());
        let value = said.settled;
        let what = format!(
            "{}: {} minutes; the host {}, the buyer {}; settled {}",
            receipt.lease,
            said.minutes,
            share(said.host),
            share(said.buyer),
            said.settled
        );
        let dimension = Dimension::Quality;
        all.push(Observation { at, dimension, value, weight_ppm, what, by });
    }
    // A checker has one word on a container in an epoch, however many sessions it made.
    for (checker, (at, values)) in by_checkers {
        let Some(value) = agreed(&values) else { continue };
        let (dimension, weight_ppm, by) = (Dimension::Quality, CHECK, checker.to_string());
        let what = format!("{} sessions as a buyer: {value}", values.len());
        all.push(Observation { at, dimension, value, weight_ppm, what, by });
    }
}

/// The mean quality of what a container delivered, in basis points by its seconds; none where it
/// delivered nothing.
pub fn delivered_quality(gathered: &Gathered, container: ContainerId) -> Option<u16> {
    let leases = gathered.leases.values().filter(|lease| lease.receipt.container == container);
    let (mut sum, mut all) = (0_u64, 0_u64);
    for lease in leases {
        let seconds: u64 = lease.seconds.iter().map(|(_, seconds)| u64::from(*seconds)).sum();
        sum = sum.saturating_add(seconds.saturating_mul(u64::from(lease.quality_bp)));
        all = all.saturating_add(seconds);
    }
    sum.checked_div(all).and_then(|mean| u16::try_from(mean).ok())
}

#[cfg(test)]
mod tests {
    use welkin_proto::digest::{Figures, MinuteDigest, Series};
    use welkin_proto::epoch::Span;
    use welkin_proto::{LogSummary, Receipt, StageTime, Usage, Wipe};
    use welkin_types::{AccountId, LeaseId, LeaseState, Price, Reason, UnixMillis, Usd};

    use super::*;

    fn series(lease: u8, side: Side, answered: u8) -> Series {
        let digest = MinuteDigest {
            minute: 0,
            watched: 60,
            answered,
            round_trip: None,
            loss: None,
            figures: Figures::None,
        };
        Series {
            lease: LeaseId::from_bytes([lease; 16]),
            host: NodeId::from_bytes([9; 32]),
            buyer: AccountId::from_bytes([lease; 20]),
            side,
            part: 0,
            began: UnixMillis(0),
            start: Vec::new(),
            minutes: vec![digest],
        }
    }

    /// What sides say of a minute: seconds answered; a checker with its number.
    fn gathered(leases: &[(u8, &[(Side, u8)])]) -> Gathered {
        let of = |(lease, said): &(u8, &[(Side, u8)])| {
            let lease = *lease;
            let at = |state, ms| StageTime { state, reason: Reason::Normal, at: UnixMillis(ms) };
            let receipt = Receipt {
                lease: LeaseId::from_bytes([lease; 16]),
                buyer: AccountId::from_bytes([lease; 20]),
                operator: AccountId::from_bytes([1; 20]),
                host: NodeId::from_bytes([9; 32]),
                container: ContainerId::from_bytes([5; 16]),
                price: Price::per_hour(Usd::ZERO),
                stages: vec![at(LeaseState::Running, 0), at(LeaseState::Succeeded, 60_000)],
                exit: None,
                usage: Usage { seconds: 60, ..Usage::default() },
                cost: Usd::ZERO,
                fee: Usd::from_micros(1_000_000),
                logs: LogSummary::default(),
                wipe: Wipe::default(),
                matched: None,
            };
            let digests = said.iter().map(|(side, answered)| SideDigests {
                side: *side,
                checker: (*side == Side::Checker).then(|| NodeId::from_bytes([lease; 32])),
                series: series(lease, *side, *answered),
            });
            let digests = digests.collect();
            let (seconds, minutes, quality_bp) = (vec![(0, 60)], 0..1, 10_000);
            let key = (receipt.lease, receipt.host);
            (key, LeaseSeconds { receipt, seconds, minutes, digests, quality_bp, matched: None })
        };
        let mut gathered = Gathered {
            epoch: 0,
            span: Span::of(0, 60),
            checkers: BTreeMap::new(),
            containers: BTreeMap::new(),
            regions: BTreeMap::new(),
            probes: Vec::new(),
            exams: Vec::new(),
            sites: Vec::new(),
            leases: leases.iter().map(of).collect(),
            refused: BTreeMap::new(),
            committee: 3,
        };
        rate(&mut gathered);
        gathered
    }

    fn rated(leases: &[(u8, &[(Side, u8)])]) -> Vec<u16> {
        gathered(leases).leases.values().map(|lease| lease.quality_bp).collect()
    }

    const PRAISE: (Side, u8) = (Side::Host, 60);
    const BLAME: (Side, u8) = (Side::Buyer, 6);

    #[test]
    fn what_one_side_alone_says_is_bounded_until_checkers_decide() {
        assert_eq!(rated(&[(1, &[PRAISE, (Side::Buyer, 60)])]), [10_000]);
        assert_eq!(rated(&[(1, &[PRAISE, BLAME])]), [9_000]);
        assert_eq!(rated(&[(1, &[PRAISE])]), [9_000]);
        assert_eq!(rated(&[(1, &[])]), [8_000]);
        // Two checkers that found it bad decide nothing; the third does.
        let found = |answered| [PRAISE, (Side::Checker, answered)];
        let (bad, good) = (found(12), found(60));
        let disputed = [PRAISE, BLAME];
        assert_eq!(rated(&[(1, &disputed), (2, &bad), (3, &bad)])[0], 9_000);
        assert_eq!(rated(&[(1, &disputed), (2, &bad), (3, &bad), (4, &good)])[0], 2_000);
        // One that lies against two changes nothing, and what is not disputed stands.
        assert_eq!(rated(&[(1, &disputed), (2, &good), (3, &bad), (4, &good)])[0], 10_000);
        let agreed = [PRAISE, (Side::Buyer, 57)];
        assert_eq!(rated(&[(1, &agreed), (2, &bad), (3, &bad), (4, &bad)])[0], 9_500);
    }

    #[test]
    fn sessions_are_observed_with_their_weight() {
        let gathered = gathered(&[(1, &[PRAISE, BLAME]), (2, &[PRAISE, (Side::Checker, 30)])]);
        let mut seen = Vec::new();
        let container = ContainerId::from_bytes([5; 16]);
        observe(&gathered, container, &Fees::of(&gathered, container), &mut seen);
        let values: Vec<_> = seen.iter().map(|seen| (seen.value.ppm(), seen.weight_ppm)).collect();
        // Two leases of a dollar each: half of √2.
        assert_eq!(values, [(900_000, 707_106), (500_000, CHECK)]);
        assert!(seen[0].what.contains("the host 100.00 %, the buyer 10.00 %"), "{}", seen[0].what);
        assert_eq!(delivered_quality(&gathered, container), Some(9_000));
        assert_eq!(delivered_quality(&gathered, ContainerId::from_bytes([6; 16])), None);
    }

    /// The same, with all sessions ended at a moment.
    fn ended(mut gathered: Gathered, ms: u64) -> Gathered {
        let lasts = gathered.leases.values_mut().filter_map(|of| of.receipt.stages.last_mut());
        lasts.for_each(|last| last.at = UnixMillis(ms));
        gathered
    }

    #[test]
    fn a_lease_that_is_split_weighs_no_more() {
        let container = ContainerId::from_bytes([5; 16]);
        let weights = |gathered: &Gathered| {
            let seen = super::super::observations(gathered, container);
            let of = seen.into_iter().filter(|seen| seen.dimension == Dimension::Sessions);
            of.map(|seen| seen.weight_ppm).collect::<Vec<_>>()
        };
        let all: [(u8, &[(Side, u8)]); 4] = [(1, &[]), (2, &[]), (3, &[]), (4, &[])];
        assert_eq!(weights(&ended(gathered(&all[..1]), 59_000)), [1_000_000]);
        // Four dollars, √4, however many accounts they come from.
        let mut four = ended(gathered(&all), 59_000);
        assert_eq!(weights(&four), [500_000; 4]);
        let one = AccountId::from_bytes([1; 20]);
        four.leases.values_mut().for_each(|lease| lease.receipt.buyer = one);
        assert_eq!(weights(&four), [500_000; 4]);
        // Of half of its seconds another epoch speaks, and of how it ended where that was in another.
        four.leases.values_mut().for_each(|lease| lease.receipt.usage.seconds = 120);
        assert_eq!(weights(&four), [353_553; 4]);
        assert_eq!(weights(&ended(four, 60_000)), [0; 0]);
    }

    #[test]
    fn a_lease_that_its_host_ended_makes_the_hour_a_bad_one() {
        let mut gathered = gathered(&[(1, &[])]);
        let health = |gathered: &Gathered| {
            let seen = super::super::observations(gathered, ContainerId::from_bytes([5; 16]));
            let of = seen.into_iter().filter(|seen| seen.dimension == Dimension::Health);
            of.map(|seen| seen.value).collect::<Vec<_>>()
        };
        assert!(health(&gathered).is_empty());
        for (state, reason) in
            [(LeaseState::Failed, Reason::HostFault), (LeaseState::Lost, Reason::HostUnreachable)]
        {
            for lease in gathered.leases.values_mut() {
                let last = lease.receipt.stages.last_mut().unwrap();
                (last.state, last.reason, last.at) = (state, reason, UnixMillis(59_000));
            }
            assert_eq!(health(&gathered), [Ppm::ZERO]);
        }
    }
}
