//! The queue over real connections: an indexer, buyers that wait, and a host that says what is free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_node::buyer::{Buyer, BuyerError, KnownIndexer, QueueError, QueueEvent, QueuePlace};
use welkin_node::{Shutdown, identity, indexer, outside, wire};
use welkin_proto::heartbeat::{Enrolment, Vitals};
use welkin_proto::index::{HostToIndexer, IndexHello, IndexerToHost};
use welkin_proto::prices::{PricesAsked, Span};
use welkin_proto::queue::Standing;
use welkin_proto::{
    ALPN_INDEX, ALPN_LEASE, Capability, ContainerOffer, Domain, NodeAddr, NodeKey, Signed,
    container_id,
};
use welkin_types::task::Needs;
use welkin_types::{Class, Price, Region, Resources, Tier, UnixMillis, Usd};

use crate::world::{World, account, endpoint, endpoint_at};

const WITHIN: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);

/// A host that says what is free, and leases nothing.
struct Stage {
    send: SendStream,
    _recv: RecvStream,
    _connection: Connection,
    endpoint: Endpoint,
    session: Enrolment,
    counter: u64,
}

impl Stage {
    /// Announces one container with so many slots, none of them free.
    async fn announce(indexer: &NodeAddr, n: u8, slots: u32) -> Self {
        Self::announce_from(endpoint([n; 32], &[ALPN_LEASE]).await, indexer, n, slots).await
    }

    async fn announce_from(endpoint: Endpoint, indexer: &NodeAddr, n: u8, slots: u32) -> Self {
        let key = NodeKey::from_secret(&[n; 32]);
        let operator = identity::delegate(&Domain::LOCAL, &account(n), key.id(), HOUR).unwrap();
        let now = outside::now();
        let offer = ContainerOffer {
            id: container_id(key.id(), 0),
            class: Class::cpu(2_000),
            resources: Resources {
                cpu_milli: 2_000,
                memory_bytes: 4 << 30,
                disk_bytes: 10 << 30,
                gpus: Vec::new(),
            },
            slots,
            price: Price::per_hour(Usd::from_micros(100_000)),
            tier: Tier::Container,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        };
        let capability = Capability {
            addr: wire::from_net(&endpoint.addr()),
            operator,
            region: Region::local(),
            containers: vec![offer],
            revision: 1,
            issued: now,
            expires: now.after(HOUR),
        };
        let signed = Signed::sign(&Domain::LOCAL, &key, &capability).unwrap();
        let addr = wire::to_net(indexer);
        let connection = endpoint.connect(&addr, ALPN_INDEX, WITHIN).await.unwrap();
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &IndexHello::Host(Box::new(signed))).await.unwrap();
        let answer: IndexerToHost = wire::expect(&mut recv, WITHIN).await.unwrap();
        let IndexerToHost::Welcome(mut welcome) = answer else { panic!("{answer:?}") };
        let session = welcome.sessions.remove(0);
        let mut stage =
            Self { send, _recv: recv, _connection: connection, endpoint, session, counter: 0 };
        stage.free(0).await;
        stage
    }

    /// Says that so many slots are free.
    async fn free(&mut self, free: u16) {
        self.counter += 1;
        let vitals = Vitals { free, revision: 1, ..Vitals::default() };
        let beat = vitals.seal(&self.session.key, self.session.session, self.counter);
        wire::send(&mut self.send, &HostToIndexer::Beats(beat.to_vec())).await.unwrap();
    }
}

