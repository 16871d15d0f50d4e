//! The checker: asks the containers it was assigned whether they are there, once a minute.
//!
//! Who checks whom when follows from the epoch's public seed (`welkin-check`); this role carries
//! the machine's probes to hosts and its signed reports to indexers.

mod exam;
mod exams;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use welkin_check::{Checker, Config as MindConfig, Input, Output};
use welkin_net::Endpoint;
use welkin_proto::check::{Finding, Probe, ProbeReply, Report};
use welkin_proto::epoch::{Roll, Statement};
use welkin_proto::exam::ExamReport;
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{
    ALPN_CHECK, ALPN_INDEX, Delegation, Domain, NodeAddr, NodeKey, Signable, Signed,
    SignedByAccount,
};
use welkin_types::{ContainerId, UnixMillis};

pub use exam::{ExamError, Target, Who, examine};

use crate::connect::Caller;
use crate::settlement::Settle;
use crate::{Shutdown, outside};

/// Checkers that look at one container in one minute.
pub const COMMITTEE: usize = 3;
/// How often the list of containers is fetched.
const LISTING_EVERY: Duration = Duration::from_secs(10);
/// How long a question to an indexer may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// The length of an epoch until the settlement service has told it.
const EPOCH_SECONDS_GUESS: u64 = 60;
/// The most reports on their way.
const REPORTS_MAX: usize = 1_024;
/// How often two indexers are looked at, where nothing else is said.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// It is said so often in an epoch for whom this checker takes part, as one may get lost.
const ENROLMENTS: u32 = 3;
/// Pause before a failed registration is tried again.
const REGISTER_PAUSE: Duration = Duration::from_secs(2);

/// A checker's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it sends from; port 0 takes a free one.
    pub listen: String,
    /// Of a hundred probes of a container so many come with a challenge of its hardware, at most 100.
    pub exam_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:0".to_owned(), exam_percent: 5 }
    }
}

/// What a checker needs from outside.
#[derive(Debug)]
pub struct Deps {
    /// The transport.
    pub endpoint: Endpoint,
    /// Its key, the same as the endpoint's.
    pub key: NodeKey,
    /// Where signatures hold.
    pub domain: Domain,
    /// The settlement service.
    pub settle: Settle,
    /// The region's indexers.
    pub indexers: Vec<NodeAddr>,
    /// The account's permission for this checker: what it says of indexers is said in that name.
    pub delegation: SignedByAccount<Delegation>,
    /// How often two indexers are looked at: [`LOOK_EVERY`], or more often in a test.
    pub look_every: Duration,
    /// Of a hundred probes so many come with a challenge.
    pub exam_percent: u8,
}

/// Runs a checker until it is asked to stop.
pub fn start(deps: Deps, shutdown: &Shutdown) {
    let node = deps.key.id();
    let mind = Checker::new(node, MindConfig { committee: COMMITTEE, ..MindConfig::default() });
    let indexers = deps
        .indexers
        .iter()
        .map(|addr| Caller::new(deps.endpoint.clone(), addr.clone(), ALPN_INDEX))
        .collect::<Vec<_>>();
    // It answers to nobody, and says so instead of letting those who knock pile up.
    let endpoint = deps.endpoint.clone();
    shutdown.spawn_until_asked("refuse", async move {
        while let Some(incoming) = endpoint.accept().await {
            incoming.refuse();
        }
    });
    let deps = Arc::new(deps);
    let witness = witness::Witness::new(Arc::clone(&deps));
    shutdown.spawn_until_asked("witness", witness.run());
    let who = Who { endpoint: deps.endpoint.clone(), domain: deps.domain, checker: node };
    let role = Role {
        exams: exams::Exams::new(who, deps.exam_percent),
        deps,
        mind,
        indexers: Arc::new(indexers),
        probes: JoinSet::new(),
        reports: JoinSet::new(),
        enrolled: Enrolled::default(),
    };
    shutdown.spawn_until_asked("checker", role.run());
}

struct Role {
    deps: Arc<Deps>,
    mind: Checker,
    indexers: Arc<Vec<Caller>>,
    probes: JoinSet<Input>,
    reports: JoinSet<()>,
    exams: exams::Exams,
    enrolled: Enrolled,
}

/// How often this checker has said that it takes part.
#[derive(Debug, Default)]
struct Enrolled {
    epoch_seconds: Option<u64>,
    epoch: u64,
    times: u32,
}

impl Role {
    async fn run(mut self) {
        while let Err(error) = self.deps.settle.register_checker().await {
            warn!(error = %crate::chain(&error), "not registered yet");
            tokio::time::sleep(REGISTER_PAUSE).await;
        }
        info!(node = %self.deps.key.id(), "checker started");
        let mut listing_at = Instant::now();
        loop {
            if Instant::now() >= listing_at {
                listing_at = Instant::now() + LISTING_EVERY;
                self.refresh().await;
            }
            let wake = self.drain();
            let wait = wake.since(outside::now()).min(LISTING_EVERY);
            let input = tokio::select! {
                Some(Ok(input)) = self.probes.join_next() => input,
                report = self.exams.next() => {
                    report.into_iter().for_each(|report| self.report_exam(&report));
                    Input::Tick
                }
                () = tokio::time::sleep(wait) => Input::Tick,
                () = tokio::time::sleep_until(listing_at) => Input::Tick,
            };
            self.mind.handle(outside::now(), input);
        }
    }

