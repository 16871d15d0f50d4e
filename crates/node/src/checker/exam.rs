//! Challenges of hardware: one container, all its devices at once, by this side's clock.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;
use welkin_check::challenge::{
    ClassTable, Cost, Device, ExamInput, ExamOutput, Examiner, ExaminerConfig, Fraud, MatchedClass,
    Opening, Outcome, Secret, Shape, device_bytes, opened_rows, standard_work,
};
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_proto::exam::{
    ExamAsk, ExamCommitment, ExamRefusal, ExamReply, ExamReport, ExamRows, ExamWork, OpenedRow,
    Verdict,
};
use welkin_proto::index::Listing;
use welkin_proto::{ALPN_EXAM, Domain, NodeAddr, Signed, Turn, TurnProof};
use welkin_types::{Class, ContainerId, NodeId, Resources};

use crate::connect::Caller;
use crate::wire::{self, WireError};
use crate::{CallError, outside};

/// How long dialling and pinging may take.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// Round trips that are measured; the least counts.
const PINGS: u32 = 4;
/// The least time that work may take, for what is not work: scheduling, a first allocation.
const LIMIT_US_LEAST: u64 = 1_000_000;
/// How long an examination may take in all: a host that goes silent does not hold a checker up.
const EXAM_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take until all streams are open on which the work is handed over.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(5);
/// The most devices of a container that are challenged: as many streams as a host serves at once.
const DEVICES_MAX: u32 = 16;
/// The most devices of a window with others in it, so that pings find room beside them.
const WINDOW_DEVICES_MAX: u32 = 12;
/// The longest path of an opened row: n is below 2^17.
const PATH_MAX: usize = 17;

/// What is to be examined.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host and the ways to it.
    pub addr: NodeAddr,
    /// The container.
    pub container: ContainerId,
    /// The claimed class.
    pub class: Class,
    /// What one lease of it gets.
    pub resources: Resources,
}

impl Target {
    /// A row of the market.
    pub fn of(listing: &Listing) -> Self {
        Self {
            addr: listing.addr.clone(),
            container: listing.container.id,
            class: listing.container.class.clone(),
            resources: listing.container.resources.clone(),
        }
    }

    /// How many of its devices are challenged.
    pub(super) fn devices(&self) -> u32 {
        let count = u32::try_from(self.resources.gpus.len());
        count.unwrap_or(u32::MAX).clamp(1, DEVICES_MAX)
    }

    /// What each of its devices has to do.
    fn shape(&self) -> Option<Shape> {
        standard_work(&self.resources)
    }

    /// The memory of each of its devices.
    fn memory_mib(&self) -> u64 {
        device_bytes(&self.resources) >> 20
    }
}

/// Those that are challenged together with a container: of its class, with the same work, so that its rows
/// are as many, and no more of them than a host serves at once.
pub(super) fn fitting(target: &Target, beside: &[Target]) -> Vec<Target> {
    let (mut devices, shape) = (target.devices(), target.shape());
    let fits = |other: &&Target| {
        let is_like = other.class == target.class && other.shape() == shape;
        let count = other.devices();
        let has_room = is_like && devices + count <= WINDOW_DEVICES_MAX;
        devices += if has_room { count } else { 0 };
        has_room
    };
    beside.iter().filter(fits).cloned().collect()
}

/// Who examines.
#[derive(Clone, Debug)]
pub struct Who {
    /// The transport.
    pub endpoint: Endpoint,
    /// Where signatures hold.
    pub domain: Domain,
    /// The checker.
    pub checker: NodeId,
    /// What it has drawn for the minute, where there are more checkers than a committee: hosts take
    /// nothing from it without that.
    pub turn: Option<Turn>,
}

impl Who {
    /// What shows in a report of a minute that it was to come.
    pub(super) fn proof(&self, minute: u64) -> Option<TurnProof> {
        self.turn.filter(|turn| turn.minute == minute).map(|turn| turn.proof)
    }
}

