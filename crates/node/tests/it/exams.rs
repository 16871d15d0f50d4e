//! Challenges of hardware over real connections: an honest host, hosts that cheat, checkers that are
//! not assigned, floods, and what indexers make of the findings.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use welkin_check::challenge::residency::{Fill, Probe, Walk, walk};
use welkin_check::challenge::{ClassRate, ClassTable, Product, Shape, commit, standard_look};
use welkin_check::sortition::VrfKey;
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_node::checker::{ExamError, Pace, Target, Who, examine, examine_all, look};
use welkin_node::host::{ContainerConfig, HostHandle};
use welkin_node::{Caller, outside, wire};
use welkin_proto::exam::{
    ExamAsk, ExamCommitment, ExamProbe, ExamRefusal, ExamReply, ExamReport, ExamRows, ExamWork,
    FillWork, OpenedRow, Verdict, Verified, WalkEnd,
};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_EXAM, ALPN_INDEX, ContainerOffer, Domain, NodeAddr, NodeKey, Signed};
use welkin_types::{Class, ContainerId, Resources};

use crate::regions::paper::PaperHost;
use crate::world::{World, config_at, endpoint, epoch, settle};

pub(crate) fn minute() -> u64 {
    welkin_check::minute_of(outside::now())
}

pub(crate) async fn stranger(n: u8) -> Who {
    let checker = NodeKey::from_secret(&[n; 32]).id();
    Who { endpoint: endpoint([n; 32], &[]).await, domain: Domain::LOCAL, checker, turn: None }
}

pub(crate) async fn register(world: &World, n: u8) {
    let settle = settle(&world.service, n, &world.shutdown);
    let vrf = VrfKey::from_seed(&[n; 32]).unwrap().public().0;
    settle.register_checker(vrf).await.unwrap();
}

/// A checker that is registered, so that a committee of three has it.
pub(crate) async fn checker(world: &World, n: u8) -> Who {
    register(world, n).await;
    let settle = settle(&world.service, n, &world.shutdown);
    let node = NodeKey::from_secret(&[n; 32]).id();
    let listed = async {
        while !settle.epoch(epoch()).await.is_ok_and(|view| view.listed(node).is_some()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), listed).await.unwrap();
    stranger(n).await
}

pub(crate) fn target(host: &HostHandle) -> Target {
    let offer = &host.containers()[0];
    Target {
        addr: host.addr(),
        container: offer.id,
        class: offer.class.clone(),
        resources: offer.resources.clone(),
    }
}

/// For machines that do much else meanwhile: slow ones are in their class, too.
pub(crate) fn lenient() -> ClassTable {
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
    // A row and a column, or a round, more than checkers ask for.
    for more in [ExamWork { n: 513, ..good }, ExamWork { rounds: 3, ..good }] {
        let reply = begin(&connection, more).await;
        assert_eq!(reply, Some(ExamReply::Refused(ExamRefusal::TooMany)), "{more:?}");
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

/// This minute and one beside it, of the same epoch.
pub(crate) fn two_minutes() -> [u64; 2] {
    let now = minute();
    [now, if now.is_multiple_of(60) { now + 1 } else { now - 1 }]
}

/// Rows that were not committed to, or more than there are, end the challenge; the next one works.
#[tokio::test(flavor = "multi_thread")]
async fn a_checker_that_asks_for_nonsense_is_refused() {
    let world = World::start().await;
    let who = checker(&world, 20).await;
    for (host, (n, rounds)) in (10..).zip([
        (64, vec![vec![64]]),
        (64, vec![]),
        (64, vec![vec![0; 5_000]]),
        // One more than checkers ask for, of rows that are there.
        (512, vec![(0..272).collect()]),
    ]) {
        let host = world.host(host).await;
        let target = target(&host);
        let work = ExamWork { n, ..work(&target, 0) };
        let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
        let connection = caller.connection().await.unwrap();
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &ExamAsk::Begin(work)).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert!(matches!(reply, ExamReply::Committed(_)), "{reply:?}");
        wire::send(&mut send, &ExamRows { rounds }).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Refused(ExamRefusal::NothingToOpen));
        let counters = host.exams();
        assert_eq!((counters.begun, counters.done), (1, 0), "{counters:?}");
        // The device is free again.
        let [_, beside] = two_minutes();
        let again = ExamWork { minute: beside, ..work };
        assert!(matches!(begin(&connection, again).await, Some(ExamReply::Committed(_))));
    }
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
    /// It has one device for all of its containers.
    Shares,
    /// It computes memory when it is asked for.
    Computes,
    /// It says that memory holds what it likes.
    Guesses,
    /// It takes the last bytes of the work late, when it has known the seed for long.
    Hoards,
}

