//! Gangs, receipts, and what is refused or bounded.

use proptest::{prop_assert_eq, proptest};
use welkin_proto::index::{Candidates, GangAsk, Together};
use welkin_proto::{Offer, encode};

use super::*;
use crate::find::Candidate;
use crate::prices::{Market, Sampler};
use crate::{ReceiptFault, verify_receipt};

fn gang(members: u8, is_spread: bool) -> GangAsk {
    GangAsk { members, together: Together::Site, is_spread }
}

fn query<'a>(needs: &'a Needs, count: u8, tie: u64) -> Query<'a> {
    Query { needs, exclude: &[], buyer: account(9), count, tie, round_trips_us: &[] }
}

fn hold_for(candidates: &[Candidate]) -> Vec<(NodeId, Hold)> {
    let numbered = (0_u8..).zip(candidates);
    let hold = |(number, candidate): (u8, &Candidate)| {
        let listing = &candidate.listing;
        let id = listing.container.id.as_bytes()[0];
        (listing.addr.node, hold_of(number, id, 9, 5_000))
    };
    numbered.map(hold).collect()
}

#[test]
fn a_gang_is_found_and_held_as_a_whole_or_not_at_all() {
    let mut fleet = fleet(&[(1, vec![offer(1, 2, 10)]), (2, vec![offer(1, 1, 20)])]);
    let far =
        Capability { region: "eu".parse().unwrap(), ..capability(3, 1, vec![offer(1, 4, 15)]) };
    fleet.announce(UnixMillis(0), account(3), far).unwrap();
    let (needs, at) = (small(), UnixMillis(0));
    let near = |a: &Region, b: &Region| (a == b).then_some(0);
    let query = query(&needs, 1, 0);
    let mut find = |ask| {
        let found = fleet.find_gang(at, &query, &ask, &near);
        found.map(|found| {
            found.iter().map(|c| c.listing.addr.node.as_bytes()[0]).collect::<Vec<_>>()
        })
    };
    assert_eq!(find(gang(3, false)), Some(vec![1, 1, 2]));
    assert_eq!(find(gang(2, true)), Some(vec![1, 2]));
    assert_eq!(find(gang(4, false)), Some(vec![3; 4]));
    assert_eq!(find(gang(5, false)), None, "not in one region");
    assert_eq!(find(gang(3, true)), None);
    let wide = GangAsk { together: Together::WithinUs(30_000), ..gang(7, false) };
    assert_eq!(find(wide), None, "nobody knows how far it is");
    let all = |_: &Region, _: &Region| Some(20_000);
    assert_eq!(fleet.find_gang(at, &query, &wide, &all).map(|found| found.len()), Some(7));
    let found = fleet.find_gang(at, &query, &gang(3, false), &near).unwrap();
    let holds = hold_for(&found);
    let stranger = (node(2), hold_of(77, 1, 8, 5_000));
    fleet.hold_all(at, &[stranger]).unwrap();
    assert_eq!(fleet.hold_all(at, &holds), Err(HoldRefusal::NotFree));
    assert_eq!(fleet.holds(), 1, "nothing of the gang is kept");
    fleet.release_hold(at, node(2), container(1), stranger.1.offer);
    fleet.hold_all(at, &holds).unwrap();
    assert_eq!(fleet.holds(), 3);
}

