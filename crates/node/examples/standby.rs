//! Measures how soon a standby answers in place of an indexer that was killed, with a million hosts.
//!
//! `cargo run --release -p welkin-node --features postgres --example standby -- standby-1m [HOSTS]`
//!
//! A server of PostgreSQL of its own gets a row for each host of a synthetic fleet, as an indexer
//! writes it at an enrolment. Two processes with one key and that database run the role as
//! `welkin indexer` does, one leads and one stands by. The hosts are simulated: this process sends
//! their heartbeats over loopback to both, as hosts do, each of them every ten seconds, from 16
//! addresses. Then the leader is killed with SIGKILL, and a buyer asks the standby until it
//! answers. No host ever hears an answer, so a poke stands for the handshake that it would cost.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a measurement stops at the first surprise and prints what it found"
)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use welkin_directory::{Change, Claim, Dsn, HolderId, HostRow, Postgres, SessionRow};
use welkin_match::key_epoch_of;
use welkin_match::synth::{self, Demand, Purpose};
use welkin_net::Endpoint;
use welkin_node::indexer::directory::{Directory, Records};
use welkin_node::indexer::standby::{self, Contender, Lead, Timing, Won};
use welkin_node::indexer::{self, Beats, BeatsConfig, Kept, Neighbourhood};
use welkin_node::settlement::{EvmConfig, EvmSettlement, Line, Settle};
use welkin_node::{Caller, Shutdown, identity, outside, wire};
use welkin_proto::heartbeat::{Secret, SessionKey, Vitals};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, MatchRequest};
use welkin_proto::{ALPN_INDEX, AccountKey, Domain, NodeAddr, NodeKey, Signed, encode};
use welkin_types::{NodeId, Policy, Region};

#[path = "parts/hosts.rs"]
mod hosts;
#[path = "../../directory/tests/it/server.rs"]
mod server;

use hosts::{CONTAINER, HOUR, capability, endpoint, request};

/// As the program's.
#[global_allocator]
static MEMORY: welkin_pages::LargePages = welkin_pages::LargePages;

const SEED: u64 = 7;
/// The indexers' key, and the secret of their heartbeats.
const KEY: [u8; 32] = [2; 32];
const BEATS_SECRET: [u8; 32] = [9; 32];
/// Where the processes find the string that the database is reached by.
const DSN: &str = "WELKIN_DIRECTORY_DSN";
/// Rows that are put before all of them are to be written.
const ROWS_AT_ONCE: u32 = 100_000;
/// How often each host beats, and how many beats are sent together.
const PERIOD: Duration = Duration::from_secs(10);
const BURST: usize = 100;
const SOURCES: usize = 16;
/// How long a buyer waits for a connection before it tries again, and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// A measurement that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let word = |place: usize| arguments.get(place).map(String::as_str);
    let number = |place: usize| word(place).and_then(|n| n.parse::<u32>().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match word(0).unwrap_or_default() {
        "serve" => {
            let ports = [number(2), number(3)].map(|port| u16::try_from(port.unwrap()).unwrap());
            let dir = PathBuf::from(word(1).unwrap());
            runtime.block_on(serve(dir, ports, word(4) == Some("standby")));
        }
        "standby-1m" => runtime.block_on(measure(number(1).unwrap_or(1_000_000))),
        other => eprintln!("no measurement is called `{other}`: standby-1m"),
    }
}

/// The role in this process: it leads or stands by until it is killed. Tells on its output when it
/// leads and when it listens, and for each line of its input what it has counted.
async fn serve(dir: PathBuf, ports: [u16; 2], is_standby: bool) {
    let dsn = Dsn::parse(&std::env::var(DSN).unwrap()).unwrap();
    let owner = NodeKey::from_secret(&KEY).id();
    let directory: Arc<dyn Directory> = Arc::new(Postgres::open(dsn, owner).await.unwrap());
    let contender = Contender::new(Arc::clone(&directory), Timing::default());
    let beats: Arc<Mutex<Option<Beats>>> = Arc::default();
    let counted = Arc::clone(&beats);
    std::thread::spawn(move || tell_counts(&counted));
    let serve = |won: Won, part: Shutdown| {
        println!("leads");
        let (directory, dir, beats) = (Arc::clone(&directory), dir.clone(), Arc::clone(&beats));
        async move {
            let (endpoint, taking) = start(directory, won.lead, (dir, ports), &part).await;
            *beats.lock().unwrap() = Some(taking);
            println!("listens");
            Ok::<_, Infallible>(endpoint)
        }
    };
    let ended = standby::run(&contender, is_standby, &Shutdown::default(), serve).await;
    ended.unwrap_or_else(|never| match never {});
}

