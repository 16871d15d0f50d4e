//! Gangs, receipts and explanations against scans.

use proptest::prelude::*;

use super::history::{World, draw, some_row, some_search};
use super::reference::{self, Rows};
use super::*;
use crate::spread::Stream;

/// The gang's cost within a set of locations, by trying everything in order.
fn cheapest(rows: &Rows, gang: &Gang<'_>, locations: u128) -> Option<u64> {
    let member = Search { locations, ..gang.member };
    let mut all: Vec<_> = rows
        .values()
        .filter(|row| reference::fits(row, &member))
        .map(|row| (reference::cost(row, &member), row.host, row.free / member.slots))
        .collect();
    all.sort_unstable();
    let mut costs = Vec::new();
    let mut hosts = std::collections::BTreeSet::new();
    for (cost, host, places) in all {
        match gang.is_spread {
            true if hosts.insert(host) => costs.push(cost),
            true => (),
            false => (0..places).for_each(|_| costs.push(cost)),
        }
    }
    let members = usize::from(gang.members);
    (costs.len() >= members).then(|| costs[..members].iter().sum())
}

/// The sets of the first `count` locations that are searched together.
fn sets(gang: &Gang<'_>, count: usize) -> Vec<u128> {
    let Together::Within { round_trip_max, round_trips } = gang.together else {
        return (0..count).map(|location| 1 << location).collect();
    };
    let is_near = |a: usize, b: usize| {
        a == b || (round_trips[a][b] <= round_trip_max && round_trips[b][a] <= round_trip_max)
    };
    let is_wanted = |location: usize| {
        let latency = gang.member.latency_to(location);
        gang.member.locations >> location & 1 == 1 && latency <= gang.member.latency_max
    };
    let around = |centre: usize| {
        let way = |to: usize| if to == centre { 0 } else { round_trips[centre][to] };
        let mut others: Vec<_> =
            (0..count).filter(|to| is_wanted(*to) && way(*to) <= round_trip_max).collect();
        others.sort_by_key(|to| way(*to));
        let mut set = vec![centre];
        for other in others {
            if set.iter().all(|at| is_near(*at, other)) {
                set.push(other);
            }
        }
        set.into_iter().fold(0, |set, location| set | 1 << location)
    };
    (0..count).filter(|centre| is_wanted(*centre)).map(around).collect()
}

fn explained(rows: &Rows, search: &Search<'_>) -> usize {
    rows.values().filter(|row| !reference::fits(row, search)).count()
}

