//! Examples of each verb. Random histories against a naive reference are in `history.rs`.

mod history;
mod reference;
mod restart;
mod signed;
mod whole;

use welkin_proto::check::Finding;
use welkin_proto::index::{Filter, Listing};
use welkin_proto::{
    AccountSignature, ContainerOffer, Delegation, ReservedTerms, SignedByAccount, SpotTerms,
};
use welkin_types::task::{CountRange, GpuAsk, Needs};
use welkin_types::{Class, Feature, Gpu, Policy, Price, Resources, Tier, Usd};

use super::*;
use crate::find::{Found, Query};

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 16])
}

fn account(number: u8) -> AccountId {
    AccountId::from_bytes([number; 20])
}

fn price(micros: u64) -> Price {
    Price::per_hour(Usd::from_micros(micros))
}

/// A container of 2 cores, 2 GiB and 10 GiB.
fn offer(number: u8, slots: u32, micros: u64) -> ContainerOffer {
    ContainerOffer {
        id: container(number),
        class: Class::cpu(2_000),
        resources: Resources {
            cpu_milli: 2_000,
            memory_bytes: 2 << 30,
            disk_bytes: 10 << 30,
            gpus: Vec::new(),
        },
        slots,
        price: price(micros),
        tier: Tier::Container,
        features: Vec::new(),
        driver: None,
        apps: Vec::new(),
        spot: None,
        reserved: None,
    }
}

fn gpus(count: usize, model: &str, gib: u64) -> Vec<Gpu> {
    let gpu = Gpu {
        model: model.to_owned(),
        form: "pcie".to_owned(),
        vram_bytes: gib << 30,
        uuid: String::new(),
    };
    vec![gpu; count]
}

fn capability(host: u8, revision: u64, containers: Vec<ContainerOffer>) -> Capability {
    let signature = AccountSignature { r: [0; 32], s: [0; 32], v: 27 };
    let message = Delegation { node: node(host), expires: UnixMillis(u64::MAX) };
    Capability {
        addr: NodeAddr { node: node(host), relay: None, direct: Vec::new() },
        operator: SignedByAccount { message, signature },
        region: Region::local(),
        containers,
        revision,
        issued: UnixMillis(revision),
        expires: UnixMillis(10_000_000_000),
    }
}

fn beat(revision: u64, sequence: u64, free: &[(u8, u32)]) -> Beat {
    let free = free.iter().map(|(number, free)| (container(*number), *free)).collect();
    Beat { revision, sequence, free, spot: Vec::new(), draining: false }
}

fn hold_of(offer: u8, of: u8, buyer: u8, expires: u64) -> Hold {
    Hold {
        offer: OfferId::from_bytes([offer; 16]),
        container: container(of),
        buyer: account(buyer),
        expires: UnixMillis(expires),
    }
}

fn small() -> Needs {
    Needs {
        cpu_milli_min: 1_000,
        memory_bytes_min: 1 << 30,
        disk_bytes_min: 1 << 30,
        shm_bytes: 0,
        gpu: None,
        isolation_min: Tier::Container,
        regions: Vec::new(),
        reliability_min_bp: 0,
        operators_allow: Vec::new(),
        operators_deny: Vec::new(),
        max_per_hour: None,
        ..Needs::default()
    }
}

impl Fleet {
    fn found(&mut self, now: u64, needs: &Needs, exclude: &[NodeId], count: u8, tie: u64) -> Found {
        let query = Query { needs, exclude, buyer: account(9), count, tie, round_trips_us: &[] };
        self.find(UnixMillis(now), &query)
    }

    /// The hosts' and containers' numbers of what is found.
    fn names(&mut self, now: u64, needs: &Needs, count: u8) -> Vec<(u8, u8)> {
        match self.found(now, needs, &[], count, 0) {
            Found::WhyNot(_) => Vec::new(),
            Found::Candidates(found) => found
                .iter()
                .map(|c| (c.listing.addr.node.as_bytes()[0], c.listing.container.id.as_bytes()[0]))
                .collect(),
        }
    }

    fn free_of(&mut self, now: u64) -> Vec<u32> {
        self.listing(UnixMillis(now), None, 100).iter().map(|listing| listing.free).collect()
    }
}