fn tell_counts(beats: &Mutex<Option<Beats>>) {
    for _ in std::io::stdin().lines() {
        let beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = beats.as_ref().map(Beats::counters).unwrap_or_default();
        let handshakes = counted.enrolled + counted.poked;
        println!("counts {} {handshakes} {}", counted.taken, counted.dropped());
    }
}

/// As `welkin indexer` starts the role once it leads.
async fn start(
    directory: Arc<dyn Directory>,
    lead: Lead,
    (dir, [port, beats_port]): (PathBuf, [u16; 2]),
    shutdown: &Shutdown,
) -> (Endpoint, Beats) {
    let (key, account) = (NodeKey::from_secret(&KEY), AccountKey::from_secret(&KEY).unwrap());
    let endpoint = endpoint(KEY, port, &indexer::ALPNS).await;
    let operator = identity::delegate(&Domain::LOCAL, &account, key.id(), HOUR).unwrap();
    // Nobody settles here: no report is sent.
    let line = Line::remote(endpoint.clone(), wire::from_net(&endpoint.addr()), operator.clone());
    let settle = EvmSettlement::new(line, account, EvmConfig::of(Domain::LOCAL), shutdown);
    let sessions = directory.load_sessions(outside::now()).await.unwrap();
    let listen = Some(([127, 0, 0, 1], beats_port).into());
    let config = BeatsConfig { dir, listen, streams_max: 0, standbys: Vec::new() };
    let beats = Beats::open_shared(config, lead.clone(), sessions).unwrap();
    let neighbourhood = Neighbourhood { operator, region: Region::local(), seeds: Vec::new() };
    let deps = indexer::Deps {
        endpoint: endpoint.clone(),
        key,
        domain: Domain::LOCAL,
        settle: Settle::new(settle),
        beats: beats.clone(),
        neighbourhood,
    };
    let records = Some(Arc::new(Records::open(directory).await.unwrap()));
    indexer::start_kept(deps, Kept { records, lead }, shutdown);
    (endpoint, beats)
}

/// What a host's beats are made of.
struct Beating {
    key: SessionKey,
    free: u16,
}

/// Writes a row for each host, as at its enrolment with number `n` as session and salt.
async fn fill(dsn: &str, count: u32) -> Vec<Beating> {
    let (begun, now) = (Instant::now(), outside::now());
    let (key, secret) = (NodeKey::from_secret(&KEY), Secret::from_bytes(BEATS_SECRET));
    let directory = Postgres::open(Dsn::parse(dsn).unwrap(), key.id()).await.unwrap();
    let holder = HolderId::from_bytes([1; 16]);
    let Claim::Leads(term) = directory.claim(holder, HOUR).await.unwrap() else {
        panic!("the database is new, and somebody leads")
    };
    let (shutdown, writer) = (Shutdown::default(), directory.clone());
    shutdown.spawn_until_asked("directory", async move { writer.keep_writing().await });
    let mut beating = Vec::new();
    let epoch = key_epoch_of(now);
    for (number, row) in (0..count).zip(synth::Fleet::new(SEED)) {
        let (operator, capability, free) = capability(number, &row, now);
        let node = capability.addr.node;
        // A directory's announcements were checked when they came, and are not checked again.
        let signed = Signed::sign(&Domain::LOCAL, &key, &capability).unwrap();
        let (container, salt) = (CONTAINER, number);
        let session = SessionRow { container, session: number, key_epoch: epoch.into(), salt };
        directory.put(Change::Host(HostRow {
            node,
            operator,
            revision: capability.revision,
            issued: capability.issued,
            expires: capability.expires,
            capability: encode(&signed).unwrap(),
            sessions: vec![session],
        }));
        let key = secret.session_key(epoch, salt, node, CONTAINER);
        beating.push(Beating { key, free: u16::try_from(free).unwrap() });
        if number % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
            directory.flushed().await;
        }
    }
    directory.flushed().await;
    assert_eq!(directory.counts().dropped, 0);
    directory.release(term, holder).await.unwrap();
    shutdown.ask();
    eprintln!("{count} rows are written after {:.0?}", begun.elapsed());
    beating
}

