//! The indexer: keeps the live picture of its region's containers and answers who can run what.
//!
//! The picture is `welkin-match`'s [`Fleet`]; this role feeds it from connections and asks it. It is
//! never in the path of data or money. Hosts announce themselves over a stream (`streams`) and are
//! kept alive by datagrams (`beats`). What is written to disk (`snapshot`) helps after a restart and
//! is never the truth. What outlives the process is in its [`directory`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info};
use welkin_match::Fleet;
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_proto::check::{Report, Sheet};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, IndexerToHost, LISTED_MAX};
use welkin_proto::{
    ALPN_INDEX, Delegation, Domain, Matched, NodeAddr, NodeKey, Signed, SignedByAccount,
};
use welkin_types::{AccountId, NodeId, Region};

use crate::assignments::Assignments;
use crate::gate::{Gate, GateLimits, Pass};
use crate::settlement::Settle;
use crate::wire::{self, WireError};
use crate::{Shutdown, outside};

mod beats;
mod containers;
mod cosigns;
pub mod directory;
mod evidence;
mod exams;
mod gossip;
mod kept;
mod matching;
pub mod prices;
mod queue;
mod roots;
mod sites;
mod snapshot;
pub mod standby;
mod streams;

pub use beats::{BeatCounters, Beats, BeatsConfig, BeatsError};

pub use matching::query_digest;
pub use queue::turn_digest;
pub use snapshot::write_snapshot;

pub use gossip::Neighbourhood;

/// How long an offer and its hold last.
const OFFER_LASTING: Duration = Duration::from_secs(5);
/// How long a question may take to arrive.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long whoever asked may take to read the answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often stale state is cleared …
const EXPIRE_EVERY: Duration = Duration::from_millis(200);
/// … and while there is more of it: with a million hosts that is most of the time, and whoever asks
/// has his turn between.
const EXPIRE_PAUSE: Duration = Duration::from_millis(4);
/// The most connections at once.
const CONNECTIONS_MAX: usize = 8_192;

/// What an indexer answers to.
pub const ALPNS: [&[u8]; 1] = [ALPN_INDEX];

/// An indexer's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its folder. Empty: `indexer` in the network's folder.
    pub dir: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: String,
    /// The port for heartbeats, at the same address; 0 takes a free one at the first start and
    /// then the same again.
    pub heartbeat_port: u16,
    /// Further addresses that hosts send every heartbeat to, as a standby's; at most two, which must
    /// be at addresses that the network's file gives to this indexer.
    pub heartbeat_standbys: Vec<SocketAddr>,
    /// The most hosts whose stream stays open; further ones beat by datagrams only.
    pub streams_max: usize,
    /// The part of the world that it serves.
    pub region: Region,
    /// The file with the connection string of its directory's database; empty: it has a file of
    /// its own.
    pub dsn_file: PathBuf,
    /// Whether it leaves the first lead to another that shares its key and database.
    pub standby: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            listen: "127.0.0.1:0".to_owned(),
            heartbeat_port: 0,
            heartbeat_standbys: Vec::new(),
            streams_max: CONNECTIONS_MAX / 2,
            region: Region::local(),
            dsn_file: PathBuf::new(),
            standby: false,
        }
    }
}

/// What an indexer needs from outside.
#[derive(Debug)]
pub struct Deps {
    /// The transport, bound with [`ALPNS`].
    pub endpoint: Endpoint,
    /// Its key, the same as the endpoint's.
    pub key: NodeKey,
    /// Where signatures hold.
    pub domain: Domain,
    /// The settlement service: it knows the seed of the checkers' assignment.
    pub settle: Settle,
    /// Its heartbeats.
    pub beats: Beats,
    /// Where it stands among the others.
    pub neighbourhood: Neighbourhood,
}

impl Config {
    /// What the heartbeats of an indexer need that has its state in `dir` and is bound to `bound`.
    pub fn beats(&self, dir: PathBuf, bound: Option<IpAddr>) -> BeatsConfig {
        let listen = bound.map(|ip| SocketAddr::new(ip, self.heartbeat_port));
        let standbys = self.heartbeat_standbys.clone();
        BeatsConfig { dir, listen, streams_max: self.streams_max, standbys }
    }
}

