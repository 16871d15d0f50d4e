//! What an indexer knows after a restart, and its answers with receipts and for gangs.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use welkin_match::{verify_gang_receipt, verify_receipt};
use welkin_node::indexer::query_digest;
use welkin_node::{Caller, identity};
use welkin_proto::index::{
    Candidates, GangAsk, IndexHello, IndexReply, IndexRequest, MatchRequest, Together,
};
use welkin_proto::{ALPN_INDEX, Delegation, Domain, NodeAddr, NodeKey, SignedByAccount};
use welkin_types::NodeId;
use welkin_types::task::Needs;

use crate::beats::{ByHand, Indexer, world};
use crate::world::{account, endpoint};

const WITHIN: Duration = Duration::from_secs(20);

struct Asker {
    indexer: NodeId,
    caller: Caller,
    buyer: SignedByAccount<Delegation>,
}

impl Asker {
    async fn new(indexer: &NodeAddr) -> Self {
        let node = NodeKey::from_secret(&[40; 32]).id();
        let buyer = identity::delegate(&Domain::LOCAL, &account(40), node, WITHIN).unwrap();
        let endpoint = endpoint([40; 32], &[]).await;
        let caller = Caller::new(endpoint, indexer.clone(), ALPN_INDEX);
        Self { indexer: indexer.node, caller, buyer }
    }

    async fn ask(&self, request: IndexRequest) -> IndexReply {
        let hello = IndexHello::Ask(Box::new(request));
        self.caller.ask(&hello, WITHIN).await.unwrap()
    }

    /// The hosts' numbers with whether they are confirmed.
    async fn listed(&self) -> Vec<(u8, bool)> {
        match self.ask(IndexRequest::Offers { needs: None }).await {
            IndexReply::Listing(rows) => {
                let row = |row: &welkin_proto::index::Listing| {
                    let is_its = |n: &u8| NodeKey::from_secret(&[*n; 32]).id() == row.addr.node;
                    ((1..=u8::MAX).find(is_its).unwrap(), row.is_confirmed)
                };
                let mut rows: Vec<_> = rows.iter().map(row).collect();
                rows.sort_unstable();
                rows
            }
            other => panic!("{other:?}"),
        }
    }

    fn request(&self) -> MatchRequest {
        MatchRequest {
            buyer: self.buyer.clone(),
            needs: Needs::default(),
            count: 2,
            hold: true,
            exclude: Vec::new(),
            from: None,
            round_trips_us: Vec::new(),
            gang: None,
            receipt: true,
        }
    }

    async fn candidates(&self, request: MatchRequest) -> Option<Candidates> {
        match self.ask(IndexRequest::Match(Box::new(request))).await {
            IndexReply::Candidates(signed) => {
                Some(signed.open_by(&Domain::LOCAL, self.indexer).unwrap())
            }
            IndexReply::WhyNot(_) => None,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_indexer_knows_its_hosts_and_marks_them_unconfirmed() {
    let (world, indexer) = world(64).await;
    let dir = world.dir.path().join("indexer-3");
    for n in [31, 32] {
        let host = ByHand::enrol(&indexer.addr, n).await;
        let asker = Asker::new(&indexer.addr).await;
        assert!(asker.listed().await.contains(&(n, true)));
        // It is still there when the indexer stops.
        std::mem::forget(host);
    }
    indexer.stop().await;
    // A crash in the middle of an entry.
    let mut log = OpenOptions::new().append(true).open(dir.join("fleet.log")).unwrap();
    log.write_all(b"wkf1\x01\x01\x00\x00torn").unwrap();
    let indexer = Indexer::start(&world, None, 64).await;
    let asker = Asker::new(&indexer.addr).await;
    assert_eq!(asker.listed().await, [(31, false), (32, false)]);
    let found = asker.candidates(asker.request()).await.unwrap();
    assert_eq!(found.offers.len(), 2);
    let _host = ByHand::enrol(&indexer.addr, 32).await;
    assert_eq!(asker.listed().await, [(31, false), (32, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_recomputes_and_a_gang_comes_whole() {
    let (_world, indexer) = world(64).await;
    let mut hosts = Vec::new();
    for n in [31, 32, 33] {
        hosts.push(ByHand::enrol(&indexer.addr, n).await);
    }
    let asker = Asker::new(&indexer.addr).await;
    let request = asker.request();
    let asked = (query_digest(&request), request.needs.policy);
    let found = asker.candidates(request).await.unwrap();
    verify_receipt(&found, asked).unwrap();
    let first = Candidates { offers: found.offers[..1].to_vec(), ..found };
    assert!(verify_receipt(&first, asked).is_err());
    let gang = |members, is_spread| Some(GangAsk { members, together: Together::Site, is_spread });
    let spread = MatchRequest { gang: gang(3, true), ..asker.request() };
    let (digest, ask) = (query_digest(&spread), spread.gang.unwrap());
    let found = asker.candidates(spread).await.unwrap();
    assert_eq!(found.offers.len(), 3);
    let asked = (digest, asked.1);
    verify_gang_receipt(&found, asked, &ask).unwrap();
    let other = GangAsk { is_spread: false, ..ask };
    verify_gang_receipt(&found, asked, &other).unwrap_err();
    verify_gang_receipt(&found, ([0; 32], asked.1), &ask).unwrap_err();
    let two = Candidates { offers: found.offers[..2].to_vec(), ..found };
    verify_gang_receipt(&two, asked, &ask).unwrap_err();
    let too_many = MatchRequest { gang: gang(4, true), ..asker.request() };
    assert_eq!(asker.candidates(too_many).await, None);
    let absurd = MatchRequest { gang: gang(65, true), ..asker.request() };
    let refused = asker.ask(IndexRequest::Match(Box::new(absurd))).await;
    assert_eq!(refused, IndexReply::Refused("a gang has from 1 to 64 members".to_owned()));
}
