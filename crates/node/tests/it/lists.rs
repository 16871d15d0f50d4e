//! What checkers believe of lists: what the hosts themselves have signed, the newest of it; and that
//! neither a silent indexer nor a liar keeps a checker from the others' lists.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{Connection, Endpoint};
use welkin_node::wire;
use welkin_proto::check::{Finding, Report};
use welkin_proto::index::{
    ContainersAsk, ContainersPage, IndexHello, IndexReply, IndexRequest, Listing,
};
use welkin_proto::{ALPN_INDEX, Capability, Domain, NodeAddr, NodeKey, Signed};
use welkin_types::{Class, NodeId, UnixMillis};

use crate::regions::paper::PaperHost;
use crate::world::{World, account, endpoint};

const WITHIN: Duration = Duration::from_secs(90);

/// How an indexer lists.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// All on one page.
    AtOnce,
    /// The rows on the last of so many pages.
    AtPage(u32),
    /// It lets who asks for its list wait.
    Silent,
    /// Each page says that there is another.
    Endless,
}

/// An indexer that lists what it is told to, and keeps reports.
struct Stage {
    addr: NodeAddr,
    play: Arc<Play>,
    _tasks: JoinSet<()>,
}

struct Play {
    manner: Manner,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    rows: Vec<Listing>,
    /// What it shows as signed, one after the other; the last one stays.
    words: Vec<Signed<Capability>>,
    asked_for_words: usize,
    pages: u32,
    reports: Vec<Report>,
}

impl Stage {
    async fn start(n: u8, manner: Manner, of: &Capability, words: Vec<Signed<Capability>>) -> Self {
        let endpoint = endpoint([n; 32], &[ALPN_INDEX]).await;
        let addr = wire::from_net(&endpoint.addr());
        let shown = Shown { rows: rows(of), words, ..Shown::default() };
        let play = Arc::new(Play { manner, shown: Mutex::new(shown) });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(endpoint, Arc::clone(&play)));
        Self { addr, play, _tasks: tasks }
    }

    /// What was found of a host, once something was.
    async fn found(&self, host: NodeId) -> Vec<Finding> {
        let found = || {
            let shown = self.play.shown.lock().unwrap();
            let of_host = shown.reports.iter().filter(|report| report.host == host);
            of_host.map(|report| report.finding).collect::<Vec<_>>()
        };
        let some = async {
            while found().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, some).await.unwrap();
        found()
    }

    async fn until(&self, is_so: impl Fn(&Shown) -> bool) {
        let all = async {
            while !is_so(&self.play.shown.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, all).await.unwrap();
    }
}

async fn serve(endpoint: Endpoint, play: Arc<Play>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let play = Arc::clone(&play);
        connections.spawn(async move {
            if let Ok(connection) = incoming.handshake().await {
                answer(&connection, &play).await;
            }
        });
    }
}

async fn answer(connection: &Connection, play: &Play) {
    // Streams of questions that are not answered stay open.
    let mut open = Vec::new();
    while let Ok((mut send, mut recv)) = connection.accept().await {
        let hello = wire::expect::<IndexHello>(&mut recv, Duration::from_secs(5)).await;
        let Ok(IndexHello::Ask(request)) = hello else { continue };
        let Some(reply) = reply(play, *request) else {
            open.push((send, recv));
            continue;
        };
        if wire::send(&mut send, &reply).await.is_ok() {
            let _ = send.finish();
        }
    }
}

fn reply(play: &Play, request: IndexRequest) -> Option<IndexReply> {
    let mut shown = play.shown.lock().unwrap();
    Some(match request {
        IndexRequest::Containers(ContainersAsk { from, .. }) => {
            shown.pages = shown.pages.max(from + 1);
            let (is_last, next) = match play.manner {
                Manner::Silent => return None,
                Manner::AtOnce => (true, None),
                Manner::AtPage(last) => (from == last, (from < last).then_some(from + 1)),
                Manner::Endless => (false, Some(from + 1)),
            };
            let rows = if is_last { shown.rows.clone() } else { Vec::new() };
            IndexReply::Containers(Box::new(ContainersPage { list: 7, rows, next }))
        }
        IndexRequest::Words(_) => {
            let place = shown.asked_for_words.min(shown.words.len() - 1);
            shown.asked_for_words += 1;
            IndexReply::Words(vec![shown.words[place].clone()])
        }
        IndexRequest::Sheet(signed) => {
            shown.reports.extend(signed.open(&Domain::LOCAL).unwrap().reports());
            IndexReply::Reported
        }
        IndexRequest::State(_) => IndexReply::Reported,
        _ => IndexReply::Refused("no".to_owned()),
    })
}

/// What an indexer lists that believes this.
fn rows(capability: &Capability) -> Vec<Listing> {
    let row = |container: &welkin_proto::ContainerOffer| Listing {
        addr: capability.addr.clone(),
        operator: account(20).id(),
        container: container.clone(),
        region: capability.region.clone(),
        free: 4,
        is_confirmed: true,
        online_bp: None,
        checks: 0,
    };
    capability.containers.iter().map(row).collect()
}

fn signed(n: u8, capability: &Capability) -> Signed<Capability> {
    Signed::sign(&Domain::LOCAL, &NodeKey::from_secret(&[n; 32]), capability).unwrap()
}

