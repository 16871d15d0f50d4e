//! Measures the indexer's role with a million hosts: how soon it answers after its start, and how
//! long a request takes over QUIC, with a receipt, as buyers ask for one.
//!
//! `cargo run --release -p welkin-node --example indexer -- indexer-restart | match-e2e [HOSTS]`
//!
//! A synthetic fleet is announced to a `Fleet`, written as a snapshot, and the role is started from
//! that in a process of its own, which is asked over loopback. With `match-e2e` that process also
//! takes heartbeats as fast as is said, straight into its fleet.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement stops at the first surprise and prints what it found"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use welkin_match::synth::{Chance, Demand, Wanted};
use welkin_match::{Fleet, State, synth};
use welkin_node::indexer::{Beats, BeatsConfig};
use welkin_node::settlement::{EvmConfig, EvmSettlement, Line, Settle};
use welkin_node::{Caller, Shutdown, identity, indexer, outside, wire};
use welkin_proto::check::{Finding, Report};
use welkin_proto::index::{Beat, IndexHello, IndexReply, IndexRequest};
use welkin_proto::{
    ALPN_INDEX, AccountKey, Delegation, Domain, NodeAddr, NodeKey, SignedByAccount,
};
use welkin_types::{NodeId, Region, UnixMillis};

#[path = "parts/hosts.rs"]
mod hosts;

use hosts::{CONTAINER, HOUR, capability, endpoint, node_of, request};

/// As the program's.
#[global_allocator]
static MEMORY: welkin_pages::LargePages = welkin_pages::LargePages;

const SEED: u64 = 7;
/// Requests of a measurement.
const REQUESTS: usize = 4_000;
/// How long is asked before it: by then scores of before are taken up, and each host has beaten.
const WARMING: Duration = Duration::from_secs(20);
/// Buyers that ask in turn: each keeps a bounded number of slots.
const BUYERS: u8 = 32;
const BEATS_PER_SECOND: u64 = 100_000;
const STARTS: usize = 5;
/// Checks of each container before a measurement: without any, none would be told from another.
const CHECKS: u8 = 8;
fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let word = |place: usize| arguments.get(place).map(String::as_str);
    let number = |place: usize, or: u64| word(place).and_then(|n| n.parse().ok()).unwrap_or(or);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match word(0).unwrap_or_default() {
        "serve" => {
            let dir = PathBuf::from(word(1).unwrap());
            runtime.block_on(serve(dir, number(2, 0), number(3, 0)));
        }
        "indexer-restart" => runtime.block_on(restart(number(1, 1_000_000))),
        // As a task: in the runtime's own threads no answer has to wake another one.
        "match-e2e" => {
            let asked = e2e(number(1, 1_000_000), number(2, BEATS_PER_SECOND));
            runtime.block_on(runtime.spawn(asked)).unwrap();
        }
        other => eprintln!("no measurement is called `{other}`: indexer-restart or match-e2e"),
    }
}

/// A snapshot of a synthetic fleet; a fresh one for each measurement, for it ages.
fn make(dir: &Path, count: u64) {
    let begun = Instant::now();
    let (mut fleet, now) = (Fleet::new(SEED), outside::now());
    let rows = synth::Fleet::new(SEED).take(usize::try_from(count).unwrap());
    for (number, row) in (0_u32..).zip(rows) {
        let (operator, capability, free) = capability(number, &row, now);
        let node = capability.addr.node;
        fleet.announce(now, operator, capability).unwrap();
        let free = vec![(CONTAINER, free)];
        let beat = Beat { revision: 1, sequence: 1, free, spot: Vec::new(), draining: false };
        fleet.beat(now, node, &beat).unwrap();
        check(&mut fleet, now, (number, node), row.quality);
    }
    let each = fleet.bytes() as u64 / count.max(1);
    let built = begun.elapsed();
    let length = indexer::write_snapshot(dir, fleet).unwrap();
    eprintln!(
        "{count} hosts announced in {built:.1?}, {each} bytes each; snapshot of {} MiB after {:.1?}",
        length >> 20,
        begun.elapsed()
    );
}

/// What checkers found of a container that is online for this share of the time.
fn check(fleet: &mut Fleet, now: UnixMillis, (number, host): (u32, NodeId), online_bp: u16) {
    let mut chance = Chance::new(u64::from(number) << 8 | 2);
    for checker in 0..CHECKS {
        let is_online = chance.word() % 10_000 < u64::from(online_bp);
        let finding =
            if is_online { Finding::Online { rtt_us: 9_000 } } else { Finding::Unreachable };
        let (minute, checker) = (now.0 / 60_000, NodeId::from_bytes([checker; 32]));
        let report = Report { checker, host, container: CONTAINER, minute, finding, turn: None };
        fleet.report(now, &report).unwrap();
    }
}

/// The role in this process, until its standard input ends.
async fn serve(dir: PathBuf, count: u64, per_second: u64) {
    let shutdown = Shutdown::default();
    let key = NodeKey::from_secret(&[2; 32]);
    let account = AccountKey::from_secret(&[2; 32]).unwrap();
    let endpoint = endpoint([2; 32], 0, &indexer::ALPNS).await;
    let delegation = identity::delegate(&Domain::LOCAL, &account, key.id(), HOUR).unwrap();
    // Nobody settles here: no report is sent.
    let line = Line::remote(endpoint.clone(), wire::from_net(&endpoint.addr()), delegation.clone());
    let config = EvmConfig::of(Domain::LOCAL);
    let settle = Settle::new(EvmSettlement::new(line, account, config, &shutdown));
    let listen = Some(([127, 0, 0, 1], 0).into());
    let config = BeatsConfig { dir, listen, streams_max: 4_096, standbys: Vec::new() };
    let beats = Beats::open(config).unwrap();
    let (operator, region, seeds) = (delegation, Region::local(), Vec::new());
    let neighbourhood = indexer::Neighbourhood { operator, region, seeds };
    let deps = indexer::Deps { endpoint, key, domain: Domain::LOCAL, settle, beats, neighbourhood };
    let (addr, fleet) = indexer::start_with_fleet(deps, &shutdown);
    println!("{addr}");
    if per_second > 0 {
        std::thread::spawn(move || beat(&fleet, count, per_second));
    }
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
}

