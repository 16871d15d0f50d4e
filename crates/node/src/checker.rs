//! The checker: asks the containers it was assigned whether they are there, once a minute.
//!
//! Whom it checks when, it draws from the epoch's seed with a key of its own (`welkin-check`); this role
//! carries the machine's probes to hosts and its signed sheets to indexers.

mod cosign;
mod desk;
mod evidence;
mod exam;
mod exams;
mod lists;
mod mystery;
mod probe;
mod residency;
mod roots;
mod site;
mod sites;
mod unheard;
mod walk;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use welkin_check::sortition::{Lot, VrfKey};
use welkin_check::{Checker, Config as MindConfig, Input, Output, Sheets};
use welkin_net::Endpoint;
use welkin_proto::epoch::{Roll, Statement};
use welkin_proto::exam::ExamReport;
use welkin_proto::index::{IndexHello, IndexRequest};
use welkin_proto::settle::SettleRefusal;
use welkin_proto::{
    ALPN_INDEX, Delegation, Domain, NodeAddr, NodeKey, Signable, Signed, SignedByAccount, Turn,
    TurnProof,
};
use welkin_types::{NodeId, Region, UnixMillis};

pub use exam::{ExamError, Target, Who, Window, examine, examine_all};
pub use mystery::{MysteryBounds, MysteryConfig, MysteryDeps};
pub use residency::{Pace, look};
pub use roots::{Concern, CountedClaims, PageError, RootsDeps, RootsReason, RootsStatus};
pub use site::measure;
pub use unheard::{Matter, RefusedBy};

use desk::{Desk, Sign, deliver};
use lists::Lists;
use probe::{Finder, Probed, Prober};
use unheard::Unheard;

use crate::connect::Caller;
use crate::epoch::roll_again;
use crate::settlement::{Settle, SettlementError};
use crate::{Shutdown, outside};

/// Checkers that look at one container in one minute.
pub const COMMITTEE: usize = welkin_proto::epoch::COMMITTEE as usize;
/// How often a page of each list of containers is fetched.
const LISTING_EVERY: Duration = Duration::from_secs(10);
/// How long a question to an indexer may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an epoch's seed and list are asked for that are not shown yet.
const EPOCH_EVERY: Duration = Duration::from_secs(1);
/// How often two indexers are looked at, where nothing else is said.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The pause before it is said again for whom this checker takes part, where not all have heard it; it
/// doubles up to the longest.
const ENROL_PAUSE: Duration = Duration::from_secs(5);
const ENROL_PAUSE_MAX: Duration = Duration::from_secs(60);
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
    /// It settles each epoch that it was listed in, and signs what came out, where an indexer
    /// has no more MiB of evidence than this; 0: never.
    pub cosign_mib_max: usize,
    /// It keeps the book of all epochs, and where its account is a member of the committee, signs each
    /// epoch's root for the settlement contract, proposes it in its turn, and makes it count.
    pub roots: bool,
    /// Sessions that it has as an ordinary buyer.
    pub mystery: MysteryConfig,
    /// The city where it stands, as `kr-seoul`: then its round trips tell where hosts can't be. Empty
    /// if it does not say.
    pub region: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            exam_percent: 5,
            cosign_mib_max: 128,
            roots: true,
            mystery: MysteryConfig::default(),
            region: String::new(),
        }
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
    /// With which it draws when it comes, and proves it.
    pub vrf: VrfKey,
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
    /// An epoch is settled and signed where an indexer has no more MiB of its evidence; 0: never.
    pub cosign_mib_max: usize,
    /// The book of epochs and the roots that are brought to the contract, if it does that.
    pub roots: Option<RootsDeps>,
    /// Sessions that it has as an ordinary buyer, if it has any.
    pub mystery: Option<MysteryDeps>,
    /// Where it stands, if it says so.
    pub region: Option<Region>,
}