#[test]
fn a_receipt_is_checked_against_offers_and_question() {
    let hosts: Vec<_> =
        (1..30).map(|host| (host, vec![offer(1, 1, 100_000 + u64::from(host))])).collect();
    let mut fleet = fleet(&hosts);
    let needs = Needs { policy: Policy::Best, ..small() };
    let asked = [7; 32];
    let found = fleet.candidates(UnixMillis(0), &query(&needs, 3, 42), Some(asked)).unwrap();
    let offers: Vec<Offer> = (0_u8..)
        .zip(&found.0)
        .map(|(n, c)| c.offer(OfferId::from_bytes([n; 16]), UnixMillis(9)))
        .collect();
    let body = found.1.unwrap();
    let check = |body: &crate::index::Receipt, offers: &[Offer], asked| {
        let (offers, receipt) = (offers.to_vec(), Some(encode(body).unwrap()));
        let found = Candidates { at: UnixMillis(0), buyer: account(9), offers, receipt };
        verify_receipt(&found, (asked, Policy::Best))
    };
    assert_eq!(check(&body, &offers, asked), Ok(()));
    assert_eq!(check(&body, &offers, [8; 32]), Err(ReceiptFault::Query));
    assert_eq!(check(&body, &offers[..2], asked), Err(ReceiptFault::Offers));
    let mut dear = offers.clone();
    dear[1].price = price(200_000);
    let fault = ReceiptFault::Facts { place: 1, what: "price" };
    assert_eq!(check(&body, &dear, asked), Err(fault));
    let mut favoured = body.clone();
    favoured.chosen.swap(0, 1);
    assert!(matches!(check(&favoured, &offers, asked), Err(ReceiptFault::Choice(_))));
    let wide = crate::index::Receipt { slack: 10_000, ..body };
    assert_eq!(check(&wide, &offers, asked), Err(ReceiptFault::Rule));
    let found = |receipt| Candidates {
        at: UnixMillis(0),
        buyer: account(9),
        offers: offers.clone(),
        receipt,
    };
    let asked = (asked, Policy::Best);
    assert_eq!(verify_receipt(&found(Some(vec![0xff])), asked), Err(ReceiptFault::Body));
    assert_eq!(verify_receipt(&found(None), asked), Err(ReceiptFault::Missing));
}

proptest! {
    #[test]
    fn what_is_kept_for_the_buyer_has_a_receipt_too(
        hosts in 1_u8..20, containers in 1_u8..4, count in 1_u8..8, tie: u64, spread in 0_u64..3,
    ) {
        let price_of = |host: u8, id: u8| 100_000 + u64::from(host / 3 + id) * spread * 900;
        let offers = |host: u8| (1..=containers).map(|id| offer(id, 1, price_of(host, id))).collect();
        let all: Vec<_> = (1..=hosts).map(|host| (host, offers(host))).collect();
        let mut fleet = fleet(&all);
        let mut holds = Vec::new();
        for host in 1..=hosts {
            holds.extend((1..=containers).map(|id| (node(host), hold_of(host ^ id << 6, id, 9, 5_000))));
        }
        fleet.hold_all(UnixMillis(0), &holds).unwrap();
        let (needs, asked) = (small(), [7; 32]);
        let query = query(&needs, count, tie);
        let (found, body) = fleet.candidates(UnixMillis(0), &query, Some(asked)).unwrap();
        let offers: Vec<Offer> = (0_u8..)
            .zip(&found)
            .map(|(n, c)| c.offer(OfferId::from_bytes([n; 16]), UnixMillis(9)))
            .collect();
        let receipt = Some(encode(&body.unwrap()).unwrap());
        let found = Candidates { at: UnixMillis(0), buyer: account(9), offers, receipt };
        prop_assert_eq!(verify_receipt(&found, (asked, needs.policy)), Ok(()));
    }
}

#[test]
fn a_host_that_announces_too_much_is_refused() {
    let mut fleet = Fleet::default();
    let mut announce = |containers: Vec<ContainerOffer>| {
        fleet.announce(UnixMillis(0), account(1), capability(1, 1, containers))
    };
    assert_eq!(announce(vec![offer(1, 1, 1); 1_000_000]), Err(AnnounceRefusal::Bounds));
    assert_eq!(announce(vec![offer(1, 1, 1); 2]), Err(AnnounceRefusal::Repeated));
    let mut long = offer(1, 1, 1);
    long.resources.gpus = gpus(16, &"x".repeat(10_000), 8);
    assert!(matches!(announce(vec![long]), Err(AnnounceRefusal::Long { .. })));
    assert_eq!((fleet.hosts(), fleet.containers()), (0, 0));
}

#[test]
fn absurd_needs_find_nothing_and_what_only_just_fits_is_found() {
    let mut odd = offer(1, 1, 10);
    odd.resources.cpu_milli = 1_005;
    odd.resources.memory_bytes = 1_500_000_000;
    odd.resources.disk_bytes = 2_000_000_001;
    let mut fleet = fleet(&[(1, vec![odd]), (2, vec![offer(1, 1, 500)])]);
    let exact = Needs {
        cpu_milli_min: 1_005,
        memory_bytes_min: 1_500_000_000,
        disk_bytes_min: 2_000_000_001,
        ..small()
    };
    assert_eq!(fleet.names(0, &exact, 2).len(), 2);
    // One unit of the index holds both sizes; the better one does not fit.
    let more = Needs { cpu_milli_min: 1_006, ..exact.clone() };
    assert_eq!(fleet.names(0, &more, 2), [(2, 1)]);
    let absurd = Needs {
        cpu_milli_min: u32::MAX,
        memory_bytes_min: u64::MAX,
        disk_bytes_min: u64::MAX,
        reliability_min_bp: u16::MAX,
        driver_min: Some(u16::MAX),
        rtt_us_max: Some(0),
        ..small()
    };
    assert!(fleet.names(0, &absurd, 255).is_empty());
    let listed = Needs { operators_allow: vec![account(1); 100_000], ..small() };
    assert!(fleet.names(0, &listed, 1).is_empty(), "more than may be listed");
}

