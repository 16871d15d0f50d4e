//! The reservations that a host knows, and what becomes of them over a restart.
//!
//! They are taken up before the host hears anybody, so that no order gets the slot of one. How long
//! the host was down it says itself: it writes down now and then that it lives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};
use welkin_proto::{ReceiptAck, ReservationView, SignedByAccount, Voucher};
use welkin_store::Batch;
use welkin_types::{AccountId, ContainerId, Price, ReservationId, UnixMillis};

use super::reservation::{Record, Task};
use super::restore::META;
use super::{Host, HostError};
use crate::outside;

/// The table of reservations.
pub(super) const RESERVATIONS: &str = "reservations";
/// When the host last wrote down that it lives.
const ALIVE: &[u8] = b"alive";
/// How often it does.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// A host that was down for longer has failed in every day that this touches.
pub(super) const DOWN_MAX: Duration = Duration::from_secs(60);
/// The most reservations of one buyer at once.
pub(super) const PER_BUYER_MAX: usize = 32;
/// The most at once.
pub(super) const OPEN_MAX: usize = 1_000;
/// The most that are remembered; beyond it the oldest ended ones are forgotten.
const REMEMBERED_MAX: usize = 10_000;
/// The most commands that wait for a reservation's task.
pub(super) const COMMANDS_MAX: usize = 16;

/// What a reservation's task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A voucher whose signature is good.
    Voucher(Box<SignedByAccount<Voucher>>, oneshot::Sender<()>),
    /// End it.
    Cancel(oneshot::Sender<()>),
    /// Its buyer was gone before it heard of it: it ends and costs nothing.
    Void,
    /// A lease on it ended by a fault of the host.
    Failed,
    /// The buyer's signature under the receipt, verified.
    Ack(Box<SignedByAccount<ReceiptAck>>),
}

/// How to reach a reservation's task.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    /// Whose it is.
    pub(crate) buyer: AccountId,
    /// What it keeps.
    pub(crate) container: ContainerId,
    /// What it costs.
    pub(crate) price: Price,
    /// To its task; closed once it is over and acknowledged.
    pub(crate) commands: mpsc::Sender<Command>,
    /// How it stands.
    pub(crate) view: watch::Receiver<ReservationView>,
    /// When it ended.
    pub(crate) ended: watch::Receiver<Option<UnixMillis>>,
}

/// All reservations of a host.
#[derive(Debug, Default)]
pub(crate) struct Reservations(Mutex<BTreeMap<ReservationId, Handle>>);

impl Reservations {
    fn map(&self) -> MutexGuard<'_, BTreeMap<ReservationId, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, id: ReservationId, handle: Handle) {
        self.map().insert(id, handle);
    }

    pub(super) fn contains(&self, id: ReservationId) -> bool {
        self.map().contains_key(&id)
    }

    /// A reservation, if it is this buyer's. Others' look as if there were none.
    pub(crate) fn find(&self, id: ReservationId, buyer: AccountId) -> Option<Handle> {
        self.map().get(&id).filter(|handle| handle.buyer == buyer).cloned()
    }

    /// Whether a lease can run on it.
    pub(crate) fn is_open(&self, id: ReservationId) -> bool {
        self.map().get(&id).is_some_and(|handle| handle.view.borrow().end.is_none())
    }

    /// How many are open, in all and of this buyer.
    pub(super) fn open(&self, buyer: AccountId) -> (usize, usize) {
        let map = self.map();
        let open = map.values().filter(|handle| handle.view.borrow().end.is_none());
        open.fold((0, 0), |(all, its), handle| (all + 1, its + usize::from(handle.buyer == buyer)))
    }

    fn has_open(&self) -> bool {
        self.map().values().any(|handle| handle.view.borrow().end.is_none())
    }

    /// A lease on it ended by a fault of the host.
    pub(crate) async fn failed(&self, id: ReservationId) {
        let handle = self.map().get(&id).cloned();
        if let Some(handle) = handle {
            // One that is over needs no word.
            let _ = handle.commands.send(Command::Failed).await;
        }
    }

    /// The ended ones, with the time of their end.
    fn ended(&self) -> Vec<(ReservationId, UnixMillis)> {
        let ended = |(id, handle): (&ReservationId, &Handle)| {
            let at = (*handle.ended.borrow())?;
            handle.view.borrow().receipt.is_some().then_some((*id, at))
        };
        self.map().iter().filter_map(ended).collect()
    }
}