/// Runs a checker until it is asked to stop.
pub fn start(mut deps: Deps, shutdown: &Shutdown) {
    let (mystery, roots) = (deps.mystery.take(), deps.roots.take());
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
    let (deps, unheard) = (Arc::new(deps), Unheard::default());
    if let Some(mystery) = mystery {
        let told = unheard.clone();
        let sessions = mystery::run(Arc::clone(&deps), mystery, told, shutdown.clone());
        shutdown.spawn_until_asked("mystery", sessions);
    }
    let witness = witness::Witness::new(Arc::clone(&deps));
    shutdown.spawn_until_asked("witness", witness.run());
    let indexers = Arc::new(indexers);
    if deps.cosign_mib_max > 0 {
        let cosigning = cosign::run(Arc::clone(&deps), Arc::clone(&indexers), unheard.clone());
        shutdown.spawn_until_asked("cosign", cosigning);
    }
    if let Some(roots) = roots.filter(|_| deps.cosign_mib_max > 0) {
        let indexers = Arc::clone(&indexers);
        let bringing = roots::run(Arc::clone(&deps), roots, indexers, unheard.clone());
        shutdown.spawn_until_asked("roots", bringing);
    }
    let (endpoint, domain) = (deps.endpoint.clone(), deps.domain);
    let lists = Lists::new(domain, deps.delegation.signer(&domain).ok());
    let finder = Finder::new(Arc::clone(&indexers), lists.clone());
    let prober = Prober { endpoint: endpoint.clone(), domain, checker: node, finder };
    let signing = Arc::clone(&deps);
    let sign: Sign = Arc::new(move |sheet| Signed::sign(&signing.domain, &signing.key, sheet).ok());
    let who = Who { endpoint, domain, checker: node, turn: None };
    let role = Role {
        sites: sites::Sites::new(who.clone(), deps.exam_percent, deps.region.clone()),
        exams: exams::Exams::new(who, deps.exam_percent),
        deps,
        mind,
        walk: walk::Walk::new(Arc::clone(&indexers), lists),
        desk: Desk::start(&indexers, &sign, &unheard, shutdown),
        unheard,
        sheets: Sheets::new(node),
        indexers,
        prober: Arc::new(prober),
        probes: JoinSet::new(),
        enrolled: Enrolled::new(),
    };
    shutdown.spawn_until_asked("checker", role.run());
}

struct Role {
    deps: Arc<Deps>,
    mind: Checker,
    indexers: Arc<Vec<Caller>>,
    /// What was found, and whose host was found elsewhere than it was listed.
    probes: JoinSet<(Input, Option<NodeId>)>,
    prober: Arc<Prober>,
    /// What was found in minutes that are not over.
    sheets: Sheets,
    desk: Desk,
    unheard: Unheard,
    walk: walk::Walk,
    exams: exams::Exams,
    sites: sites::Sites,
    enrolled: Enrolled,
}

/// Whether this checker has said that it takes part.
#[derive(Debug)]
struct Enrolled {
    epoch_seconds: Option<u64>,
    /// The epoch of the roll, which is signed once in it.
    roll: Option<(u64, IndexHello)>,
    /// Whether all indexers took it.
    under_way: JoinSet<bool>,
    due: Instant,
    pause: Duration,
}

impl Enrolled {
    fn new() -> Self {
        let (under_way, due) = (JoinSet::new(), Instant::now());
        Self { epoch_seconds: None, roll: None, under_way, due, pause: ENROL_PAUSE }
    }
}

impl Role {
    async fn run(mut self) {
        while let Err(error) = self.deps.settle.register_checker(self.deps.vrf.public().0).await {
            if matches!(error, SettlementError::Refused(SettleRefusal::NotAllowed)) {
                error!(
                    "this node registered as a checker with another vrf.key: put that file back"
                );
            }
            warn!(error = %crate::chain(&error), "not registered yet");
            tokio::time::sleep(REGISTER_PAUSE).await;
        }
        info!(node = %self.deps.key.id(), "checker started");
        let mut enrol_at = Instant::now();
        let mut epoch_at = enrol_at;
        loop {
            if Instant::now() >= epoch_at {
                epoch_at = Instant::now() + EPOCH_EVERY;
                self.learn_epoch().await;
            }
            if Instant::now() >= enrol_at {
                enrol_at = Instant::now() + LISTING_EVERY;
                self.enrol();
            }
            self.walk.go_on();
            self.draw();
            let wake = self.drain();
            let wait = wake.since(outside::now()).min(LISTING_EVERY);
            let input = tokio::select! {
                Some(Ok((input, moved))) = self.probes.join_next() => {
                    moved.into_iter().for_each(|host| self.walk.ask_about(host));
                    input
                }
                (rows, is_answer) = self.walk.next() => {
                    let evasive = self.exams.list(&rows, is_answer);
                    evasive.iter().for_each(|report| self.report_exam(report));
                    Input::Listings(rows)
                }
                report = self.exams.next() => {
                    report.into_iter().for_each(|report| self.report_exam(&report));
                    self.exams.doubted().into_iter().for_each(|host| self.walk.ask_about(host));
                    Input::Tick
                }
                report = self.sites.next() => {
                    report.into_iter().for_each(|report| self.send(&report, IndexRequest::Site));
                    Input::Tick
                }
                () = tokio::time::sleep(wait) => Input::Tick,
                () = tokio::time::sleep_until(enrol_at.min(epoch_at)) => Input::Tick,
            };
            self.mind.handle(outside::now(), input);
        }
    }

