//! What one lease asks the settlement service, beside the lease's own task.
//!
//! A service that is slow or gone must not delay anything else of the lease: the time of its
//! command's end, a stop, a voucher. So questions run in tasks of their own, and the lease's task
//! hears of the answers as of any other event.

use std::time::Duration;

use tokio::task::JoinSet;
use tracing::warn;
use welkin_proto::settle::{LeaseView, SettleRefusal};
use welkin_proto::{SignedByAccount, Voucher};
use welkin_types::{LeaseId, Usd};

use crate::settlement::{Settle, SettlementError};

/// Pauses between tries to close a lease; the last one repeats.
const CLOSE_PAUSE_SECONDS: [u64; 5] = [1, 2, 5, 15, 60];

/// What the settlement service has said.
#[derive(Debug)]
pub(super) enum Said {
    /// Of a voucher.
    Redeemed {
        /// The voucher that was to be cashed.
        voucher: Box<SignedByAccount<Voucher>>,
        /// How the lease stands, or why it was not cashed.
        answer: Result<LeaseView, SettlementError>,
    },
    /// The lease is closed: so much was paid in all.
    Closed(Usd),
}

/// Asks for one lease.
#[derive(Debug)]
pub(super) struct Cashier {
    settle: Settle,
    lease: LeaseId,
    asking: JoinSet<Said>,
    /// The voucher to cash once the present one is, and what to keep aside.
    next: Option<(SignedByAccount<Voucher>, Usd)>,
}

impl Cashier {
    /// Asks this service for this lease.
    pub(super) fn new(settle: Settle, lease: LeaseId) -> Self {
        Self { settle, lease, asking: JoinSet::new(), next: None }
    }

    /// Whether a question was not answered yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Begins to cash a voucher and to have `aside` beyond it. One is cashed at a time; of those
    /// that come meanwhile only the newest counts, as it contains the others.
    pub(super) fn redeem(&mut self, voucher: SignedByAccount<Voucher>, aside: Usd) {
        if !self.asking.is_empty() {
            self.next = Some((voucher, aside));
            return;
        }
        let settle = self.settle.clone();
        self.asking.spawn(async move {
            let answer = settle.redeem(voucher.clone(), aside).await;
            Said::Redeemed { voucher: Box::new(voucher), answer }
        });
    }

    /// Begins to close the lease with its last voucher; tries until it is known what was paid.
    pub(super) fn close(&mut self, voucher: Option<SignedByAccount<Voucher>>) {
        // Closing pays all that an earlier voucher would.
        self.next = None;
        self.asking = JoinSet::new();
        self.asking.spawn(close(self.settle.clone(), self.lease, voucher));
    }

    /// The next answer; never comes where nothing was asked. Safe to cancel.
    pub(super) async fn said(&mut self) -> Said {
        loop {
            match self.asking.join_next().await {
                Some(Ok(said)) => {
                    if let Some((voucher, aside)) = self.next.take() {
                        self.redeem(voucher, aside);
                    }
                    return said;
                }
                Some(Err(error)) => warn!(%error, lease = %self.lease, "a question was dropped"),
                None => std::future::pending().await,
            }
        }
    }
}

async fn close(settle: Settle, lease: LeaseId, voucher: Option<SignedByAccount<Voucher>>) -> Said {
    let mut pauses = CLOSE_PAUSE_SECONDS.into_iter();
    loop {
        let answer = match settle.close(lease, voucher.clone()).await {
            Err(error) if !error.is_retryable() => {
                warn!(error = %crate::chain(&error), %lease, "the lease is not settled");
                // What was paid before is what counts then.
                settle.lease(lease).await
            }
            other => other,
        };
        let error = match answer {
            Ok(view) => return Said::Closed(view.paid),
            Err(SettlementError::Refused(SettleRefusal::UnknownLease)) => {
                return Said::Closed(Usd::ZERO);
            }
            Err(error) => error,
        };
        warn!(error = %crate::chain(&error), %lease, "waiting to settle");
        let [.., last] = CLOSE_PAUSE_SECONDS;
        tokio::time::sleep(Duration::from_secs(pauses.next().unwrap_or(last))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Semaphore;
    use welkin_proto::{AccountKey, Domain};
    use welkin_types::AccountId;

    use super::*;
    use crate::settlement::{Answer, BoxFuture, Question, Settlement};

    const LEASE: LeaseId = LeaseId::from_bytes([1; 16]);

    /// Answers when it is allowed to; notes what it was asked.
    #[derive(Clone, Debug)]
    struct Slow {
        may: Arc<Semaphore>,
        asked: Arc<Mutex<Vec<Question>>>,
        paid: Usd,
    }

    impl Slow {
        fn new(paid: u64) -> Self {
            let (may, asked) = (Arc::new(Semaphore::new(0)), Arc::default());
            Self { may, asked, paid: Usd::from_micros(paid) }
        }
    }

    impl Settlement for Slow {
        fn call(&self, request: Question) -> BoxFuture<'_, Result<Answer, SettlementError>> {
            self.asked.lock().unwrap().push(request);
            Box::pin(async {
                self.may.acquire().await.unwrap().forget();
                Ok(Answer::Lease(LeaseView {
                    buyer: AccountId::from_bytes([1; 20]),
                    operator: AccountId::from_bytes([2; 20]),
                    held: Usd::ZERO,
                    paid: self.paid,
                    fee: Usd::ZERO,
                    refunded: Usd::ZERO,
                    closed: true,
                    transaction: None,
                }))
            })
        }
    }

    fn voucher(seconds: u64) -> SignedByAccount<Voucher> {
        let key = AccountKey::from_secret(&[1; 32]).unwrap();
        let amount = Usd::from_micros(seconds);
        let voucher = Voucher { lease: LEASE, operator: key.id(), amount, seconds };
        SignedByAccount::sign(&Domain::LOCAL, &key, voucher).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_service_keeps_nobody_waiting() {
        let slow = Slow::new(3);
        let mut cashier = Cashier::new(Settle::new(slow.clone()), LEASE);
        // None of these waits; of the vouchers that queue up only the newest is asked for.
        for seconds in 1..100 {
            cashier.redeem(voucher(seconds), Usd::ZERO);
        }
        let waiting = tokio::time::timeout(Duration::from_secs(3_600), cashier.said()).await;
        assert!(waiting.is_err() && cashier.is_waiting(), "nothing was answered yet");
        slow.may.add_permits(2);
        for expected in [1, 99] {
            let Said::Redeemed { voucher, .. } = cashier.said().await else { panic!() };
            assert_eq!(voucher.message.seconds, expected);
        }
        assert_eq!(slow.asked.lock().unwrap().len(), 2);
        assert!(!cashier.is_waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn closing_takes_the_place_of_what_is_asked() {
        let slow = Slow::new(7);
        let mut cashier = Cashier::new(Settle::new(slow.clone()), LEASE);
        cashier.redeem(voucher(1), Usd::ZERO);
        cashier.redeem(voucher(2), Usd::ZERO);
        cashier.close(Some(voucher(8)));
        slow.may.add_permits(8);
        let Said::Closed(paid) = cashier.said().await else { panic!() };
        assert_eq!(paid, Usd::from_micros(7), "what was paid, not what was asked for");
    }
}