/// How long it does.
const HOARDED: Duration = Duration::from_millis(500);

/// A host that cheats; ends when dropped.
struct Liar {
    target: Target,
    _tasks: JoinSet<()>,
}

impl Liar {
    async fn start(n: u8, cheat: Cheat) -> Self {
        let mut config = config_at(([127, 0, 0, 1], 0).into(), [n; 32], &[ALPN_EXAM]);
        // A ping, and no work.
        config.stream_window_bytes = if cheat == Cheat::Hoards { 40 } else { u32::MAX };
        let endpoint = Endpoint::bind(config).await.unwrap();
        let addr = wire::from_net(&endpoint.addr());
        let resources = Resources {
            cpu_milli: 1_000,
            // Of little memory little is asked.
            memory_bytes: if cheat == Cheat::Hoards { 1 << 16 } else { 1 << 30 },
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
        let (mut streams, mut pings) = (JoinSet::new(), 0);
        while let Ok((send, recv)) = connection.accept().await {
            let checker = welkin_types::NodeId::from_bytes(connection.peer());
            let key = NodeKey::from_secret(&key.secret());
            let is_ping = pings < 4;
            pings += 1;
            streams.spawn(async move {
                if cheat == Cheat::Hoards && !is_ping {
                    tokio::time::sleep(HOARDED).await;
                }
                cheat_at(&key, checker, cheat, send, recv).await
            });
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
        ExamAsk::Begin(_) | ExamAsk::Fill(_) if cheat == Cheat::Unable => {
            let refused = ExamReply::Refused(ExamRefusal::NoKernels);
            return wire::send(&mut send, &refused).await;
        }
        ExamAsk::Beside { work, .. } if work.container == UNABLE => {
            return wire::send(&mut send, &ExamReply::Refused(ExamRefusal::Busy)).await;
        }
        ExamAsk::Fill(work) => return pretend(cheat, work, &mut send, &mut recv).await,
        ExamAsk::Measure(_) | ExamAsk::Turn(_) => return Ok(()),
        ExamAsk::Begin(work) | ExamAsk::Beside { work, .. } => work,
    };
    let shape = Shape::new(work.n, work.rounds).unwrap();
    if cheat == Cheat::Shares {
        // One device, for whoever comes first.
        let _device = SHARED.lock().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
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

/// The seed is among the first bytes: what is done before the last one is taken counts as well.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_work_late_has_had_it_all_the_time() {
    let liar = Liar::start(49, Cheat::Hoards).await;
    let report = examine(&stranger(20).await, &liar.target, minute(), &lenient()).await.unwrap();
    let Verdict::Proved { mmac_per_s, .. } = report.verdict else { panic!("{report:?}") };
    let macs = u64::from(report.n).pow(3) * u64::from(report.rounds);
    let took_us = u64::try_from(HOARDED.as_micros()).unwrap();
    // The way is subtracted, at most a quarter of the time.
    assert!(mmac_per_s * (took_us / 4 * 3) <= macs, "{mmac_per_s} of {macs}");
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
            Cheat::Computes | Cheat::Guesses | Cheat::Shares | Cheat::Hoards => continue,
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

static SHARED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Containers of one host are challenged together by who is assigned to one of them.
#[tokio::test(flavor = "multi_thread")]
async fn all_devices_of_a_host_are_challenged_in_one_window() {
    let world = World::start().await;
    let host = world.host_offering(10, vec![ContainerConfig::default(); 3]).await;
    let who = checker(&world, 20).await;
    let of = |offer: &ContainerOffer| Target { container: offer.id, ..target(&host) };
    let all: Vec<_> = host.containers().iter().map(of).collect();
    let at = minute();
    let window = examine_all(&who, &all[0], &all[1..], at, &lenient()).await.unwrap();
    assert!(window.is_whole, "{window:?}");
    assert_eq!(window.report.container, all[0].container);
    assert!(window.slowest > 0);
    let counters = host.exams();
    assert_eq!((counters.begun, counters.done, counters.refused), (3, 3, 0));
    // Those beside it are asked once in a minute like others: then they are excused.
    let mut again = all.clone();
    again.swap(0, 1);
    let refused = examine_all(&who, &again[0], &again[1..], at, &lenient()).await.unwrap_err();
    assert!(matches!(refused, ExamError::NotNow(ExamRefusal::TooMany)), "{refused:?}");
    // Strangers gain nothing by naming a container of another host.
    let caller = Caller::new(who.endpoint.clone(), host.addr(), ALPN_EXAM);
    let connection = caller.connection().await.unwrap();
    let (mut send, mut recv) = connection.open().await.unwrap();
    let assigned = ContainerId::from_bytes([7; 16]);
    let work = ExamWork { minute: at - 1, ..work(&all[0], 0) };
    let beside = ExamAsk::Beside { assigned, work };
    wire::send(&mut send, &beside).await.unwrap();
    let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
    assert_eq!(reply, ExamReply::Refused(ExamRefusal::TooLarge));
}

/// Two containers with one device between them: each proves its class alone, and not together.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_one_device_for_two_containers_is_slow_in_one_window() {
    let who = stranger(20).await;
    let liar = Liar::start(49, Cheat::Shares).await;
    let other = Target { container: ContainerId::from_bytes([50; 16]), ..liar.target.clone() };
    // Two seconds for it, and one more for machines that do much else.
    let rate = ClassRate { mmac_per_s: 134, spread: 20, memory_mib: 0, source: "this test" };
    let table = ClassTable::new([(Class::cpu(1_000), rate)].into());
    let beside = std::slice::from_ref(&other);
    let window = examine_all(&who, &liar.target, beside, minute(), &table).await.unwrap();
    assert!(!window.is_whole, "{window:?}");
    // A lease of the other one would excuse it.
    let excused = Target { container: UNABLE, ..other };
    let window = examine_all(&who, &liar.target, &[excused], minute(), &lenient()).await.unwrap();
    assert!(window.is_whole, "{window:?}");
}

/// A container that always has a lease.
const UNABLE: ContainerId = ContainerId::from_bytes([51; 16]);

/// Without pauses; with so much time beside the work, for machines that do much else.
fn at_once(slack: Option<Duration>) -> Pace {
    Pace { pause: (Duration::ZERO, Duration::from_millis(5)), slack }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_host_holds_its_memory() {
    let world = World::start().await;
    let host = world.host(10).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    let pace = at_once(Some(Duration::from_secs(5)));
    let at = minute();
    let report = look(&who, &target, at, pace).await.unwrap();
    let Verdict::Resident { mib } = report.verdict else { panic!("{report:?}") };
    let mib_max = u32::try_from(target.resources.memory_bytes >> 22).unwrap();
    assert_eq!(mib, mib_max.min(16));
    // It counts as the minute's challenge, and strangers get none.
    let refused = look(&who, &target, at, pace).await.unwrap_err();
    assert!(matches!(refused, ExamError::NotNow(ExamRefusal::TooMany)), "{refused:?}");
    let refused = look(&stranger(30).await, &target, at, pace).await.unwrap_err();
    assert!(matches!(refused, ExamError::NotNow(ExamRefusal::NotAssigned)), "{refused:?}");
    let counters = host.exams();
    assert_eq!((counters.begun, counters.done, counters.refused), (1, 1, 2));
}

/// More than fits, and walks without end, are refused; the device is free again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_not_there_can_not_be_asked_for() {
    let world = World::start().await;
    let host = world.host(10).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let connection = caller.connection().await.unwrap();
    let minute = minute();
    let (container, seed) = (target.container, [1; 32]);
    let most = standard_look(&target.resources);
    let good = FillWork { minute, container, device: 0, seed, units: 64, double_rounds: 8 };
    for bad in [
        FillWork { units: 0, ..good },
        FillWork { double_rounds: 0, ..good },
        FillWork { double_rounds: u32::MAX, ..good },
        FillWork { units: u32::MAX, ..good },
    ] {
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &ExamAsk::Fill(bad)).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Refused(ExamRefusal::TooLarge), "{bad:?}");
    }
    // More than checkers ask for is refused with a fair word.
    for more in [
        FillWork { units: most.units + 1, ..good },
        FillWork { double_rounds: most.double_rounds + 1, ..good },
    ] {
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &ExamAsk::Fill(more)).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Refused(ExamRefusal::TooMany), "{more:?}");
    }
    let endless = ExamProbe { nonce: [2; 32], walkers: 1, steps: u32::MAX };
    let long = ExamProbe { steps: most.steps + 1, ..endless };
    let many = ExamProbe { walkers: most.walkers + 1, steps: 1, ..endless };
    // Of a device one for each minute: other hosts.
    for (n, (probe, why)) in (11..).zip([
        (endless, ExamRefusal::NothingToOpen),
        (long, ExamRefusal::TooMany),
        (many, ExamRefusal::TooMany),
    ]) {
        let target = self::target(&world.host(n).await);
        let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
        let connection = caller.connection().await.unwrap();
        let fill = FillWork { container: target.container, ..good };
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &ExamAsk::Fill(fill)).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Filled);
        wire::send(&mut send, &probe).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Refused(why), "{probe:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_computes_its_memory_anew_or_guesses_is_found_out() {
    let who = stranger(20).await;
    for (n, cheat) in [(46, Cheat::Computes), (47, Cheat::Guesses), (48, Cheat::Unable)] {
        let liar = Liar::start(n, cheat).await;
        let report = look(&who, &liar.target, minute(), at_once(None)).await.unwrap();
        let expected = match cheat {
            Cheat::Unable => Verdict::Refused(ExamRefusal::NoKernels),
            _ => Verdict::NotResident,
        };
        assert_eq!(report.verdict, expected, "{cheat:?}");
    }
}

/// Answers probes of memory that it does not have.
async fn pretend(
    cheat: Cheat,
    work: FillWork,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), wire::WireError> {
    wire::send(send, &ExamReply::Filled).await?;
    let FillWork { seed, units, double_rounds, .. } = work;
    let fill = Fill { seed, units, double_rounds };
    while let Some(probe) = wire::recv::<ExamProbe>(recv).await? {
        let ExamProbe { nonce, walkers, steps } = probe;
        let probe = Probe { nonce, walkers, steps };
        let read = |place| if cheat == Cheat::Computes { fill.unit(place) } else { [0; 16] };
        let walks = (0..walkers).map(|walker| walk(&probe, walker, units, read));
        let end = |walk: Walk| WalkEnd { place: walk.place(), seen: walk.seen().into() };
        wire::send(send, &ExamReply::Walked(walks.map(end).collect())).await?;
    }
    Ok(())
}

async fn tell(indexer: &Caller, key: &NodeKey, report: &ExamReport) -> IndexReply {
    let signed = Signed::sign(&Domain::LOCAL, key, report).unwrap();
    ask(indexer, IndexRequest::Exam(Box::new(signed))).await
}

pub(crate) async fn ask(indexer: &Caller, request: IndexRequest) -> IndexReply {
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