/// What outlives an indexer's process: its directory, and whether it leads.
#[derive(Debug)]
pub struct Kept {
    /// The directory, if there is one.
    pub records: Option<Arc<directory::Records>>,
    /// Whether it may answer.
    pub lead: standby::Lead,
}

impl Default for Kept {
    fn default() -> Self {
        Self { records: None, lead: standby::Lead::always() }
    }
}

struct Indexer {
    endpoint: Endpoint,
    key: NodeKey,
    domain: Domain,
    fleet: Arc<Mutex<Fleet>>,
    log: snapshot::Log,
    beats: Beats,
    /// One explanation at a time of why nothing fits.
    explaining: Semaphore,
    /// The present connection of each host; a number tells it from an earlier one.
    hosts: Mutex<BTreeMap<NodeId, (u64, mpsc::Sender<IndexerToHost>)>>,
    reports: Assignments,
    exams: exams::Exams,
    sites: sites::Sites,
    evidence: evidence::Evidence,
    containers: containers::Containers,
    cosigns: cosigns::Cosigns,
    roots: roots::Roots,
    waiting: queue::Waiting,
    history: Arc<dyn prices::History>,
    neighbours: gossip::Neighbours,
    /// What its offers say of who makes them.
    matched: Option<Matched>,
    kept: Kept,
    shutdown: Shutdown,
    gate: Arc<Gate>,
}