/// Sends each host's beats to both indexers until it is told to stop.
fn beat(hosts: &[Beating], to: &[SocketAddr], stop: &AtomicBool) {
    let sources: Vec<_> =
        (0..SOURCES).map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap()).collect();
    let begun = Instant::now();
    // Neighbours are far apart.
    let step = (0..).map(|n| 7_919 + n).find(|step| gcd(*step, hosts.len()) == 1).unwrap();
    for sent in (0_usize..).step_by(BURST) {
        if stop.load(Ordering::Acquire) {
            return;
        }
        for number in sent..sent + BURST {
            let session = number * step % hosts.len();
            let Beating { key, free } = &hosts[session];
            let round = number / hosts.len() + 1;
            let wants_note = round % 6 == session % 6;
            let vitals = Vitals { free: *free, revision: 1, wants_note, ..Vitals::default() };
            let beat = vitals.seal(key, u32::try_from(session).unwrap(), round as u64);
            for addr in to {
                // Of two addresses nobody listens at one.
                let _ = sources[number % SOURCES].send_to(&beat, addr);
            }
        }
        let due = PERIOD.mul_f64((sent + BURST) as f64 / hosts.len() as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One of the two indexers, in a process of its own.
struct Process {
    child: Child,
    input: ChildStdin,
    said: mpsc::Receiver<(Instant, String)>,
    /// For streams, and for heartbeats.
    ports: [u16; 2],
}

/// What an indexer has counted.
struct Counts {
    taken: u64,
    handshakes: u64,
    dropped: u64,
}

impl Process {
    fn start(dir: &Path, dsn: &str, name: &str) -> Self {
        let (dir, ports) = (dir.join(name), [free_port(), free_port()]);
        std::fs::create_dir(&dir).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(dir.join("heartbeat.key"));
        let secret: String = BEATS_SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        file.as_mut().unwrap().write_all(secret.as_bytes()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .arg(&dir)
            .args(ports.map(|port| port.to_string()))
            .arg(name)
            .env(DSN, dsn)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (told, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = told.send((Instant::now(), line));
            }
        });
        Self { child, input, said, ports }
    }

    /// When it says this, and the rest of the line.
    fn hears(&self, what: &str) -> (Instant, String) {
        loop {
            let (at, line) = self.said.recv_timeout(TIMEOUT).unwrap();
            if let Some(rest) = line.strip_prefix(what) {
                return (at, rest.to_owned());
            }
        }
    }

    fn counts(&mut self) -> Counts {
        self.input.write_all(b"\n").unwrap();
        let (_, line) = self.hears("counts ");
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [taken, handshakes, dropped] = *numbers else { panic!("{line}") };
        Counts { taken, handshakes, dropped }
    }

    fn addr(&self) -> NodeAddr {
        let node = NodeKey::from_secret(&KEY).id();
        NodeAddr { node, relay: None, direct: vec![([127, 0, 0, 1], self.ports[0]).into()] }
    }

    fn beats_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[1]))
    }

    /// The most memory that it has had.
    fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A buyer who asks one indexer.
struct Asker {
    caller: Caller,
    request: MatchRequest,
}

impl Asker {
    async fn new(indexer: NodeAddr) -> Self {
        let secret: [u8; 32] = outside::random();
        let account = AccountKey::from_secret(&[100; 32]).unwrap();
        let node = NodeKey::from_secret(&secret).id();
        let buyer = identity::delegate(&Domain::LOCAL, &account, node, HOUR).unwrap();
        let caller = Caller::new(endpoint(secret, 0, &[]).await, indexer, ALPN_INDEX);
        let wanted = Demand::new(3).find(|wanted| wanted.purpose == Purpose::Inference).unwrap();
        let mut request = MatchRequest { hold: false, ..request(buyer, &wanted) };
        // The cheapest, which are also what is listed first.
        request.needs.policy = Policy::Cheapest;
        Self { caller, request }
    }

