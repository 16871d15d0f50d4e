//! What is known survives a restart; what is torn or altered is left out.

use super::*;
use crate::{Block, BlockError, ReadHosts, Restoring};

const NOW: UnixMillis = UnixMillis(1_000_000_000);

/// A fleet with everything that a snapshot holds.
fn before() -> Fleet {
    let mut fleet = Fleet::new(3);
    for host in 1..=40_u8 {
        let mut some = offer(1, 3, 100 + u64::from(host) * 7);
        some.resources.gpus = gpus(usize::from(host % 3), "h100", 80);
        some.features = vec![Feature::H264];
        some.apps = (0..host % 3).map(|app| AppId::from_bytes([app; 16])).collect();
        some.spot = Some(SpotTerms { price: price(50), notice_seconds: 30 });
        let mut capability = capability(host, 1, vec![some, offer(2, 1, 1_000)]);
        capability.region = if host % 2 == 0 { Region::local() } else { "eu".parse().unwrap() };
        fleet.announce(NOW, account(host % 5), capability).unwrap();
        let beat = Beat { spot: vec![(container(1), 1)], ..beat(1, 1, &[(1, 2), (2, 1)]) };
        fleet.beat(NOW, node(host), &beat).unwrap();
        let report = Report {
            checker: node(200),
            host: node(host),
            container: container(1),
            minute: NOW.0 / 60_000,
            finding: Finding::Online { rtt_us: 9 },
            turn: None,
        };
        fleet.report(NOW, &report).unwrap();
    }
    fleet
}

pub(super) fn snapshot(fleet: &Fleet) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        next = fleet.dump_hosts(NOW, from, &mut bytes);
    }
    next = Some(0);
    while let Some(from) = next {
        next = fleet.dump_scores(NOW, from, &mut bytes);
    }
    bytes
}

fn blocks(mut bytes: &[u8]) -> (Vec<Block<'_>>, Option<BlockError>) {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        match Block::split(bytes) {
            Ok((block, rest)) => {
                blocks.push(block);
                bytes = rest;
            }
            Err(error) => return (blocks, Some(error)),
        }
    }
    (blocks, None)
}

pub(super) fn restored(bytes: &[u8]) -> Fleet {
    let (blocks, error) = blocks(bytes);
    assert_eq!(error, None);
    let (hosts, scores): (Vec<_>, Vec<_>) = blocks.into_iter().partition(Block::has_hosts);
    let mut fleet = restored_of(NOW, hosts);
    assert!(scores.into_iter().all(|scores| fleet.take_up(NOW, scores)));
    fleet
}

fn restored_of(now: UnixMillis, hosts: Vec<Block<'_>>) -> Fleet {
    let mut restoring = Restoring::new(9, 100);
    for mut hosts in hosts.into_iter().filter_map(ReadHosts::of) {
        restoring.take(now, &mut hosts);
    }
    restoring.finish(|first, second| {
        second();
        first();
    })
}

fn market(fleet: &mut Fleet) -> Vec<Listing> {
    fleet.listing(NOW, None, 1_000)
}

#[test]
fn a_restored_fleet_answers_as_before_and_is_confirmed_by_beats() {
    let mut before = before();
    let mut after = restored(&snapshot(&before));
    let unconfirmed = |mut row: Listing| {
        row.is_confirmed = false;
        row
    };
    let expected: Vec<_> = market(&mut before).into_iter().map(unconfirmed).collect();
    assert_eq!(market(&mut after), expected);
    let spot = Needs { capacity: CapacityType::Spot, ..small() };
    let ask = Needs { gpu: Some("h100:2".parse().unwrap()), ..small() };
    let ready = Needs { app: Some(AppId::from_bytes([1; 16])), is_app_required: true, ..small() };
    for needs in [small(), spot, ask, ready] {
        for tie in 0..20 {
            let names = |found| match found {
                Found::WhyNot(_) => Vec::new(),
                Found::Candidates(found) => found
                    .into_iter()
                    .map(|c| (c.listing.addr.node, c.listing.container.id, c.listing.free))
                    .collect(),
            };
            let expected = names(before.found(NOW.0, &needs, &[], 3, tie));
            assert!(!expected.is_empty());
            assert_eq!(names(after.found(NOW.0, &needs, &[], 3, tie)), expected);
        }
    }
    let state = State { revision: 1, free: 3, spot_used: 0, is_draining: false };
    after.beat_one(NOW, (node(7), container(1)), &state).unwrap();
    let rows = market(&mut after).into_iter().filter(|row| row.is_confirmed);
    assert_eq!(rows.map(|row| row.addr.node).collect::<Vec<_>>(), [node(7); 2]);
}

