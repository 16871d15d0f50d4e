//! Who is there for the first minutes of a period and then gone.

use super::*;

/// Two hours: 24 periods of five minutes.
const LONG: u64 = 7_200;

/// What a container weighs whose checkers find this in the minutes of the first period.
fn weight(findings: &[Finding]) -> u128 {
    let mut heading = heading();
    heading.view.epoch_seconds = LONG;
    let start = EPOCH * LONG;
    let at = |of: u8, containers| roll_at(start * 1_000, of, of, containers);
    let mut all: Vec<_> = [1, 2, 3].map(|of| at(of, Vec::new())).into();
    all.push(at(9, vec![(container(), Class::cpu(4_000))]));
    for by in [1, 2, 3] {
        let minutes = start / 60..;
        all.extend(minutes.zip(findings).map(|(minute, found)| probe(by, minute, *found)));
        all.push(exam(by, start / 60, proved()));
    }
    let gathered = gather(&heading, &all, |_, _| Seating::Drawn);
    assert_eq!(gathered.refused, BTreeMap::new());
    let classes = BTreeMap::from([(Class::cpu(4_000), 1_000)]);
    let (terms, mut evidence) = gathered.evidence(&classes).unwrap();
    let settled = settle(&terms, &Book::new(Emissions::new(5_000_000)), &mut evidence);
    let of_it = settled.shares.iter().filter(|share| share.cause == Cause::Capacity(container()));
    of_it.map(|share| share.weight).sum()
}

/// As long as it is visited on, which checkers do with whom they have known in the epoch.
#[test]
fn a_few_good_minutes_earn_no_period() {
    const SILENT: Finding = Finding::Unreachable;
    let whole = 300 * 1_000 * 504 * 10_000;
    assert_eq!(weight(&[ONLINE; 5]), whole);
    assert_eq!(weight(&[ONLINE, ONLINE, SILENT, SILENT, SILENT]), 0);
    // Were it not visited any more, they would.
    assert_eq!(weight(&[ONLINE, ONLINE]), whole);
}
