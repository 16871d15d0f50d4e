//! That sortition is unique, fair, provable, and that nobody falls through.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use welkin_types::ContainerId;

use super::*;

const RANDOM: [u8; 32] = [9; 32];

fn key(number: u32) -> VrfKey {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    VrfKey::from_seed(&seed).unwrap()
}

fn account(number: u32) -> AccountId {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    AccountId::from_bytes(bytes)
}

fn container(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

fn licence(number: u32) -> Licence {
    Licence { number, owner: account(number), key: key(number).public(), registered: 6 }
}

/// Licences whose keys nobody needs.
fn many(count: u32) -> Vec<Licence> {
    let key = VrfPublic([0; 32]);
    (1..=count)
        .map(|number| Licence { number, owner: account(number), key, registered: 0 })
        .collect()
}

fn plan(containers: u32, licences: u32) -> Plan {
    let seed = [5; 32];
    Plan { seed, epoch: 7, containers, licences, checks: 3, periods: 24, period_seconds: 3_600 }
}

#[test]
fn a_proof_shows_the_holders_tasks_and_nobody_elses() {
    let plan = plan(100, 20);
    let (proof, output) = key(3).prove(&plan.ticket(3), RANDOM);
    let tasks = plan.verify(&licence(3), &proof).unwrap();
    assert_eq!(tasks, plan.tasks(&output));
    assert_eq!(plan.verify(&licence(4), &proof), Err(ProofRefusal::Wrong(4)));
    let other = Licence { number: 4, ..licence(3) };
    assert_eq!(plan.verify(&other, &proof), Err(ProofRefusal::Wrong(4)));
    let later = Plan { epoch: 8, ..plan };
    assert_eq!(later.verify(&licence(3), &proof), Err(ProofRefusal::Wrong(3)));
    let seed = Plan { seed: [6; 32], ..plan };
    assert_eq!(seed.verify(&licence(3), &proof), Err(ProofRefusal::Wrong(3)));
    let new = Licence { registered: 7, ..licence(3) };
    let refusal = ProofRefusal::TooNew { registered: 7, epoch: 7 };
    assert_eq!(plan.verify(&new, &proof), Err(refusal));
    for place in 0..PROOF_BYTES {
        let mut forged = proof;
        forged.0[place] ^= 1;
        assert!(plan.verify(&licence(3), &forged).is_err(), "byte {place}");
    }
}

/// There is one output: a checker can't try until it likes its tasks.
#[test]
fn randomness_changes_the_proof_but_not_the_output() {
    let ticket = plan(100, 20).ticket(3);
    let (first, output) = key(3).prove(&ticket, RANDOM);
    let (second, same) = key(3).prove(&ticket, [8; 32]);
    assert_ne!(first, second);
    assert_eq!(output, same);
    assert_eq!(first.verify(&key(3).public(), &ticket), Some(output));
    assert_eq!(format!("{:?}", key(3)), "VrfKey(..)");
}

#[test]
fn a_report_counts_only_for_an_assigned_task() {
    let plan = plan(100, 20);
    let (proof, output) = key(3).prove(&plan.ticket(3), RANDOM);
    let task = plan.tasks(&output)[0];
    let verify =
        |container, owner, period| plan.verify_task(&licence(3), &proof, container, owner, period);
    assert!(verify(task.container, account(9), task.period).unwrap().contains(&task.second));
    let own = verify(task.container, account(3), task.period);
    assert_eq!(own, Err(ProofRefusal::Own(3)));
    let assigned: BTreeSet<_> =
        plan.tasks(&output).iter().map(|task| (task.container, task.period)).collect();
    let (container, period) =
        (0..100).map(|container| (container, 0)).find(|pair| !assigned.contains(pair)).unwrap();
    let refusal = ProofRefusal::NotAssigned { licence: 3, container, period };
    assert_eq!(verify(container, account(9), period), Err(refusal));
}

/// Chi-square over 200 containers: above 310 by chance once in a million.
#[test]
fn checks_are_spread_evenly_over_containers_seconds_and_licences() {
    let plan = plan(200, 150);
    let mut containers = BTreeMap::<u32, f64>::new();
    let mut seconds = [0_f64; 36];
    let mut total = 0.0;
    for number in 1..=150_u32 {
        let mut output = [0; 32];
        output[..4].copy_from_slice(&number.to_be_bytes());
        let mut count = 0.0_f64;
        plan.for_each_task(&output, |task| {
            *containers.entry(task.container).or_default() += 1.0;
            seconds[usize::from(task.second) / 100] += 1.0;
            count += 1.0;
        });
        // 4 in each of 24 periods.
        assert!((96.0 - count).abs() < 1.0, "{count}");
        total += count;
    }
    let chi = |counts: &mut dyn Iterator<Item = f64>, expected: f64| -> f64 {
        counts.map(|count| (count - expected).powi(2) / expected).sum()
    };
    assert!(chi(&mut containers.values().copied(), total / 200.0) < 310.0, "{containers:?}");
    assert!(chi(&mut seconds.into_iter(), total / 36.0) < 95.0, "{seconds:?}");
}

/// 100 · 3 / 7 is no whole number: 42 or 43 each, 300 a period on average.
#[test]
fn the_mean_holds_where_it_is_no_whole_number() {
    let plan = plan(100, 7);
    let mut total = 0_u32;
    for number in 0..700_u32 {
        let mut output = [3; 32];
        output[..4].copy_from_slice(&number.to_be_bytes());
        plan.for_each_task(&output, |_| total += 1);
    }
    let expected = 100 * 24 * 300;
    assert!(total.abs_diff(expected) < expected / 500, "{total}");
    let empty = Plan { containers: 0, ..plan };
    assert_eq!(empty.tasks(&[1; 32]), []);
    let nobody = Plan { licences: 0, ..plan };
    assert_eq!(nobody.tasks(&[1; 32]), []);
}

proptest! {
    #[test]
    fn a_fallback_fills_the_committee_with_strangers(
        count in 0..900_u32, number: u32, period in 0..24_u8, wanted in 0..6_usize,
    ) {
        let (plan, licences) = (plan(10, count), many(count));
        let weights = plan.weights(&licences);
        let owner = account(number % 5 + 1);
        let chosen = plan.fallback(&weights, container(number), owner, period, wanted, &[]);
        prop_assert!(chosen.iter().all(|licence| licence.owner != owner));
        let distinct: BTreeSet<_> = chosen.iter().map(|licence| licence.number).collect();
        prop_assert_eq!(distinct.len(), chosen.len());
        if count > 20 {
            prop_assert_eq!(chosen.len(), wanted);
        }
        // Who reported already, or is silent, is replaced by the next in order.
        if let Some((first, rest)) = chosen.split_first() {
            let reported = [first.number];
            let again =
                plan.fallback(&weights, container(number), owner, period, wanted, &reported);
            prop_assert_eq!(&again[..rest.len()], rest);
        }
    }
}

#[test]
fn fallbacks_are_spread_evenly() {
    let (plan, licences) = (plan(10, 600), many(600));
    let weights = plan.weights(&licences);
    let mut counts = BTreeMap::<u32, f64>::new();
    for number in 0..20_000 {
        for licence in plan.fallback(&weights, container(number), account(0), 1, 3, &[]) {
            *counts.entry(licence.number).or_default() += 1.0;
        }
    }
    // 100 each; six standard deviations.
    assert_eq!(counts.len(), 600);
    let far = counts.values().filter(|count| (**count - 100.0).abs() > 60.0).count();
    assert_eq!(far, 0, "{counts:?}");
}

/// The outputs and tasks must never change, or old epochs could not be checked.
#[test]
fn vectors_hold() {
    let plan = plan(427_000, 91_000);
    let (_, output) = key(1).prove(&plan.ticket(1), RANDOM);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tasks = plan.tasks(&[2; 32]);
    let text = format!("{} {:?}", hex(&output), tasks[0]);
    assert_eq!(
        text,
        "2b696eb16a7d507bfed43884cab232e6ff590a10843beaf4d735f3a02afa3094 \
         Task { period: 0, second: 577, container: 50769 }"
    );
    assert_eq!(tasks.len(), 342);
    let licences = many(1_000);
    let weights = plan.weights(&licences);
    let chosen = plan.fallback(&weights, container(5), account(0), 2, 3, &[]);
    let numbers: Vec<_> = chosen.iter().map(|licence| licence.number).collect();
    assert_eq!(numbers, [926, 724, 552]);
}