/// Why there is no finding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamError {
    /// The host was not reached, or does not answer pings: that is not for this report.
    #[error("the host was not reached")]
    Unreachable(#[source] CallError),
    /// The host has a good reason, such as an order.
    #[error("the host could not now: {0}")]
    NotNow(ExamRefusal),
    /// This side was too slow, or the container too small.
    #[error("the challenge could not be made")]
    Void,
}

/// What a window of one or more containers came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The finding about the container to which the checker is assigned.
    pub report: ExamReport,
    /// Whether all others that could took part and proved their class, too.
    pub is_whole: bool,
    /// The rate of the slowest device of all: 0 where one had none.
    pub slowest: u64,
    /// Which of the others refused with a fair word, and with which.
    pub refusals: Vec<(ContainerId, ExamRefusal)>,
}

/// Examines a container. Returns the finding, for a report.
///
/// # Errors
///
/// [`ExamError`] where nothing can be said of the hardware.
pub async fn examine(
    who: &Who,
    target: &Target,
    minute: u64,
    table: &ClassTable,
) -> Result<ExamReport, ExamError> {
    examine_all(who, target, &[], minute, table).await.map(|window| window.report)
}

/// Examines a container and others of its host and class, all devices at once, so that none of them
/// works for two. Who has a lease is excused.
///
/// # Errors
///
/// [`ExamError`] where nothing can be said of the hardware.
pub async fn examine_all(
    who: &Who,
    target: &Target,
    beside: &[Target],
    minute: u64,
    table: &ClassTable,
) -> Result<Window, ExamError> {
    let host = target.addr.node;
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let (connection, way) = reach(who, &caller).await.map_err(ExamError::Unreachable)?;
    let shape = target.shape().ok_or(ExamError::Void)?;
    let limit_us = table.limit_us(&target.class, shape.macs()).ok_or(ExamError::Void)?;
    let limit_us = limit_us.max(LIMIT_US_LEAST);
    let beside = fitting(target, beside);
    let all = std::iter::once(target).chain(&beside);
    let device =
        |of: &Target, index| Device { host, container: of.container, index, shape, limit_us };
    let devices: Vec<_> =
        all.flat_map(|of| (0..of.devices()).map(move |index| device(of, index))).collect();
    let config = ExaminerConfig { rows: opened_rows(shape), ..ExaminerConfig::default() };
    let secret = Secret::new(outside::random());
    let examiner = Examiner::new(config, outside::random(), secret, devices.clone());
    let mut exam = Exam {
        who,
        target,
        minute,
        shape,
        connection: connection.clone(),
        began: Instant::now(),
        streams: Vec::new(),
        outcomes: devices.iter().map(|_| None).collect(),
        devices,
        refused: None,
        refusals: Vec::new(),
        is_gone: false,
        signed: None,
        heard: JoinSet::new(),
    };
    if tokio::time::timeout(EXAM_TIMEOUT, exam.run(examiner, way)).await.is_err() {
        exam.is_gone = true;
    }
    connection.close(0, b"done");
    exam.finding(table)
}

