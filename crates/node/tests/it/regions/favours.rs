//! An indexer that is honest in all but one thing: it offers its favourite first, and signs a
//! receipt that says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use welkin_match::index::Receipt;
use welkin_match::{Fleet, Query};
use welkin_net::{Connection, Endpoint};
use welkin_node::indexer::query_digest;
use welkin_node::{outside, wire};
use welkin_proto::gossip::{Directory, IndexerCard};
use welkin_proto::index::{Candidates, IndexHello, IndexReply, IndexRequest, MatchRequest};
use welkin_proto::{ALPN_INDEX, Domain, NodeAddr, NodeKey, Offer, Signed, encode};
use welkin_types::{AccountId, NodeId, OfferId};

use super::liar::card;
use super::paper::PaperHost;
use crate::world::{account, endpoint};

pub(crate) struct Favours {
    pub(crate) addr: NodeAddr,
    _tasks: JoinSet<()>,
}

struct Mind {
    key: NodeKey,
    card: Signed<IndexerCard>,
    fleet: Mutex<Fleet>,
    favourite: NodeId,
}

impl Favours {
    /// Indexer `n` knows these hosts, and offers this one before all others.
    pub(crate) async fn start(n: u8, region: &str, hosts: &[PaperHost], favourite: NodeId) -> Self {
        let key = NodeKey::from_secret(&[n; 32]);
        let endpoint = endpoint([n; 32], &[ALPN_INDEX]).await;
        let addr = wire::from_net(&endpoint.addr());
        let mut fleet = Fleet::default();
        for host in hosts {
            fleet.announce(outside::now(), account(1).id(), host.capability.clone()).unwrap();
        }
        let card = card(n, region, addr.clone());
        let card = Signed::sign(&Domain::LOCAL, &key, &card).unwrap();
        let mind = Arc::new(Mind { key, card, fleet: Mutex::new(fleet), favourite });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(endpoint, mind));
        Self { addr, _tasks: tasks }
    }
}

async fn serve(endpoint: Endpoint, mind: Arc<Mind>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let mind = Arc::clone(&mind);
        connections.spawn(async move {
            if let Ok(connection) = incoming.handshake().await {
                answer(&connection, &mind).await;
            }
        });
    }
}

async fn answer(connection: &Connection, mind: &Mind) {
    while let Ok((mut send, mut recv)) = connection.accept().await {
        let hello = wire::expect::<IndexHello>(&mut recv, Duration::from_secs(5)).await;
        let Ok(IndexHello::Ask(request)) = hello else { continue };
        let peer = NodeId::from_bytes(connection.peer());
        let reply = match *request {
            IndexRequest::Indexers => {
                let cards = vec![mind.card.clone()];
                IndexReply::Indexers(Box::new(Directory { cards, ..Directory::default() }))
            }
            IndexRequest::Match(request) => {
                let buyer = request.buyer.account(&Domain::LOCAL, peer, outside::now()).unwrap();
                mind.choose(buyer, &request)
            }
            IndexRequest::Evidence(_) => IndexReply::Reported,
            _ => IndexReply::Refused("no".to_owned()),
        };
        if wire::send(&mut send, &reply).await.is_ok() {
            let _ = send.finish();
        }
    }
}

impl Mind {
    fn choose(&self, buyer: AccountId, request: &MatchRequest) -> IndexReply {
        let now = outside::now();
        let query = Query {
            needs: &request.needs,
            exclude: &request.exclude,
            buyer,
            count: request.count,
            tie: u64::from_le_bytes(outside::random()),
            round_trips_us: &[],
        };
        let digest = Some(query_digest(request));
        let found = self.fleet.lock().unwrap().candidates(now, &query, digest);
        let (found, mut body) = found.unwrap();
        let id = || OfferId::from_bytes(outside::random());
        let expires = now.after(Duration::from_secs(5));
        let mut offers: Vec<Offer> = found.iter().map(|one| one.offer(id(), expires)).collect();
        let liked = offers.iter().position(|offer| offer.addr.node == self.favourite);
        if let Some(liked) = liked {
            offers.swap(0, liked);
            let body: &mut Receipt = body.as_mut().unwrap();
            body.chosen.swap(0, liked);
        }
        let receipt = Some(encode(&body.unwrap()).unwrap());
        let found = Candidates { at: now, buyer, offers, receipt };
        let signed = Signed::sign(&Domain::LOCAL, &self.key, &found).unwrap();
        IndexReply::Candidates(Box::new(signed))
    }
}