/// In a large fleet, whose explanations and listings come from the index.
#[test]
fn a_large_fleet_is_listed_and_explained_in_bounds() {
    let mut fleet = Fleet::new(1);
    for number in 0..3_000_u32 {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&number.to_le_bytes());
        let mut capability = capability(0, 1, vec![offer(1, 1, u64::from(number) + 1)]);
        capability.addr.node = NodeId::from_bytes(name);
        fleet.announce(UnixMillis(0), account(1), capability).unwrap();
    }
    let rows = fleet.listing(UnixMillis(0), None, 10);
    let prices: Vec<_> = rows.iter().map(|row| row.container.price.hour().micros()).collect();
    assert_eq!(prices, (1..=10).collect::<Vec<_>>());
    let needs = Needs { cpu_milli_min: 64_000, ..small() };
    let Found::WhyNot(why) = fleet.found(0, &needs, &[], 1, 0) else { unreachable!() };
    assert_eq!((why.containers, &why.removed[..]), (3_000, &[(Filter::Cpu, 3_000)][..]));
    assert_eq!(why.nearest.len(), 3);
    assert_eq!(why.nearest[0].fails, [Filter::Cpu]);
    // All fall silent together: a part at a time, and nobody who is gone is offered meanwhile.
    let later = UnixMillis(SILENT_MS + 1);
    assert!(fleet.names(later.0, &small(), 3).is_empty());
    let mut calls = 0;
    while fleet.expire(later) {
        calls += 1;
    }
    assert!(calls >= 3, "{calls}");
    assert!(fleet.bytes() < 3_000 * 1_024 + (1 << 20), "{}", fleet.bytes());
}

/// The market by a reading of every announcement.
fn market_of(fleet: &Fleet, now: UnixMillis) -> Market {
    let mut market = Market::default();
    for number in 0..fleet.numbers_end() {
        let Some(facts) = fleet.facts_of(now, number, (None, CapacityType::OnDemand)) else {
            continue;
        };
        let container = &facts.container;
        let spot = container.price_of(CapacityType::Spot).map(|price| price.hour());
        let free = fleet.unleased(now, number);
        market.add(
            &container.class,
            facts.region,
            (Some(container.price.hour()), spot),
            (free, container.slots),
        );
    }
    market
}

#[test]
fn a_sampler_counts_what_announcements_say() {
    let of = |host: u8, revision: u64, slots: u32, price: u64| {
        let spot = welkin_proto::SpotTerms { price: self::price(price / 2), notice_seconds: 30 };
        let containers = (1..=host % 3 + 1).map(|id| {
            let base = offer(id, slots, price + u64::from(id) * 7);
            ContainerOffer { spot: host.is_multiple_of(2).then_some(spot), ..base }
        });
        let region = if host.is_multiple_of(5) { "eu" } else { "us" }.parse().unwrap();
        Capability { region, ..capability(host, revision, containers.collect()) }
    };
    let mut fleet = Fleet::new(7);
    let mut sampler = Sampler::default();
    for round in 0..20_u64 {
        let now = UnixMillis(round * 20_000);
        while fleet.expire(now) {}
        for host in 1..60_u8 {
            let price = 100 * (1 + round * u64::from(host) % 11);
            match (u64::from(host) + round) % 4 {
                0 => fleet.leave(now, node(host)),
                1 => {
                    let said = of(host, round + 1, 1 + u32::from(host % 4), price);
                    let _ = fleet.announce(now, account(host), said);
                }
                2 => {
                    let beat = beat(round, round, &[(1, u32::from(host % 2))]);
                    let _ = fleet.beat(now, node(host), &beat);
                }
                _ => (),
            }
        }
        let market = market_of(&fleet, now);
        while sampler.count(&fleet, now, 5) {}
        let sampled = sampler.finish();
        assert!(!market.is_empty() && market.series().eq(sampled.series()), "round {round}");
    }
}
