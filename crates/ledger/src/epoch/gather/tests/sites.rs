//! Measurements of networks and disks, and where hosts say that they stand.

use welkin_proto::site::{Site, SiteReport};
use welkin_types::Region;

use super::*;

fn site(by: u8, change: impl FnOnce(&mut SiteReport)) -> Statement {
    let (checker, host, container) = (node(by).id(), node(9).id(), container());
    let site = Site { rtt_us: 900, ..Site::default() };
    let mut report = SiteReport { checker, host, container, minute: FIRST, site, turn: None };
    change(&mut report);
    Statement::Site(Box::new(Signed::sign(&DOMAIN, &node(by), &report).unwrap()))
}

fn also(more: &[Statement]) -> Gathered {
    read(&[honest(), more.to_vec()].concat())
}

#[test]
fn what_assigned_checkers_measured_counts_once() {
    let measured = site(1, |_| ());
    assert!(also(&[]).sites.is_empty());
    let found = also(&[measured.clone(), measured.clone(), site(2, |_| ())]);
    assert_eq!((found.sites.len(), found.refused), (2, BTreeMap::from([(Unfit::Repeated, 1)])));
    let other = site(1, |report| report.site.rtt_us = 901);
    let is_refused = |statement: Statement, why, count| {
        let found = also(&[statement]);
        assert_eq!((found.sites.len(), found.refused), (0, BTreeMap::from([(why, count)])));
    };
    is_refused(site(4, |_| ()), Unfit::Stranger, 1);
    is_refused(site(1, |report| report.checker = node(2).id()), Unfit::Forged, 1);
    is_refused(site(1, |report| report.host = node(2).id()), Unfit::Stranger, 1);
    is_refused(site(1, |report| report.minute = FIRST - 1), Unfit::Late, 1);
    let torn = also(&[measured, other]);
    assert_eq!(torn.sites.len(), 0);
    assert_eq!(torn.refused, BTreeMap::from([(Unfit::Contradicting, 2)]));
}

/// Who measures for nobody who has drawn it shows where it would come.
#[test]
fn nobody_stands_in_at_a_measurement() {
    let statements = [honest(), vec![site(1, |_| ())]].concat();
    let heading = heading();
    let found = gather(&heading, &statements, |_, _| Seating::StandIn(0));
    assert!(found.sites.is_empty());
    assert!(found.refused[&Unfit::Unassigned] >= 1);
}

#[test]
fn a_host_withdraws_no_place_that_it_has_named() {
    let placed = |at, region: &str| {
        let region: Option<Region> = Some(region.parse().unwrap());
        let (account, issued) = (delegation(9, 9), UnixMillis(at));
        let containers = vec![(container(), Class::cpu(4_000))];
        let roll = Roll { epoch: EPOCH, issued, account, containers, region };
        Statement::Roll(Box::new(Signed::sign(&DOMAIN, &node(9), &roll).unwrap()))
    };
    // An earlier one, and one of the same moment, which makes both void.
    let (osaka, seoul, lima) = ("jp-osaka", "kr-seoul", "pe-lima");
    let all =
        [placed(START_MS + 7, osaka), placed(START_MS + 6, seoul), placed(START_MS + 6, lima)];
    let regions = read(&all).regions.remove(&node(9).id()).unwrap();
    assert_eq!(regions, [osaka, seoul, lima].map(|name| name.parse().unwrap()).into());
}
