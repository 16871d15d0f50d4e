//! One checker's connection: pings, and challenges from the first word to the last row.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{debug, warn};
use welkin_check::challenge::{
    Opening, ProverInput, ProverOutput, ProverRefusal, Shape, device_bytes, opened_rows,
    standard_work,
};
use welkin_kernels::{Commitment, KernelError, Stop, commit};
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::exam::{
    ExamAsk, ExamCommitment, ExamRefusal, ExamReply, ExamRows, ExamWork, OpenedRow,
};
use welkin_proto::{ContainerOffer, Signed};
use welkin_types::{ContainerId, NodeId};

use super::devices::{self, Lent};
use super::{Taken, Wanted, measure::measure, resident::resident, told};
use crate::host::Host;
use crate::wire::{self, WireError};

/// How long a question may take to arrive.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rows may take to be asked for.
const ROWS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the work may take: a slow device is measured, a checker that wants too much is not served.
pub(super) const WORK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a reply may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long all rows may take to leave: as long as a checker waits for all of a challenge.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// The most streams of one connection.
const STREAMS_MAX: u32 = 64;
/// Streams at once.
const AT_ONCE: usize = 16;
/// How often an order is looked for while nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a challenge ended early.
pub(super) enum Ended {
    Refused(ExamRefusal),
    Broke(WireError),
}

impl From<WireError> for Ended {
    fn from(error: WireError) -> Self {
        Self::Broke(error)
    }
}

/// Answers a checker's connection.
pub(crate) async fn serve(host: &Arc<Host>, connection: Connection) {
    let checker = NodeId::from_bytes(connection.peer());
    let mut streams = JoinSet::new();
    for count in 0..STREAMS_MAX {
        let next = host.gate.next_stream(&connection, count == 0, &mut streams).await;
        let Some((send, recv)) = next else { return };
        if streams.len() >= AT_ONCE {
            connection.close(5, b"too many streams");
            return;
        }
        let (host, connection) = (Arc::clone(host), connection.clone());
        streams.spawn(async move {
            if let Err(error) = stream(&host, checker, send, recv).await {
                debug!(%error, "a challenge ended");
                if error.is_peers_fault() {
                    connection.close(3, b"malformed message");
                }
            }
        });
    }
    connection.close(4, b"too many challenges");
}

async fn stream(
    host: &Arc<Host>,
    checker: NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let reply = match wire::expect(&mut recv, QUESTION_TIMEOUT).await? {
        ExamAsk::Ping(nonce) => {
            // What the work would wait for otherwise; the least of several ways counts.
            host.exams.look_up().await;
            ExamReply::Pong(nonce)
        }
        ExamAsk::Turn(turn) => host.exams.take_turn(checker, turn).await,
        ExamAsk::Begin(work) => {
            let done = exam(host, checker, (work, work.container), &mut send, &mut recv).await;
            conclude(host, done)?.map_or(ExamReply::Opened, ExamReply::Refused)
        }
        ExamAsk::Beside { assigned, work } => {
            let done = exam(host, checker, (work, assigned), &mut send, &mut recv).await;
            conclude(host, done)?.map_or(ExamReply::Opened, ExamReply::Refused)
        }
        ExamAsk::Fill(work) => {
            let done = resident(host, checker, work, &mut send, &mut recv).await;
            let refused = conclude(host, done)?.map(ExamReply::Refused);
            let Some(refused) = refused else { return ended(send) };
            refused
        }
        ExamAsk::Measure(work) => {
            let done = measure(host, checker, work, &mut send, &mut recv).await;
            let refused = conclude(host, done)?.map(ExamReply::Refused);
            let Some(refused) = refused else { return ended(send) };
            refused
        }
    };
    say(&mut send, &reply).await?;
    let _ = send.finish();
    Ok(())
}

/// All was said before.
fn ended(mut send: SendStream) -> Result<(), WireError> {
    let _ = send.finish();
    Ok(())
}

