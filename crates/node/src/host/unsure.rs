//! Reservations that nobody knows of: asked for without an answer, for a lease that never began.
//!
//! The money may be held or not. Each stands on the disk and is closed in the background until that
//! is known, also over a restart. Until then its id is not taken for another lease: the close would
//! be that one's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};
use welkin_proto::settle::SettleRefusal;
use welkin_store::{Batch, CommitError, Db};
use welkin_types::{LeaseId, UnixMillis};

use crate::outside;
use crate::settlement::{Settle, SettlementError};

const TABLE: &str = "unsure";
/// The most that are kept; a host that has so many takes no new leases.
const UNSURE_MAX: usize = 10_000;
/// The first pause between two rounds; doubled while none comes to its end.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two rounds.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A reservation on its way may arrive so long after its order has expired, by another clock.
const LATE_MAX: Duration = Duration::from_secs(60);

/// The reservations that may be held, with the ends of their orders.
#[derive(Debug)]
pub(crate) struct Unsure {
    db: Db,
    orders: Mutex<BTreeMap<LeaseId, UnixMillis>>,
    added: Notify,
}

/// What became of one of them.
enum Found {
    /// Nothing is held any more, or ever will be.
    Over,
    /// It may still arrive.
    Later,
    /// The service can't be asked.
    NoAnswer(SettlementError),
}

impl Unsure {
    /// Reads those of before.
    pub(crate) fn load(db: Db) -> Result<Self, CommitError> {
        let mut orders = BTreeMap::new();
        for (key, value) in db.load(TABLE)? {
            if let (Ok(lease), Ok(expires)) = (key.try_into(), value.try_into()) {
                orders.insert(LeaseId::from_bytes(lease), UnixMillis(u64::from_le_bytes(expires)));
            }
        }
        Ok(Self { db, orders: Mutex::new(orders), added: Notify::new() })
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<LeaseId, UnixMillis>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this lease's reservation may be held.
    pub(crate) fn contains(&self, lease: LeaseId) -> bool {
        self.orders().contains_key(&lease)
    }

    /// Whether there are too many to add to them.
    pub(crate) fn is_full(&self) -> bool {
        self.orders().len() >= UNSURE_MAX
    }

    /// Writes down that the reservation for an order of this end may be held.
    pub(crate) async fn add(&self, lease: LeaseId, expires: UnixMillis) {
        self.orders().insert(lease, expires);
        let mut batch = Batch::default();
        batch.put(TABLE, lease.as_bytes(), expires.0.to_le_bytes().to_vec());
        if let Err(error) = self.db.commit(batch).await {
            warn!(%error, %lease, "a reservation that may be held is not written down");
        }
        self.added.notify_one();
    }

    async fn remove(&self, lease: LeaseId) {
        let mut batch = Batch::default();
        batch.remove(TABLE, lease.as_bytes());
        if let Err(error) = self.db.commit(batch).await {
            warn!(%error, %lease, "a reservation is not struck out");
        }
        self.orders().remove(&lease);
    }

    /// Closes them one after the other, for ever.
    pub(crate) async fn keep_closing(self: Arc<Self>, settle: Settle) {
        let mut pause = PAUSE;
        loop {
            let orders: Vec<_> = self.orders().iter().map(|(id, end)| (*id, *end)).collect();
            let mut is_over = false;
            for (lease, expires) in &orders {
                match close(&settle, *lease, *expires).await {
                    Found::Over => {
                        info!(%lease, "a reservation without a lease is closed");
                        self.remove(*lease).await;
                        is_over = true;
                    }
                    Found::Later => (),
                    Found::NoAnswer(error) => {
                        warn!(error = %crate::chain(&error), "reservations wait to be closed");
                        break;
                    }
                }
            }
            if orders.is_empty() {
                self.added.notified().await;
                pause = PAUSE;
                continue;
            }
            // One of a long term can arrive late for as long: asking each second would cost the service
            // more than the money is worth.
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    pause = if is_over { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
                }
                () = self.added.notified() => {
                    tokio::time::sleep(PAUSE).await;
                    pause = PAUSE;
                }
            }
        }
    }
}

