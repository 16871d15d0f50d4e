//! Which checkers count: those that the public seed has assigned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use welkin_check::assignment;
use welkin_proto::settle::EpochView;
use welkin_types::{ContainerId, NodeId};

use crate::checker::COMMITTEE;
use crate::settlement::Settle;

/// How far a report's minute may be from now.
const MINUTES_MAX: u64 = 2;
/// What the word of all checkers together counts of indexers, in millionths of an observation a day:
/// as much as others' reports may stand for at a buyer. Whoever registers many gains little.
const CHECKERS_WEIGHT: u32 = 60_000_000;
/// What one of them counts at most: as an account that has paid 4 USD in fees.
const CHECKER_WEIGHT_MAX: u32 = 2_000_000;
/// Epochs that are kept.
const EPOCHS_MAX: usize = 4;

/// The assignments of the latest epochs.
#[derive(Debug)]
pub(crate) struct Assignments {
    settle: Settle,
    epochs: Mutex<BTreeMap<u64, Arc<EpochView>>>,
    /// Held while a list is fetched: one at a time, whoever waits finds it here.
    fetching: tokio::sync::Mutex<()>,
    /// How often a list may be fetched anew because it does not name somebody.
    renew_every: Duration,
    renewed: Mutex<Option<Instant>>,
}

impl Assignments {
    /// With lists that are fetched anew no more often than this for those whom they don't name, so
    /// that strangers can't make this side flood the settlement service.
    pub(crate) fn new(settle: Settle, renew_every: Duration) -> Self {
        let (epochs, fetching, renewed) = Default::default();
        Self { settle, epochs, fetching, renew_every, renewed }
    }

    /// Says why a report does not count, if it does not.
    pub(crate) async fn check(
        &self,
        checker: NodeId,
        container: ContainerId,
        minute: u64,
    ) -> Result<(), String> {
        let now = welkin_check::minute_of(crate::outside::now());
        if minute.abs_diff(now) > MINUTES_MAX {
            return Err("the report is for another time".to_owned());
        }
        let epoch_seconds = self.epoch_seconds().await?;
        let epoch = welkin_check::epoch_of(minute, epoch_seconds);
        let mut view = self.view(epoch).await?;
        let assigned = |view: &EpochView| {
            let committee = assignment(&view.seed, minute, &view.checkers, container, COMMITTEE);
            committee.contains(&checker)
        };
        if !assigned(&view) {
            // The list may have grown since it was fetched.
            if self.may_renew() {
                view = self.renew(epoch, &view).await?;
            }
            if !assigned(&view) {
                return Err("this checker is not assigned to this container now".to_owned());
            }
        }
        Ok(())
    }

    /// Whether an epoch's list names a checker; it is fetched anew where it does not.
    pub(crate) async fn lists(&self, epoch: u64, checker: NodeId) -> Result<bool, String> {
        let view = self.view(epoch).await?;
        if view.checkers.contains(&checker) || !self.may_renew() {
            return Ok(view.checkers.contains(&checker));
        }
        Ok(self.renew(epoch, &view).await?.checkers.contains(&checker))
    }

    /// How long an epoch lasts: it never changes.
    pub(crate) async fn epoch_seconds(&self) -> Result<u64, String> {
        Ok(self.view(0).await?.epoch_seconds.max(1))
    }

    /// Fetches the present epoch's list, if it is not here.
    pub(crate) async fn look_up(&self) {
        let Ok(epoch_seconds) = self.epoch_seconds().await else { return };
        let minute = welkin_check::minute_of(crate::outside::now());
        let epoch = welkin_check::epoch_of(minute, epoch_seconds);
        // Whoever needs it then says what failed.
        let _ = self.view(epoch).await;
    }