/// Heartbeats at a rate, in batches as a socket gives them: of ten one says that something has
/// changed.
fn beat(fleet: &Arc<Mutex<Fleet>>, count: u64, per_second: u64) {
    const BATCH: u64 = 64;
    let nodes: Vec<_> = (0..u32::try_from(count).unwrap()).map(node_of).collect();
    let rows = synth::Fleet::new(SEED).take(nodes.len());
    let free: Vec<_> = rows.map(|row| u32::from(row.free)).collect();
    let (begun, mut sent, mut told) = (Instant::now(), 0_u64, Duration::ZERO);
    loop {
        let now = outside::now();
        let mut known = fleet.lock().unwrap_or_else(PoisonError::into_inner);
        for number in sent..sent + BATCH {
            let place = usize::try_from(number.wrapping_mul(0x9e37_79b1) % count).unwrap();
            let is_changed = number.is_multiple_of(10);
            let free = if is_changed { u32::from(number.is_multiple_of(20)) } else { free[place] };
            let state = State { revision: 1, free, spot_used: 0, is_draining: false };
            known.beat_one(now, (nodes[place], CONTAINER), &state).unwrap();
        }
        drop(known);
        sent += BATCH;
        let due = Duration::from_micros(sent * 1_000_000 / per_second);
        if let Some(ahead) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(ahead);
        }
        if begun.elapsed() > told + Duration::from_secs(5) {
            told = begun.elapsed();
            eprintln!("{} heartbeats a second", u128::from(sent) * 1_000 / told.as_millis());
        }
    }
}

/// The role in a process of its own.
struct Served {
    child: Child,
    addr: NodeAddr,
}

impl Served {
    fn start(dir: &Path, count: u64, beats: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", dir.to_str().unwrap(), &count.to_string(), &beats.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: line.trim().parse().unwrap() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Asker {
    caller: Caller,
    buyer: SignedByAccount<Delegation>,
}

impl Asker {
    async fn new(number: u8, indexer: &NodeAddr) -> Self {
        let secret: [u8; 32] = outside::random();
        let account = AccountKey::from_secret(&[100 + number; 32]).unwrap();
        let node = NodeKey::from_secret(&secret).id();
        let buyer = identity::delegate(&Domain::LOCAL, &account, node, HOUR).unwrap();
        let endpoint = endpoint(secret, 0, &[]).await;
        Self { caller: Caller::new(endpoint, indexer.clone(), ALPN_INDEX), buyer }
    }

    /// Three signed offers with a hold on the first, or none; the signature is checked.
    async fn ask(&self, wanted: &Wanted) -> usize {
        let request = request(self.buyer.clone(), wanted);
        let hello = IndexHello::Ask(Box::new(IndexRequest::Match(Box::new(request))));
        match self.caller.ask(&hello, Duration::from_secs(10)).await.unwrap() {
            IndexReply::Candidates(found) => found.open(&Domain::LOCAL).unwrap().offers.len(),
            IndexReply::WhyNot(_) => 0,
            other => {
                eprintln!("{other:?}");
                0
            }
        }
    }
}

/// From the start of the process to the first answer.
async fn restart(count: u64) {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), count);
    let wanted = Demand::new(3).next().unwrap();
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let served = Served::start(dir.path(), count, 0);
        let ready = begun.elapsed();
        let asker = Asker::new(0, &served.addr).await;
        let found = asker.ask(&wanted).await;
        let answered = begun.elapsed();
        eprintln!("listening after {ready:.0?}, {found} offers after {answered:.0?}");
        times.push(answered);
    }
    times.sort_unstable();
    println!("RESULT indexer-restart first_answer_ms={}", times[STARTS / 2].as_millis());
}

/// From a request to signed offers, one at a time.
async fn e2e(count: u64, beats: u64) {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), count);
    let served = Served::start(dir.path(), count, beats);
    let mut askers = Vec::new();
    for number in 0..BUYERS {
        askers.push(Asker::new(number, &served.addr).await);
    }
    let (mut times, mut offers) = (Vec::with_capacity(REQUESTS), 0);
    let mut wanted = Demand::new(3);
    let mut next = |number: usize| (number % askers.len(), wanted.next().unwrap());
    let started = Instant::now();
    for number in 0.. {
        if started.elapsed() > WARMING {
            break;
        }
        let (asker, wanted) = next(number);
        askers[asker].ask(&wanted).await;
    }
    for number in 0..REQUESTS {
        let (asker, wanted) = next(number);
        let begun = Instant::now();
        let found = askers[asker].ask(&wanted).await;
        if found > 0 {
            times.push(begun.elapsed());
            offers += found;
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    eprintln!("{} requests with {offers} offers", times.len());
    println!("RESULT match-e2e p50_ms={:.3} p99_ms={:.3}", at(50), at(99));
}
