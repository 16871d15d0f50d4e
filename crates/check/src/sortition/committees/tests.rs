//! That lots are the holder's own, fair, told to nobody before, and that nobody is left without checkers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::VrfKey;
use super::*;

const SIZE: usize = 3;
/// Periods of five minutes.
const SECONDS: u64 = 7_200;
const EPOCH: u64 = 50;
const FIRST: u64 = EPOCH * SECONDS / 60;

fn node(number: u32) -> NodeId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn key(number: u32) -> VrfKey {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    VrfKey::from_seed(&seed).unwrap()
}

fn container(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

fn view(checkers: u32) -> EpochView {
    let listed = |number| Listed { node: node(number), number, vrf: key(number % 5).public().0 };
    EpochView {
        epoch: EPOCH,
        seed: [5; 32],
        checkers: (0..checkers).map(listed).collect(),
        epoch_seconds: SECONDS,
    }
}

fn turn(committees: &Committees, of: u32, minute: u64, random: u8) -> Turn {
    let (ticket, public) = committees.ticket(node(of), minute).unwrap();
    assert_eq!(public, key(of % 5).public());
    let (proof, _) = key(of % 5).prove(&ticket, [random; 32]);
    Turn { minute, proof: TurnProof::from_bytes(&proof.0) }
}

/// A lot that nobody had to prove.
fn made_up(number: u32, minute: u64) -> Lot {
    let mut output = [3; 32];
    output[..4].copy_from_slice(&number.to_be_bytes());
    output[4..12].copy_from_slice(&minute.to_be_bytes());
    Lot::new(output)
}

#[test]
fn a_turn_shows_the_holders_lot_of_its_minute_and_no_other() {
    let committees = Committees::new(&view(20), SIZE);
    let turn = turn(&committees, 3, FIRST, 1);
    let lot = committees.shown(node(3), &turn).unwrap();
    assert_eq!(format!("{lot:?}"), "Lot(..)");
    // There is one lot, whatever randomness the proof was made with.
    assert_eq!(committees.shown(node(3), &self::turn(&committees, 3, FIRST, 2)), Some(lot));
    // Not of another minute, checker, epoch, seed, and not of a minute outside of the epoch.
    assert_eq!(committees.shown(node(3), &Turn { minute: FIRST + 1, ..turn }), None);
    assert_eq!(committees.shown(node(8), &turn), None);
    assert_eq!(committees.shown(node(99), &turn), None);
    let seed = Committees::new(&EpochView { seed: [6; 32], ..view(20) }, SIZE);
    assert_eq!(seed.shown(node(3), &turn), None);
    assert!(committees.ticket(node(3), FIRST + SECONDS / 60).is_none());
    assert!(committees.ticket(node(3), FIRST - 1).is_none());
    for place in 0..TurnProof::BYTES {
        let mut bytes = turn.proof.to_bytes();
        bytes[place] ^= 1;
        let bent = Turn { proof: TurnProof::from_bytes(&bytes), ..turn };
        assert_eq!(committees.shown(node(3), &bent), None, "byte {place}");
    }
}

#[test]
fn who_has_not_drawn_it_has_no_seat() {
    let committees = Committees::new(&view(20), SIZE);
    let proof = turn(&committees, 3, FIRST, 1).proof;
    let lot = committees.shown(node(3), &Turn { minute: FIRST, proof }).unwrap();
    let containers: Vec<_> = (0..400).map(container).collect();
    let drawn: BTreeSet<_> = committees.map(FIRST, &containers).visited(&lot).collect();
    for (number, container) in (0..).zip(&containers) {
        let seating =
            |who, minute, proof| committees.seating_of(node(who), minute, *container, proof);
        let expected = if drawn.contains(&number) { Seating::Drawn } else { Seating::Nobody };
        assert_eq!(seating(3, FIRST, Some(proof)), expected);
        assert_eq!(seating(3, FIRST, None), Seating::Nobody);
        assert_eq!(seating(8, FIRST, Some(proof)), Seating::Nobody);
        assert_eq!(seating(3, FIRST + 1, Some(proof)), Seating::Nobody);
        assert_eq!(seating(99, FIRST, None), Seating::Nobody);
    }
    // 3 of 20 on average: 60 of 400, six standard deviations.
    assert!((20..=100).contains(&drawn.len()), "{}", drawn.len());
}

/// Chi-square over 200 containers: above 310 by chance once in a million.
#[test]
fn lots_are_fair() {
    let committees = Committees::new(&view(150), SIZE);
    let containers: Vec<_> = (0..200).map(container).collect();
    let (mut of_container, mut of_second) = (BTreeMap::new(), BTreeMap::new());
    let (mut total, mut none) = (0.0, 0);
    for minute in FIRST..FIRST + 9 {
        let map = committees.map(minute, &containers);
        let mut seen = BTreeSet::new();
        for number in 0..150 {
            let lot = made_up(number, minute);
            for place in map.visited(&lot) {
                let id = containers[usize::try_from(place).unwrap()];
                assert!(committees.visits(&lot, minute, id));
                *of_container.entry(place).or_insert(0.0) += 1.0;
                *of_second.entry(lot.second(id)).or_insert(0.0) += 1.0;
                total += 1.0;
                seen.insert(place);
            }
        }
        none += 200 - seen.len();
    }
    let chi = |counts: &mut dyn Iterator<Item = f64>, expected: f64| -> f64 {
        counts.map(|count| (count - expected).powi(2) / expected).sum()
    };
    // Three a container and minute; one in twenty has none, and others stand in for it.
    assert!((total / 1_800.0_f64 - 3.0).abs() < 0.2, "{total}");
    assert!((40..150).contains(&none), "{none}");
    assert!(chi(&mut of_container.values().copied(), total / 200.0) < 310.0);
    assert_eq!(of_second.len(), 55);
    assert!(chi(&mut of_second.values().copied(), total / 55.0) < 120.0);
}

#[test]
fn stand_ins_are_named_for_the_last_minute_of_a_period() {
    let committees = Committees::new(&view(700), SIZE);
    let mut counts = BTreeMap::<NodeId, u32>::new();
    for number in 0..4_000 {
        let named = committees.stand_ins(FIRST + 4, container(number));
        assert_eq!(named.len(), 5);
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), 5);
        for (rank, node) in (0..).zip(&named) {
            let seating = committees.seating(*node, FIRST + 4, container(number), None);
            assert_eq!(seating, Seating::StandIn(rank));
        }
        named.into_iter().for_each(|node| *counts.entry(node).or_default() += 1);
    }
    // 29 each; six standard deviations.
    assert_eq!(counts.len(), 700);
    assert!(counts.values().all(|count| *count < 62), "{counts:?}");
    let long = EpochView { epoch: 5, epoch_seconds: 86_400, ..view(700) };
    let committees = Committees::new(&long, SIZE);
    let first = 5 * 1_440;
    assert_eq!(committees.stand_ins(first + 58, container(1)), []);
    assert_eq!(committees.stand_ins(first + 59, container(1)).len(), 5);
}

