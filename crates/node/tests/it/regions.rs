//! Several indexers of several operators and regions, one of which dies and one of which lies.

mod favours;
mod liar;
pub(crate) mod paper;

use std::time::{Duration, Instant};

use welkin_node::Caller;
use welkin_node::buyer::{Buyer, BuyerError};
use welkin_proto::gossip::Directory;
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, NodeAddr, NodeKey};
use welkin_types::task::Needs;
use welkin_types::{NodeId, Region};

use crate::world::{World, endpoint};
use favours::Favours;
use liar::Liar;
use paper::PaperHost;

const HERE: &str = "de-frankfurt";
const THERE: &str = "kr-seoul";

fn id(n: u8) -> NodeId {
    NodeKey::from_secret(&[n; 32]).id()
}

/// Needs that any container meets.
fn anything() -> Needs {
    Needs { cpu_milli_min: 0, memory_bytes_min: 0, disk_bytes_min: 0, ..Needs::default() }
}

async fn directory(of: &NodeAddr) -> Directory {
    let caller = Caller::new(endpoint([99; 32], &[]).await, of.clone(), ALPN_INDEX);
    let hello = IndexHello::Ask(Box::new(IndexRequest::Indexers));
    match caller.ask(&hello, Duration::from_secs(5)).await.unwrap() {
        IndexReply::Indexers(directory) => *directory,
        other => panic!("{other:?}"),
    }
}

/// Waits for a condition that other tasks bring about.
async fn eventually<F: AsyncFnMut() -> bool>(mut is_so: F) {
    let all = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
}

