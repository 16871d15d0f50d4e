//! Adversaries in a short form: whom the real rules find, whom they charge, whom they never do.

use std::collections::BTreeMap;

use welkin_sim::adversaries::{Assigned, Config, Habit, Row, Table, run};

/// How many forms of each attack pay: neither more nor others.
const PAYING: [(&str, u32); 7] = [
    ("fake model", 2),
    ("host and checkers collude", 1),
    ("shared GPU", 3),
    ("relayed challenge", 1),
    ("answers `Busy`", 2),
    ("sybil hosts", 2),
    ("throttled after the check", 3),
];

/// One table for all that is asked of it: it takes seconds.
#[test]
fn the_rules_hold_against_all_adversaries() {
    let table = run(Config::SHORT);
    an_honest_host_is_never_charged_by_up_to_n_of_2n_plus_1(&table);
    every_attack_loses_or_is_named(&table);
    a_fake_is_found_within_a_day_and_loses_its_stake(&table);
    honest_hosts_on_bad_networks_are_left_alone(&table);
    who_favours_or_lies_is_paid_less(&table);
}

fn rows<'a>(table: &'a Table, attack: &str) -> Vec<&'a Row> {
    let found: Vec<_> = table.rows.iter().filter(|row| row.attack == attack).collect();
    assert!(!found.is_empty(), "no attack {attack}");
    found
}

fn an_honest_host_is_never_charged_by_up_to_n_of_2n_plus_1(table: &Table) {
    assert_eq!(table.honest_slashed(), 0);
    for committee in &table.committees {
        let is_majority = committee.liars > committee.n;
        assert_eq!(committee.slashed > 0, is_majority, "{committee:?}");
        assert_eq!(committee.hours_offline > 0, is_majority, "{committee:?}");
        assert_eq!(committee.days_believed > 0, is_majority, "{committee:?}");
    }
    let tried = |n| table.committees.iter().filter(|committee| committee.n == n).count();
    assert_eq!([1, 2, 3].map(tried), [3, 4, 5]);
}

fn every_attack_loses_or_is_named(table: &Table) {
    for row in &table.rows {
        println!("{} ({}): {:?} {:?}", row.attack, row.variant, row.found_permille, row.net_milli);
        assert!(!row.pays() || row.known.is_some(), "an attack pays that nobody named: {row:?}");
        // Partners that share a device meet by chance, in days.
        let is_found = row.found_permille[2] == 1_000 || row.assigned == Some(Assigned::Privately);
        assert!(is_found || row.known.is_some(), "not found, and nobody named it: {row:?}");
    }
    let mut paying = BTreeMap::new();
    for row in table.rows.iter().filter(|row| row.pays()) {
        *paying.entry(row.attack).or_default() += 1;
    }
    assert_eq!(paying, BTreeMap::from(PAYING));
}

fn a_fake_is_found_within_a_day_and_loses_its_stake(table: &Table) {
    for row in rows(table, "fake model").into_iter().filter(|row| row.known.is_none()) {
        assert_eq!(row.found_permille[1], 1_000, "{row:?}");
        assert!(row.taken_milli >= 29_000, "{row:?}");
        assert!(row.net_milli.is_some_and(|net| net < -25_000), "{row:?}");
    }
    for name in [
        "host and checkers collude",
        "shared GPU",
        "answers `Busy`",
        "sybil hosts",
        "relayed challenge",
    ] {
        for row in rows(table, name).into_iter().filter(|row| row.known.is_none()) {
            let is_soon = row.found_permille[1] == 1_000 || row.variant.contains("partners drawn");
            assert!(is_soon && !row.pays(), "{row:?}");
        }
    }
}

fn honest_hosts_on_bad_networks_are_left_alone(table: &Table) {
    assert!(table.false_positive_ppm() <= 10_000, "{} ppm", table.false_positive_ppm());
    for honest in table.honest.iter().filter(|honest| !honest.asked_once) {
        assert_eq!((honest.charged_fraud, honest.charged_offline), (0, 0), "{honest:?}");
    }
    for (percent, served) in &table.blamed {
        assert_eq!(served.charged, 0, "{percent} % blamed: {served:?}");
        assert!(*percent < 20 || served.quality_permille < 1_000, "{percent} %: {served:?}");
        // A buyer alone takes ten points of a session, and delivery is half of what is earned.
        assert!(served.quality_permille >= 900, "{percent} %: {served:?}");
        assert!(served.earned_permille >= 950, "{percent} %: {served:?}");
    }
    // Nobody lies: no true claim of place falls; and never by all of a day together.
    for (city, liars, claim) in table.claims.iter().filter(|(city, ..)| *city == "Frankfurt") {
        assert!(*liars > 0 || claim.refuted_minute.is_none(), "{city}: {claim:?}");
        assert!(!claim.refuted_by_all, "{city}: {claim:?}");
    }
    assert!(table.indexers.iter().all(|(_, _, favour)| favour.wrongly_marked == 0));
}

fn who_favours_or_lies_is_paid_less(table: &Table) {
    for (own, _, favour) in table.indexers.iter().filter(|(own, ..)| *own >= 80) {
        assert!(favour.marked_second.is_some() && favour.asked_permille < 100, "{own}: {favour:?}");
    }
    for (name, habit, paid) in &table.checkers {
        match habit {
            Habit::Honest => assert!((850..=1_150).contains(&paid.paid_permille), "{paid:?}"),
            Habit::No => assert!(paid.paid_permille < 100, "{paid:?}"),
            Habit::BribedNo(1) => {
                assert_eq!((paid.victim_hours, paid.victim_slashed), (0, 0), "{name}: {paid:?}");
            }
            // That these are paid is stated in the documentation.
            Habit::Copies | Habit::Yes | Habit::BribedNo(_) => (),
        }
    }
}

#[test]
fn a_seed_is_a_table() {
    let config = Config { days: 1, trials: 1, licences: 16, ..Config::SHORT };
    let (one, again) = (run(config), run(config));
    assert_eq!(one, again);
    assert_eq!(one.markdown(), again.markdown());
    assert_ne!(one, run(Config { seed: 2, ..config }));
}