/// Counts how it ended; the refusal, if it was one.
fn conclude(host: &Host, done: Result<(), Ended>) -> Result<Option<ExamRefusal>, WireError> {
    match done {
        Ok(()) => {
            host.exams.done.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
        Err(Ended::Refused(why)) => {
            host.exams.count_refused(why);
            Ok(Some(why))
        }
        Err(Ended::Broke(error)) => Err(error),
    }
}

pub(super) async fn say(send: &mut SendStream, reply: &ExamReply) -> Result<(), WireError> {
    let sent = tokio::time::timeout(SEND_TIMEOUT, wire::send(send, reply));
    sent.await.map_err(|_| WireError::Late(SEND_TIMEOUT))?
}

async fn exam(
    host: &Arc<Host>,
    checker: NodeId,
    (work, assigned): (ExamWork, ContainerId),
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Ended> {
    let ExamWork { minute, container, device, seed, .. } = work;
    let too_large = Ended::Refused(ExamRefusal::TooLarge);
    let Some(offer) = offer(host, container) else { return Err(too_large) };
    let shape = Shape::new(work.n, work.rounds).filter(|_| work.is_bounded());
    let shape = shape.filter(|shape| shape.bytes() <= device_bytes(&offer.resources));
    let shape = shape.ok_or(too_large)?;
    // More than honest checkers ask for would only cost their time. With an old list one may ask for more
    // than is here by now, and holds nothing against it.
    let most = standard_work(&offer.resources);
    if most.is_none_or(|most| shape.n() > most.n() || shape.rounds() > most.rounds()) {
        return Err(Ended::Refused(ExamRefusal::TooMany));
    }
    let wanted = Wanted { minute, container, assigned, device, seed, shape: Some(shape) };
    let taken = host.exams.take(host, checker, wanted).await.map_err(Ended::Refused)?;
    taken.begin_work();
    let computed = tokio::time::timeout(WORK_TIMEOUT, compute(host, work, &taken.stop)).await;
    // What is under way ends when `taken` is dropped.
    let (lent, commitment) = computed.map_err(|_| Ended::Refused(ExamRefusal::TooLarge))??;
    taken.end_work();
    let roots = commitment.roots();
    let computed = ProverInput::Computed { device: taken.number, roots };
    let Some(ProverOutput::Commit { roots, .. }) = taken.handle(computed) else {
        return Err(Ended::Refused(ExamRefusal::Busy));
    };
    let statement = ExamCommitment { checker, work, roots };
    let signed = Signed::sign(&host.domain, &host.key, &statement).map_err(WireError::Malformed)?;
    say(send, &ExamReply::Committed(Box::new(signed))).await?;
    let rows = tokio::select! {
        rows = wire::expect::<ExamRows>(recv, ROWS_TIMEOUT) => rows?,
        () = stopped(&taken.stop) => return Err(Ended::Refused(ExamRefusal::Ordered)),
    };
    // Each row may take a while to leave; a slow reader does not hold the device by that for hours.
    let rows_max = usize::try_from(opened_rows(shape)).unwrap_or(usize::MAX);
    if rows.rounds.iter().any(|round| round.len() > rows_max) {
        return Err(Ended::Refused(ExamRefusal::NothingToOpen));
    }
    let opened = open(&taken, checker, rows, (lent, commitment), send);
    let opened = tokio::time::timeout(OPEN_TIMEOUT, opened).await;
    opened.map_err(|_| WireError::Late(OPEN_TIMEOUT))?
}

/// What this host offers of that name.
pub(super) fn offer(host: &Host, container: ContainerId) -> Option<&ContainerOffer> {
    host.containers.iter().find(|offer| offer.id == container)
}

/// Does the work on a thread of its own.
async fn compute(
    host: &Arc<Host>,
    work: ExamWork,
    stop: &Stop,
) -> Result<(Lent, Commitment), Ended> {
    let refused = |why| Ended::Refused(why);
    let shape = Shape::new(work.n, work.rounds).ok_or(refused(ExamRefusal::TooLarge))?;
    let (on, until) = (Arc::clone(host), stop.clone());
    let computed = tokio::task::spawn_blocking(move || {
        let mut lent = devices::lend(&on, work.container, work.device)?;
        let done = lent.work(|device| commit(device, &work.seed, shape, &until));
        done.map(|commitment| (lent, commitment)).map_err(|error| why_not(&error))
    });
    match computed.await {
        Ok(result) => result.map_err(refused),
        Err(error) => {
            warn!(%error, "the work of a challenge ended early");
            Err(refused(ExamRefusal::Failed))
        }
    }
}

/// Opens the rows, round by round, so that only one round's are in memory.
async fn open(
    taken: &Taken<'_>,
    checker: NodeId,
    rows: ExamRows,
    work: (Lent, Commitment),
    send: &mut SendStream,
) -> Result<(), Ended> {
    if !rows.is_bounded() {
        return Err(Ended::Refused(ExamRefusal::NothingToOpen));
    }
    let asked = ProverInput::Asked { checker, device: taken.number, rows: rows.rounds };
    let rounds = match taken.handle(asked) {
        Some(ProverOutput::Read { rows, .. }) => rows,
        Some(ProverOutput::Refuse { why, .. }) => return Err(Ended::Refused(told(why))),
        _ => return Err(Ended::Refused(told(ProverRefusal::NothingToOpen))),
    };
    let (mut lent, mut commitment) = work;
    for (round, rows) in rounds.into_iter().enumerate() {
        let stop = taken.stop.clone();
        taken.begin_work();
        let read = tokio::task::spawn_blocking(move || {
            let opened = lent.work(|device| commitment.open_round(device, round, &rows, &stop));
            (lent, commitment, opened)
        });
        let Ok((back, kept, opened)) = read.await else {
            return Err(Ended::Refused(ExamRefusal::Failed));
        };
        taken.end_work();
        (lent, commitment) = (back, kept);
        let opened = opened.map_err(|error| Ended::Refused(why_not(&error)))?;
        for Opening { index, row, path } in opened {
            if taken.stop.is_stopped() {
                return Err(Ended::Refused(ExamRefusal::Ordered));
            }
            let reply = ExamReply::Row(OpenedRow { index, row, path });
            let said = say(send, &reply);
            tokio::pin!(said);
            tokio::select! {
                said = &mut said => said?,
                () = stopped(&taken.stop) => {
                    // An order does not wait for a slow reader: what the device holds comes free.
                    let _ = tokio::task::spawn_blocking(move || drop((lent, commitment))).await;
                    said.await?;
                    return Err(Ended::Refused(ExamRefusal::Ordered));
                }
            }
        }
    }
    // The rows have gone already, one by one.
    let read = ProverInput::Read { device: taken.number, openings: Vec::new() };
    taken.handle(read);
    Ok(())
}

pub(super) fn why_not(error: &KernelError) -> ExamRefusal {
    match error {
        KernelError::Stopped => ExamRefusal::Ordered,
        KernelError::OutOfMemory { .. } => ExamRefusal::TooLarge,
        _ => {
            warn!(%error, remedy = error.remedy(), "a device failed at a challenge");
            ExamRefusal::Failed
        }
    }
}

/// Until an order came.
pub(super) async fn stopped(stop: &Stop) {
    while !stop.is_stopped() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
