//! Refusals, over real connections.

use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{Endpoint, EndpointConfig};
use welkin_proto::exam::{ExamAsk, ExamReply};
use welkin_proto::{ALPN_EXAM, ContainerOffer, Domain, NodeAddr};
use welkin_types::{AccountId, Price, Resources, Tier};

use super::*;
use crate::wire;

async fn endpoint(secret: u8, alpns: &[&[u8]]) -> Endpoint {
    let mut config = EndpointConfig::new([secret; 32]);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.alpns = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    Endpoint::bind(config).await.unwrap()
}

/// A host that refuses with the same word for ever.
async fn refuses(endpoint: Endpoint, why: ExamRefusal) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.handshake().await else { continue };
        while let Ok((mut send, mut recv)) = connection.accept().await {
            let reply = match wire::expect(&mut recv, Duration::from_secs(5)).await {
                Ok(ExamAsk::Ping(nonce)) => ExamReply::Pong(nonce),
                _ => ExamReply::Refused(why),
            };
            let _ = wire::send(&mut send, &reply).await;
        }
    }
}

fn listing(addr: &NodeAddr, free: u32) -> Listing {
    let resources =
        Resources { cpu_milli: 1_000, memory_bytes: 1 << 30, disk_bytes: 1 << 30, gpus: vec![] };
    let container = ContainerOffer {
        id: ContainerId::from_bytes([3; 16]),
        class: Class::cpu(1_000),
        resources,
        slots: 2,
        price: Price::per_hour("0.01".parse().unwrap()),
        tier: Tier::None,
        features: vec![],
        driver: None,
        apps: vec![],
        spot: None,
        reserved: None,
    };
    Listing {
        addr: addr.clone(),
        operator: AccountId::from_bytes([1; 20]),
        container,
        region: "local".parse().unwrap(),
        free,
        is_confirmed: true,
        online_bp: None,
        checks: 0,
    }
}

/// What is told of a host that says `why` to nine challenges, while lists show so many free slots
/// before and after.
async fn told(why: ExamRefusal, before: u32, after: u32) -> Vec<u64> {
    let host = endpoint(7, &[ALPN_EXAM]).await;
    let addr = wire::from_net(&host.addr());
    let mut hosts = JoinSet::new();
    hosts.spawn(refuses(host, why));
    let checker = NodeId::from_bytes([8; 32]);
    let who = Who { endpoint: endpoint(8, &[]).await, domain: Domain::LOCAL, checker, turn: None };
    let mut exams = Exams::new(who, 100);
    let mut told = Vec::new();
    for number in 0..9 {
        // Another indexer knows of no lease: the fewest free slots count.
        exams.list(&[listing(&addr, before), listing(&addr, 2)], false);
        exams.begin(addr.node, ContainerId::from_bytes([3; 16]), 100 + number, None);
        assert_eq!(exams.next().await, None);
        // What is said of another one does not tell whether a lease explains it: its host is asked about.
        assert_eq!(exams.doubted().len(), usize::from(before == 2));
        let elsewhere = NodeAddr { node: NodeId::from_bytes([6; 32]), ..addr.clone() };
        assert_eq!(exams.list(&[listing(&elsewhere, 2)], true), []);
        // Nor does a page, which may be of before.
        assert_eq!(exams.list(&[listing(&addr, before)], false), []);
        let reports = exams.list(&[listing(&addr, 2), listing(&addr, after)], true);
        assert!(reports.iter().all(|report| report.verdict == Verdict::Evasive));
        told.extend(reports.iter().map(|_| number));
    }
    told
}

#[tokio::test]
async fn who_always_refuses_evades_from_the_third_time_on() {
    for why in [ExamRefusal::Busy, ExamRefusal::Ordered, ExamRefusal::TooMany] {
        assert_eq!(told(why, 2, 2).await, [2, 3, 4, 5, 6, 7, 8], "{why}");
    }
}

#[tokio::test]
async fn who_has_a_lease_before_or_after_may_refuse() {
    assert_eq!(told(ExamRefusal::Ordered, 2, 1).await, [0; 0]);
    assert_eq!(told(ExamRefusal::Busy, 1, 2).await, [0; 0]);
    assert_eq!(told(ExamRefusal::Busy, 2, 0).await, [0; 0]);
}