/// A place where nobody answers: an open socket, as of a machine that has fallen silent.
struct Nowhere(std::net::UdpSocket);

impl Nowhere {
    fn new() -> Self {
        Self(std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    /// The host as if it were here, in a class that it does not have, by a word of so many seconds ago.
    fn claims(&self, host: &PaperHost, seconds_ago: u64) -> Capability {
        let mut capability = host.capability.clone();
        capability.addr.direct = vec![self.0.local_addr().unwrap()];
        capability.containers[0].class = Class::cpu(64_000);
        capability.issued = UnixMillis(capability.issued.0 - seconds_ago * 1_000);
        capability
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn indexers_that_show_old_words_or_made_up_ones_change_nothing() {
    let mut world = World::start().await;
    let (host, nowhere) = (PaperHost::start(11, "local", 4, &[]).await, Nowhere::new());
    let real = &host.capability;
    let honest = Stage::start(60, Manner::AtOnce, real, vec![signed(11, real)]).await;
    // One shows where the host was, one what it has made up itself: newer, and signed by somebody else.
    let old = nowhere.claims(&host, 60);
    let behind = Stage::start(61, Manner::AtOnce, &old, vec![signed(11, &old)]).await;
    let made_up = Capability { revision: 9, issued: real.issued, ..old };
    let forger = Stage::start(62, Manner::AtOnce, &made_up, vec![signed(62, &made_up)]).await;
    world.network.indexers = [&honest, &behind, &forger].map(|stage| stage.addr.clone()).into();
    world.checker(20).await;
    let node = host.addr.node;
    for stage in [&honest, &behind, &forger] {
        let found = stage.found(node).await;
        let is_online = |finding: &Finding| matches!(finding, Finding::Online { .. });
        assert!(found.iter().all(is_online), "{found:?}");
    }
    // They were asked what the host has signed, and went on to be asked.
    behind.until(|shown| shown.asked_for_words > 0).await;
    forger.until(|shown| shown.asked_for_words > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_signed_is_visited_by_nobody() {
    let mut world = World::start().await;
    let (host, real) = (PaperHost::start(11, "local", 4, &[]).await, 12);
    let there = PaperHost::start(real, "local", 4, &[]).await;
    // A container that is there, listed by who can't show that its host says so.
    let forged = signed(62, &host.capability);
    let forger = Stage::start(62, Manner::AtOnce, &host.capability, vec![forged]).await;
    let words = vec![signed(real, &there.capability)];
    let honest = Stage::start(60, Manner::AtOnce, &there.capability, words).await;
    world.network.indexers = vec![forger.addr.clone(), honest.addr.clone()];
    world.checker(20).await;
    forger.found(there.addr.node).await;
    let shown = forger.play.shown.lock().unwrap();
    assert!(shown.asked_for_words > 0);
    assert!(shown.reports.iter().all(|report| report.host == there.addr.node));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_moved_is_asked_for_before_it_is_called_unreachable() {
    let mut world = World::start().await;
    let (host, nowhere) = (PaperHost::start(11, "local", 4, &[]).await, Nowhere::new());
    // The list has it where it was; what it has signed last is shown to who asks again.
    let old = nowhere.claims(&host, 60);
    let words = vec![signed(11, &old), signed(11, &host.capability)];
    let indexer = Stage::start(60, Manner::AtOnce, &old, words).await;
    world.network.indexers = vec![indexer.addr.clone()];
    world.checker(20).await;
    let found = indexer.found(host.addr.node).await;
    assert!(matches!(found[..], [Finding::Online { .. }]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_nowhere_is_found_unreachable() {
    let mut world = World::start().await;
    let (host, nowhere) = (PaperHost::start(11, "local", 4, &[]).await, Nowhere::new());
    let old = nowhere.claims(&host, 60);
    let indexer = Stage::start(60, Manner::AtOnce, &old, vec![signed(11, &old)]).await;
    let silent = Stage::start(61, Manner::Silent, &old, vec![signed(11, &old)]).await;
    world.network.indexers = vec![indexer.addr.clone(), silent.addr.clone()];
    world.checker(20).await;
    let found = indexer.found(host.addr.node).await;
    assert_eq!(found, [Finding::Unreachable]);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_silent_indexer_nor_one_without_end_slows_the_walk_of_another() {
    let mut world = World::start().await;
    let host = PaperHost::start(11, "local", 4, &[]).await;
    let words = || vec![signed(11, &host.capability)];
    let silent = Stage::start(61, Manner::Silent, &host.capability, words()).await;
    let endless = Stage::start(62, Manner::Endless, &host.capability, words()).await;
    // At a page every ten seconds, which is how long a silent one is waited for, it took three minutes.
    let honest = Stage::start(60, Manner::AtPage(20), &host.capability, words()).await;
    world.network.indexers = vec![silent.addr.clone(), endless.addr.clone(), honest.addr.clone()];
    world.checker(20).await;
    honest.until(|shown| shown.pages == 21).await;
    endless.until(|shown| shown.pages > 20).await;
    assert_eq!(silent.play.shown.lock().unwrap().pages, 1);
}