fn fleet(hosts: &[(u8, Vec<ContainerOffer>)]) -> Fleet {
    let mut fleet = Fleet::default();
    for (host, containers) in hosts {
        let capability = capability(*host, 1, containers.clone());
        fleet.announce(UnixMillis(0), account(*host), capability).unwrap();
    }
    fleet
}

#[test]
fn the_cheapest_is_first_and_different_hosts_are_preferred() {
    let mut fleet = fleet(&[
        (1, vec![offer(1, 1, 100_000), offer(2, 1, 110_000)]),
        (2, vec![offer(1, 1, 500_000)]),
        (3, vec![offer(1, 1, 400_000)]),
    ]);
    assert_eq!(fleet.names(0, &small(), 1), [(1, 1)]);
    assert_eq!(fleet.names(0, &small(), 3), [(1, 1), (3, 1), (2, 1)]);
    assert_eq!(fleet.names(0, &small(), 4), [(1, 1), (3, 1), (2, 1), (1, 2)]);
    assert_eq!(fleet.names(0, &small(), 0), [(1, 1)], "at least one");
}

#[test]
fn whole_gpus_are_wanted_in_kind_and_number() {
    let with = |gpus| {
        let mut offer = offer(1, 1, 10);
        offer.resources.gpus = gpus;
        fleet(&[(1, vec![offer])])
    };
    let ask = |text: &str| Needs { gpu: Some(text.parse().unwrap()), ..small() };
    let mut two = with(gpus(2, "h100", 80));
    for text in ["h100:2", "a100|h100:1..2", "any:2..", "40GB..:2", "h100:2:pcie"] {
        assert_eq!(two.names(0, &ask(text), 1).len(), 1, "{text}");
    }
    for text in ["h100", "h100:3..", "a100:2", "96GB..:2", "h100:2:sxm"] {
        assert!(two.names(0, &ask(text), 1).is_empty(), "{text}");
    }
    let mut mixed = gpus(1, "h100", 80);
    mixed.extend(gpus(1, "l4", 24));
    assert!(with(mixed).names(0, &ask("h100:2"), 1).is_empty());
    let any = Needs { gpu: Some(GpuAsk::any(CountRange::ONE)), ..small() };
    assert!(with(Vec::new()).names(0, &any, 1).is_empty());
}

#[test]
fn a_process_is_never_offered_whatever_is_asked() {
    for tier in [Tier::None, Tier::Process] {
        let weak = ContainerOffer { tier, ..offer(1, 1, 10) };
        let needs = Needs { isolation_min: Tier::None, ..small() };
        assert!(fleet(&[(1, vec![weak])]).names(0, &needs, 1).is_empty());
    }
}

#[test]
fn why_not_counts_each_container_once_and_shows_the_nearest() {
    let weak = ContainerOffer { tier: Tier::None, ..offer(3, 1, 1) };
    let mut fleet =
        fleet(&[(1, vec![offer(1, 1, 10), offer(2, 1, 30), weak]), (2, vec![offer(1, 1, 20)])]);
    let needs = Needs { cpu_milli_min: 4_000, max_per_hour: Some(Usd::from_micros(15)), ..small() };
    let Found::WhyNot(why) = fleet.found(0, &needs, &[node(2)], 1, 0) else { unreachable!() };
    assert_eq!((why.containers, &why.removed[..]), (4, &[(Filter::Cpu, 4)][..]));
    let near: Vec<_> = why.nearest.iter().map(|near| near.fails.clone()).collect();
    let expected =
        [vec![Filter::Cpu], vec![Filter::Cpu, Filter::Isolation], vec![Filter::Cpu, Filter::Price]];
    assert_eq!(near, expected);
}