#[tokio::test]
async fn who_refuses_only_beside_others_evades_too() {
    let addr = wire::from_net(&endpoint(7, &[ALPN_EXAM]).await.addr());
    let (host, other) = (addr.node, ContainerId::from_bytes([3; 16]));
    let checker = NodeId::from_bytes([8; 32]);
    let endpoint = endpoint(8, &[]).await;
    let told = |had_lease: bool, said: &[Option<ExamRefusal>]| {
        let who = Who { endpoint: endpoint.clone(), domain: Domain::LOCAL, checker, turn: None };
        let mut exams = Exams::new(who, 0);
        let mut told = 0;
        for (minute, why) in (100..).zip(said) {
            exams.list(&[listing(&addr, 2)], false);
            let refusals: Vec<_> = why.iter().map(|why| (other, *why)).collect();
            exams.heard_beside(host, (minute, None), &[(other, had_lease)], &refusals);
            told += exams.list(&[listing(&addr, 2)], true).len();
        }
        told
    };
    let busy = Some(ExamRefusal::Busy);
    assert_eq!(told(false, &[busy; 5]), 3);
    assert_eq!(told(true, &[busy; 5]), 0, "a lease explains it");
    for why in [ExamRefusal::TooMany, ExamRefusal::NotAssigned] {
        let why = Some(why);
        assert_eq!(told(false, &[why; 5]), 3);
        assert_eq!(told(false, &[None, None, why, why, None, why]), 0, "it answers as often");
        assert_eq!(told(false, &[busy, why, busy, why]), 0, "each is counted by itself");
    }
    assert_eq!(told(false, &[None, None, None, busy, busy, busy]), 0, "it answers as often");
}

#[tokio::test]
async fn nobody_is_asked_while_a_look_at_it_is_under_way() {
    let host = endpoint(7, &[ALPN_EXAM]).await;
    let addr = wire::from_net(&host.addr());
    let checker = NodeId::from_bytes([8; 32]);
    let who = Who { endpoint: endpoint(8, &[]).await, domain: Domain::LOCAL, checker, turn: None };
    let mut exams = Exams::new(who, 100);
    let place = (addr.node, ContainerId::from_bytes([3; 16]));
    exams.list(&[listing(&addr, 2)], false);
    // Until its memory was there, that is what it is asked for.
    exams.without.insert(place);
    exams.begin(place.0, place.1, 100, None);
    exams.begin(place.0, place.1, 101, None);
    assert_eq!(exams.under_way.len(), 1);
    let mut hosts = JoinSet::new();
    hosts.spawn(refuses(host, ExamRefusal::TooMany));
    exams.next().await;
    exams.begin(place.0, place.1, 101, None);
    assert_eq!(exams.under_way.len(), 1);
}

/// A host serves sixteen streams at once: with more devices than that it would be late for being asked.
#[tokio::test]
async fn a_window_has_no_more_devices_than_a_host_serves() {
    let addr = wire::from_net(&endpoint(7, &[ALPN_EXAM]).await.addr());
    let with = |count: usize| {
        let mut target = Target::of(&listing(&addr, 2));
        let gpu = welkin_types::Gpu {
            model: "rtx4090".to_owned(),
            form: "pcie".to_owned(),
            vram_bytes: 24 << 30,
            uuid: String::new(),
        };
        target.resources.gpus = vec![gpu; count];
        target
    };
    let partners = |own: usize, others: &[usize]| {
        let others: Vec<_> = others.iter().map(|count| with(*count)).collect();
        let found = fitting(&with(own), &others);
        found.iter().map(|target| target.resources.gpus.len()).collect::<Vec<_>>()
    };
    assert_eq!(partners(4, &[4, 4, 4, 4]), [4, 4]);
    assert_eq!(partners(8, &[8, 3, 2, 1]), [3, 1]);
    assert_eq!(partners(16, &[1]), [0; 0]);
    // Who has other work to do is never one of them.
    assert_eq!(partners(1, &[0, 1]), [1]);
}
