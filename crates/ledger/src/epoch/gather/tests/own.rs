//! A checker that works for the account whose container it judges.

use welkin_proto::digest::Side;

use super::*;

/// Checker 1 takes part for the host's account.
fn of_the_hosts(statements: Vec<Statement>) -> Vec<Statement> {
    let is_first = |statement: &Statement| *statement == roll(1, Vec::new());
    let others = statements.into_iter().filter(|statement| !is_first(statement));
    others.chain([roll_at(START_MS, 1, 9, Vec::new())]).collect()
}

#[test]
fn what_a_checker_says_of_its_own_accounts_container_does_not_count() {
    let all = of_the_hosts(honest());
    let found = read(&all);
    // Three probes and a challenge.
    assert_eq!(found.refused.into_iter().collect::<Vec<_>>(), [(Unfit::Own, 4)]);
    let own = node(1).id();
    assert!(found.probes.iter().all(|probed| probed.seat.checker != own));
    assert!(found.exams.iter().all(|report| report.checker != own));
    assert_eq!((found.probes.len(), found.exams.len(), found.committee), (6, 2, 3));
    // What it says makes no difference to anybody, whatever it is.
    let mut lying = all.clone();
    for minute in FIRST..FIRST + 3 {
        lying.retain(|statement| *statement != probe(1, minute, ONLINE));
        lying.push(probe(1, minute, Finding::Unreachable));
    }
    assert_eq!(refused(&lying), [(Unfit::Own, 4)]);
    let said = |statements: &[Statement]| {
        let settled = settled(statements);
        settled.shares.into_iter().map(|share| (share.cause, share.weight)).collect::<Vec<_>>()
    };
    assert_eq!(said(&lying), said(&all));
    let mut order = all.clone();
    order.reverse();
    assert_eq!(read(&order), read(&all));
}

#[test]
fn what_it_measured_in_a_session_at_its_own_does_not_count_either() {
    let measured = digests::said(Side::Checker, 1, 0);
    let is_measured = |statement: &Statement| matches!(statement, Statement::Digests(_));
    let mut all: Vec<_> = honest().into_iter().filter(|said| !is_measured(said)).collect();
    all.push(measured);
    let of_checkers = |statements: &[Statement]| {
        let found = read(statements);
        let lease = found.leases.values().next().unwrap();
        lease.digests.iter().filter(|of| of.side == Side::Checker).count()
    };
    assert_eq!(of_checkers(&all), 1);
    let own = of_the_hosts(all);
    assert_eq!(of_checkers(&own), 0);
    assert_eq!(refused(&own), [(Unfit::Own, 5)]);
}

/// Its place is filled like that of one who is silent.
#[test]
fn others_stand_in_for_who_would_judge_its_own() {
    let mut all = vec![roll(9, vec![(container(), Class::cpu(4_000))])];
    all.extend((1..6).map(|of| roll(of, Vec::new())));
    all.extend((1..6).map(|by| probe(by, FIRST, ONLINE)));
    let found = of_five(&[(1, FIRST)], [4, 3, 2, 1, 0], &of_the_hosts(all));
    assert_eq!(who(&found, FIRST), nodes(&[5, 4, 3]));
    assert_eq!((found.refused[&Unfit::Own], found.refused[&Unfit::Spare]), (1, 1));
}
