//! Measures what a checker costs: one with the duties of a hundred licences, against real hosts over
//! loopback.
//!
//! `cargo run --release -p welkin-node --example checker [containers] [seconds]`
//!
//! The network of 427,000 containers and 91,000 licences has three checkers a container and minute:
//! 1,408 probes a minute for a hundred licences. Here one checker is alone, so that every container is
//! its own each minute. It is a process by itself; hosts, and who lists them, are this one. A twentieth
//! of the probes comes with a challenge of the processor, of these a fifth with a measurement.
//! The processor's time and the most memory are those of the checker's process, from its second minute on.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement stops at the first surprise and prints what it found"
)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use welkin_check::sortition::VrfKey;
use welkin_net::{Endpoint, EndpointConfig};
use welkin_node::settlement::{Answer, BoxFuture, Question, Settle, Settlement, SettlementError};
use welkin_node::{Shutdown, checker, host, identity, outside, wire};
use welkin_proto::index::{
    ContainersPage, IndexHello, IndexReply, IndexRequest, LISTED_MAX, Listing,
};
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::{ALPN_INDEX, AccountKey, Capability, Domain, NodeAddr, NodeKey, Signed};
use welkin_types::NodeId;

/// As the program's.
#[global_allocator]
static MEMORY: welkin_pages::LargePages = welkin_pages::LargePages;

/// Duties of a hundred licences in a minute.
const CONTAINERS: usize = 1_408;
/// Containers of a host.
const OF_HOST: usize = 64;
/// How long is measured.
const SECONDS: u64 = 180;
/// What is done once at the start is not measured.
const WARM: Duration = Duration::from_secs(60);
const CHECKER: [u8; 32] = [200; 32];
const LASTING: Duration = Duration::from_secs(7_200);

/// What hosts have signed.
type Words = BTreeMap<NodeId, Signed<Capability>>;

fn vrf() -> VrfKey {
    VrfKey::from_seed(&CHECKER).unwrap()
}

/// One checker, for ever.
#[derive(Debug)]
struct Alone;

impl Settlement for Alone {
    fn call(&self, question: Question) -> BoxFuture<'_, Result<Answer, SettlementError>> {
        Box::pin(async move {
            match question {
                Question::Epoch { epoch } => {
                    let node = NodeKey::from_secret(&CHECKER).id();
                    let checkers = vec![Listed { node, number: 1, vrf: vrf().public().0 }];
                    let (seed, epoch_seconds) = ([7; 32], 86_400);
                    Ok(Answer::Epoch(EpochView { epoch, seed, checkers, epoch_seconds }))
                }
                Question::RegisterChecker { vrf: _ } => Ok(Answer::Done),
                _ => Err(SettlementError::Confused),
            }
        })
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, indexers @ ..] = words.as_slice()
        && word == "child"
    {
        let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return threads.block_on(child(indexers));
    }
    let mut numbers = words.iter().filter_map(|word| word.parse::<u64>().ok());
    let containers = numbers.next().map_or(CONTAINERS, |count| usize::try_from(count).unwrap());
    let seconds = numbers.next().unwrap_or(SECONDS);
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(parent(containers, seconds));
}

/// The checker: what is measured.
async fn child(indexers: &[String]) {
    let key = NodeKey::from_secret(&CHECKER);
    let account = AccountKey::from_secret(&CHECKER).unwrap();
    let deps = checker::Deps {
        endpoint: endpoint(CHECKER, &checker::ALPNS).await,
        delegation: identity::delegate(&Domain::LOCAL, &account, key.id(), LASTING).unwrap(),
        key,
        domain: Domain::LOCAL,
        settle: Settle::new(Alone),
        indexers: indexers.iter().map(|addr| addr.parse::<NodeAddr>().unwrap()).collect(),
        look_every: checker::LOOK_EVERY,
        exam_percent: 5,
        cosign_mib_max: 0,
        vrf: vrf(),
        roots: None,
        mystery: None,
        region: None,
    };
    checker::start(deps, &Shutdown::default());
    std::future::pending().await
}

async fn parent(containers: usize, seconds: u64) {
    let (dir, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::default());
    let mut listings = Vec::new();
    let mut words = BTreeMap::new();
    let mut hosts = Vec::new();
    for number in 0..containers.div_ceil(OF_HOST) {
        let count = OF_HOST.min(containers - number * OF_HOST);
        let host = start(dir.path().join(number.to_string()), number, count, &shutdown).await;
        words.insert(host.addr().node, word(&host, number));
        listings.extend(host.containers().iter().map(|container| Listing {
            addr: host.addr(),
            operator: AccountKey::from_secret(&[9; 32]).unwrap().id(),
            container: container.clone(),
            region: "local".parse().unwrap(),
            free: container.slots,
            is_confirmed: true,
            online_bp: None,
            checks: 0,
        }));
        hosts.push(host);
    }
    let reports = Arc::new(AtomicU64::new(0));
    let mut indexers = Vec::new();
    let words = Arc::new(words);
    for (number, rows) in (100_u8..).zip(listings.chunks(LISTED_MAX / OF_HOST * OF_HOST)) {
        let shown = (rows.to_vec(), Arc::clone(&words));
        indexers.push(list(number, shown, &reports, &shutdown).await.to_string());
    }
    // Each indexer is told of everything.
    let told_to = u64::try_from(indexers.len()).unwrap();
    println!("# {} containers at {} hosts", listings.len(), hosts.len());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("child")
        .args(indexers)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(WARM).await;
    let exams = || hosts.iter().map(|host| host.exams().done).sum::<u64>();
    let (cpu, told, done) = (cpu_of(child.id()), reports.load(Ordering::Relaxed), exams());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = cpu_of(child.id()) - cpu;
    let (rss_mib, told) = (peak_mib(child.id()), reports.load(Ordering::Relaxed) - told);
    child.kill().unwrap();
    child.wait().unwrap();
    let percent =
        cpu.as_secs_f64() * 100.0 / seconds as f64 * CONTAINERS as f64 / containers as f64;
    let a_minute = |count: u64| count as f64 * 60.0 / seconds as f64;
    println!(
        "RESULT checker-footprint rss_mib={rss_mib:.0} core_percent_per_100={percent:.2} \
         reports_per_minute={:.0} challenges_per_minute={:.0}",
        a_minute(told / told_to),
        a_minute(exams() - done),
    );
}

