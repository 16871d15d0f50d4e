//! What a host says for an epoch's evidence: for whom it takes part, and which leases have ended.
//!
//! Each indexer is told by a task of its own, over a connection that lasts for a few questions. What
//! is said twice counts once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, warn};
use welkin_lease::LeaseRecord;
use welkin_proto::digest::SessionDigests;
use welkin_proto::epoch::{Roll, Statement};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, Domain, NodeAddr, ReceiptFile, Signed};
use welkin_types::{Class, ContainerId};

use super::Host;
use crate::connect::Caller;
use crate::epoch::roll_again;
use crate::outside;

/// How long an indexer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after what was not taken; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Receipts that are remembered for indexers that are not reached.
const FILES_MAX: usize = 1_024;
/// A receipt that is refused so often is not sent again.
const REFUSALS_MAX: u32 = 5;
/// After so long a receipt is sent without the buyer's signature.
pub(super) const UNSIGNED_AFTER: Duration = Duration::from_secs(10);

/// A receipt, and what both sides measured.
#[derive(Clone, Debug)]
struct Ended {
    file: ReceiptFile,
    digests: Vec<SessionDigests>,
}

/// Receipts of leases that ended lately.
#[derive(Debug)]
pub(crate) struct Finished {
    files: Mutex<VecDeque<(u64, Ended)>>,
    /// The number of the last one.
    last: watch::Sender<u64>,
    /// The roll of an epoch as it was signed: all indexers keep the same one.
    roll: Mutex<Option<(u64, Offered, Signed<Roll>)>>,
}

/// Containers and the class that each claims.
type Offered = Vec<(ContainerId, Class)>;

impl Default for Finished {
    fn default() -> Self {
        Self { files: Mutex::default(), last: watch::channel(0).0, roll: Mutex::default() }
    }
}

impl Finished {
    /// A lease has its receipt, signed by the buyer or not.
    pub(super) fn push(&self, domain: &Domain, record: &LeaseRecord, digests: Vec<SessionDigests>) {
        let Some(receipt) = record.receipt.clone() else { return };
        let file = ReceiptFile {
            domain: *domain,
            order: record.order.clone(),
            operator: record.operator.clone(),
            receipt,
            voucher: record.voucher.clone(),
            ack: record.ack.clone(),
        };
        // What never ran delivered nothing.
        if record.usage.seconds == 0 {
            return;
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.last.borrow().saturating_add(1);
        files.push_back((number, Ended { file, digests }));
        while files.len() > FILES_MAX {
            files.pop_front();
        }
        self.last.send_replace(number);
    }

    /// The next receipt after that one.
    fn after(&self, number: u64) -> Option<(u64, Ended)> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().find(|(other, _)| *other > number).cloned()
    }
}

/// What became of a statement.
enum Told {
    Taken,
    Refused,
    /// The epoch has no room for it.
    Full,
    /// Or it has no room now.
    NotReached,
}