#[test]
fn whoever_does_not_beat_after_a_restart_is_dropped() {
    let mut fleet = restored(&snapshot(&before()));
    assert_eq!((fleet.hosts(), fleet.containers()), (40, 80));
    let later = NOW.0 + SILENT_MS + 1;
    assert!(fleet.names(later, &small(), 1).is_empty());
    while fleet.expire(UnixMillis(NOW.0 + STALE_MS + 1)) {}
    assert_eq!((fleet.hosts(), fleet.containers()), (0, 0));
    assert!(fleet.index.is_empty());
}

#[test]
fn of_a_host_that_comes_twice_the_later_announcement_counts() {
    let older = fleet(&[(1, vec![offer(1, 1, 10)]), (2, vec![offer(1, 1, 20)])]);
    let mut newer = Fleet::new(1);
    let cheap = Capability { issued: UnixMillis(5), ..capability(1, 2, vec![offer(1, 1, 3)]) };
    newer.announce(NOW, account(1), cheap).unwrap();
    let (mut one, mut other) = (Vec::new(), Vec::new());
    older.dump_hosts(UnixMillis(0), 0, &mut one);
    newer.dump_hosts(UnixMillis(0), 0, &mut other);
    for parts in [[&one, &other], [&other, &one]] {
        let read = parts.into_iter().flat_map(|bytes| blocks(bytes).0).collect();
        let mut fleet = restored_of(UnixMillis(0), read);
        assert_eq!((fleet.hosts(), fleet.containers(), fleet.index.len()), (2, 2, 2));
        let price = |row: &Listing| row.container.price;
        let prices: Vec<_> = fleet.listing(UnixMillis(0), None, 9).iter().map(price).collect();
        assert_eq!(prices, [offer(1, 1, 3).price, offer(1, 1, 20).price]);
    }
}

#[test]
fn a_log_is_taken_up_in_its_order() {
    let mut fleet = before();
    let bytes = snapshot(&fleet);
    let mut log = Vec::new();
    let cheap = Capability { issued: UnixMillis(5), ..capability(50, 2, vec![offer(1, 1, 1)]) };
    fleet.announce(NOW, account(1), cheap).unwrap();
    fleet.dump_host(NOW, node(50), &mut log);
    fleet.dump_leave(NOW, node(2), &mut log);
    let mut after = restored(&bytes);
    for block in blocks(&log).0 {
        assert!(after.take_up(NOW, block));
    }
    assert_eq!(market(&mut after)[0].addr.node, node(50), "the cheapest");
    assert_eq!(after.locate(node(2)), None);
    // Once more changes nothing.
    for block in blocks(&log).0 {
        assert!(after.take_up(NOW, block));
    }
    assert_eq!(after.hosts(), 40);
}

#[test]
fn torn_and_altered_bytes_are_left_out_at_every_byte() {
    let fleet = fleet(&[(1, vec![offer(1, 1, 10)]), (2, vec![offer(1, 1, 20)])]);
    let (mut bytes, mut first) = (Vec::new(), 0);
    for host in [1, 2] {
        first = bytes.len();
        fleet.dump_host(UnixMillis(0), node(host), &mut bytes);
    }
    for end in 0..bytes.len() {
        let (whole, error) = blocks(&bytes[..end]);
        assert_eq!(whole.len(), usize::from(end >= first), "{end}");
        assert_eq!(error.is_none(), end == 0 || end == first, "{end}");
    }
    for place in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[place] ^= 0x10;
        let (whole, error) = blocks(&altered);
        assert_eq!(whole.len(), usize::from(place >= first), "{place}");
        assert!(error.is_some(), "{place}");
        // What is still read whole makes a fleet that works.
        let mut fleet = restored_of(UnixMillis(0), whole);
        assert!(fleet.names(0, &small(), 1).len() <= 1);
    }
}