/// A host that isolates nobody and answers checkers.
async fn start(
    dir: std::path::PathBuf,
    number: usize,
    containers: usize,
    shutdown: &Shutdown,
) -> host::HostHandle {
    let secret = [u8::try_from(number).unwrap() + 1; 32];
    let key = NodeKey::from_secret(&secret);
    let operator = AccountKey::from_secret(&secret).unwrap();
    let delegation = identity::delegate(&Domain::LOCAL, &operator, key.id(), LASTING).unwrap();
    let deps = host::Deps {
        endpoint: endpoint(secret, &host::ALPNS).await,
        key,
        domain: Domain::LOCAL,
        operator: (operator.id(), delegation),
        settle: Settle::new(Alone),
        indexers: Vec::new(),
        sandboxes: None,
        gpus: Vec::new(),
        gpu_search: welkin_runtime::inventory::GpuSearch::default(),
        kernel_log: None,
    };
    let health = host::HealthConfig { kernel_log: "".into(), ..host::HealthConfig::default() };
    let one = host::ContainerConfig { memory_mib: 64, ..host::ContainerConfig::default() };
    let containers = (0..containers).map(|_| one.clone()).collect();
    let config = host::Config { health, dir, containers, ..host::Config::default() };
    host::start(config, deps, shutdown.clone()).await.unwrap()
}

/// What a host has signed of itself.
fn word(host: &host::HostHandle, number: usize) -> Signed<Capability> {
    let secret = [u8::try_from(number).unwrap() + 1; 32];
    let (key, operator) =
        (NodeKey::from_secret(&secret), AccountKey::from_secret(&secret).unwrap());
    let issued = outside::now();
    let capability = Capability {
        addr: host.addr(),
        operator: identity::delegate(&Domain::LOCAL, &operator, key.id(), LASTING).unwrap(),
        region: "local".parse().unwrap(),
        containers: host.containers().to_vec(),
        revision: 1,
        issued,
        expires: issued.after(LASTING),
    };
    Signed::sign(&Domain::LOCAL, &key, &capability).unwrap()
}

/// Lists these rows to whoever asks, and counts reports.
async fn list(
    number: u8,
    (rows, words): (Vec<Listing>, Arc<Words>),
    reports: &Arc<AtomicU64>,
    shutdown: &Shutdown,
) -> NodeAddr {
    let endpoint = endpoint([number; 32], &[ALPN_INDEX]).await;
    let (addr, reports) = (wire::from_net(&endpoint.addr()), Arc::clone(reports));
    let rows = Arc::new(rows);
    let serving = shutdown.clone();
    shutdown.spawn_until_asked("lists", async move {
        while let Some(incoming) = endpoint.accept().await {
            let (rows, reports) = (Arc::clone(&rows), Arc::clone(&reports));
            let words = Arc::clone(&words);
            serving.spawn_until_asked("list", async move {
                let Ok(connection) = incoming.handshake().await else { return };
                while let Ok((mut send, mut recv)) = connection.accept().await {
                    let Ok(Some(IndexHello::Ask(asked))) = wire::recv(&mut recv).await else {
                        continue;
                    };
                    let reply = match *asked {
                        IndexRequest::Containers(_) => {
                            let page = ContainersPage { list: 1, rows: rows.to_vec(), next: None };
                            IndexReply::Containers(Box::new(page))
                        }
                        IndexRequest::Words(hosts) => IndexReply::Words(
                            hosts.iter().filter_map(|host| words.get(host).cloned()).collect(),
                        ),
                        IndexRequest::Sheet(signed) => {
                            let sheet = signed.read_unverified().map_or(0, |it| it.visits.len());
                            reports.fetch_add(sheet as u64, Ordering::Relaxed);
                            IndexReply::Reported
                        }
                        _ => IndexReply::Reported,
                    };
                    let _ = wire::send(&mut send, &reply).await;
                }
            });
        }
    });
    addr
}

async fn endpoint(secret: [u8; 32], alpns: &[&[u8]]) -> Endpoint {
    let mut config = EndpointConfig::new(secret);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.alpns = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    Endpoint::bind(config).await.unwrap()
}

/// The processor's time that a process has had, all threads together.
fn cpu_of(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    // The kernel counts in hundredths of a second.
    Duration::from_millis(ticks * 10)
}

/// The most memory that a process has had.
fn peak_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1_024.0
}
