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
};
use welkin_types::task::TaskSpec;
use welkin_types::{ContainerId, Price, Usd};

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
    async fn announce(indexer: &NodeAddr, like: Offer, manner: Manner) -> Self {
        let raw = Raw::accepting(vec![ALPN_LEASE.to_vec()]).await;
        let asked = Arc::new(AtomicU32::new(0));
        let now = outside::now();
        let container = ContainerOffer {
            id: ContainerId::from_bytes(outside::random()),
            class: like.class,
            resources: like.resources,
            slots: 4_000,
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
        let vitals = Vitals { free: 4_000, revision: 1, ..Vitals::default() };
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
    let announce = FalseHost::announce(&network.indexers[0], like, manner);
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
