//! Challenges of hardware: one container, all its devices at once, by this side's clock.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;
use welkin_check::challenge::{
    ClassTable, Cost, Device, ExamInput, ExamOutput, Examiner, ExaminerConfig, Fraud, MatchedClass,
    Opening, Outcome, Secret, Shape,
};
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_proto::exam::{
    ExamAsk, ExamCommitment, ExamRefusal, ExamReply, ExamReport, ExamRows, ExamWork, OpenedRow,
    Verdict,
};
use welkin_proto::index::Listing;
use welkin_proto::{ALPN_EXAM, Domain, NodeAddr, Signed};
use welkin_types::{Class, ContainerId, NodeId, Resources};

use crate::connect::Caller;
use crate::wire::{self, WireError};
use crate::{CallError, outside};

/// How long dialling and pinging may take.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// Round trips that are measured; the least counts.
const PINGS: u32 = 4;
/// Rows opened in all: of work with 1 wrong row in 20, one in a million passes.
const ROWS: u32 = 271;
/// The least time that work may take, for what is not work: scheduling, a first allocation.
const LIMIT_US_LEAST: u64 = 1_000_000;
/// The work of a container without GPUs, and of a GPU: rows and columns, rounds.
const CPU_WORK: (u32, u32) = (512, 2);
const GPU_WORK: (u32, u32) = (8_192, 16);
/// How long an examination may take in all: a host that goes silent does not hold a checker up.
const EXAM_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to hand the work over.
const ASSIGN_TIMEOUT: Duration = Duration::from_secs(5);
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

    /// The smallest memory of its devices, in bytes, and how many there are.
    fn devices(&self) -> (u64, u32) {
        let gpus = &self.resources.gpus;
        let least = gpus.iter().map(|gpu| gpu.vram_bytes).min();
        let count = u32::try_from(gpus.len()).unwrap_or(u32::MAX).clamp(1, 16);
        (least.unwrap_or(self.resources.memory_bytes), count)
    }

    /// What each of its devices has to do.
    fn shape(&self) -> Option<Shape> {
        let (bytes, _) = self.devices();
        let (n, rounds) = if self.resources.gpus.is_empty() { CPU_WORK } else { GPU_WORK };
        Shape::new(n.min(Shape::n_for_bytes(bytes / 2)), rounds)
    }
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
    let host = target.addr.node;
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let (connection, way) = reach(&caller).await.map_err(ExamError::Unreachable)?;
    let shape = target.shape().ok_or(ExamError::Void)?;
    let limit_us = table.limit_us(&target.class, shape.macs()).ok_or(ExamError::Void)?;
    let limit_us = limit_us.max(LIMIT_US_LEAST);
    let (_, count) = target.devices();
    let device = |index| Device { host, container: target.container, index, shape, limit_us };
    let rows = ROWS.div_ceil(shape.rounds());
    let config = ExaminerConfig { rows, ..ExaminerConfig::default() };
    let secret = Secret::new(outside::random());
    let devices = (0..count).map(device).collect();
    let examiner = Examiner::new(config, outside::random(), secret, devices);
    let mut exam = Exam {
        who,
        target,
        minute,
        shape,
        connection: connection.clone(),
        began: Instant::now(),
        streams: (0..count).map(|_| None).collect(),
        outcomes: Vec::new(),
        refused: None,
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

/// Connects and measures the way: the least round trip, in microseconds.
async fn reach(caller: &Caller) -> Result<(Connection, u64), CallError> {
    let late = |_| CallError::Wire(WireError::Late(REACH_TIMEOUT));
    let reached = async {
        let connection = caller.connection().await?;
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

/// One stream of the connection.
struct Stream {
    send: SendStream,
    recv: RecvStream,
}

/// What came of something that was waited for.
enum Heard {
    Committed(usize, Stream, Box<Signed<ExamCommitment>>),
    Opened(usize, Vec<Vec<Opening>>),
    Refused(ExamRefusal),
    Verified(usize, Result<Cost, Fraud>),
    /// It ended in the middle, or said what belongs to nothing: nothing more will come.
    Gone,
}

struct Exam<'a> {
    who: &'a Who,
    target: &'a Target,
    minute: u64,
    shape: Shape,
    connection: Connection,
    began: Instant,
    streams: Vec<Option<Stream>>,
    outcomes: Vec<Outcome>,
    refused: Option<ExamRefusal>,
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
        while self.refused.is_none() && !self.is_gone {
            match examiner.poll() {
                ExamOutput::Assign { device, seed, shape } => {
                    let assigned = self.assign(device, seed, shape);
                    if tokio::time::timeout(ASSIGN_TIMEOUT, assigned).await.unwrap_or(false) {
                        examiner.handle(self.now(), ExamInput::Sent { device });
                    }
                }
                ExamOutput::Open { device, rows } => self.ask_rows(device, rows),
                ExamOutput::Verify { device, examination } => {
                    self.heard.spawn(async move {
                        let run = tokio::task::spawn_blocking(move || examination.run());
                        run.await.map_or(Heard::Gone, |done| Heard::Verified(device, done))
                    });
                }
                ExamOutput::Done { outcome, .. } => self.outcomes.push(outcome),
                // What is still awaited then is of devices that were too late.
                ExamOutput::Idle { .. } if self.outcomes.len() == self.streams.len() => return,
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

    /// Sends the work; whether it has left.
    async fn assign(&mut self, number: usize, seed: [u8; 32], shape: Shape) -> bool {
        let work = ExamWork {
            minute: self.minute,
            container: self.target.container,
            device: u32::try_from(number).unwrap_or(u32::MAX),
            seed,
            n: shape.n(),
            rounds: shape.rounds(),
        };
        let Ok((mut send, mut recv)) = self.connection.open().await else { return false };
        if wire::send(&mut send, &ExamAsk::Begin(work)).await.is_err() {
            return false;
        }
        let (domain, host, me) = (self.who.domain, self.target.addr.node, self.who.checker);
        self.heard.spawn(async move {
            match wire::recv(&mut recv).await {
                Ok(Some(ExamReply::Committed(signed))) => {
                    let opened = signed.open_by(&domain, host);
                    let is_its = |said: &ExamCommitment| said.work == work && said.checker == me;
                    if opened.as_ref().is_ok_and(is_its) {
                        Heard::Committed(number, Stream { send, recv }, signed)
                    } else {
                        Heard::Gone
                    }
                }
                Ok(Some(ExamReply::Refused(why))) => Heard::Refused(why),
                _ => Heard::Gone,
            }
        });
        true
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
                return Heard::Gone;
            }
            match opened(&mut recv, &asked, n).await {
                Ok(openings) => Heard::Opened(number, openings),
                Err(heard) => heard,
            }
        });
    }

    fn hear(&mut self, heard: Heard) -> ExamInput {
        match heard {
            Heard::Committed(device, stream, signed) => {
                let roots = signed.open(&self.who.domain).map(|said| said.roots);
                self.signed = Some(signed);
                if let Some(place) = self.streams.get_mut(device) {
                    *place = Some(stream);
                }
                ExamInput::Committed { device, roots: roots.unwrap_or_default() }
            }
            Heard::Opened(device, openings) => ExamInput::Opened { device, openings },
            Heard::Verified(device, result) => ExamInput::Verified { device, result },
            Heard::Refused(why) => {
                self.refused = Some(why);
                ExamInput::Tick
            }
            Heard::Gone => {
                self.is_gone = true;
                ExamInput::Tick
            }
        }
    }

    /// What all devices together came to: the worst counts.
    fn finding(self, table: &ClassTable) -> Result<ExamReport, ExamError> {
        debug!(host = %self.target.addr.node, outcomes = ?self.outcomes, "examined");
        let (mut slowest, mut verdict) = (u64::MAX, None);
        match self.refused {
            Some(why) if why.is_fair() => return Err(ExamError::NotNow(why)),
            Some(why) => verdict = Some(Verdict::Refused(why)),
            None if self.is_gone => verdict = Some(Verdict::TooSlow),
            None => {
                for outcome in &self.outcomes {
                    match outcome {
                        Outcome::Met { mmac_per_s } => slowest = slowest.min(*mmac_per_s),
                        Outcome::Fraud(_) => verdict = Some(Verdict::Wrong),
                        Outcome::Late | Outcome::Silent => {
                            verdict = verdict.or(Some(Verdict::TooSlow));
                        }
                        Outcome::Apart => return Err(ExamError::Void),
                    }
                }
                if self.outcomes.is_empty() {
                    return Err(ExamError::Void);
                }
            }
        }
        let class = || {
            let (bytes, _) = self.target.devices();
            match table.matched(&self.target.class, slowest, bytes >> 20) {
                MatchedClass::Claimed => Some(self.target.class.clone()),
                MatchedClass::Lower(lower) => Some(lower),
                MatchedClass::None => None,
            }
        };
        let verdict =
            verdict.unwrap_or_else(|| Verdict::Proved { mmac_per_s: slowest, class: class() });
        let evidence = self.signed.filter(|_| verdict == Verdict::Wrong);
        Ok(ExamReport {
            checker: self.who.checker,
            host: self.target.addr.node,
            container: self.target.container,
            minute: self.minute,
            n: self.shape.n(),
            rounds: self.shape.rounds(),
            verdict,
            evidence,
        })
    }
}

/// Receives the rows that were asked for, no more and no longer ones.
async fn opened(
    recv: &mut RecvStream,
    asked: &ExamRows,
    n: u32,
) -> Result<Vec<Vec<Opening>>, Heard> {
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
                Ok(Some(ExamReply::Refused(why))) => return Err(Heard::Refused(why)),
                _ => return Err(Heard::Gone),
            }
        }
        rounds.push(openings);
    }
    Ok(rounds)
}