impl Indexer {
    fn fleet(&self) -> std::sync::MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosts(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, (u64, mpsc::Sender<IndexerToHost>)>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts an indexer without a directory; returns the ways to it.
pub fn start(deps: Deps, shutdown: &Shutdown) -> NodeAddr {
    start_with_fleet(deps, shutdown).0
}

/// As [`start`], and returns the fleet too, to be fed by others: by a measurement, for example.
pub fn start_with_fleet(deps: Deps, shutdown: &Shutdown) -> (NodeAddr, Arc<Mutex<Fleet>>) {
    start_kept(deps, Kept::default(), shutdown)
}

/// Starts an indexer with a directory.
pub fn start_kept(deps: Deps, kept: Kept, shutdown: &Shutdown) -> (NodeAddr, Arc<Mutex<Fleet>>) {
    let addr = wire::from_net(&deps.endpoint.addr());
    let dir = deps.beats.dir().to_owned();
    let before = snapshot::read(&dir, outside::now());
    // With a database of several the next leader goes on with what this one has seen.
    let shared = kept.records.as_ref().and_then(|records| records.shared());
    let history = shared.map_or_else(|| prices::open(&dir), prices::in_directory);
    let fleet = Arc::new(Mutex::new(before.fleet));
    let evidence = evidence::Evidence::open(dir.join("evidence"), deps.settle.clone());
    let roots = roots::Roots::new(deps.settle.contracts());
    let log = snapshot::keep(dir, before.scores, &fleet, shutdown);
    let (at, settle) = (deps.neighbourhood, deps.settle.clone());
    let account = at.operator.signer(&deps.domain).ok();
    let matched = account.map(|account| Matched { indexer: deps.key.id(), account });
    let neighbours = gossip::Neighbours::new(at, deps.key.id(), deps.domain, settle);
    let indexer = Arc::new(Indexer {
        endpoint: deps.endpoint,
        key: deps.key,
        domain: deps.domain,
        fleet: Arc::clone(&fleet),
        log,
        beats: deps.beats,
        explaining: Semaphore::new(1),
        hosts: Mutex::default(),
        reports: Assignments::new(deps.settle),
        exams: exams::Exams::default(),
        sites: sites::Sites::default(),
        evidence,
        containers: containers::Containers::default(),
        cosigns: cosigns::Cosigns::default(),
        roots,
        waiting: queue::Waiting::default(),
        history,
        neighbours,
        matched,
        kept,
        shutdown: shutdown.clone(),
        gate: Gate::new(GateLimits::of(CONNECTIONS_MAX)),
    });
    indexer.beats.serve(&indexer.fleet, shutdown);
    shutdown.spawn_until_asked("expire", expire(Arc::clone(&indexer)));
    shutdown.spawn_until_asked("prices", prices::keep(Arc::clone(&indexer)));
    shutdown.spawn_until_asked("queue", queue::keep(Arc::clone(&indexer)));
    shutdown.spawn_until_asked("gossip", gossip::keep(Arc::clone(&indexer)));
    kept::start(&indexer);
    shutdown.spawn_until_asked("accept", accept(indexer));
    info!(node = %addr.node, "indexer started");
    (addr, fleet)
}

async fn expire(indexer: Arc<Indexer>) {
    loop {
        let has_more = indexer.fleet().expire(outside::now());
        tokio::time::sleep(if has_more { EXPIRE_PAUSE } else { EXPIRE_EVERY }).await;
    }
}

async fn accept(indexer: Arc<Indexer>) {
    while let Some(incoming) = indexer.endpoint.accept().await {
        let server = Arc::clone(&indexer);
        indexer.shutdown.spawn_until_asked("connection", async move {
            if let Some((connection, pass)) = server.gate.admit(incoming).await {
                serve(&server, connection, Arc::new(pass)).await;
            }
        });
    }
}

async fn serve(indexer: &Arc<Indexer>, connection: Connection, pass: Arc<Pass>) {
    let peer = NodeId::from_bytes(connection.peer());
    let mut streams = tokio::task::JoinSet::new();
    let mut is_first = true;
    let vouched = Arc::new(Mutex::default());
    while let Some((send, recv)) =
        indexer.gate.next_stream(&connection, is_first, &mut streams).await
    {
        is_first = false;
        while streams.try_join_next().is_some() {}
        let (indexer, connection) = (Arc::clone(indexer), connection.clone());
        let (pass, vouched) = (Arc::clone(&pass), Arc::clone(&vouched));
        let peer = Peer { node: peer, pass, vouched };
        streams.spawn(async move {
            let served = stream(&indexer, &peer, send, recv).await;
            if !indexer.kept.lead.is_held() {
                connection.close(0, b"another indexer leads");
            }
            if let Err(error) = served {
                debug!(%error, "a stream ended");
                if error.is_peers_fault() {
                    connection.close(3, b"malformed message");
                }
            }
        });
    }
}

/// A delegation whose signature was checked, and who gave it.
type Vouched = Option<(SignedByAccount<Delegation>, AccountId)>;

/// Who is at the other end of a connection.
struct Peer {
    node: NodeId,
    pass: Arc<Pass>,
    /// The last delegation whose signature was checked, which costs more than a match.
    vouched: Arc<Mutex<Vouched>>,
}

impl Peer {
    /// The account that vouches for this node, if one does.
    fn account(&self, domain: &Domain, given: &SignedByAccount<Delegation>) -> Option<AccountId> {
        let mut vouched = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        let now = outside::now();
        if let Some((known, account)) = &*vouched
            && known == given
        {
            return (given.message.expires >= now).then_some(*account);
        }
        let account = given.account(domain, self.node, now).ok()?;
        *vouched = Some((given.clone(), account));
        Some(account)
    }
}

async fn stream(
    indexer: &Indexer,
    peer: &Peer,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    match wire::expect(&mut recv, QUESTION_TIMEOUT).await? {
        IndexHello::Host(capability) => {
            streams::serve(indexer, peer.node, &capability, send, recv).await
        }
        IndexHello::Ask(request) => {
            let reply = answer(indexer, peer, *request).await;
            if !indexer.kept.lead.is_held() {
                return Ok(());
            }
            // Who does not read holds no answer for ever.
            let sent = tokio::time::timeout(REPLY_TIMEOUT, wire::send(&mut send, &reply)).await;
            sent.map_err(|_| WireError::Late(REPLY_TIMEOUT))??;
            let _ = send.finish();
            Ok(())
        }
        IndexHello::Wait(wait) => queue::wait(indexer, peer, *wait, send, recv).await,
    }
}

async fn answer(indexer: &Indexer, peer: &Peer, request: IndexRequest) -> IndexReply {
    match request {
        IndexRequest::Match(request) => {
            let Some(buyer) = peer.account(&indexer.domain, &request.buyer) else {
                return IndexReply::Refused("no account vouches for this node".to_owned());
            };
            if let Err(why) = peer.pass.identify(buyer) {
                return IndexReply::Refused(why.to_string());
            }
            matching::answer(indexer, buyer, &request).await
        }
        IndexRequest::Offers { needs } => {
            let now = outside::now();
            IndexReply::Listing(indexer.fleet().listing(now, needs.as_deref(), LISTED_MAX))
        }
        IndexRequest::Sheet(signed) => sheet(indexer, peer.node, signed).await,
        IndexRequest::Exam(report) => exams::answer(indexer, peer.node, &report).await,
        IndexRequest::Site(report) => sites::answer(indexer, peer.node, &report).await,
        IndexRequest::Sites => {
            let region_of = |host| indexer.fleet().region_of(host).cloned();
            IndexReply::Sites(indexer.sites.rows(LISTED_MAX, region_of))
        }
        IndexRequest::Verified => IndexReply::Verified(indexer.exams.rows(LISTED_MAX)),
        IndexRequest::Indexers => IndexReply::Indexers(Box::new(indexer.neighbours.directory())),
        IndexRequest::Gossip(gossip) => indexer.neighbours.gossip(peer.node, *gossip),
        IndexRequest::Evidence(signed) => indexer.neighbours.evidence(*signed),
        IndexRequest::Locate(node) => IndexReply::Located(indexer.fleet().locate(node)),
        IndexRequest::Prices(asked) => prices::answer(indexer, asked).await,
        IndexRequest::State(statement) => evidence::answer(indexer, peer.node, *statement).await,
        IndexRequest::Epoch(ask) => evidence::page(indexer, ask).await,
        IndexRequest::Cosign(word) => cosigns::answer(indexer, peer.node, *word).await,
        IndexRequest::Cosigns(epoch) => IndexReply::Cosigns(indexer.cosigns.of(epoch)),
        IndexRequest::RootWord(word) => roots::answer(indexer, peer.node, *word).await,
        IndexRequest::RootWords(number) => IndexReply::RootWords(indexer.roots.of(number)),
        IndexRequest::Containers(ask) => containers::page(indexer, ask).await,
        IndexRequest::Words(hosts) => containers::words(indexer, hosts).await,
        IndexRequest::Host(node) => {
            IndexReply::Listing(indexer.fleet().listed_of(outside::now(), node))
        }
    }
}

/// Takes a checker's sheet where it was assigned to all of it.
async fn sheet(indexer: &Indexer, peer: NodeId, signed: Box<Signed<Sheet>>) -> IndexReply {
    let sheet = match signed.open_by(&indexer.domain, peer) {
        Ok(sheet) => sheet,
        Err(error) => return IndexReply::Refused(crate::chain(&error)),
    };
    if sheet.checker != peer {
        return IndexReply::Refused("the sheet names another checker".to_owned());
    }
    if !sheet.is_sound() {
        let why = "the sheet has no containers, too many, or one that can't be there or stands there \
                   twice";
        return IndexReply::Refused(why.to_owned());
    }
    let reports: Vec<_> = sheet.reports().collect();
    let authors = match indexer.reports.check_sheet(&sheet, &reports).await {
        Ok(authors) => authors,
        Err(why) => return IndexReply::Refused(why),
    };
    let is_listed =
        |report: &Report| indexer.fleet().has_listed(outside::now(), report.host, report.container);
    // Hosts that have been silent for a while, or were never here.
    let unlisted: Vec<_> = (0..).zip(&reports).filter(|(_, report)| !is_listed(report)).collect();
    let reply = evidence::found(indexer, signed, &sheet, authors, &unlisted).await;
    // What is refused as evidence moves no score either.
    if matches!(reply, IndexReply::Reported | IndexReply::NotKept { .. }) {
        for report in &reports {
            // What is sent again, or is more than counts of one container, moves none.
            let _ = indexer.fleet().report(outside::now(), report);
        }
    }
    reply
}
