//! The laws of settlement: nothing above the pools, everything explained, order without meaning.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use proptest::prelude::*;
use welkin_types::{AccountId, Class, ContainerId, LeaseId};

use super::*;

const CONTAINERS: u32 = 6;
const LICENCES: u32 = 5;
/// What a unit of capacity weighs that delivers at full quality for a second.
const SECOND: u128 = SCORE_WHOLE as u128 * WHOLE_BP as u128;

fn account(number: u8) -> AccountId {
    AccountId::from_bytes([number; 20])
}

fn container(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

fn class(name: &str, capacity: u32) -> ClassTerms {
    ClassTerms { class: Class::try_from(name.to_owned()).unwrap(), capacity }
}

fn terms() -> Terms {
    Terms::public(vec![class("h100-sxm-80", 100), class("rtx4090-24", 20), class("cpu-8", 1)])
}

fn roster() -> Roster {
    let containers = (0..CONTAINERS).map(|number| Container {
        id: container(number),
        owner: account(u8::try_from(number / 2).unwrap()),
        class: u16::try_from(number % 3).unwrap(),
        is_staked: true,
    });
    let licences = (0..LICENCES).map(|number| Licence { number: number + 1, owner: account(100) });
    Roster::new(containers.collect(), licences.collect(), vec![account(200), account(201)]).unwrap()
}

/// A day on which everybody did what they should.
fn honest() -> Evidence {
    let mut evidence = Evidence { roster: roster(), ..Evidence::default() };
    for place in 0..CONTAINERS {
        for licence in 0..3 {
            let class = Some(u16::try_from(place % 3).unwrap());
            evidence.capacities.push(Capacity { container: place, licence, class });
            for period in 0..24 {
                evidence.verdicts.push(Verdict::new(place, period, licence, true));
            }
        }
    }
    evidence
}

fn delivery(container: u32, period: u8, lease: u8, seconds: u16, quality_bp: u16) -> Delivery {
    let lease = LeaseId::from_bytes([lease; 16]);
    Delivery { container, period, lease, seconds, quality_bp, indexer: 1, matched: seconds }
}

fn book() -> Book {
    Book::new(Emissions::new(5_000_000))
}

fn weights(settled: &Settled) -> BTreeMap<Cause, u128> {
    settled.shares.iter().map(|share| (share.cause, share.weight)).collect()
}

prop_compose! {
    fn some_evidence()(
        verdicts in prop::collection::vec((0..CONTAINERS + 1, 0..25_u8, 0..LICENCES + 1, any::<bool>()), 0..400),
        capacities in prop::collection::vec((0..CONTAINERS + 1, 0..LICENCES + 1, prop::option::of(0..4_u16)), 0..40),
        deliveries in prop::collection::vec((0..CONTAINERS + 1, 0..25_u8, 0..3_u8, 0..4_000_u16, 0..10_100_u16, 0..3_u16), 0..60),
        uptimes in prop::collection::vec((0..LICENCES + 1, any::<u32>()), 0..10),
        halted in prop::collection::vec(0..CONTAINERS + 2, 0..3),
        is_honest in any::<bool>(),
    ) -> Evidence {
        let mut evidence =
            if is_honest { honest() } else { Evidence { roster: roster(), ..Evidence::default() } };
        evidence.verdicts.extend(verdicts.into_iter().map(|(c, p, l, on)| Verdict::new(c, p, l, on)));
        evidence.capacities.extend(
            capacities.into_iter().map(|(container, licence, class)| Capacity { container, licence, class }),
        );
        evidence.deliveries.extend(deliveries.into_iter().map(|(c, period, lease, seconds, quality, indexer)| {
            Delivery { indexer, ..delivery(c, period, lease, seconds, quality) }
        }));
        evidence.uptimes.extend(uptimes.into_iter().map(|(licence, periods)| Uptime { licence, periods }));
        evidence.halted = halted;
        evidence
    }
}

fn reversed(evidence: &Evidence) -> Evidence {
    let mut other = evidence.clone();
    other.verdicts.reverse();
    other.capacities.reverse();
    other.deliveries.reverse();
    other.uptimes.reverse();
    other.halted.reverse();
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_pool_is_exceeded_and_every_leaf_is_explained(
        days in prop::collection::vec(some_evidence(), 1..4), epoch in 80..100_u32,
    ) {
        let terms = terms();
        let mut book = book();
        book.emissions.epoch = epoch;
        for mut evidence in days {
            let before = book.totals.clone();
            let settled = settle(&terms, &book, &mut evidence);
            let mut granted = [U256::ZERO; 3];
            for claim in settled.claims.list() {
                let told = settled.explain(claim.account, claim.stream);
                let sum: u64 = told.shares.iter().map(|share| share.units).sum();
                prop_assert_eq!(told.before + sum, claim.units);
                let was = before.get(&(claim.account, claim.stream)).copied().unwrap_or(0);
                prop_assert_eq!(told.before, was);
                granted[usize::from(claim.stream.number())] += U256::from(sum) * U256::from(UNIT_WEI);
            }
            let pools = settled.pools;
            prop_assert!(granted[0] <= pools.hosts);
            prop_assert!(granted[1] <= pools.checkers + pools.bonus);
            prop_assert!(granted[2] <= pools.indexers);
            let sums: Vec<_> = Stream::ALL.into_iter().map(|s| settled.claims.total(s)).collect();
            let totals: Vec<_> = settled.totals().to_vec();
            for (sum, total) in sums.iter().zip(totals) {
                prop_assert_eq!(U256::from(*sum) * U256::from(UNIT_WEI), total);
            }
            book = settled.book;
            book.emissions.advance(settled.units, U256::from(50_000_000_000_000_000_u64));
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter(evidence in some_evidence()) {
        let (terms, book) = (terms(), book());
        let first = settle(&terms, &book, &mut evidence.clone());
        let mut twice = reversed(&evidence);
        let again = settle(&terms, &book, &mut twice.clone());
        prop_assert_eq!(&first, &again);
        twice.verdicts.extend(evidence.verdicts.clone());
        twice.deliveries.extend(evidence.deliveries.clone());
        twice.capacities.extend(evidence.capacities.clone());
        twice.uptimes.extend(evidence.uptimes.clone());
        twice.halted.extend(&evidence.halted);
        let doubled = settle(&terms, &book, &mut twice);
        prop_assert_eq!(first.data, doubled.data);
        prop_assert_eq!(first.shares, doubled.shares);
        prop_assert_eq!(first.book, doubled.book);
    }

    /// Up to one of three may lie about a container: nothing changes for it.
    #[test]
    fn a_minority_costs_nobody_anything(periods in prop::collection::btree_set(0..24_u8, 1..24), liar in 0..3_u32) {
        let (terms, book) = (terms(), book());
        let truth = settle(&terms, &book, &mut honest());
        let mut evidence = honest();
        for verdict in &mut evidence.verdicts {
            if verdict.licence() == liar && periods.contains(&verdict.period()) {
                *verdict = verdict.opposite();
            }
        }
        let settled = settle(&terms, &book, &mut evidence);
        let of_hosts = |settled: &Settled| -> Vec<Share> {
            settled.shares.iter().filter(|s| s.cause.stream() == Stream::Hosts).copied().collect()
        };
        prop_assert_eq!(of_hosts(&truth), of_hosts(&settled));
        prop_assert_eq!(&truth.book.containers, &settled.book.containers);
        let lied = weights(&settled)[&Cause::Tasks(liar + 1)];
        prop_assert!(lied < weights(&truth)[&Cause::Tasks(liar + 1)]);
    }

    #[test]
    fn one_flipped_report_changes_the_root(place in 0..432_usize) {
        let (terms, book) = (terms(), book());
        let truth = settle(&terms, &book, &mut honest());
        let mut evidence = honest();
        evidence.verdicts[place] = evidence.verdicts[place].opposite();
        let settled = settle(&terms, &book, &mut evidence);
        prop_assert_ne!(truth.claims.root(), settled.claims.root());
        prop_assert_ne!(truth.evidence, settled.evidence);
        prop_assert_ne!(truth.data, settled.data);
    }
}

#[test]
fn a_bad_hour_costs_a_72nd_and_a_good_one_gives_a_168th() {
    let (terms, mut book) = (terms(), book());
    let day = |book: &Book, online: std::ops::Range<u8>| {
        let mut evidence = honest();
        for verdict in &mut evidence.verdicts {
            if verdict.container() == 0 && !online.contains(&verdict.period()) {
                *verdict = verdict.opposite();
            }
        }
        settle(&terms, book, &mut evidence)
    };
    let mut scores = Vec::new();
    for _ in 0..4 {
        let settled = day(&book, 0..0);
        assert!(!weights(&settled).contains_key(&Cause::Capacity(container(0))));
        book = settled.book;
        scores.push(book.containers[&container(0)].score);
    }
    assert_eq!(scores, [336, 168, 0, 0]);
    scores.clear();
    for _ in 0..8 {
        book = day(&book, 0..24).book;
        scores.push(book.containers[&container(0)].score);
    }
    assert_eq!(scores, [72, 144, 216, 288, 360, 432, 504, 504]);
}

#[test]
fn a_unit_in_a_session_earns_delivery_instead_of_capacity() {
    let mut evidence = honest();
    evidence.deliveries = vec![
        delivery(0, 0, 1, 3_600, 10_000),
        delivery(0, 1, 1, 1_800, 5_000),
        // More than a period has: cut in proportion, with the mean quality.
        delivery(0, 2, 1, 3_600, 10_000),
        delivery(0, 2, 2, 3_600, 0),
    ];
    let settled = settle(&terms(), &book(), &mut evidence);
    let weights = weights(&settled);
    let delivered = 100 * (3_600 + 900 + 1_800);
    assert_eq!(weights[&Cause::Delivery(container(0))], delivered * SECOND);
    let idle = 100 * (21 * 3_600 + 1_800);
    assert_eq!(weights[&Cause::Capacity(container(0))], idle * SECOND);
    assert_eq!(weights[&Cause::Matches], 3_600 + 1_800 + 3_600);
    let indexed = settled.claims.claim(account(201), Stream::Indexers).unwrap();
    let whole = settled.pools.indexers / U256::from(UNIT_WEI);
    assert_eq!(U256::from(indexed.units), whole);
    assert_eq!(settled.units, 2 * (100 + 20 + 1));
}

#[test]
fn only_proven_staked_and_running_capacity_earns() {
    let mut evidence = honest();
    // Claims an h100, two of three found a 4090.
    for capacity in &mut evidence.capacities {
        if capacity.container == 0 && capacity.licence > 0 {
            capacity.class = Some(1);
        }
    }
    evidence.halted.push(1);
    // One finding is no majority of a committee of three.
    evidence.capacities.retain(|c| c.container != 2 || c.licence == 0);
    let settled = settle(&terms(), &book(), &mut evidence);
    let weights = weights(&settled);
    assert_eq!(weights[&Cause::Capacity(container(0))], 20 * 86_400 * SECOND);
    assert!(!weights.contains_key(&Cause::Capacity(container(1))));
    assert!(!weights.contains_key(&Cause::Capacity(container(2))));
    assert_eq!(weights[&Cause::Capacity(container(3))], 100 * 86_400 * SECOND);
    // The proof holds for two more days, not for three.
    let mut book = settled.book;
    for day in 1..=3 {
        book.emissions.advance(settled.units, U256::from(1));
        let mut evidence = honest();
        evidence.capacities.clear();
        let settled = settle(&terms(), &book, &mut evidence);
        assert_eq!(settled.units > 0, day <= 2, "day {day}");
        book = settled.book;
    }
}

#[test]
fn contradictions_void_both_and_strangers_count_for_nothing() {
    let (terms, book) = (terms(), book());
    let mut evidence = honest();
    evidence.verdicts.push(Verdict::new(0, 0, 0, false));
    evidence.verdicts.push(Verdict::new(0, 0, 1, true));
    evidence.verdicts.push(Verdict::new(u32::MAX, 0, 1, true));
    evidence.verdicts.push(Verdict::new(0, 0, u32::MAX, true));
    evidence.verdicts.push(Verdict::new(0, 24, 1, true));
    evidence.uptimes.push(Uptime { licence: 0, periods: 1 << 24 });
    let settled = settle(&terms, &book, &mut evidence);
    let expected = Refused { strangers: 2, ranges: 2, repeated: 1, contradicting: 2 };
    assert_eq!(settled.refused, expected);
    let tasks = |licence| weights(&settled)[&Cause::Tasks(licence)];
    assert_eq!((tasks(1), tasks(2)), (6 * 25 - 1, 6 * 25));
    let truth = settle(&terms, &book, &mut honest());
    assert_eq!(truth.book.containers, settled.book.containers);
}

#[test]
fn the_bonus_goes_to_those_that_were_up_from_the_fifth_quarter_on() {
    let terms = terms();
    for (epoch, expected) in [(quarter_end(4), 3), (quarter_end(5), 1)] {
        let mut book = book();
        book.emissions.epoch = epoch;
        let mut evidence = honest();
        // 23 of 24 is above 95 %, 22 is not.
        evidence.uptimes.push(Uptime { licence: 0, periods: (1 << 23) - 1 });
        evidence.uptimes.push(Uptime { licence: 1, periods: (1 << 22) - 1 });
        let settled = settle(&terms, &book, &mut evidence);
        let bonus = settled.shares.iter().filter(|share| matches!(share.cause, Cause::Bonus(_)));
        assert_eq!(bonus.count(), expected);
        assert!(settled.book.licences.is_empty());
    }
}

#[test]
fn an_empty_epoch_grants_nothing_and_loses_nothing() {
    let terms = terms();
    let first = settle(&terms, &book(), &mut honest());
    let mut book = first.book.clone();
    book.emissions.advance(first.units, U256::from(1));
    let second = settle(&terms, &book, &mut Evidence::default());
    assert_eq!(second.claims.root(), first.claims.root());
    assert_eq!((second.units, second.shares.len()), (0, 0));
    assert_ne!(second.data, first.data);
}

#[test]
fn few_devices_earn_at_most_the_cap_of_a_unit() {
    let mut terms = terms();
    terms.unit_cap_wei = U256::from(5 * UNIT_WEI);
    let settled = settle(&terms, &book(), &mut honest());
    assert_eq!(settled.pools.hosts, U256::from(5 * UNIT_WEI * 242));
}

#[test]
fn a_roster_that_contradicts_itself_is_refused() {
    let one = Container { id: container(1), owner: account(1), class: 0, is_staked: true };
    let other = Container { owner: account(2), ..one };
    let error = Roster::new(vec![one, other], vec![], vec![]).unwrap_err();
    assert_eq!(error, RosterError::Container(container(1)));
    assert!(Roster::new(vec![one, one], vec![], vec![]).is_ok());
    let licence = Licence { number: 3, owner: account(1) };
    let other = Licence { owner: account(2), ..licence };
    let error = Roster::new(vec![], vec![licence, other], vec![]).unwrap_err();
    assert_eq!(error, RosterError::Licence(3));
}

proptest! {
    /// One of three that lies, and one that could not ask: no proof is lost, nobody is charged.
    #[test]
    fn a_liar_and_a_silent_one_take_no_proof_away(
        liar in 0..3_u32, silent in 0..3_u32, lie in prop::option::of(0..3_u16), place in 0..CONTAINERS,
    ) {
        prop_assume!(liar != silent);
        let (terms, first) = (terms(), settle(&terms(), &book(), &mut honest()));
        let mut evidence = honest();
        evidence.capacities.retain(|c| c.container != place || c.licence != silent);
        for capacity in &mut evidence.capacities {
            if capacity.container == place && capacity.licence == liar {
                capacity.class = lie;
            }
        }
        for verdict in &mut evidence.verdicts {
            if verdict.container() == place && verdict.licence() == liar {
                *verdict = verdict.opposite();
            }
        }
        evidence.verdicts.retain(|v| v.container() != place || v.licence() != silent);
        let settled = settle(&terms, &first.book, &mut evidence);
        let proven = settled.book.containers[&container(place)].proven;
        prop_assert_eq!(proven, Some(u16::try_from(place % 3).unwrap()));
        prop_assert_eq!(incidents(&terms, &evidence), vec![]);
    }
}

#[test]
fn what_most_found_is_an_incident() {
    let terms = terms();
    let mut evidence = honest();
    for capacity in &mut evidence.capacities {
        match (capacity.container, capacity.licence) {
            // Registered as the first class, found to be the second, a fifth of it.
            (0, 0 | 1) => capacity.class = Some(1),
            // Not met: it may have broken.
            (3, _) => capacity.class = None,
            _ => (),
        }
    }
    for verdict in &mut evidence.verdicts {
        let is_out = match verdict.container() {
            1 => verdict.period() < 2,
            // One period alone.
            2 => verdict.period() == 7,
            _ => false,
        };
        if is_out && verdict.licence() > 0 {
            *verdict = verdict.opposite();
        }
    }
    settle(&terms, &book(), &mut evidence);
    let found = incidents(&terms, &evidence);
    let told: Vec<_> = found.iter().map(|found| (found.container, found.incident)).collect();
    let day = Incident::Day { offline_minutes: 60 };
    assert_eq!(told, [(0, Incident::Specification), (1, day)]);
    assert_ne!(found[0].evidence, found[1].evidence);
    assert_eq!(incidents(&terms, &evidence), found);
}
