//! Challenges of hardware over real connections: an honest host, hosts that cheat, checkers that are
//! not assigned, floods, and what indexers make of the findings.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use welkin_check::challenge::{ClassRate, ClassTable, Product, Shape, commit};
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_node::checker::{ExamError, Target, Who, examine};
use welkin_node::host::HostHandle;
use welkin_node::{Caller, outside, wire};
use welkin_proto::exam::{
    ExamAsk, ExamCommitment, ExamRefusal, ExamReply, ExamReport, ExamRows, ExamWork, OpenedRow,
    Verdict, Verified,
};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_EXAM, ALPN_INDEX, Domain, NodeAddr, NodeKey, Signed};
use welkin_types::{Class, ContainerId, Resources};

use crate::regions::paper::PaperHost;
use crate::world::{World, endpoint, settle};

fn minute() -> u64 {
    welkin_check::minute_of(outside::now())
}

async fn stranger(n: u8) -> Who {
    let checker = NodeKey::from_secret(&[n; 32]).id();
    Who { endpoint: endpoint([n; 32], &[]).await, domain: Domain::LOCAL, checker }
}

/// A checker that is registered, so that a committee of three has it.
async fn checker(world: &World, n: u8) -> Who {
    settle(&world.service, n, &world.shutdown).register_checker().await.unwrap();
    stranger(n).await
}

fn target(host: &HostHandle) -> Target {
    let offer = &host.containers()[0];
    Target {
        addr: host.addr(),
        container: offer.id,
        class: offer.class.clone(),
        resources: offer.resources.clone(),
    }
}

/// For machines that do much else meanwhile: slow ones are in their class, too.
fn lenient() -> ClassTable {
    let rate = ClassRate { mmac_per_s: 20, spread: 2, memory_mib: 0, source: "this test" };
    ClassTable::new([(Class::cpu(1_000), rate)].into())
}