#[test]
fn holds_reduce_what_is_free_until_they_end() {
    let mut fleet = fleet(&[(1, vec![offer(1, 2, 10)])]);
    let at = UnixMillis(100);
    fleet.hold(at, node(1), hold_of(1, 1, 1, 200)).unwrap();
    assert_eq!(fleet.hold(at, node(1), hold_of(1, 1, 1, 300)), Err(HoldRefusal::Repeated));
    fleet.hold(at, node(1), hold_of(2, 1, 1, 300)).unwrap();
    assert_eq!(fleet.hold(at, node(1), hold_of(3, 1, 2, 300)), Err(HoldRefusal::NotFree));
    assert_eq!(fleet.hold(at, node(1), hold_of(3, 2, 2, 300)), Err(HoldRefusal::Unknown));
    assert_eq!(fleet.hold(at, node(1), hold_of(3, 1, 2, 100)), Err(HoldRefusal::Time));
    assert_eq!(fleet.hold(at, node(1), hold_of(3, 1, 2, u64::MAX)), Err(HoldRefusal::Time));
    assert!(fleet.names(199, &small(), 1).is_empty());
    assert_eq!(fleet.names(200, &small(), 1).len(), 1);
    assert_eq!(fleet.clone().free_of(300), [2]);
    fleet.expire(UnixMillis(250));
    assert_eq!(fleet.holds(), 1);
    fleet.release_hold(UnixMillis(250), node(1), container(1), OfferId::from_bytes([2; 16]));
    assert_eq!(fleet.free_of(250), [2]);
}

#[test]
fn a_buyer_holds_a_bounded_number_of_slots() {
    let mut fleet = fleet(&[(1, vec![offer(1, 4_096, 10)])]);
    for number in 0..64 {
        fleet.hold(UnixMillis(0), node(1), hold_of(number, 1, 1, 100)).unwrap();
    }
    let more = hold_of(98, 1, 1, 200);
    assert_eq!(fleet.hold(UnixMillis(0), node(1), more), Err(HoldRefusal::Buyer));
    fleet.hold(UnixMillis(0), node(1), hold_of(99, 1, 2, 100)).unwrap();
    fleet.hold(UnixMillis(100), node(1), more).unwrap();
}

/// Who asks again, for the answer was lost, finds what was kept; others do not.
#[test]
fn what_is_kept_for_a_buyer_is_found_by_it_again() {
    let mut fleet = fleet(&[(1, vec![offer(1, 1, 10)])]);
    fleet.hold(UnixMillis(0), node(1), hold_of(1, 1, 9, 5_000)).unwrap();
    assert_eq!(fleet.names(0, &small(), 1).len(), 1, "buyer 9 asks");
    let stranger = hold_of(2, 1, 8, 5_000);
    assert_eq!(fleet.hold(UnixMillis(0), node(1), stranger), Err(HoldRefusal::NotFree));
    fleet.hold(UnixMillis(0), node(1), hold_of(3, 1, 9, 5_000)).unwrap();
    assert_eq!((fleet.holds(), fleet.free_of(0)), (1, vec![0]));
}

/// A host that accepts a lease on a kept slot says that one less is free: both are the same slot.
#[test]
fn a_slot_that_was_kept_and_taken_counts_once() {
    let mut fleet = fleet(&[(1, vec![offer(1, 2, 10)])]);
    fleet.beat(UnixMillis(0), node(1), &beat(1, 1, &[(1, 2)])).unwrap();
    fleet.hold(UnixMillis(0), node(1), hold_of(1, 1, 1, 5_000)).unwrap();
    assert_eq!(fleet.free_of(1), [1]);
    fleet.beat(UnixMillis(10), node(1), &beat(1, 2, &[(1, 1)])).unwrap();
    assert_eq!(fleet.free_of(11), [1]);
}

#[test]
fn beats_are_in_order_and_within_the_slots() {
    let mut fleet = fleet(&[(1, vec![offer(1, 4, 10), offer(2, 4, 20)])]);
    let at = UnixMillis(0);
    fleet.beat(at, node(1), &beat(1, 5, &[(1, 9), (7, 1)])).unwrap();
    assert_eq!(fleet.free_of(0), [4, 0]);
    let refused = fleet.beat(at, node(1), &beat(1, 5, &[(1, 1)]));
    assert_eq!(refused, Err(BeatRefusal::Sequence));
    let refused = fleet.beat(at, node(1), &beat(2, 6, &[]));
    assert_eq!(refused, Err(BeatRefusal::Revision { known: 1, given: 2 }));
    assert_eq!(fleet.beat(at, node(2), &beat(1, 6, &[])), Err(BeatRefusal::Unknown));
    fleet.beat(at, node(1), &Beat { draining: true, ..beat(1, 6, &[(1, 4)]) }).unwrap();
    assert!(fleet.names(0, &small(), 1).is_empty());
}