async fn close(settle: &Settle, lease: LeaseId, expires: UnixMillis) -> Found {
    match settle.close(lease, None).await {
        Ok(_) => Found::Over,
        Err(SettlementError::Refused(SettleRefusal::UnknownLease)) => {
            let is_too_late = outside::now() > expires.after(LATE_MAX);
            if is_too_late { Found::Over } else { Found::Later }
        }
        Err(error) if error.is_retryable() => Found::NoAnswer(error),
        Err(error) => {
            warn!(error = %crate::chain(&error), %lease, "a reservation can't be closed");
            Found::Over
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use welkin_proto::settle::LeaseView;
    use welkin_types::{AccountId, Usd};

    use super::*;
    use crate::settlement::{Answer, BoxFuture, Question, Settlement};
    use crate::{CallError, Shutdown};

    /// A service that can be away, and the leases that it holds money for.
    #[derive(Clone, Debug, Default)]
    struct Service {
        is_there: Arc<AtomicBool>,
        held: Arc<Mutex<Vec<LeaseId>>>,
    }

    impl Settlement for Service {
        fn call(&self, request: Question) -> BoxFuture<'_, Result<Answer, SettlementError>> {
            Box::pin(async move {
                let Question::Close { lease, .. } = request else { panic!("{request:?}") };
                if !self.is_there.load(Ordering::Acquire) {
                    let gone = CallError::Wire(crate::wire::WireError::Ended);
                    return Err(SettlementError::Unreachable(gone));
                }
                let mut held = self.held.lock().unwrap();
                let Some(index) = held.iter().position(|known| *known == lease) else {
                    return Ok(Answer::Refused(SettleRefusal::UnknownLease));
                };
                held.remove(index);
                let (buyer, operator) =
                    (AccountId::from_bytes([1; 20]), AccountId::from_bytes([2; 20]));
                let (held, paid, fee, refunded) = (Usd::ZERO, Usd::ZERO, Usd::ZERO, Usd::ZERO);
                let closed = true;
                Ok(Answer::Lease(LeaseView {
                    buyer,
                    operator,
                    held,
                    paid,
                    fee,
                    refunded,
                    closed,
                    transaction: None,
                }))
            })
        }
    }

    fn open(path: &std::path::Path) -> Option<Arc<Unsure>> {
        let db = Db::open(&path.join("db")).ok()?;
        Some(Arc::new(Unsure::load(db).unwrap()))
    }

    async fn until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_may_be_held_is_closed_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::default();
        let settle = Settle::new(service.clone());
        let (late, lost) = (LeaseId::from_bytes([1; 16]), LeaseId::from_bytes([2; 16]));
        let shutdown = Shutdown::default();
        {
            let unsure = open(dir.path()).unwrap();
            // One of an order that still holds, and one that is over long ago.
            unsure.add(late, outside::now().after(Duration::from_secs(60))).await;
            unsure.add(lost, UnixMillis(0)).await;
            let task = Arc::clone(&unsure).keep_closing(settle.clone());
            shutdown.spawn_until_asked("unsure", task);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(unsure.contains(late) && unsure.contains(lost), "nobody was there to ask");
            assert!(shutdown.finish(Duration::from_secs(5)).await);
        }
        // The database's thread lets go of the file a moment later.
        let mut unsure = None;
        until(|| {
            unsure = open(dir.path());
            unsure.is_some()
        })
        .await;
        let unsure = unsure.unwrap();
        assert!(unsure.contains(late) && unsure.contains(lost), "they stand on the disk");
        service.is_there.store(true, Ordering::Release);
        let shutdown = Shutdown::default();
        shutdown.spawn_until_asked("unsure", Arc::clone(&unsure).keep_closing(settle));
        until(|| !unsure.contains(lost)).await;
        assert!(unsure.contains(late), "it may still be on its way");
        // And there it is.
        service.held.lock().unwrap().push(late);
        until(|| !unsure.contains(late)).await;
        assert!(service.held.lock().unwrap().is_empty());
        assert!(shutdown.finish(Duration::from_secs(5)).await);
    }
}