/// Connects, shows what was drawn, and measures the way: the least round trip, in microseconds.
pub(super) async fn reach(who: &Who, caller: &Caller) -> Result<(Connection, u64), CallError> {
    let late = |_| CallError::Wire(WireError::Late(REACH_TIMEOUT));
    let reached = async {
        let connection = caller.connection().await?;
        if let Some(turn) = who.turn {
            show(&connection, turn).await?;
        }
        let mut least = u64::MAX;
        for _ in 0..PINGS {
            let nonce = outside::random();
            let (mut send, mut recv) = connection.open().await.map_err(CallError::Lost)?;
            let sent = Instant::now();
            wire::send(&mut send, &ExamAsk::Ping(nonce)).await.map_err(CallError::Wire)?;
            let _ = send.finish();
            let reply = wire::expect::<ExamReply>(&mut recv, REACH_TIMEOUT).await;
            let reply = reply.map_err(CallError::Wire)?;
            if reply == ExamReply::Pong(nonce) {
                least = least.min(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
        }
        Ok((connection, least))
    };
    tokio::time::timeout(REACH_TIMEOUT, reached).await.map_err(late)?
}

/// Shows what was drawn. What the host thinks of it, it says when it is asked for work.
async fn show(connection: &Connection, turn: Turn) -> Result<(), CallError> {
    let (mut send, mut recv) = connection.open().await.map_err(CallError::Lost)?;
    wire::send(&mut send, &ExamAsk::Turn(turn)).await.map_err(CallError::Wire)?;
    let _ = send.finish();
    let said = wire::expect::<ExamReply>(&mut recv, REACH_TIMEOUT).await;
    said.map(|_| ()).map_err(CallError::Wire)
}

/// One stream of the connection.
struct Stream {
    send: SendStream,
    recv: RecvStream,
}

/// What came of something that was waited for.
enum Heard {
    Committed(usize, Stream, Box<Signed<ExamCommitment>>),
    Opened(usize, Vec<Vec<Opening>>),
    Refused(usize, ExamRefusal),
    Verified(usize, Result<Cost, Fraud>),
    /// It ended in the middle, or said what belongs to nothing: nothing more will come.
    Gone(usize),
}

/// How a device ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    With(Outcome),
    /// It was refused, or broke off: no more is to be waited for.
    Early {
        is_excused: bool,
    },
}

struct Exam<'a> {
    who: &'a Who,
    target: &'a Target,
    minute: u64,
    shape: Shape,
    connection: Connection,
    began: Instant,
    /// Those of the container first.
    devices: Vec<Device>,
    /// By device, while nothing is awaited on it.
    streams: Vec<Option<Stream>>,
    outcomes: Vec<Option<Ended>>,
    refused: Option<ExamRefusal>,
    /// Those of other containers, once each.
    refusals: Vec<(ContainerId, ExamRefusal)>,
    is_gone: bool,
    /// What the host signed last.
    signed: Option<Box<Signed<ExamCommitment>>>,
    heard: JoinSet<Heard>,
}

