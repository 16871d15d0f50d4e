//! Who matched what was delivered.

use proptest::prelude::*;

use super::*;

/// At a price of which a second's fee is one micro-dollar.
const FULL: Usd = Usd::from_micros(18_000);

fn by(number: u8) -> Option<Matched> {
    Some(Matched { indexer: node(30).id(), account: account(number).id() })
}

fn with(file: ReceiptFile) -> Vec<Statement> {
    [&honest()[..], &[Statement::Lease(Box::new(file))]].concat()
}

/// What accounts matched, in seconds.
fn matched(statements: &[Statement]) -> Vec<(AccountId, u128)> {
    let settled = settled(statements);
    let shares = settled.shares.iter().filter(|share| share.cause == Cause::Matches);
    shares.map(|share| (share.account, share.weight)).collect()
}

#[test]
fn an_indexer_earns_by_the_seconds_that_it_matched() {
    let good = with(priced_file(7, START_MS + 80_000, 10_000, true, FULL, by(31)));
    assert_eq!(refused(&good), []);
    assert_eq!(matched(&good), [(account(31).id(), 10)]);
    let settled = settled(&good);
    let claim = settled.claims.claim(account(31).id(), Stream::Indexers);
    assert!(claim.is_some_and(|claim| !claim.wei().is_zero()));
    // Without the buyer's signature, and where nobody matched.
    for file in [
        priced_file(7, START_MS + 80_000, 10_000, false, FULL, by(31)),
        priced_file(7, START_MS + 80_000, 10_000, true, FULL, None),
    ] {
        assert_eq!(matched(&with(file)), []);
    }
}

#[test]
fn nobody_is_paid_for_matching_itself() {
    for own in [20, 9] {
        let file = priced_file(7, START_MS + 80_000, 10_000, true, FULL, by(own));
        assert_eq!(matched(&with(file)), []);
    }
}

#[test]
fn the_receipt_that_the_buyer_signed_is_the_one_that_counts() {
    let file = |is_acked, of| {
        let file = priced_file(7, START_MS + 80_000, 10_000, is_acked, FULL, by(of));
        Statement::Lease(Box::new(file))
    };
    let all = [&honest()[..], &[file(true, 31), file(false, 32)]].concat();
    assert_eq!(matched(&all), [(account(31).id(), 10)]);
}

#[test]
fn what_an_offline_or_unproven_container_delivers_is_nobodys_match() {
    let file = priced_file(7, START_MS + 80_000, 10_000, true, FULL, by(31));
    let is_exam = |statement: &Statement| matches!(statement, Statement::Exam(_));
    let mut unproven = with(file.clone());
    unproven.retain(|statement| !is_exam(statement));
    assert!(matched(&unproven).iter().all(|(_, weight)| *weight == 0));
    let mut offline = with(file);
    offline.retain(|statement| !matches!(statement, Statement::Sheet(_)));
    for checker in [1, 2, 3] {
        let first = FIRST..FIRST + 3;
        offline.extend(first.map(|minute| probe(checker, minute, Finding::Unreachable)));
    }
    assert!(matched(&offline).iter().all(|(_, weight)| *weight == 0));
}

proptest! {
    /// What counts is no more than was delivered, and no more than a second for a micro-dollar of fee.
    #[test]
    fn a_match_counts_no_more_than_its_fee(micros in 0_u64..40_000, ran in 1_u64..90_000) {
        let from = START_MS + 70_000;
        let file = priced_file(7, from, ran, true, Usd::from_micros(micros), by(31));
        let fee = file.receipt.open(&DOMAIN).unwrap().fee.micros();
        let seconds = matched(&with(file)).first().map_or(0, |(_, weight)| *weight);
        prop_assert_eq!(seconds, u128::from(fee.min(ran.div_ceil(1_000))));
    }
}