/// Waits until the indexer knows the host, and that nothing is free.
async fn until_busy(buyer: &Buyer) {
    let all = async {
        loop {
            let rows = buyer.offers(None).await.unwrap();
            if !rows.is_empty() && rows.iter().all(|row| row.free == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, all).await.unwrap();
}

/// The next standing of which this holds.
async fn standing(place: &mut QueuePlace<'_>, is_it: impl Fn(&Standing) -> bool) -> Standing {
    let all = async {
        loop {
            if let QueueEvent::Standing(standing) = place.next().await.unwrap()
                && is_it(&standing)
            {
                return *standing;
            }
        }
    };
    tokio::time::timeout(WITHIN, all).await.unwrap()
}

/// Waits in the queue, says so, and takes up its turn.
async fn takes_its_turn(buyer: Arc<Buyer>, name: &'static str, tell: mpsc::Sender<&'static str>) {
    let mut place = buyer.queue(&Needs::default(), &[], HOUR).await.unwrap();
    tell.send("joined").await.unwrap();
    loop {
        if let QueueEvent::Offers(offers) = place.next().await.unwrap() {
            assert_eq!(offers.len(), 1);
            assert_eq!(offers[0].buyer, buyer.account());
            // The choice was computed again from the receipt that came with it.
            let known = buyer.indexers().await.unwrap();
            let count = |of: fn(&KnownIndexer) -> u32| known.iter().map(of).sum::<u32>();
            assert_eq!(count(|indexer| indexer.receipts_disproved), 0);
            assert!(count(|indexer| indexer.receipts_proved) > 0);
            tell.send(name).await.unwrap();
            place.placed().await;
            return;
        }
    }
}

#[tokio::test]
async fn a_flood_does_not_hold_up_the_others_and_newcomers_do_not_overtake() {
    let world = World::start().await;
    let mut host = Stage::announce(&world.network.indexers[0], 10, 1).await;
    let mut buyers = Vec::new();
    for name in ["one", "two", "three", "four"] {
        buyers.push(Arc::new(world.buyer_named(name).await));
    }
    until_busy(&buyers[0]).await;
    let (tell, mut told) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    let jobs = [(0, "a1"), (0, "a2"), (0, "a3"), (0, "a4"), (1, "b"), (2, "c")];
    for (buyer, name) in jobs {
        tasks.spawn(takes_its_turn(Arc::clone(&buyers[buyer]), name, tell.clone()));
        assert_eq!(told.recv().await, Some("joined"));
    }
    let mut order = Vec::new();
    for _ in jobs {
        host.free(1).await;
        order.push(tokio::time::timeout(WITHIN, told.recv()).await.unwrap().unwrap());
        // What is kept for who waited is not for who has only come.
        let newcomer = buyers[3].candidates(&Needs::default(), 1, true, Vec::new()).await;
        assert!(matches!(newcomer, Err(BuyerError::NothingFits(_))), "{newcomer:?}");
        host.free(0).await;
    }
    assert_eq!(order, ["a1", "b", "c", "a2", "a3", "a4"]);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    // Nobody waits any more: the slot is for who comes first.
    host.free(1).await;
    let all = async {
        while buyers[3].candidates(&Needs::default(), 1, true, Vec::new()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, all).await.unwrap();
}

#[tokio::test]
async fn time_is_over_when_it_was_said_and_who_gives_up_makes_room() {
    let world = World::start().await;
    let _host = Stage::announce(&world.network.indexers[0], 10, 1).await;
    let (one, two) = (world.buyer_named("one").await, world.buyer_named("two").await);
    until_busy(&one).await;
    let first = one.queue(&Needs::default(), &[], HOUR).await.unwrap();
    let mut second = two.queue(&Needs::default(), &[], HOUR).await.unwrap();
    let seen = standing(&mut second, |standing| standing.position == 2).await;
    assert_eq!((seen.of, seen.busy, seen.is_reserved, seen.estimate_ms), (2, 1, false, None));
    assert!(seen.left_ms > 3_500_000 && seen.left_ms <= 3_600_000);
    let began = Instant::now();
    let wait = Duration::from_millis(1_500);
    let mut brief = one.queue(&Needs::default(), &[], wait).await.unwrap();
    let ended = async {
        loop {
            if let Err(error) = brief.next().await {
                return error;
            }
        }
    };
    assert!(matches!(ended.await, QueueError::TimedOut));
    let took = began.elapsed();
    assert!(took >= wait && took < wait + Duration::from_secs(2), "{took:?}");
    // Given up in an orderly way, and by simply dropping it.
    drop(first);
    standing(&mut second, |standing| (standing.position, standing.of) == (1, 1)).await;
    let third = one.queue(&Needs::default(), &[], HOUR).await.unwrap();
    standing(&mut second, |standing| standing.of == 2).await;
    third.leave().await;
    standing(&mut second, |standing| standing.of == 1).await;
    // What nothing here will ever fit is not waited for.
    let absurd = Needs { cpu_milli_min: 1_000_000, ..Needs::default() };
    let refused = one.queue(&absurd, &[], HOUR).await;
    assert!(matches!(refused, Err(QueueError::NothingFits(_))), "{refused:?}");
}

#[tokio::test]
async fn places_are_kept_through_a_restart_of_the_indexer() {
    let mut world = World::start().await;
    world.network.indexers.clear();
    let indexer = endpoint([3; 32], &indexer::ALPNS).await;
    let listen = indexer.bound()[0];
    let first_life = Shutdown::default();
    let addr = world.indexer_on(indexer.clone(), 3, &first_life);
    world.network.indexers.push(addr.clone());
    let host = Stage::announce(&addr, 10, 1).await;
    let (one, two) = (world.buyer_named("one").await, world.buyer_named("two").await);
    until_busy(&one).await;
    let mut first = one.queue(&Needs::default(), &[], HOUR).await.unwrap();
    let mut second = two.queue(&Needs::default(), &[], HOUR).await.unwrap();
    standing(&mut second, |standing| standing.position == 2).await;

    first_life.finish(Duration::from_secs(1)).await;
    indexer.close().await;
    drop(indexer);
    let restarted = endpoint_at(listen, [3; 32], &indexer::ALPNS).await;
    let again = world.indexer_on(restarted, 3, &world.shutdown);
    assert_eq!(again.node, addr.node);
    let mut host = Stage::announce_from(host.endpoint.clone(), &again, 10, 1).await;
    // The later one is there first.
    for place in [&mut second, &mut first] {
        let back = async {
            loop {
                match place.next().await.unwrap() {
                    QueueEvent::Back(node, is_kept) => return (node, is_kept),
                    QueueEvent::Lost | QueueEvent::Standing(_) => (),
                    // Until its first word a host that has just come counts as free.
                    QueueEvent::Offers(_) => place.refused(&[]).await,
                }
            }
        };
        let (node, is_kept) = tokio::time::timeout(WITHIN, back).await.unwrap();
        assert_eq!((node, is_kept), (addr.node, true));
    }
    standing(&mut first, |standing| (standing.position, standing.of) == (1, 2)).await;
    standing(&mut second, |standing| (standing.position, standing.of) == (2, 2)).await;
    host.free(1).await;
    let turn = async { while !matches!(first.next().await.unwrap(), QueueEvent::Offers(_)) {} };
    tokio::time::timeout(WITHIN, turn).await.unwrap();
    first.placed().await;
    standing(&mut second, |standing| (standing.position, standing.of) == (1, 1)).await;
}

#[tokio::test]
async fn refused_offers_keep_the_place_and_prices_are_remembered() {
    let world = World::start().await;
    let mut host = Stage::announce(&world.network.indexers[0], 10, 1).await;
    let (one, two) = (world.buyer_named("one").await, world.buyer_named("two").await);
    until_busy(&one).await;
    let mut first = one.queue(&Needs::default(), &[], HOUR).await.unwrap();
    let mut second = two.queue(&Needs::default(), &[], HOUR).await.unwrap();
    host.free(1).await;
    let turn = async |place: &mut QueuePlace<'_>| {
        let all = async {
            loop {
                if let QueueEvent::Offers(offers) = place.next().await.unwrap() {
                    return offers[0].addr.node;
                }
            }
        };
        tokio::time::timeout(WITHIN, all).await.unwrap()
    };
    let node = turn(&mut first).await;
    // The host does not want this one: it is the next one's turn, as soon as the hold is over.
    first.refused(&[node]).await;
    assert_eq!(turn(&mut second).await, node);
    second.placed().await;
    standing(&mut first, |standing| (standing.position, standing.of) == (1, 1)).await;
    let asked = |region| PricesAsked {
        class: Class::cpu(2_000),
        region,
        span: Span::Minute,
        since: UnixMillis(outside::now().0 - 3_600_000),
    };
    let all = async {
        loop {
            let points = one.prices(asked(Some(Region::local()))).await.unwrap();
            if let Some(point) = points.last() {
                return *point;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let point = tokio::time::timeout(WITHIN, all).await.unwrap();
    assert_eq!(point.on_demand.unwrap().median, Usd::from_micros(100_000));
    assert_eq!((point.spot, point.total), (None, 1));
    assert_eq!(one.prices(asked(Some("mars".parse().unwrap()))).await.unwrap(), []);
}