impl Exam<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn run(&mut self, mut examiner: Examiner, way: u64) {
        let host = self.target.addr.node;
        examiner.handle(self.now(), ExamInput::RoundTrip { host, us: way });
        // A host that lets no streams be opened would choose whose work begins, and when.
        let opened = tokio::time::timeout(STREAMS_TIMEOUT, self.open_streams()).await;
        self.is_gone |= !opened.unwrap_or(false);
        while self.refused.is_none() && !self.is_gone {
            match examiner.poll() {
                ExamOutput::Assign { device, seed, shape } => {
                    if let Some(at) = self.assign(device, seed, shape) {
                        examiner.handle(at, ExamInput::Sent { device });
                    }
                }
                ExamOutput::Open { device, rows } => self.ask_rows(device, rows),
                ExamOutput::Verify { device, examination } => {
                    self.heard.spawn(async move {
                        let run = tokio::task::spawn_blocking(move || examination.run());
                        run.await.map_or(Heard::Gone(device), |done| Heard::Verified(device, done))
                    });
                }
                ExamOutput::Done { device, outcome } => {
                    self.end(device, Ended::With(outcome));
                }
                // What is still awaited then is of devices that were too late.
                ExamOutput::Idle { .. } if self.outcomes.iter().all(Option::is_some) => return,
                ExamOutput::Idle { wake_at } => {
                    let is_verifying = !self.heard.is_empty();
                    if wake_at.is_none() && !is_verifying {
                        return;
                    }
                    let at = wake_at.map_or(u64::MAX, |(at, _)| at);
                    let wait = Duration::from_micros(at.saturating_sub(self.now()));
                    let input = tokio::select! {
                        Some(Ok(heard)) = self.heard.join_next() => self.hear(heard),
                        () = tokio::time::sleep(wait.min(REACH_TIMEOUT)) => ExamInput::Tick,
                    };
                    examiner.handle(self.now(), input);
                }
            }
        }
    }

    /// Opens a stream for each device; whether there is one for all.
    async fn open_streams(&mut self) -> bool {
        for _ in 0..self.devices.len() {
            let Ok((send, recv)) = self.connection.open().await else { return false };
            self.streams.push(Some(Stream { send, recv }));
        }
        true
    }

    /// Hands the work over; says when that began. The time counts from before the first byte leaves: a host
    /// says how many it takes, and has the seed before it has taken the last.
    fn assign(&mut self, number: usize, seed: [u8; 32], shape: Shape) -> Option<u64> {
        let Device { container, index, .. } = self.devices.get(number).copied()?;
        let Stream { mut send, mut recv } = self.streams.get_mut(number)?.take()?;
        let assigned = self.target.container;
        let work = ExamWork {
            minute: self.minute,
            container,
            device: index,
            seed,
            n: shape.n(),
            rounds: shape.rounds(),
        };
        let ask = match container == assigned {
            true => ExamAsk::Begin(work),
            false => ExamAsk::Beside { assigned, work },
        };
        let began = self.now();
        let (domain, host, me) = (self.who.domain, self.target.addr.node, self.who.checker);
        self.heard.spawn(async move {
            if wire::send(&mut send, &ask).await.is_err() {
                return Heard::Gone(number);
            }
            match wire::recv(&mut recv).await {
                Ok(Some(ExamReply::Committed(signed))) => {
                    let opened = signed.open_by(&domain, host);
                    let is_its = |said: &ExamCommitment| said.work == work && said.checker == me;
                    if opened.as_ref().is_ok_and(is_its) {
                        Heard::Committed(number, Stream { send, recv }, signed)
                    } else {
                        Heard::Gone(number)
                    }
                }
                Ok(Some(ExamReply::Refused(why))) => Heard::Refused(number, why),
                _ => Heard::Gone(number),
            }
        });
        Some(began)
    }

    fn ask_rows(&mut self, number: usize, rows: Vec<Vec<u32>>) {
        let Some(Stream { mut send, mut recv }) =
            self.streams.get_mut(number).and_then(Option::take)
        else {
            return;
        };
        let n = self.shape.n();
        self.heard.spawn(async move {
            let asked = ExamRows { rounds: rows };
            if wire::send(&mut send, &asked).await.is_err() {
                return Heard::Gone(number);
            }
            match opened(&mut recv, &asked, n).await {
                Ok(openings) => Heard::Opened(number, openings),
                Err(Some(why)) => Heard::Refused(number, why),
                Err(None) => Heard::Gone(number),
            }
        });
    }

    fn hear(&mut self, heard: Heard) -> ExamInput {
        match heard {
            Heard::Committed(device, stream, signed) => {
                let roots = signed.open(&self.who.domain).map(|said| said.roots);
                if self.is_own(device) {
                    self.signed = Some(signed);
                }
                if let Some(place) = self.streams.get_mut(device) {
                    *place = Some(stream);
                }
                ExamInput::Committed { device, roots: roots.unwrap_or_default() }
            }
            Heard::Opened(device, openings) => ExamInput::Opened { device, openings },
            Heard::Verified(device, result) => ExamInput::Verified { device, result },
            Heard::Refused(device, why) => {
                if self.is_own(device) {
                    self.refused = Some(why);
                } else if let Some(Device { container, .. }) = self.devices.get(device)
                    && why.is_fair()
                    && self.refusals.iter().all(|(known, _)| known != container)
                {
                    self.refusals.push((*container, why));
                }
                self.end(device, Ended::Early { is_excused: why.is_fair() });
                ExamInput::Tick
            }
            Heard::Gone(device) => {
                self.is_gone |= self.is_own(device);
                self.end(device, Ended::Early { is_excused: false });
                ExamInput::Tick
            }
        }
    }

    fn is_own(&self, device: usize) -> bool {
        self.devices.get(device).is_none_or(|of| of.container == self.target.container)
    }

    /// The first word counts: a device that was refused is late afterwards.
    fn end(&mut self, device: usize, how: Ended) {
        if let Some(outcome) = self.outcomes.get_mut(device) {
            outcome.get_or_insert(how);
        }
    }

    /// What all devices together came to: the worst counts.
    fn finding(self, table: &ClassTable) -> Result<Window, ExamError> {
        let (is_whole, least) = self.others(table);
        debug!(host = %self.target.addr.node, outcomes = ?self.outcomes, "examined");
        let (mut slowest, mut verdict) = (u64::MAX, None);
        match self.refused {
            Some(why) if why.is_fair() => return Err(ExamError::NotNow(why)),
            Some(why) => verdict = Some(Verdict::Refused(why)),
            None if self.is_gone => verdict = Some(Verdict::TooSlow),
            None => {
                let own = (0..self.outcomes.len()).filter(|device| self.is_own(*device));
                for outcome in own.filter_map(|device| self.outcomes[device]) {
                    let Ended::With(outcome) = outcome else { continue };
                    match outcome {
                        Outcome::Met { mmac_per_s } => slowest = slowest.min(mmac_per_s),
                        Outcome::Fraud(_) => verdict = Some(Verdict::Wrong),
                        Outcome::Late | Outcome::Silent => {
                            verdict = verdict.or(Some(Verdict::TooSlow));
                        }
                        Outcome::Apart => return Err(ExamError::Void),
                    }
                }
                if verdict.is_none() && slowest == u64::MAX {
                    return Err(ExamError::Void);
                }
            }
        }
        let class = |rate| match table.matched(&self.target.class, rate, self.target.memory_mib()) {
            MatchedClass::Claimed => Some(self.target.class.clone()),
            MatchedClass::Lower(lower) => Some(lower),
            MatchedClass::None => None,
        };
        let verdict = verdict
            .unwrap_or_else(|| Verdict::Proved { mmac_per_s: slowest, class: class(slowest) });
        let evidence = self.signed.filter(|_| verdict == Verdict::Wrong);
        let (own, is_claimed) = match &verdict {
            Verdict::Proved { mmac_per_s, class } => {
                (*mmac_per_s, class.as_ref() == Some(&self.target.class))
            }
            _ => (0, false),
        };
        // What one of those that share a device shows while another waits is no proof.
        let verdict = match verdict {
            Verdict::Proved { .. } if !is_whole && least == 0 => Verdict::TooSlow,
            Verdict::Proved { .. } if !is_whole => {
                let mmac_per_s = own.min(least);
                Verdict::Proved { mmac_per_s, class: class(mmac_per_s) }
            }
            alone => alone,
        };
        let report = ExamReport {
            checker: self.who.checker,
            host: self.target.addr.node,
            container: self.target.container,
            minute: self.minute,
            n: self.shape.n(),
            rounds: self.shape.rounds(),
            verdict,
            evidence,
            turn: self.who.proof(self.minute),
        };
        let (is_whole, slowest) = (is_whole && is_claimed, own.min(least));
        Ok(Window { report, is_whole, slowest, refusals: self.refusals })
    }

    /// Whether all others that were not excused proved the class, and the slowest rate of them.
    fn others(&self, table: &ClassTable) -> (bool, u64) {
        let (mut is_whole, mut slowest) = (true, u64::MAX);
        for device in (0..self.devices.len()).filter(|device| !self.is_own(*device)) {
            let rate = match self.outcomes[device] {
                Some(Ended::Early { is_excused: true }) => continue,
                Some(Ended::With(Outcome::Met { mmac_per_s })) => mmac_per_s,
                _ => 0,
            };
            let matched = table.matched(&self.target.class, rate, self.target.memory_mib());
            is_whole &= matched == MatchedClass::Claimed;
            slowest = slowest.min(rate);
        }
        (is_whole, slowest)
    }
}

/// Receives the rows that were asked for, no more and no longer ones; else the refusal, if it is one.
async fn opened(
    recv: &mut RecvStream,
    asked: &ExamRows,
    n: u32,
) -> Result<Vec<Vec<Opening>>, Option<ExamRefusal>> {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let mut rounds = Vec::new();
    for rows in &asked.rounds {
        let mut openings = Vec::new();
        for _ in rows {
            match wire::recv(recv).await {
                Ok(Some(ExamReply::Row(OpenedRow { index, row, path })))
                    if row.len() <= n && path.len() <= PATH_MAX =>
                {
                    openings.push(Opening { index, row, path });
                }
                Ok(Some(ExamReply::Refused(why))) => return Err(Some(why)),
                _ => return Err(None),
            }
        }
        rounds.push(openings);
    }
    Ok(rounds)
}