    /// Fetches the present epoch, if it is not here.
    async fn learn_epoch(&mut self) {
        let length = match self.enrolled.epoch_seconds {
            Some(length) => length,
            // Long over: what all have in common.
            None => match self.deps.settle.epoch(0).await {
                Ok(view) => view.epoch_seconds.max(1),
                Err(error) => {
                    warn!(error = %crate::chain(&error), "the length of an epoch is not known yet");
                    return;
                }
            },
        };
        self.enrolled.epoch_seconds = Some(length);
        let Some(epoch) = self.mind.epoch_wanted(outside::now(), length) else { return };
        match self.deps.settle.epoch(epoch).await {
            Ok(view) => {
                if outside::now().0 / 1_000 / length == view.epoch {
                    self.exams.on_epoch(view.epoch);
                }
                self.mind.handle(outside::now(), Input::Epoch(view));
                self.drain();
            }
            Err(error) => debug!(error = %crate::chain(&error), epoch, "no seed of this epoch yet"),
        }
    }

    /// Draws for the present minute, if that is not done: whom it visits in it, and at which second.
    fn draw(&mut self) {
        let now = outside::now();
        let Some((minute, ticket, listed)) = self.mind.ticket_wanted(now) else { return };
        // A proof by another key than the listed one shows nothing to anybody.
        if listed != self.deps.vrf.public() {
            return;
        }
        let (proof, output) = self.deps.vrf.prove(&ticket, outside::random());
        let turn = Turn { minute, proof: TurnProof::from_bytes(&proof.0) };
        self.mind.handle(now, Input::Drawn { turn, lot: Lot::new(output) });
    }

    /// Says to indexers for which account this checker takes part in the epoch, until all have taken
    /// it; in long epochs again, for those that have come anew.
    fn enrol(&mut self) {
        let Some(epoch_seconds) = self.enrolled.epoch_seconds else { return };
        let (now, epoch) = (Instant::now(), outside::now().0 / 1_000 / epoch_seconds);
        if self.enrolled.roll.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let (account, issued) = (self.deps.delegation.clone(), outside::now());
            let roll = Roll { epoch, issued, account, containers: Vec::new(), region: None };
            let Ok(signed) = Signed::sign(&self.deps.domain, &self.deps.key, &roll) else { return };
            let statement = Box::new(Statement::Roll(Box::new(signed)));
            let hello = IndexHello::Ask(Box::new(IndexRequest::State(statement)));
            self.enrolled.roll = Some((epoch, hello));
            self.enrolled.under_way.abort_all();
            (self.enrolled.due, self.enrolled.pause) = (now, ENROL_PAUSE);
        }
        while let Some(taken) = self.enrolled.under_way.try_join_next() {
            if taken.is_ok_and(|is_taken| is_taken) {
                self.enrolled.due = now + roll_again(epoch_seconds);
            }
        }
        let hello = self.enrolled.roll.as_ref().map(|(_, hello)| hello.clone());
        if let Some(hello) = hello.filter(|_| now >= self.enrolled.due)
            && self.enrolled.under_way.is_empty()
        {
            self.enrolled.due = now + self.enrolled.pause;
            self.enrolled.pause = (self.enrolled.pause * 2).min(ENROL_PAUSE_MAX);
            let telling = deliver(Arc::clone(&self.indexers), hello, self.unheard.clone());
            self.enrolled.under_way.spawn(telling);
        }
    }

    fn drain(&mut self) -> UnixMillis {
        loop {
            match self.mind.poll() {
                Output::Idle { wake_at } => {
                    let over = self.sheets.take(|minute| self.mind.is_over(minute));
                    over.iter().for_each(|sheet| self.send(sheet, IndexRequest::Sheet));
                    return wake_at;
                }
                Output::Report(report) => self.sheets.put(&report),
                Output::Probe { addr, container, minute, deadline, turn, is_silent } => {
                    let prober = Arc::clone(&self.prober);
                    let host = addr.node;
                    // Who stands in is expected: a challenge is for those that are not, and for hosts that
                    // are there.
                    if turn.is_some() && !is_silent {
                        self.exams.begin(host, container, minute, turn);
                        if let Some(target) = self.exams.target(host, container) {
                            self.sites.begin(target, minute, turn);
                        }
                    }
                    self.probes.spawn(async move {
                        let Probed { finding, has_moved } =
                            prober.probe(addr, container, minute, deadline).await;
                        let done = Input::ProbeDone { host, container, minute, finding };
                        (done, Some(host).filter(|_| has_moved))
                    });
                }
            }
        }
    }

    fn report_exam(&self, report: &ExamReport) {
        self.send(report, IndexRequest::Exam);
    }

    /// Sends a report, aside: a slow indexer must not make other probes late.
    fn send<T: Signable>(&self, report: &T, request: impl FnOnce(Box<Signed<T>>) -> IndexRequest) {
        match Signed::sign(&self.deps.domain, &self.deps.key, report) {
            Ok(signed) => self.desk.send(IndexHello::Ask(Box::new(request(Box::new(signed))))),
            Err(error) => warn!(%error, "a report can't be signed"),
        }
    }
}

/// What a checker's transport answers to: nothing.
pub const ALPNS: [&[u8]; 0] = [];