/// Tells one indexer for ever.
pub(super) async fn keep(host: &Host, indexer: &NodeAddr) {
    let mut pause = PAUSE_MIN;
    let epoch_seconds = loop {
        match host.exams.epoch_seconds().await {
            Ok(seconds) => break seconds,
            Err(why) => debug!(why, "the length of an epoch is not known yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    let mut told = Telling {
        host,
        indexer,
        enrolled: None,
        again: roll_again(epoch_seconds),
        sent: 0,
        refusals: 0,
    };
    let mut last = host.finished.last.subscribe();
    loop {
        last.borrow_and_update();
        let epoch = outside::now().0 / 1_000 / epoch_seconds;
        let is_done = told.catch_up(epoch).await;
        pause = if is_done { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        // An indexer may have come anew: in long epochs the roll is said again.
        let again = roll_again(epoch_seconds);
        let next = (epoch + 1).saturating_mul(epoch_seconds).saturating_mul(1_000);
        let jitter = Duration::from_millis(u64::from(u16::from_le_bytes(outside::random())) / 16);
        let until_next = welkin_types::UnixMillis(next).since(outside::now()).min(again) + jitter;
        told.again = again;
        tokio::select! {
            () = tokio::time::sleep(if is_done { until_next } else { pause }) => (),
            _ = last.changed() => (),
        }
    }
}

/// What one indexer was told.
struct Telling<'a> {
    host: &'a Host,
    indexer: &'a NodeAddr,
    /// The last epoch whose roll it took, and when.
    enrolled: Option<(u64, Instant)>,
    /// After so long it is said again.
    again: Duration,
    /// The last receipt that it was told.
    sent: u64,
    /// How often it refused the next one.
    refusals: u32,
}

impl Telling<'_> {
    /// Says what was not said yet; whether all of it was.
    async fn catch_up(&mut self, epoch: u64) -> bool {
        if self.is_enrolled(epoch) && self.host.finished.after(self.sent).is_none() {
            return true;
        }
        let caller = Caller::new(self.host.endpoint.clone(), self.indexer.clone(), ALPN_INDEX);
        let Ok(connection) = caller.connection().await else { return false };
        let is_done = self.say_all(&caller, epoch).await;
        connection.close(0, b"done");
        is_done
    }

    fn is_enrolled(&self, epoch: u64) -> bool {
        self.enrolled.is_some_and(|(of, at)| of == epoch && at.elapsed() < self.again)
    }

    async fn say_all(&mut self, caller: &Caller, epoch: u64) -> bool {
        if !self.is_enrolled(epoch) {
            // Nothing to enrol where nothing is offered.
            let told = match roll(self.host, epoch) {
                Some(roll) => say(caller, roll).await,
                None => Told::Taken,
            };
            match told {
                Told::Taken | Told::Full => self.enrolled = Some((epoch, Instant::now())),
                Told::Refused | Told::NotReached => return false,
            }
        }
        while let Some((number, Ended { file, digests })) = self.host.finished.after(self.sent) {
            match say(caller, Statement::Lease(Box::new(file))).await {
                Told::NotReached => return false,
                Told::Refused if self.refusals < REFUSALS_MAX => {
                    self.refusals += 1;
                    return false;
                }
                Told::Taken | Told::Full | Told::Refused => {
                    for digests in digests {
                        let statement = Statement::Digests(Box::new(digests));
                        if matches!(say(caller, statement).await, Told::NotReached) {
                            return false;
                        }
                    }
                    (self.sent, self.refusals) = (number, 0);
                }
            }
        }
        true
    }
}

fn roll(host: &Host, epoch: u64) -> Option<Statement> {
    let offered = host.containers.iter().filter(|_| host.sandboxes.is_some());
    let mut containers: Offered =
        offered.map(|container| (container.id, container.class.clone())).collect();
    containers.sort();
    if containers.is_empty() {
        return None;
    }
    let mut kept = host.finished.roll.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, its, signed)) = &*kept
        && (*of, its) == (epoch, &containers)
    {
        return Some(Statement::Roll(Box::new(signed.clone())));
    }
    let (account, issued) = (host.delegation.clone(), outside::now());
    let region = Some(host.config.region.clone());
    let roll = Roll { epoch, issued, account, containers: containers.clone(), region };
    let signed = Signed::sign(&host.domain, &host.key, &roll).ok()?;
    *kept = Some((epoch, containers, signed.clone()));
    Some(Statement::Roll(Box::new(signed)))
}

async fn say(caller: &Caller, statement: Statement) -> Told {
    let hello = IndexHello::Ask(Box::new(IndexRequest::State(Box::new(statement))));
    match caller.ask(&hello, ASK_TIMEOUT).await {
        Ok(IndexReply::Reported) => Told::Taken,
        Ok(IndexReply::Refused(why)) => {
            debug!(indexer = %caller.addr().node, why, "a statement is not taken");
            Told::Refused
        }
        Ok(IndexReply::NotKept { is_full: true }) => {
            warn!(indexer = %caller.addr().node, "it has no room for a statement in this epoch");
            Told::Full
        }
        Ok(IndexReply::NotKept { is_full: false }) => Told::NotReached,
        Ok(_) => Told::Refused,
        Err(error) => {
            debug!(indexer = %caller.addr().node, error = %crate::chain(&error), "not told");
            Told::NotReached
        }
    }
}