/// Reads the reservations of before, gives them their slots back, and makes them known.
pub(super) fn restore(host: &Arc<Host>) -> Result<Vec<Task>, HostError> {
    let now = outside::now();
    let down = down_since(host, now)?;
    let mut tasks = Vec::new();
    for (_, bytes) in host.db.load(RESERVATIONS).map_err(HostError::Read)? {
        let mut record: Record = match postcard::from_bytes(&bytes) {
            Ok(record) => record,
            Err(error) => {
                warn!(%error, "a reservation on the disk can't be read and is left alone");
                continue;
            }
        };
        let (id, container) = (record.id(), record.order.message.container);
        if record.ended.is_none() {
            if let Some(since) = down {
                record.machine.host_failed(now, since, now);
            }
            let is_there = host.containers.iter().any(|offer| offer.id == container);
            if !is_there || host.sandboxes.is_none() || host.gpus(&record.devices).is_none() {
                warn!(%id, "a reservation can't be kept: what it is for is not there any more");
                record.machine.give_up(now);
            }
            host.slots().restore(id.lane(), container, record.devices.clone(), None);
        }
        tasks.push(Task::new(host, record, Some(now)));
    }
    if !tasks.is_empty() {
        info!(count = tasks.len(), "reservations taken up");
    }
    Ok(tasks)
}

/// Since when the host was down, where that was too long.
fn down_since(host: &Host, now: UnixMillis) -> Result<Option<UnixMillis>, HostError> {
    let rows = host.db.load(META).map_err(HostError::Read)?;
    let row = rows.into_iter().find(|(key, _)| key == ALIVE);
    let alive = row.and_then(|(_, value)| value.try_into().ok()).map(u64::from_le_bytes);
    // It lived until then, and at most until it would have written again: a day that was over and
    // paid before it died is not taken for a failed one.
    let last = alive.map(|alive| UnixMillis(alive).after(ALIVE_EVERY));
    Ok(last.filter(|last| now.since(*last) > DOWN_MAX))
}

/// Goes on with them, once their leases are there. What was found, as days in which the host was down, is
/// written before anything says that it lives.
pub(super) async fn take_up(host: &Arc<Host>, tasks: Vec<Task>) {
    let mut batch = Batch::default();
    tasks.iter().for_each(|task| task.put(&mut batch));
    if !tasks.is_empty()
        && let Err(error) = host.db.commit(batch).await
    {
        warn!(%error, "what was found of reservations can't be written down");
    }
    for task in tasks {
        host.shutdown.spawn_until_asked("reservation", task.run());
    }
}

/// Writes down that the host lives, for ever.
pub(super) async fn keep_alive(host: Arc<Host>) {
    loop {
        let mut batch = Batch::default();
        put_alive(&mut batch);
        if host.reservations.has_open()
            && let Err(error) = host.db.commit(batch).await
        {
            warn!(%error, "the host can't write down that it lives");
        }
        tokio::time::sleep(ALIVE_EVERY).await;
    }
}

/// Adds to what is written down that the host lives.
pub(super) fn put_alive(batch: &mut Batch) {
    batch.put(META, ALIVE, outside::now().0.to_le_bytes().to_vec());
}

/// Forgets ended reservations that are too old, or the oldest where there are too many.
pub(super) async fn forget_old(host: &Host) {
    let mut ended = host.reservations.ended();
    ended.sort_by_key(|(_, at)| *at);
    let keep = Duration::from_secs(host.config.keep_days * 86_400);
    let excess = host.reservations.map().len().saturating_sub(REMEMBERED_MAX);
    let now = outside::now();
    for (index, (id, at)) in ended.into_iter().enumerate() {
        if now.since(at) > keep || index < excess {
            forget(host, id).await;
        }
    }
}

/// Forgets one reservation.
pub(super) async fn forget(host: &Host, id: ReservationId) {
    let mut batch = Batch::default();
    batch.remove(RESERVATIONS, id.as_bytes());
    if let Err(error) = host.db.commit(batch).await {
        warn!(%error, %id, "a reservation can't be forgotten");
        return;
    }
    host.reservations.map().remove(&id);
}
