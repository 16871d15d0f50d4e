//! What checkers know of containers: all that are listed, also the dear ones, and those that were.

use std::collections::BTreeSet;
use std::time::Duration;

use welkin_node::Caller;
use welkin_proto::check::{Finding, Report, Sheet, Visit};
use welkin_proto::index::{
    ContainersAsk, IndexHello, IndexReply, IndexRequest, Listing, WORDS_HOSTS_MAX,
};
use welkin_proto::{ALPN_INDEX, Domain, NodeAddr, NodeKey, Signed, container_id};
use welkin_types::{ContainerId, NodeId};

use crate::exams::{checker, minute, stranger};
use crate::regions::paper::PaperHost;
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(90);

struct Asker(Caller);

impl Asker {
    async fn new(n: u8, indexer: &NodeAddr) -> Self {
        Self::of(stranger(n).await.endpoint, indexer)
    }

    fn of(endpoint: welkin_net::Endpoint, indexer: &NodeAddr) -> Self {
        Self(Caller::new(endpoint, indexer.clone(), ALPN_INDEX))
    }

    async fn ask(&self, request: IndexRequest) -> IndexReply {
        let hello = IndexHello::Ask(Box::new(request));
        self.0.ask(&hello, Duration::from_secs(20)).await.unwrap()
    }

