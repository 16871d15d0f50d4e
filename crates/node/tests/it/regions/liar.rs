//! An indexer that lies: it speaks the protocol, hides most containers and invents one.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{Connection, Endpoint};
use welkin_node::{outside, wire};
use welkin_proto::gossip::{Directory, Gossip, IndexerCard};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, Listing};
use welkin_proto::{ALPN_INDEX, Domain, NodeAddr, NodeKey, Signed};
use welkin_types::ContainerId;

use super::paper::PaperHost;
use crate::world::{account, endpoint, neighbourhood};

pub(crate) struct Liar {
    pub(crate) addr: NodeAddr,
    _tasks: JoinSet<()>,
}

struct Lies {
    card: Signed<IndexerCard>,
    rows: Vec<Listing>,
}

impl Liar {
    /// Liar `n` shows this host, and a container that it does not have. It tells these indexers
    /// of itself.
    pub(crate) async fn start(n: u8, region: &str, shown: &PaperHost, known: &[NodeAddr]) -> Self {
        let key = NodeKey::from_secret(&[n; 32]);
        let endpoint = endpoint([n; 32], &[ALPN_INDEX]).await;
        let addr = wire::from_net(&endpoint.addr());
        let card = card(n, region, addr.clone());
        let card = Signed::sign(&Domain::LOCAL, &key, &card).unwrap();
        let lies = Arc::new(Lies { card, rows: rows(shown) });
        for indexer in known {
            let gossip = Gossip { cards: vec![lies.card.clone()], ..Gossip::default() };
            let hello = IndexHello::Ask(Box::new(IndexRequest::Gossip(Box::new(gossip))));
            let caller = welkin_node::Caller::new(endpoint.clone(), indexer.clone(), ALPN_INDEX);
            let answer: IndexReply = caller.ask(&hello, Duration::from_secs(5)).await.unwrap();
            assert!(matches!(answer, IndexReply::Gossip(_)), "{answer:?}");
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(endpoint, lies));
        Self { addr, _tasks: tasks }
    }
}

/// The card of indexer `n`, run by account `n`.
pub(super) fn card(n: u8, region: &str, addr: NodeAddr) -> IndexerCard {
    let issued = outside::now();
    IndexerCard {
        addr,
        operator: neighbourhood(n, region, Vec::new()).operator,
        region: region.parse().unwrap(),
        issued,
        expires: issued.after(Duration::from_secs(600)),
    }
}

fn rows(shown: &PaperHost) -> Vec<Listing> {
    let real = Listing {
        addr: shown.addr.clone(),
        operator: account(20).id(),
        container: shown.capability.containers[0].clone(),
        region: shown.capability.region.clone(),
        free: 4,
        is_confirmed: true,
        online_bp: None,
        checks: 0,
    };
    let mut invented = real.clone();
    invented.container.id = ContainerId::from_bytes([0xee; 16]);
    vec![real, invented]
}

async fn serve(endpoint: Endpoint, lies: Arc<Lies>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let lies = Arc::clone(&lies);
        connections.spawn(async move {
            if let Ok(connection) = incoming.handshake().await {
                answer(&connection, &lies).await;
            }
        });
    }
}

async fn answer(connection: &Connection, lies: &Lies) {
    while let Ok((mut send, mut recv)) = connection.accept().await {
        let hello = wire::expect::<IndexHello>(&mut recv, Duration::from_secs(5)).await;
        let Ok(IndexHello::Ask(request)) = hello else { continue };
        let cards = vec![lies.card.clone()];
        let reply = match *request {
            IndexRequest::Indexers => {
                IndexReply::Indexers(Box::new(Directory { cards, ..Directory::default() }))
            }
            IndexRequest::Gossip(_) => {
                IndexReply::Gossip(Box::new(Gossip { cards, ..Gossip::default() }))
            }
            IndexRequest::Offers { .. } => IndexReply::Listing(lies.rows.clone()),
            IndexRequest::Evidence(_) => IndexReply::Reported,
            _ => IndexReply::Refused("no".to_owned()),
        };
        if wire::send(&mut send, &reply).await.is_ok() {
            let _ = send.finish();
        }
    }
}