async fn exam(who: &Who, target: &Target) -> Result<ExamReport, ExamError> {
    examine(who, target, minute(), &lenient()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_host_proves_its_class_once_a_minute() {
    let world = World::start().await;
    let host = world.host(10).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    let at = minute();
    let table = lenient();
    let report = examine(&who, &target, at, &table).await.unwrap();
    let Verdict::Proved { mmac_per_s, class } = &report.verdict else { panic!("{report:?}") };
    assert!(*mmac_per_s > 0);
    assert_eq!(class.as_ref(), Some(&target.class), "{mmac_per_s}");
    assert_eq!((report.evidence, report.host), (None, target.addr.node));
    // Not twice for one minute, and not for another time.
    for minute in [at, at - 60] {
        let refused = examine(&who, &target, minute, &table).await.unwrap_err();
        let expected = if minute == at { ExamRefusal::TooMany } else { ExamRefusal::NotAssigned };
        let ExamError::NotNow(why) = refused else { panic!("{refused:?}") };
        assert_eq!(why, expected);
    }
    let counters = host.exams();
    assert_eq!((counters.begun, counters.done, counters.refused), (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_floods_are_refused_and_counted() {
    let world = World::start().await;
    let host = world.host(10).await;
    let (who, stranger) = (checker(&world, 20).await, stranger(30).await);
    let target = target(&host);
    let refused = exam(&stranger, &target).await.unwrap_err();
    assert!(matches!(refused, ExamError::NotNow(ExamRefusal::NotAssigned)), "{refused:?}");
    let before = Instant::now();
    for _ in 0..6 {
        let caller = Caller::new(stranger.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
        let connection = caller.connection().await.unwrap();
        for device in 0..40 {
            let reply = begin(&connection, work(&target, device)).await;
            assert_eq!(reply, Some(ExamReply::Refused(ExamRefusal::NotAssigned)));
        }
        connection.close(0, b"done");
    }
    assert!(before.elapsed() < Duration::from_secs(20));
    assert_eq!((host.exams().unassigned, host.exams().begun), (241, 0));
    // A checker that is assigned is heard all the same, and bad work of it is refused.
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let connection = caller.connection().await.unwrap();
    let good = work(&target, 0);
    for bad in [
        ExamWork { n: 0, ..good },
        ExamWork { n: u32::MAX, ..good },
        ExamWork { rounds: 0, ..good },
        ExamWork { rounds: u32::MAX, ..good },
        ExamWork { n: 100_000, ..good },
        ExamWork { device: 1, ..good },
        ExamWork { device: u32::MAX, ..good },
    ] {
        let reply = begin(&connection, bad).await;
        assert_eq!(reply, Some(ExamReply::Refused(ExamRefusal::TooLarge)), "{bad:?}");
    }
    let elsewhere = ExamWork { container: ContainerId::from_bytes([7; 16]), ..good };
    let reply = begin(&connection, elsewhere).await;
    assert_eq!(reply, Some(ExamReply::Refused(ExamRefusal::TooLarge)));
    assert!(matches!(exam(&who, &target).await.unwrap().verdict, Verdict::Proved { .. }));
}

fn work(target: &Target, device: u32) -> ExamWork {
    let container = target.container;
    ExamWork { minute: minute(), container, device, seed: [1; 32], n: 64, rounds: 1 }
}

async fn begin(connection: &Connection, work: ExamWork) -> Option<ExamReply> {
    let (mut send, mut recv) = connection.open().await.ok()?;
    wire::send(&mut send, &ExamAsk::Begin(work)).await.ok()?;
    wire::expect(&mut recv, Duration::from_secs(10)).await.ok()
}

/// Rows that were not committed to, or more than there are, end the challenge; the next one works.
#[tokio::test(flavor = "multi_thread")]
async fn a_checker_that_asks_for_nonsense_is_refused() {
    let world = World::start().await;
    let host = world.host(10).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let connection = caller.connection().await.unwrap();
    for (number, rounds) in (0..).zip([vec![vec![64]], vec![], vec![vec![0; 5_000]]]) {
        let (mut send, mut recv) = connection.open().await.unwrap();
        let work = ExamWork { minute: minute() - number % 2, ..work(&target, 0) };
        wire::send(&mut send, &ExamAsk::Begin(work)).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        if reply == ExamReply::Refused(ExamRefusal::TooMany) {
            continue;
        }
        assert!(matches!(reply, ExamReply::Committed(_)), "{reply:?}");
        wire::send(&mut send, &ExamRows { rounds }).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Refused(ExamRefusal::NothingToOpen));
    }
    let counters = host.exams();
    assert!(counters.begun >= 2 && counters.done == 0, "{counters:?}");
}

/// How a host cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cheat {
    /// One entry of every row is wrong.
    Wrong,
    /// It answers after the time of the slowest class.
    Late,
    /// It commits to what was computed for another host.
    Copies,
    /// It signs for another work than it was given.
    SignsAnother,
    /// It commits and does not open.
    Silent,
    /// It has no kernels.
    Unable,
}

/// A host that cheats; ends when dropped.
struct Liar {
    target: Target,
    _tasks: JoinSet<()>,
}

impl Liar {
    async fn start(n: u8, cheat: Cheat) -> Self {
        let endpoint = endpoint([n; 32], &[ALPN_EXAM]).await;
        let addr = wire::from_net(&endpoint.addr());
        let resources = Resources {
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            gpus: Vec::new(),
        };
        let container = ContainerId::from_bytes([n; 16]);
        let target = Target { addr, container, class: Class::cpu(1_000), resources };
        let mut tasks = JoinSet::new();
        tasks.spawn(answer(endpoint, NodeKey::from_secret(&[n; 32]), cheat));
        Self { target, _tasks: tasks }
    }
}

async fn answer(endpoint: Endpoint, key: NodeKey, cheat: Cheat) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.handshake().await else { continue };
        while let Ok((send, recv)) = connection.accept().await {
            let checker = welkin_types::NodeId::from_bytes(connection.peer());
            let _ = cheat_at(&key, checker, cheat, send, recv).await;
        }
    }
}

async fn cheat_at(
    key: &NodeKey,
    checker: welkin_types::NodeId,
    cheat: Cheat,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), wire::WireError> {
    let ask: ExamAsk = wire::expect(&mut recv, Duration::from_secs(10)).await?;
    let work = match ask {
        ExamAsk::Ping(nonce) => return wire::send(&mut send, &ExamReply::Pong(nonce)).await,
        ExamAsk::Begin(_) if cheat == Cheat::Unable => {
            let refused = ExamReply::Refused(ExamRefusal::NoKernels);
            return wire::send(&mut send, &refused).await;
        }
        ExamAsk::Begin(work) => work,
    };
    let shape = Shape::new(work.n, work.rounds).unwrap();
    let seed = if cheat == Cheat::Copies { [0; 32] } else { work.seed };
    let (products, mut roots) = commit(&seed, shape);
    let mut rows: Vec<Vec<Vec<i32>>> =
        products.iter().map(|product| all(product, work.n)).collect();
    let mut trees = Vec::new();
    for (rows, root) in rows.iter_mut().zip(&mut roots) {
        if cheat == Cheat::Wrong {
            rows.iter_mut().for_each(|row| row[0] ^= 1);
        }
        let leaves = (0..).zip(&*rows).map(|(n, row)| welkin_check::challenge::leaf(n, row));
        let tree = welkin_check::challenge::Tree::new(leaves.collect());
        *root = tree.root();
        trees.push(tree);
    }
    if cheat == Cheat::Late {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let signed_for = if cheat == Cheat::SignsAnother { ExamWork { n: 7, ..work } } else { work };
    let statement = ExamCommitment { checker, work: signed_for, roots };
    let signed = Signed::sign(&Domain::LOCAL, key, &statement).unwrap();
    wire::send(&mut send, &ExamReply::Committed(Box::new(signed))).await?;
    let asked: ExamRows = wire::expect(&mut recv, Duration::from_secs(10)).await?;
    if cheat == Cheat::Silent {
        // The checker stops waiting when the stream ends.
        return Ok(());
    }
    for ((numbers, rows), tree) in asked.rounds.iter().zip(&rows).zip(&trees) {
        for index in numbers {
            let row = rows[usize::try_from(*index).unwrap()].clone();
            let row = OpenedRow { index: *index, row, path: tree.path(*index) };
            wire::send(&mut send, &ExamReply::Row(row)).await?;
        }
    }
    wire::send(&mut send, &ExamReply::Opened).await
}

fn all(product: &Product, n: u32) -> Vec<Vec<i32>> {
    (0..n).map(|row| product.row(row).to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_cheat_are_found_out() {
    let who = stranger(20).await;
    for (n, cheat) in [
        (40, Cheat::Wrong),
        (41, Cheat::Copies),
        (42, Cheat::Late),
        (43, Cheat::SignsAnother),
        (44, Cheat::Unable),
    ] {
        let liar = Liar::start(n, cheat).await;
        let table = if cheat == Cheat::Late { ClassTable::published() } else { lenient() };
        let report = examine(&who, &liar.target, minute(), &table).await.unwrap();
        let expected = match cheat {
            Cheat::Wrong | Cheat::Copies => Verdict::Wrong,
            Cheat::Late | Cheat::SignsAnother | Cheat::Silent => Verdict::TooSlow,
            Cheat::Unable => Verdict::Refused(ExamRefusal::NoKernels),
        };
        assert_eq!(report.verdict, expected, "{cheat:?}");
        // What was wrong can be shown to others.
        let evidence = report.evidence.map(|signed| {
            signed.open_by(&Domain::LOCAL, liar.target.addr.node).unwrap().work.container
        });
        let expected = (expected == Verdict::Wrong).then_some(liar.target.container);
        assert_eq!(evidence, expected, "{cheat:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_open_its_rows_is_too_slow() {
    let who = stranger(20).await;
    let liar = Liar::start(45, Cheat::Silent).await;
    let report = exam(&who, &liar.target).await.unwrap();
    assert_eq!((report.verdict, report.evidence), (Verdict::TooSlow, None));
}

async fn tell(indexer: &Caller, key: &NodeKey, report: &ExamReport) -> IndexReply {
    let signed = Signed::sign(&Domain::LOCAL, key, report).unwrap();
    ask(indexer, IndexRequest::Exam(Box::new(signed))).await
}

async fn ask(indexer: &Caller, request: IndexRequest) -> IndexReply {
    indexer.ask(&IndexHello::Ask(Box::new(request)), Duration::from_secs(10)).await.unwrap()
}

async fn verified(indexer: &Caller) -> Vec<Verified> {
    match ask(indexer, IndexRequest::Verified).await {
        IndexReply::Verified(rows) => rows,
        other => panic!("{other:?}"),
    }
}

/// Reports count where the checker was assigned, the host is known, and nothing wrong is said
/// without evidence.
#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_adds_up_what_assigned_checkers_found() {
    let world = World::start().await;
    let host = world.host(10).await;
    assert!(host.announced(Duration::from_secs(10)).await);
    let who = checker(&world, 20).await;
    let target = target(&host);
    let (key, addr): (_, &NodeAddr) = (NodeKey::from_secret(&[20; 32]), &world.network.indexers[0]);
    let indexer = Caller::new(who.endpoint.clone(), addr.clone(), ALPN_INDEX);
    assert_eq!(verified(&indexer).await, []);
    let report = exam(&who, &target).await.unwrap();
    // This host isolates nobody and so announces no container.
    let reply = tell(&indexer, &key, &report).await;
    assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    let paper = PaperHost::start(11, "local", 4, &[addr]).await;
    let node = paper.addr.node;
    while ask(&indexer, IndexRequest::Locate(node)).await == IndexReply::Located(None) {
        tokio::task::yield_now().await;
    }
    let container = paper.capability.containers[0].id;
    let report = ExamReport { host: node, container, ..report };
    assert_eq!(tell(&indexer, &key, &report).await, IndexReply::Reported);
    let rows = verified(&indexer).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].class, rows[0].container), (&Some(target.class), container));
    assert_eq!((rows[0].proved, rows[0].failed), (1, 0));
    let wrong = ExamReport { verdict: Verdict::Wrong, ..report.clone() };
    for refused in [
        wrong,
        ExamReport { minute: report.minute - 60, ..report.clone() },
        ExamReport { checker: host.addr().node, ..report.clone() },
        ExamReport { host: who.checker, ..report.clone() },
    ] {
        let reply = tell(&indexer, &key, &refused).await;
        assert!(matches!(reply, IndexReply::Refused(_)), "{refused:?}: {reply:?}");
    }
    let other = stranger(31).await;
    let stranger = Caller::new(other.endpoint.clone(), addr.clone(), ALPN_INDEX);
    let own = ExamReport { checker: other.checker, ..report.clone() };
    let reply = tell(&stranger, &NodeKey::from_secret(&[31; 32]), &own).await;
    assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    assert_eq!(verified(&indexer).await.len(), 1);
}

/// A host's GPU does the work through Vulkan, bit for bit; a device that it does not have is refused.
#[cfg(feature = "vulkan")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test: needs a Vulkan device"]
async fn a_gpu_is_challenged_through_vulkan() {
    let adapters = welkin_kernels::vulkan::Adapters::find();
    let name = adapters.all()[0].info().name.clone();
    let gpu = welkin_runtime::inventory::Gpu {
        id: "test-0".to_owned(),
        uuid: None,
        name,
        vram_bytes: Some(1 << 30),
        driver: None,
        pci: None,
        vendor: 0x10005,
        device: 0,
        is_software: true,
        nodes: vec!["/dev/null".into()],
    };
    let world = World::start().await;
    let host = world.host_with(10, "local", vec![gpu]).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    assert_eq!(target.resources.gpus.len(), 1);
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let connection = caller.connection().await.unwrap();
    let work = ExamWork { n: 200, rounds: 2, ..work(&target, 0) };
    let (mut send, mut recv) = connection.open().await.unwrap();
    wire::send(&mut send, &ExamAsk::Begin(work)).await.unwrap();
    let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(20)).await.unwrap();
    let ExamReply::Committed(signed) = reply else { panic!("{reply:?}") };
    let said = signed.open_by(&Domain::LOCAL, target.addr.node).unwrap();
    let (products, roots) = commit(&work.seed, Shape::new(200, 2).unwrap());
    assert_eq!((said.roots, said.work), (roots, work));
    let rounds = vec![vec![0, 199], vec![7]];
    wire::send(&mut send, &ExamRows { rounds: rounds.clone() }).await.unwrap();
    for (rows, product) in rounds.iter().zip(&products) {
        for opening in product.open(rows) {
            let row = OpenedRow { index: opening.index, row: opening.row, path: opening.path };
            let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(20)).await.unwrap();
            assert_eq!(reply, ExamReply::Row(row));
        }
    }
    let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(20)).await.unwrap();
    assert_eq!(reply, ExamReply::Opened);
    let reply = begin(&connection, ExamWork { device: 1, ..work }).await;
    assert_eq!(reply, Some(ExamReply::Refused(ExamRefusal::TooLarge)));
}