proptest! {
    /// Where there are no more checkers than a committee, all check everything, in any minute.
    #[test]
    fn a_small_network_checks_everything(
        checkers in 1..=3_u32, minute in FIRST..FIRST + 10, number: u32,
    ) {
        let committees = Committees::new(&view(checkers), SIZE);
        for of in 0..checkers {
            let seating = committees.seating(node(of), minute, container(number), None);
            prop_assert_eq!(seating, Seating::Drawn);
            let map = committees.map(minute, &[container(number)]);
            prop_assert_eq!(map.visited(&made_up(of, minute)).count(), 1);
        }
        prop_assert_eq!(committees.stand_ins(minute, container(number)), []);
        let stranger = committees.seating(node(checkers), minute, container(number), None);
        prop_assert_eq!(stranger, Seating::Nobody);
    }
}

/// Anybody must be able to recompute them, so they must never change.
#[test]
fn vectors_hold() {
    let committees = Committees::new(&view(100), SIZE);
    let lot = committees.shown(node(3), &turn(&committees, 3, FIRST, 1)).unwrap();
    let containers: Vec<_> = (0..100).map(container).collect();
    let visited: Vec<_> = committees.map(FIRST, &containers).visited(&lot).collect();
    let seconds: Vec<_> = (0..4).map(|number| lot.second(container(number))).collect();
    let named = committees.stand_ins(FIRST + 4, container(0));
    let named: Vec<_> = (0..100).filter(|number| named.contains(&node(*number))).collect();
    let text = format!("{visited:?} {seconds:?} {named:?}");
    assert_eq!(text, "[38, 0, 27, 90] [6, 22, 48, 17] [3, 52, 65, 66, 71]");
}