    async fn ask(&self, request: IndexRequest) -> Option<IndexReply> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.caller.connection()).await.ok()?.ok()?;
        self.caller.ask(&IndexHello::Ask(Box::new(request)), ANSWER_TIMEOUT).await.ok()
    }

    /// Asks for a match. Returns whether all that is offered has been heard by who offers it;
    /// nothing where nothing is offered.
    async fn look(&self) -> Option<bool> {
        let asked = IndexRequest::Match(Box::new(self.request.clone()));
        let Some(IndexReply::Candidates(found)) = self.ask(asked).await else { return None };
        let found = found.open(&Domain::LOCAL).unwrap();
        let needs = Some(Box::new(self.request.needs.clone()));
        let Some(IndexReply::Listing(rows)) = self.ask(IndexRequest::Offers { needs }).await else {
            return None;
        };
        let confirmed: BTreeSet<NodeId> =
            rows.iter().filter(|row| row.is_confirmed).map(|row| row.addr.node).collect();
        Some(found.offers.iter().all(|offer| confirmed.contains(&offer.addr.node)))
    }

    /// Asks until something is offered, and until that is confirmed; when each was the case.
    async fn wait(&self) -> (Instant, Instant) {
        let (begun, mut first) = (Instant::now(), None);
        loop {
            assert!(begun.elapsed() < TIMEOUT, "nothing confirmed is offered");
            if let Some(is_confirmed) = self.look().await {
                let now = Instant::now();
                let first = *first.get_or_insert(now);
                if is_confirmed {
                    return (first, now);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn until_heard(process: &mut Process, count: u32) -> Instant {
    let begun = Instant::now();
    while process.counts().taken < count.into() {
        assert!(begun.elapsed() < TIMEOUT, "not all hosts are heard");
        tokio::time::sleep(PAUSE * 5).await;
    }
    Instant::now()
}

async fn measure(count: u32) {
    let (server, dir) = (server::Server::start(), tempfile::tempdir().unwrap());
    let dsn = server.text();
    let hosts = fill(&dsn, count).await;
    let rows = server.psql("SELECT count(*) FROM welkin_host").stdout;
    assert_eq!(String::from_utf8_lossy(&rows).trim(), count.to_string());

    let mut primary = Process::start(dir.path(), &dsn, "primary");
    primary.hears("listens");
    let mut standby = Process::start(dir.path(), &dsn, "standby");
    let to = [primary.beats_addr(), standby.beats_addr()];
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let beating = std::thread::spawn(move || beat(&hosts, &to, &stopped));
    Asker::new(primary.addr()).await.wait().await;
    // By then all hosts are in its fleet, and each has beaten since.
    until_heard(&mut primary, count.saturating_mul(3)).await;
    let asker = Asker::new(standby.addr()).await;

    let killed = Instant::now();
    primary.child.kill().unwrap();
    let (first, confirmed) = asker.wait().await;
    let (leads, listens) = (standby.hears("leads").0, standby.hears("listens").0);
    // All hosts once, and once more when all are in the fleet.
    let heard = until_heard(&mut standby, count).await;
    until_heard(&mut standby, count.saturating_mul(2)).await;
    let counts = standby.counts();
    let after = |at: Instant| at.saturating_duration_since(killed).as_secs_f64();
    println!(
        "RESULT standby-1m takeover_s={:.2} handshakes={} rss_mib={} leads_s={:.2} listens_s={:.2} \
         first_answer_s={:.2} all_heard_s={:.2} dropped={} hosts={count}",
        after(confirmed),
        counts.handshakes,
        standby.rss_mib(),
        after(leads),
        after(listens),
        after(first),
        after(heard),
        counts.dropped,
    );
    stop.store(true, Ordering::Release);
    beating.join().unwrap();
}