    /// Fetches the epoch that is missing and the containers that there are.
    async fn refresh(&mut self) {
        // By a wrong guess another epoch is asked for first, which tells the length of all.
        for _ in 0..2 {
            let length = self.enrolled.epoch_seconds.unwrap_or(EPOCH_SECONDS_GUESS);
            let Some(epoch) = self.mind.epoch_wanted(outside::now(), length) else { break };
            match self.deps.settle.epoch(epoch).await {
                Ok(view) => {
                    let seconds = view.epoch_seconds.max(1);
                    self.enrolled.epoch_seconds = Some(seconds);
                    if outside::now().0 / 1_000 / seconds == view.epoch {
                        self.exams.on_epoch(view.epoch);
                    }
                    self.mind.handle(outside::now(), Input::Epoch(view));
                    self.drain();
                }
                Err(error) => warn!(error = %crate::chain(&error), "no seed for this epoch yet"),
            }
        }
        self.enrol();
        let hello = IndexHello::Ask(Box::new(IndexRequest::Offers { needs: None }));
        let mut listings = Vec::new();
        for indexer in self.indexers.iter() {
            match indexer.ask(&hello, ASK_TIMEOUT).await {
                Ok(IndexReply::Listing(rows)) => listings.extend(rows),
                Ok(_) => debug!("an indexer gave no listing"),
                Err(error) => debug!(error = %crate::chain(&error), "an indexer was not reached"),
            }
        }
        self.exams.list(&listings);
        self.mind.handle(outside::now(), Input::Listings(listings));
    }

    /// Says to indexers for which account this checker takes part in the epoch.
    fn enrol(&mut self) {
        let Some(epoch_seconds) = self.enrolled.epoch_seconds else { return };
        let epoch = outside::now().0 / 1_000 / epoch_seconds;
        if epoch != self.enrolled.epoch {
            (self.enrolled.epoch, self.enrolled.times) = (epoch, 0);
        }
        if self.enrolled.times < ENROLMENTS {
            self.enrolled.times += 1;
            let (account, containers) = (self.deps.delegation.clone(), Vec::new());
            self.send(&Roll { epoch, account, containers }, |signed| {
                IndexRequest::State(Box::new(Statement::Roll(signed)))
            });
        }
    }

    fn drain(&mut self) -> UnixMillis {
        loop {
            match self.mind.poll() {
                Output::Idle { wake_at } => return wake_at,
                Output::Report(report) => self.report(report),
                Output::Probe { addr, container, minute, deadline } => {
                    let deps = Arc::clone(&self.deps);
                    let host = addr.node;
                    self.exams.begin(host, container, minute);
                    self.probes.spawn(async move {
                        let finding = probe(&deps, addr, container, minute, deadline).await;
                        Input::ProbeDone { host, container, minute, finding }
                    });
                }
            }
        }
    }

    fn report(&mut self, report: Report) {
        self.send(&report, IndexRequest::Report);
    }

    fn report_exam(&mut self, report: &ExamReport) {
        self.send(report, IndexRequest::Exam);
    }

    /// Sends a report, aside: a slow indexer must not make other probes late.
    fn send<T: Signable>(
        &mut self,
        report: &T,
        request: impl FnOnce(Box<Signed<T>>) -> IndexRequest,
    ) {
        while self.reports.try_join_next().is_some() {}
        if self.reports.len() >= REPORTS_MAX {
            warn!("indexers are too slow: a report is dropped");
            return;
        }
        let signed = match Signed::sign(&self.deps.domain, &self.deps.key, report) {
            Ok(signed) => signed,
            Err(error) => {
                warn!(%error, "a report can't be signed");
                return;
            }
        };
        let hello = IndexHello::Ask(Box::new(request(Box::new(signed))));
        self.reports.spawn(deliver(Arc::clone(&self.indexers), hello));
    }
}

async fn deliver(indexers: Arc<Vec<Caller>>, hello: IndexHello) {
    for indexer in indexers.iter() {
        match indexer.ask(&hello, ASK_TIMEOUT).await {
            Ok(IndexReply::Reported) => debug!("reported"),
            Ok(IndexReply::Refused(why)) => debug!(why, "a report is refused"),
            Ok(_) => debug!("a report got no answer"),
            Err(error) => debug!(error = %crate::chain(&error), "a report was not delivered"),
        }
    }
}

async fn probe(
    deps: &Deps,
    addr: NodeAddr,
    container: ContainerId,
    minute: u64,
    deadline: UnixMillis,
) -> Finding {
    let within = deadline.since(outside::now());
    let asked = tokio::time::timeout(within, ask(deps, addr, container, minute, within));
    asked.await.unwrap_or(Finding::Unreachable)
}

async fn ask(
    deps: &Deps,
    addr: NodeAddr,
    container: ContainerId,
    minute: u64,
    within: Duration,
) -> Finding {
    let host = addr.node;
    let caller = Caller::new(deps.endpoint.clone(), addr, ALPN_CHECK);
    // The connection is made first: the round trip is that of the question alone.
    let Ok(connection) = caller.connection().await else { return Finding::Unreachable };
    let nonce = outside::random();
    let sent = Instant::now();
    let reply: Result<Signed<ProbeReply>, _> = caller.ask(&Probe { nonce, minute }, within).await;
    let rtt = sent.elapsed();
    connection.close(0, b"done");
    let reply = match reply {
        Ok(reply) => reply,
        Err(crate::CallError::Wire(error)) if error.is_peers_fault() => {
            return Finding::Malformed;
        }
        Err(_) => return Finding::Unreachable,
    };
    match reply.open_by(&deps.domain, host) {
        Ok(reply) if reply.nonce != nonce || reply.checker != deps.key.id() => Finding::Malformed,
        Ok(reply) if reply.free.iter().any(|(listed, _)| *listed == container) => {
            Finding::Online { rtt_us: u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX) }
        }
        Ok(_) => Finding::NotListed,
        Err(_) => Finding::Malformed,
    }
}

/// What a checker's transport answers to: nothing.
pub const ALPNS: [&[u8]; 0] = [];