#[test]
fn a_host_that_left_or_is_silent_is_listed_for_a_while_and_not_offered() {
    let mut fleet = fleet(&[(1, vec![offer(1, 1, 10)]), (2, vec![offer(1, 1, 10)])]);
    fleet.leave(UnixMillis(5), node(1));
    assert_eq!(fleet.names(5, &small(), 2), [(2, 1)]);
    assert_eq!(fleet.free_of(5), [1, 0]);
    assert_eq!(fleet.names(SILENT_MS, &small(), 2), [(2, 1)]);
    assert!(fleet.names(SILENT_MS + 1, &small(), 2).is_empty());
    assert_eq!(fleet.free_of(STALE_MS + 1), [0]);
    fleet.expire(UnixMillis(STALE_MS + 6));
    assert_eq!(fleet.hosts(), 0);
    let refused = fleet.beat(UnixMillis(STALE_MS + 6), node(2), &beat(1, 1, &[]));
    assert_eq!(refused, Err(BeatRefusal::Unknown));
}

#[test]
fn older_announcements_do_not_replace_newer_ones() {
    let mut fleet = Fleet::default();
    let mut announce = |now: u64, revision: u64, issued: u64| {
        let issued = UnixMillis(issued);
        let capability = Capability { issued, ..capability(1, revision, vec![offer(1, 1, 10)]) };
        fleet.announce(UnixMillis(now), account(1), capability)
    };
    announce(10, 5, 10).unwrap();
    announce(10, 5, 10).unwrap();
    assert_eq!(announce(11, 4, 11), Err(AnnounceRefusal::Outdated { known: 5, given: 4 }));
    assert!(announce(11, 6, 9).is_err());
    assert_eq!(announce(u64::MAX, 6, 11), Err(AnnounceRefusal::Expired));
    fleet.leave(UnixMillis(12), node(1));
    let restarted = capability(1, 1, vec![offer(1, 1, 10)]);
    let restarted = Capability { issued: UnixMillis(12), ..restarted };
    fleet.announce(UnixMillis(13), account(1), restarted).unwrap();
}

#[test]
fn scores_decide_between_equally_cheap_ones_and_outlive_a_disconnect() {
    let mut fleet = fleet(&[(1, vec![offer(1, 1, 10)]), (2, vec![offer(1, 1, 10)])]);
    for (host, finding) in [(1, Finding::Unreachable), (2, Finding::Online { rtt_us: 9 })] {
        let report = Report {
            checker: node(8),
            host: node(host),
            container: container(1),
            minute: 0,
            finding,
            turn: None,
        };
        fleet.report(UnixMillis(0), &report).unwrap();
        let unknown = Report { container: container(2), ..report };
        assert_eq!(fleet.report(UnixMillis(0), &unknown), Err(ReportRefusal::Unknown));
    }
    let needs = Needs { reliability_min_bp: 1, ..small() };
    assert_eq!(fleet.names(0, &needs, 2), [(2, 1)]);
    let firsts = |fleet: &mut Fleet| {
        let mut first = |tie| match fleet.found(0, &small(), &[], 1, tie) {
            Found::Candidates(found) => found[0].listing.addr.node,
            Found::WhyNot(_) => unreachable!(),
        };
        (0..1_000).filter(|tie| first(*tie) == node(2)).count()
    };
    assert_eq!(firsts(&mut fleet), 1_000);
    fleet.leave(UnixMillis(0), node(1));
    fleet.expire(UnixMillis(STALE_MS + 1));
    let back = Capability { issued: UnixMillis(9), ..capability(1, 2, vec![offer(1, 1, 10)]) };
    fleet.announce(UnixMillis(STALE_MS + 1), account(1), back).unwrap();
    let listing = &fleet.listing(UnixMillis(STALE_MS + 1), None, 9)[0];
    assert_eq!((listing.online_bp, listing.checks), (Some(0), 1));
}

#[test]
fn an_offer_says_what_was_found() {
    let mut fleet = fleet(&[(1, vec![offer(1, 1, 10)])]);
    let Found::Candidates(found) = fleet.found(0, &small(), &[], 1, 0) else { unreachable!() };
    let made = found[0].offer(OfferId::from_bytes([3; 16]), UnixMillis(5));
    assert_eq!((made.buyer, made.operator, made.container), (account(9), account(1), container(1)));
    assert_eq!((made.price, made.addr.node), (price(10), node(1)));
    assert_eq!(fleet.locate(node(1)), Some(made.addr));
}
