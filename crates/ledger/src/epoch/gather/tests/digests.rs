//! What was measured of sessions counts if it is signed by a side of a lease that is there, and once.

use welkin_proto::digest::{Figures, MinuteDigest, Series, SessionDigests, Side};

use super::*;

fn minutes(count: u32, answered: u8) -> Vec<MinuteDigest> {
    let (round_trip, loss, figures) = (None, None, Figures::None);
    let digest = |minute| MinuteDigest { minute, watched: 60, answered, round_trip, loss, figures };
    (0..count).map(digest).collect()
}

fn series(side: Side, minutes: Vec<MinuteDigest>) -> Series {
    Series {
        lease: LeaseId::from_bytes([1; 16]),
        host: node(9).id(),
        buyer: account(20).id(),
        side,
        part: 0,
        began: UnixMillis(START_MS + 50_000),
        start: Vec::new(),
        minutes,
    }
}

fn signed(series: Series, checker: u8) -> Statement {
    let signed = match series.side {
        Side::Host => SessionDigests::by_host(&DOMAIN, &node(9), series),
        Side::Buyer => SessionDigests::by_buyer(&DOMAIN, &account(20), series),
        Side::Checker => SessionDigests::by_checker(&DOMAIN, &node(checker), &account(20), series),
    };
    Statement::Digests(Box::new(signed.unwrap()))
}

/// What one side says of the lease of honest work.
pub(super) fn said(side: Side, count: u32, answered: u8) -> Statement {
    signed(series(side, minutes(count, answered)), 1)
}

/// Adds a statement to those that are sound.
type Add<'a> = &'a dyn Fn(&mut Vec<Statement>);

fn sides(statements: &[Statement]) -> Vec<(Side, usize)> {
    let gathered = read(statements);
    let lease = gathered.leases.values().next().unwrap();
    assert_eq!(lease.minutes, 0..1);
    lease.digests.iter().map(|of| (of.side, of.series.minutes.len())).collect()
}

/// Honest work without what was measured of it.
fn bare() -> Vec<Statement> {
    honest().into_iter().filter(|said| !matches!(said, Statement::Digests(_))).collect()
}

#[test]
fn each_side_is_heard_once_with_all_that_it_says() {
    let mut all = bare();
    let side = |side| [said(side, 1, 60), said(side, 2, 60)];
    all.extend([Side::Host, Side::Buyer, Side::Checker].into_iter().flat_map(side));
    assert_eq!(sides(&all), [(Side::Host, 2), (Side::Buyer, 2), (Side::Checker, 2)]);
    // What was said before stands in what was said later.
    assert_eq!(refused(&all), [(Unfit::Repeated, 3)]);
}

#[test]
fn who_says_two_things_has_said_nothing() {
    let mut all = bare();
    all.extend([said(Side::Buyer, 2, 60), said(Side::Buyer, 1, 0), said(Side::Host, 1, 60)]);
    assert_eq!(sides(&all), [(Side::Host, 1)]);
    assert_eq!(refused(&all), [(Unfit::Contradicting, 2)]);
}

#[test]
fn what_is_forged_late_or_of_strangers_is_refused() {
    let forged = |all: &mut Vec<Statement>| {
        let Statement::Digests(digests) = said(Side::Buyer, 1, 60) else { return };
        let series = series(Side::Buyer, minutes(1, 0));
        all.push(Statement::Digests(Box::new(SessionDigests { series, ..*digests })));
    };
    let unbounded = |all: &mut Vec<Statement>| {
        let Statement::Digests(mut digests) = said(Side::Host, 1, 60) else { return };
        digests.series.minutes[0].answered = 200;
        all.push(Statement::Digests(digests));
    };
    let cases: [(Add<'_>, Unfit); 8] = [
        (&forged, Unfit::Forged),
        (&unbounded, Unfit::Malformed),
        (&|all| all.push(said(Side::Host, 0, 0)), Unfit::Malformed),
        // Longer than the lease ran.
        (&|all| all.push(said(Side::Buyer, 5, 60)), Unfit::Late),
        // Of an epoch long before.
        (
            &|all| {
                let began = UnixMillis(START_MS - 600_000);
                all.push(signed(Series { began, ..series(Side::Host, minutes(1, 60)) }, 1));
            },
            Unfit::Late,
        ),
        // Of a lease that is not there.
        (
            &|all| {
                let lease = LeaseId::from_bytes([2; 16]);
                all.push(signed(Series { lease, ..series(Side::Host, minutes(1, 60)) }, 1));
            },
            Unfit::Stranger,
        ),
        // A host that names another buyer.
        (
            &|all| {
                let buyer = account(21).id();
                all.push(signed(Series { buyer, ..series(Side::Host, minutes(1, 60)) }, 1));
            },
            Unfit::Stranger,
        ),
        // By somebody who is no checker of the epoch.
        (&|all| all.push(signed(series(Side::Checker, minutes(1, 0)), 8)), Unfit::Stranger),
    ];
    for (place, (add, why)) in cases.into_iter().enumerate() {
        let mut all = bare();
        add(&mut all);
        assert_eq!(refused(&all), [(why, 1)], "case {place}");
        assert_eq!(sides(&all), [], "case {place}");
    }
}