/// Waits until each of these indexers tells of so many.
async fn until_all_know(indexers: &[&NodeAddr], count: usize) {
    for addr in indexers {
        eventually(async || directory(addr).await.cards.len() == count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_buyers_find_the_indexers_of_their_region_though_the_file_names_one() {
    let world = World::start_in(HERE).await;
    let first = world.network.indexers[0].clone();
    let (second, _) = world.indexer_in(3, HERE).await;
    let (third, _) = world.indexer_in(4, THERE).await;
    until_all_know(&[&first, &second, &third], 3).await;
    let near = world.host_in(10, HERE).await;
    let far = world.host_in(11, THERE).await;
    eventually(async || near.welcomes() == 2 && far.welcomes() >= 1).await;
    assert_eq!((near.welcomes(), far.welcomes()), (2, 1));

    let buyer = world.buyer().await;
    buyer.stand_in(HERE.parse().unwrap());
    let list = buyer.indexers().await.unwrap();
    let regions: Vec<_> =
        list.iter().map(|row| row.region.as_ref().map_or("", Region::as_str)).collect();
    assert_eq!(regions, [HERE, HERE, THERE]);
    assert!(list[2].operator.is_some() && list[2].share_ppm == 1_000_000, "alone there");
    assert_eq!(list[0].share_ppm + list[1].share_ppm, 1_000_000);
    // A region that nobody serves is named, and so are those that there are.
    let nowhere = Needs { regions: vec!["mars".parse().unwrap()], ..anything() };
    let error = buyer.candidates(&nowhere, 3, false, Vec::new()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BuyerError::UnknownRegion { .. }), "{error:?}");
    assert_eq!(text, "no region `mars` is known; there are: de-frankfurt, kr-seoul");
    buyer.close().await;
}

/// How long a question takes.
async fn timed(buyer: &Buyer, needs: &Needs) -> (Duration, Vec<NodeId>) {
    let began = Instant::now();
    let offers = buyer.candidates(needs, 4, false, Vec::new()).await.unwrap();
    let mut hosts: Vec<_> = offers.iter().map(|offer| offer.addr.node).collect();
    hosts.sort_unstable();
    (began.elapsed(), hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_indexer_costs_no_second_and_other_regions_are_asked_where_nothing_is_near() {
    let world = World::start_in(HERE).await;
    let first = world.network.indexers[0].clone();
    let (second, running) = world.indexer_in(3, HERE).await;
    let (third, _) = world.indexer_in(4, THERE).await;
    until_all_know(&[&first, &second, &third], 3).await;
    let _near = PaperHost::start(20, HERE, 100, &[&first, &second]).await;
    let _far = PaperHost::start(21, THERE, 50, &[&third]).await;
    let buyer = world.buyer().await;
    buyer.stand_in(HERE.parse().unwrap());
    assert_eq!(buyer.indexers().await.unwrap().len(), 3);
    let here = |regions: Vec<Region>| Needs { regions, ..anything() };
    // Near first, though the far one is cheaper; the far one where it is named, or for the price. Who
    // has asked the far one has measured that it is as near as everything on one machine.
    assert_eq!(timed(&buyer, &here(Vec::new())).await.1, [id(20)]);
    let far = world.buyer().await;
    assert_eq!(timed(&far, &here(vec![THERE.parse().unwrap()])).await.1, [id(21)]);
    eventually(async || {
        let known = directory(&first).await.summaries;
        known
            .iter()
            .filter(|signed| {
                signed
                    .open(&welkin_proto::Domain::LOCAL)
                    .is_ok_and(|summary| !summary.classes.is_empty())
            })
            .count()
            == 3
    })
    .await;
    let other = world.buyer().await;
    assert_eq!(timed(&other, &here(vec!["any".parse().unwrap()])).await.1, [id(21)]);
    // One dies without a word.
    running.ask();
    for _ in 0..10 {
        let (took, hosts) = timed(&buyer, &here(Vec::new())).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(hosts, [id(20)]);
    }
    for buyer in [buyer, other, far] {
        buyer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_that_lies_loses_its_share() {
    let mut world = World::start_in(HERE).await;
    let first = world.network.indexers[0].clone();
    let (second, _) = world.indexer_in(3, HERE).await;
    let mut hosts = Vec::new();
    for n in 20..26 {
        hosts.push(PaperHost::start(n, HERE, n.into(), &[&first, &second]).await);
    }
    // It shows one of six, and one that is not there.
    let liar = Liar::start(66, HERE, &hosts[0], std::slice::from_ref(&first)).await;
    world.network.indexers.push(liar.addr.clone());
    until_all_know(&[&first, &second], 3).await;
    let buyer = world.buyer().await;
    let share = async |n: u8| {
        let list = buyer.indexers().await.unwrap();
        let row = list.into_iter().find(|row| row.node == id(n)).unwrap();
        (row.share_ppm, row.why)
    };
    let (before, _) = share(66).await;
    assert!(before.abs_diff(333_333) < 10, "all begin alike: {before}");
    for _ in 0..12 {
        assert!(buyer.compare_indexers(&anything()).await);
    }
    let (after, why) = share(66).await;
    assert!(after < 150_000, "{before} -> {after}");
    assert!(why.contains(&"hides containers") || why.contains(&"its offers fail"), "{why:?}");
    for honest in [2, 3] {
        let (share, why) = share(honest).await;
        assert!(share > 400_000, "{share} {why:?}");
        assert!(why.iter().all(|why| *why == "little is known of it"), "{why:?}");
    }
    // The next command begins with what this one has met with.
    buyer.close().await;
    let next = world.buyer().await;
    let list = next.indexers().await.unwrap();
    assert!(list.iter().any(|row| row.node == id(66) && row.share_ppm == after), "{list:?}");
    next.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_that_favours_a_host_is_disproved_by_its_own_receipts() {
    let mut world = World::start_in(HERE).await;
    let honest = world.network.indexers[0].clone();
    let mut hosts = Vec::new();
    for n in 20..28 {
        hosts.push(PaperHost::start(n, HERE, 100, &[&honest]).await);
    }
    let known = async || {
        let buyer = world.buyer().await;
        let rows = buyer.offers(None).await.unwrap();
        buyer.close().await;
        rows.len() == 8
    };
    eventually(known).await;
    let favours = Favours::start(67, HERE, &hosts, id(27)).await;
    world.network.indexers.push(favours.addr.clone());
    let buyer = world.buyer().await;
    let row = async |n: u8| {
        let list = buyer.indexers().await.unwrap();
        list.into_iter().find(|row| row.node == id(n)).unwrap()
    };
    let mut asked = 0;
    while row(2).await.receipts_proved < 40 {
        buyer.candidates(&anything(), 6, false, Vec::new()).await.unwrap();
        asked += 1;
        assert!(asked < 1_000, "the honest one is asked");
    }
    let (liar, other) = (row(67).await, row(2).await);
    assert!(liar.receipts_disproved > 0 && liar.weight_ppm < 10_000, "{liar:?}");
    assert!(liar.why.contains(&"its receipts don't recompute"), "{liar:?}");
    assert_eq!(other.receipts_disproved, 0, "{other:?}");
    // What proves it is kept, and no more of it than is useful.
    let evidence = buyer.home().dir().join("evidence");
    let files: Vec<_> = std::fs::read_dir(evidence).unwrap().flatten().collect();
    let disproved = usize::try_from(liar.receipts_disproved).unwrap();
    assert!((1..=disproved.min(64)).contains(&files.len()), "{files:?}");
    let proof = std::fs::read_to_string(files[0].path()).unwrap();
    assert!(proof.contains("draws choose other containers"), "{proof}");
    buyer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkers_tell_of_an_indexer_that_lists_what_is_not_there_and_hides_what_is() {
    let world = World::start_in(HERE).await;
    let first = world.network.indexers[0].clone();
    let (second, _) = world.indexer_in(3, HERE).await;
    let mut hosts = Vec::new();
    for n in 20..26 {
        hosts.push(PaperHost::start(n, HERE, n.into(), &[&first, &second]).await);
    }
    let liar = Liar::start(66, HERE, &hosts[0], std::slice::from_ref(&first)).await;
    until_all_know(&[&first, &second], 3).await;
    world.checker_that_looks(90, Duration::from_millis(100)).await;
    let told = async || {
        let reported = directory(&second).await.reported;
        let of = |n: u8| reported.iter().find(|said| said.indexer == id(n)).map(|said| said.tally);
        (of(66).unwrap_or_default(), of(2).unwrap_or_default(), of(3).unwrap_or_default())
    };
    // To one indexer the checker tells it, and to the other that one does.
    eventually(async || {
        let (liar, one, other) = told().await;
        liar.wrong > 0
            && liar.hidden > 0
            && one.good + one.shown > 0
            && other.good + other.shown > 0
    })
    .await;
    let (_, one, other) = told().await;
    for honest in [one, other] {
        assert_eq!((honest.wrong, honest.dead, honest.hidden), (0, 0, 0), "{honest:?}");
    }
    // A buyer that has met with nothing itself asks the liar less.
    let buyer = world.buyer().await;
    let list = buyer.indexers().await.unwrap();
    let share = |n: u8| list.iter().find(|row| row.node == id(n)).unwrap().share_ppm;
    assert!(share(66) * 2 < share(2).min(share(3)), "{list:?}");
    buyer.close().await;
    drop(liar);
}