    /// How much a node's word of indexers counts as that of a checker, in millionths of an
    /// observation; nothing if it is none of the present epoch.
    pub(crate) async fn checkers_weight(&self, node: NodeId) -> u32 {
        let weight = async {
            let epoch_seconds = self.epoch_seconds().await?;
            let minute = welkin_check::minute_of(crate::outside::now());
            let view = self.view(welkin_check::epoch_of(minute, epoch_seconds)).await?;
            let count = u32::try_from(view.checkers.len()).unwrap_or(u32::MAX).max(1);
            let weight = (CHECKERS_WEIGHT / count).min(CHECKER_WEIGHT_MAX);
            Ok::<_, String>(if view.checkers.contains(&node) { weight } else { 0 })
        };
        weight.await.unwrap_or(0)
    }

    fn may_renew(&self) -> bool {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = renewed.is_none_or(|at| at.elapsed() >= self.renew_every);
        if is_due {
            *renewed = Some(Instant::now());
        }
        is_due
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<EpochView>>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, epoch: u64) -> Option<Arc<EpochView>> {
        self.lock().get(&epoch).map(Arc::clone)
    }

    /// An epoch's seed and checkers.
    pub(crate) async fn view(&self, epoch: u64) -> Result<Arc<EpochView>, String> {
        if let Some(view) = self.known(epoch) {
            return Ok(view);
        }
        let _turn = self.fetching.lock().await;
        // Whoever had the turn before may have fetched it.
        match self.known(epoch) {
            Some(view) => Ok(view),
            None => self.fetch(epoch).await,
        }
    }

    /// Fetches a list anew, unless that was done since `seen` was looked at.
    async fn renew(&self, epoch: u64, seen: &Arc<EpochView>) -> Result<Arc<EpochView>, String> {
        let _turn = self.fetching.lock().await;
        match self.known(epoch).filter(|view| !Arc::ptr_eq(view, seen)) {
            Some(view) => Ok(view),
            None => self.fetch(epoch).await,
        }
    }

    /// Only with the turn.
    async fn fetch(&self, epoch: u64) -> Result<Arc<EpochView>, String> {
        let view = self.settle.epoch(epoch).await.map_err(|error| crate::chain(&error))?;
        let view = Arc::new(view);
        let mut epochs = self.lock();
        epochs.insert(epoch, Arc::clone(&view));
        while epochs.len() > EPOCHS_MAX {
            // Not epoch 0, which tells the length.
            let oldest = epochs.keys().copied().find(|epoch| *epoch != 0);
            oldest.map(|oldest| epochs.remove(&oldest));
        }
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::settlement::{Answer, BoxFuture, Question, Settlement, SettlementError};

    /// Counts who asks, and who asks at once.
    #[derive(Clone, Debug, Default)]
    struct Counting(Arc<(AtomicUsize, AtomicUsize, AtomicUsize)>);

    impl Settlement for Counting {
        fn call(&self, question: Question) -> BoxFuture<'_, Result<Answer, SettlementError>> {
            let (asked, at_once, most) = &*self.0;
            Box::pin(async move {
                asked.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                let Question::Epoch { epoch } = question else {
                    return Err(SettlementError::Confused);
                };
                let (seed, checkers) = ([0; 32], Vec::new());
                Ok(Answer::Epoch(EpochView { epoch, seed, checkers, epoch_seconds: 60 }))
            })
        }
    }

    #[tokio::test]
    async fn strangers_make_one_fetch_at_a_time() {
        let counting = Counting::default();
        let assignments = Assignments::new(Settle::new(counting.clone()), Duration::ZERO);
        let minute = welkin_check::minute_of(crate::outside::now());
        let stranger = |number| {
            let checker = NodeId::from_bytes([number; 32]);
            assignments.check(checker, ContainerId::from_bytes([1; 16]), minute)
        };
        let strangers = tokio::join!(stranger(1), stranger(2), stranger(3), stranger(4));
        assert!(strangers.0.is_err() && strangers.3.is_err());
        let (asked, _, most) = &*counting.0;
        assert_eq!(most.load(Ordering::SeqCst), 1);
        // The length, the list, and once more for all who are not in it.
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
