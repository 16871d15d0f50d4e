//! Candidates that are no good: the buyer goes on to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_node::{outside, wire};
use welkin_proto::heartbeat::Vitals;
use welkin_proto::index::{HostToIndexer, IndexHello, IndexerToHost};
use welkin_proto::lease::{FromHost, Refusal, RefusalCode, ToHost};
use welkin_proto::{
    ALPN_INDEX, ALPN_LEASE, Capability, ContainerOffer, Domain, NodeAddr, Offer, Signed,
    container_id,
};
use welkin_types::task::TaskSpec;
use welkin_types::{Price, Usd};

use crate::hostile::Raw;
use crate::services::{HERE, Services};
use crate::support::{Observer, until};

const WITHIN: Duration = Duration::from_secs(15);

/// What a host that is no good does with an order.
#[derive(Clone, Copy)]
enum Manner {
    Refuses,
    IsSilent,
}

/// A host that announces what another one has, at a lower price, and leases nothing.
struct FalseHost {
    asked: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl FalseHost {
    async fn announce(indexer: &NodeAddr, like: Offer, (manner, slots): (Manner, u32)) -> Self {
        let raw = Raw::accepting(vec![ALPN_LEASE.to_vec()]).await;
        let asked = Arc::new(AtomicU32::new(0));
        let now = outside::now();
        let container = ContainerOffer {
            id: container_id(raw.key.id(), 0),
            class: like.class,
            resources: like.resources,
            slots,
            price: Price::per_hour(Usd::from_micros(1_000)),
            tier: like.tier,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        };
        let capability = Capability {
            addr: wire::from_net(&raw.endpoint.addr()),
            operator: raw.delegation(),
            region: like.region,
            containers: vec![container],
            revision: 1,
            issued: now,
            expires: now.after(Duration::from_secs(600)),
        };
        let signed = Signed::sign(&Domain::LOCAL, &raw.key, &capability).unwrap();
        let connection = raw.connect(indexer, ALPN_INDEX).await;
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &IndexHello::Host(Box::new(signed))).await.unwrap();
        let answer: IndexerToHost = wire::expect(&mut recv, WITHIN).await.unwrap();
        let IndexerToHost::Welcome(welcome) = answer else { panic!("{answer:?}") };
        let session = &welcome.sessions[0];
        let vitals =
            Vitals { free: u16::try_from(slots).unwrap(), revision: 1, ..Vitals::default() };
        let beat = vitals.seal(&session.key, session.session, 1);
        wire::send(&mut send, &HostToIndexer::Beats(beat.to_vec())).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(raw, Arc::clone(&asked), manner, (send, recv, connection)));
        Self { asked, _tasks: tasks }
    }
}

/// Answers orders; keeps the announcement open.
async fn serve(
    raw: Raw,
    asked: Arc<AtomicU32>,
    manner: Manner,
    _announced: (SendStream, RecvStream, Connection),
) {
    let mut kept = Vec::new();
    while let Some(incoming) = raw.endpoint.accept().await {
        let Ok(connection) = incoming.handshake().await else { continue };
        let Ok((mut send, mut recv)) = connection.accept().await else { continue };
        while let Ok(Some(message)) = wire::recv::<ToHost>(&mut recv).await {
            let ToHost::Open(open) = message else { continue };
            asked.fetch_add(1, Ordering::Relaxed);
            if let Manner::Refuses = manner {
                let lease = open.order.message.lease;
                let detail = "somebody else was quicker".to_owned();
                let refusal = Refusal { lease, code: RefusalCode::Busy, detail };
                wire::send(&mut send, &FromHost::Refused(refusal)).await.unwrap();
            }
            // The next connection is served; this one stays as it is.
            break;
        }
        kept.push((send, recv, connection));
    }
}

fn offers(observer: &Observer) -> Vec<Offer> {
    let needs = TaskSpec::default().needs();
    let candidates = observer.buyer.candidates(&needs, 3, false, Vec::new());
    observer.runtime.block_on(candidates).unwrap_or_default()
}

/// A true host, and false ones that the indexer prefers.
fn with_false_hosts(manner: Manner) {
    let Some(mut services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    services.fund("5");
    let observer = services.observer();
    services.wait_free(&observer, 3);
    let like = offers(&observer).remove(0);
    let network = services.network();
    let announce = FalseHost::announce(&network.indexers[0], like, (manner, 4_000));
    let first = observer.runtime.block_on(announce);
    until(WITHIN, "the false host is preferred", || {
        offers(&observer).first().is_some_and(|offer| offer.price.hour().micros() == 1_000)
    });
    let job = services.run(&["run", "--", "echo", "placed"]).expect(0);
    assert_eq!(job.text(), "placed\n");
    assert_eq!(first.asked.load(Ordering::Relaxed), 1, "it was asked once, then the next one");
    observer.books_close();
    services.wait_free(&observer, 4_003);
    services.are_well();
}

#[test]
fn a_refused_order_goes_to_the_next_host() {
    with_false_hosts(Manner::Refuses);
}

#[test]
fn a_silent_host_is_left_for_the_next_one() {
    with_false_hosts(Manner::IsSilent);
}

#[test]
fn a_gang_of_which_one_host_refuses_is_let_go_for_nothing() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    services.fund("5");
    let observer = services.observer();
    services.wait_free(&observer, 3);
    let like = offers(&observer).remove(0);
    let network = services.network();
    // One slot only: the others of the gang are at the true host, and accepted there.
    let announce = FalseHost::announce(&network.indexers[0], like, (Manner::Refuses, 1));
    let first = observer.runtime.block_on(announce);
    until(WITHIN, "the false host is preferred", || {
        offers(&observer).first().is_some_and(|offer| offer.price.hour().micros() == 1_000)
    });
    let args = ["run", "--nodes", "3", "--max-price", "1", "--", "sh", "-c", "echo on $RANK"];
    let job = services.run(&args).expect(0).says("the others are let go");
    let mut lines: Vec<_> = job.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["[0] on 0", "[1] on 1", "[2] on 2"]);
    assert_eq!(first.asked.load(Ordering::Relaxed), 1);
    let leases = services.leases();
    assert_eq!(leases.all().len(), 3, "of the first try nothing is left but receipts");
    observer.books_close();
    services.are_well();
}