/// A true receipt holds, and one that was bent does not.
fn gang_receipt_holds(mut receipt: GangReceipt, cost: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(receipt.recompute(), Ok(()));
    receipt.others[1].push(cost.saturating_sub(1));
    let dearer = if cost == 0 { Ok(()) } else { Err(ReceiptError::Dearer) };
    prop_assert_eq!(receipt.recompute(), dearer);
    receipt.others[1].pop();
    let first = receipt.chosen[0];
    if let Some(other) = receipt.chosen.iter().position(|place| *place != first) {
        receipt.chosen.swap(0, other);
        prop_assert_eq!(receipt.recompute(), Err(ReceiptError::Chosen));
        receipt.chosen.swap(0, other);
    }
    receipt.chosen.pop();
    prop_assert_eq!(receipt.recompute(), Err(ReceiptError::Chosen));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn gangs_receipts_and_explanations_agree_with_scans(
        seed in any::<u64>(),
        count in prop_oneof![0..40_usize, 200..600_usize],
        prices in prop_oneof![Just(6_usize), Just(2_000_000)],
    ) {
        let mut stream = Stream::new(seed);
        let mut world = World::default();
        (0..count).for_each(|_| world.insert(some_row(&mut stream, prices)));
        let rows = world.rows();
        let round_trips: Vec<Vec<u16>> =
            (0..128).map(|_| (0..128).map(|_| draw(&mut stream, 100)).collect()).collect();
        for _ in 0..8 {
            let latency: Vec<u16> = (0..20).map(|_| draw(&mut stream, 60)).collect();
            let lists = [vec![], vec![], vec![3]];
            let member = some_search(&mut stream, &latency, &lists);
            let together = match stream.below(2) {
                0 => Together::Site,
                _ => Together::Within { round_trip_max: draw(&mut stream, 100), round_trips: &round_trips },
            };
            let (members, is_spread) = (draw::<u8>(&mut stream, 12) + 1, stream.below(2) == 0);
            let gang = Gang { member, members, together, is_spread };
            let found = world.index.find_gang(&gang).unwrap();
            let wanted = |set: &u128| set & member.locations != 0;
            let least = sets(&gang, world.index.locations).into_iter().filter(wanted)
                .filter_map(|set| cheapest(&rows, &gang, set)).min();
            prop_assert_eq!(found.as_ref().map(|gang| gang.cost), least);
            if let Some(choice) = found {
                prop_assert_eq!(choice.members.len(), usize::from(members));
                let hosts: std::collections::BTreeSet<_> =
                    choice.members.iter().map(|chosen| chosen.host).collect();
                prop_assert!(!is_spread || hosts.len() == usize::from(members));
                let sum: u64 = choice.members.iter().map(|chosen| chosen.terms.sum()).sum();
                prop_assert_eq!(sum, choice.cost);
                gang_receipt_holds(world.index.gang_receipt(&gang, &choice, [7; 32]), choice.cost)?;
            }

            let choice = world.index.find(&member).unwrap();
            let mut receipt = world.index.receipt(&member, &choice, [7; 32]);
            prop_assert_eq!(receipt.recompute(), Ok(()));
            prop_assert_eq!(receipt.chosen.len(), choice.chosen.len());
            for ((list, place), chosen) in receipt.chosen.iter().zip(&choice.chosen) {
                let facts = receipt.considered[usize::from(*list)][usize::from(*place)];
                prop_assert_eq!(facts.terms(&member.weights), chosen.terms);
            }
            if receipt.chosen.len() > 1 {
                receipt.chosen.swap(0, 1);
                prop_assert_eq!(receipt.recompute(), Err(ReceiptError::Chosen));
            }

            let why = world.index.explain(&member).unwrap();
            prop_assert_eq!((why.containers, why.looked_at), (rows.len(), rows.len()));
            let removed: usize = why.removed.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(removed, explained(&rows, &member));
            prop_assert!(why.removed.is_sorted_by_key(|(barrier, _)| *barrier));
        }
    }
}

#[test]
fn an_explanation_names_barriers_and_the_nearest() {
    let small = Row { cpu: 100, ..row(10) };
    let busy = Row { free: 0, ..row(20) };
    let dear = row(900);
    let index = index(&[small, busy, dear, Row { cpu: 100, ..row(950) }]);
    let why = index.explain(&Search { cpu: 200, price_max: 100, ..Search::ANY }).unwrap();
    let expected = [(Barrier::Cpu, 2), (Barrier::Price, 1), (Barrier::Free, 1)];
    assert_eq!(why.removed, expected);
    let nearest: Vec<_> =
        why.nearest.iter().map(|near| (near.row.number(), &near.barriers[..])).collect();
    let expected =
        [(0, &[Barrier::Cpu][..]), (1, &[Barrier::Free][..]), (2, &[Barrier::Price][..])];
    assert_eq!(nearest, expected);
}

#[test]
fn a_large_fleet_is_explained_by_a_sample() {
    let rows: Vec<_> =
        [0, 1, 2].repeat(20_000).into_iter().map(|class| Row { class, ..row(1) }).collect();
    let index = index(&rows);
    let wanted = [0].into_iter().collect();
    let why = index
        .explain(&Search { classes: wanted, quality_min: 1, slots: 2, ..Search::ANY })
        .unwrap();
    assert_eq!((why.containers, why.looked_at), (60_000, 20_000));
    let sum: usize = why.removed.iter().map(|(_, count)| count).sum();
    assert_eq!(sum, 60_000);
}

#[test]
fn a_gang_out_of_bounds_is_refused() {
    let index = index(&[row(1)]);
    let gang =
        |members| Gang { member: Search::ANY, members, together: Together::Site, is_spread: false };
    assert!(index.find_gang(&gang(0)).is_err() && index.find_gang(&gang(65)).is_err());
    assert_eq!(index.find_gang(&gang(2)), Ok(None));
    assert_eq!(index.find_gang(&gang(1)).unwrap().unwrap().cost, 1);
}