    async fn of_host(&self, host: NodeId) -> Vec<Listing> {
        match self.ask(IndexRequest::Host(host)).await {
            IndexReply::Listing(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a host's rows are as they should be.
    async fn until(&self, host: NodeId, is_so: impl Fn(&[Listing]) -> bool) {
        let all = async {
            while !is_so(&self.of_host(host).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, all).await.unwrap();
    }

    /// All containers, by pages.
    async fn walk(&self) -> Vec<Vec<Listing>> {
        let (mut ask, mut pages) = (ContainersAsk::default(), Vec::new());
        loop {
            let reply = self.ask(IndexRequest::Containers(ask)).await;
            let IndexReply::Containers(page) = reply else { panic!("{reply:?}") };
            pages.push(page.rows);
            let Some(from) = page.next else { return pages };
            ask = ContainersAsk { list: page.list, from };
        }
    }
}

fn ids(rows: &[Listing]) -> BTreeSet<(NodeId, ContainerId)> {
    rows.iter().map(|row| (row.addr.node, row.container.id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dearest_of_more_than_a_page_is_visited() {
    let world = World::start().await;
    let indexer = &world.network.indexers[0];
    let asker = Asker::new(40, indexer).await;
    let mut hosts = Vec::new();
    for n in 100..117 {
        hosts.push(PaperHost::start_crowded(n, &[indexer]).await);
    }
    let dear = PaperHost::start(11, "local", 100_000, &[indexer]).await;
    for host in hosts.iter().chain([&dear]) {
        asker.until(host.addr.node, |rows| !rows.is_empty()).await;
    }
    // It stands in no list of the cheapest, and on a page.
    let IndexReply::Listing(cheapest) = asker.ask(IndexRequest::Offers { needs: None }).await
    else {
        panic!("no list")
    };
    let place = (dear.addr.node, dear.capability.containers[0].id);
    assert!(cheapest.len() == 1_000 && !ids(&cheapest).contains(&place));
    let pages = asker.walk().await;
    assert!(pages.len() > 1, "{}", pages.len());
    let rows: Vec<_> = pages.into_iter().flatten().collect();
    assert_eq!((rows.len(), ids(&rows).len()), (17 * 64 + 1, 17 * 64 + 1));
    assert!(ids(&rows).contains(&place));
    // What the hosts have signed is shown as it was, and of strangers nothing; as much as fits.
    let all: Vec<_> = hosts.iter().chain([&dear]).map(|host| host.addr.node).collect();
    let words = |hosts| asker.ask(IndexRequest::Words(hosts));
    let some = [NodeId::from_bytes([9; 32]), dear.addr.node, hosts[0].addr.node].to_vec();
    let IndexReply::Words(shown) = words(some).await else { panic!("no words") };
    let shown: Vec<_> = shown.iter().map(|word| word.open(&Domain::LOCAL).unwrap()).collect();
    assert_eq!(shown, [dear.capability.clone(), hosts[0].capability.clone()]);
    let IndexReply::Words(shown) = words(all.clone()).await else { panic!("no words") };
    assert!((2..all.len()).contains(&shown.len()), "{}", shown.len());
    let reply = words(vec![dear.addr.node; WORDS_HOSTS_MAX + 1]).await;
    assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    // With numbers of an indexer that is no more it is begun anew.
    let other = ContainersAsk { list: 1, from: 9 };
    let reply = asker.ask(IndexRequest::Containers(other)).await;
    let IndexReply::Containers(page) = reply else { panic!("{reply:?}") };
    assert_eq!(ids(&page.rows).intersection(&ids(&rows[..64])).count(), 64);
    world.checker(20).await;
    // What is found in a minute is told at its end: first that the checker is at work.
    let is_visited = |rows: &[Listing]| rows.iter().any(|row| row.online_bp.is_some());
    asker.until(hosts[0].addr.node, is_visited).await;
    asker.until(dear.addr.node, is_visited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_listed_no_more_is_found_silent() {
    let world = World::start().await;
    let indexer = &world.network.indexers[0];
    let asker = Asker::of(checker(&world, 20).await.endpoint, indexer);
    let lasting = Duration::from_secs(12);
    let paper = PaperHost::start_lasting(11, lasting, &[indexer]).await;
    let (node, container) = (paper.addr.node, paper.capability.containers[0].id);
    let tell = async |(host, container), minute: u64, finding: Finding| {
        let key = NodeKey::from_secret(&[20; 32]);
        let (checker, turn) = (key.id(), None);
        let report = Report { checker, host, container, minute, finding, turn };
        let sheet = Sheet::of(&report).unwrap();
        let signed = Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap();
        asker.ask(IndexRequest::Sheet(Box::new(signed))).await
    };
    asker.until(node, |rows| !rows.is_empty()).await;
    let online = Finding::Online { rtt_us: 900 };
    let silent = Finding::Unreachable;
    // What is refused moves no score, though one of its containers is listed.
    let mixed = async |minute: u64, visits: Vec<Visit>| {
        let key = NodeKey::from_secret(&[20; 32]);
        let sheet = Sheet { checker: key.id(), minute, turn: None, visits };
        let signed = Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap();
        asker.ask(IndexRequest::Sheet(Box::new(signed))).await
    };
    let visit = |place, finding| Visit { host: node, place, finding };
    let reply = mixed(minute(), vec![visit(0, silent), visit(1, silent)]).await;
    assert_eq!(reply, IndexReply::NotListed(vec![1]));
    let rows = asker.of_host(node).await;
    assert!(!rows.is_empty() && rows.iter().all(|row| row.checks == 0), "{rows:?}");
    let place = (node, container);
    // Two minutes of one epoch, which is an hour.
    let now = minute();
    let first = if now % 60 == 59 { now - 1 } else { now };
    assert_eq!(tell(place, first, online).await, IndexReply::Reported);
    asker.until(node, <[Listing]>::is_empty).await;
    assert_eq!(tell(place, first + 1, silent).await, IndexReply::Reported);
    // Of a sheet it takes what it lists or knows, and says what else stands on it.
    let mixed = |visits| mixed(first + 1, visits);
    let reply = mixed(vec![visit(0, silent), visit(1, silent), visit(2, online)]).await;
    assert_eq!(reply, IndexReply::NotListed(vec![1, 2]));
    assert_eq!(mixed(vec![visit(0, silent)]).await, IndexReply::Reported);
    for bad in [vec![], vec![visit(0, silent), visit(0, online)], vec![visit(64, silent)]] {
        let reply = mixed(bad).await;
        assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    }
    // Who was never here is nobody's concern.
    let never = NodeId::from_bytes([9; 32]);
    let never = (never, container_id(never, 0));
    let reply = tell(never, first + 1, silent).await;
    assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
}
