//! Which checkers count: those that show that they have drawn it, and those that stand in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;
use welkin_check::sortition::{Committees, Lot};
use welkin_match::LATE_MINUTES_MAX;
use welkin_proto::check::{Report, Sheet};
use welkin_proto::settle::EpochView;
use welkin_proto::{Seating, Turn, TurnProof};
use welkin_types::{ContainerId, NodeId};

use crate::checker::COMMITTEE;
use crate::settlement::Settle;

/// How far the minute of a challenge, or of somebody who asks for something, may be from now.
const MINUTES_MAX: u64 = 2;
/// Turns that are remembered: a proof takes longer to verify than all else of a report.
const TURNS_MAX: usize = 1 << 15;
/// What the word of all checkers together counts of indexers, in millionths of an observation a day:
/// as much as others' reports may stand for at a buyer. Whoever registers many gains little.
const CHECKERS_WEIGHT: u32 = 60_000_000;
/// What one of them counts at most: as an account that has paid 4 USD in fees.
const CHECKER_WEIGHT_MAX: u32 = 2_000_000;
/// Epochs that are kept: all that anybody may still speak of, or who names old ones in turn would have
/// them fetched for ever.
const EPOCHS_MAX: usize = 16;
/// What could not be fetched is not asked for again so soon: strangers can't make this side flood the
/// settlement service.
const FAILED_LASTING: Duration = Duration::from_millis(250);
/// Epochs of which that is remembered.
const FAILED_MAX: usize = 16;

/// An epoch, with its committees.
#[derive(Debug)]
struct Known {
    view: EpochView,
    committees: Committees,
}

/// What a checker has shown of a minute.
struct Turned {
    known: Arc<Known>,
    checker: NodeId,
    minute: u64,
    lot: Option<Lot>,
}

impl Turned {
    /// How it comes to a container.
    fn seating(&self, container: ContainerId) -> Seating {
        let Self { known, checker, minute, lot } = self;
        known.committees.seating(*checker, *minute, container, lot.as_ref())
    }
}

/// What checkers have shown that they had drawn, by minute.
type Turns = BTreeMap<(u64, NodeId), (TurnProof, Lot)>;

/// The assignments of the latest epochs. A list never changes once it is shown.
#[derive(Debug)]
pub(crate) struct Assignments {
    settle: Settle,
    epochs: Mutex<BTreeMap<u64, Arc<Known>>>,
    turns: Mutex<Turns>,
    /// How many were refused: because they are not assigned, or too late.
    refused: AtomicU64,
    /// Held while a list is fetched: one at a time, whoever waits finds it here. The epoch that could
    /// not be fetched last, when, and why.
    fetching: tokio::sync::Mutex<BTreeMap<u64, (Instant, String)>>,
}

impl Assignments {
    pub(crate) fn new(settle: Settle) -> Self {
        let (epochs, turns) = (Mutex::default(), Mutex::default());
        let (fetching, refused) = (tokio::sync::Mutex::default(), AtomicU64::new(0));
        Self { settle, epochs, turns, refused, fetching }
    }

    /// Says why a finding does not count: only of who has drawn the container, for who stands in would be
    /// known before.
    pub(crate) async fn check(
        &self,
        checker: NodeId,
        container: ContainerId,
        minute: u64,
        proof: Option<TurnProof>,
    ) -> Result<(), String> {
        let turned = self.turned(checker, minute, proof, MINUTES_MAX).await;
        let seating = turned.map(|turned| turned.seating(container));
        self.counted(checker, seating, |seating| seating == Seating::Drawn)
    }

    /// The same of somebody who asks for something, by what it has shown with [`Self::show`].
    pub(crate) async fn check_shown(
        &self,
        checker: NodeId,
        container: ContainerId,
        minute: u64,
    ) -> Result<(), String> {
        let shown = self.turns().get(&(minute, checker)).map(|(proof, _)| *proof);
        self.check(checker, container, minute, shown).await
    }

    /// Says why a sheet does not count: it has a probe of who has neither drawn it nor is named to stand
    /// in. How many checkers there are, where it counts.
    pub(crate) async fn check_sheet(
        &self,
        sheet: &Sheet,
        reports: &[Report],
    ) -> Result<u32, String> {
        let Sheet { checker, minute, turn, .. } = *sheet;
        let turned = self.turned(checker, minute, turn, LATE_MINUTES_MAX).await;
        let seating = turned.as_ref().map_err(Clone::clone).map(|turned| {
            let mut all = reports.iter().map(|report| turned.seating(report.container));
            all.find(|seating| *seating == Seating::Nobody).unwrap_or(Seating::Drawn)
        });
        self.counted(checker, seating, |seating| seating != Seating::Nobody)?;
        turned.map(|turned| turned.known.committees.checkers())
    }

    /// Takes what a checker has drawn for a minute; whether it is its own.
    pub(crate) async fn show(&self, checker: NodeId, turn: Turn) -> Result<bool, String> {
        let known = self.near(turn.minute, MINUTES_MAX).await?;
        Ok(known.committees.are_all() || self.lot(&known, checker, turn).is_some())
    }

    /// Counts those that are refused; of many, some are told of.
    fn counted(
        &self,
        checker: NodeId,
        seating: Result<Seating, String>,
        counts: impl Fn(Seating) -> bool,
    ) -> Result<(), String> {
        let refused = match seating {
            Ok(seating) if counts(seating) => return Ok(()),
            Ok(_) => "this checker is not assigned to this container now".to_owned(),
            Err(why) => why,
        };
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            info!(%checker, count, refused, "checkers that are not assigned are refused");
        }
        Err(refused)
    }

    /// What a checker of the epoch shows for a minute that is now, or so near.
    async fn turned(
        &self,
        checker: NodeId,
        minute: u64,
        proof: Option<TurnProof>,
        minutes_max: u64,
    ) -> Result<Turned, String> {
        let known = self.near(minute, minutes_max).await?;
        if known.view.listed(checker).is_none() {
            return Err("this checker is not assigned: it is not on the epoch's list".to_owned());
        }
        // What is not shown with a report is not shown to those who read it later. Where all check
        // everything nothing is to be shown.
        let proof = proof.filter(|_| !known.committees.are_all());
        let lot = proof.and_then(|proof| self.lot(&known, checker, Turn { minute, proof }));
        Ok(Turned { known, checker, minute, lot })
    }

    /// The committees of a minute that is now, or so near.
    async fn near(&self, minute: u64, minutes_max: u64) -> Result<Arc<Known>, String> {
        let now = welkin_check::minute_of(crate::outside::now());
        if minute.abs_diff(now) > minutes_max {
            return Err("the report is for another time".to_owned());
        }
        let epoch_seconds = self.epoch_seconds().await?;
        self.known(welkin_check::epoch_of(minute, epoch_seconds)).await
    }

    /// What a turn shows, verified once.
    fn lot(&self, known: &Known, checker: NodeId, turn: Turn) -> Option<Lot> {
        let key = (turn.minute, checker);
        if let Some((proof, lot)) = self.turns().get(&key)
            && *proof == turn.proof
        {
            return Some(*lot);
        }
        // Not while others wait. What is wrong is not remembered: it would take others' places.
        let lot = known.committees.shown(checker, &turn)?;
        let mut turns = self.turns();
        turns.insert(key, (turn.proof, lot));
        while turns.len() > TURNS_MAX {
            turns.pop_first();
        }
        Some(lot)
    }

    fn turns(&self) -> std::sync::MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an epoch's list names a checker.
    pub(crate) async fn lists(&self, epoch: u64, checker: NodeId) -> Result<bool, String> {
        Ok(self.known(epoch).await?.view.listed(checker).is_some())
    }

    /// How long an epoch lasts: it never changes.
    pub(crate) async fn epoch_seconds(&self) -> Result<u64, String> {
        Ok(self.known(0).await?.view.epoch_seconds.max(1))
    }

    /// Fetches the present epoch's list, if it is not here.
    pub(crate) async fn look_up(&self) {
        let Ok(epoch_seconds) = self.epoch_seconds().await else { return };
        let minute = welkin_check::minute_of(crate::outside::now());
        let epoch = welkin_check::epoch_of(minute, epoch_seconds);
        // Whoever needs it then says what failed.
        let _ = self.known(epoch).await;
    }

    /// How much a node's word of indexers counts as that of a checker, in millionths of an
    /// observation; nothing if it is none of the present epoch.
    pub(crate) async fn checkers_weight(&self, node: NodeId) -> u32 {
        let weight = async {
            let epoch_seconds = self.epoch_seconds().await?;
            let minute = welkin_check::minute_of(crate::outside::now());
            let known = self.known(welkin_check::epoch_of(minute, epoch_seconds)).await?;
            let count = u32::try_from(known.view.checkers.len()).unwrap_or(u32::MAX).max(1);
            let weight = (CHECKERS_WEIGHT / count).min(CHECKER_WEIGHT_MAX);
            Ok::<_, String>(if known.view.listed(node).is_some() { weight } else { 0 })
        };
        weight.await.unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Known>>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An epoch's seed and checkers.
    async fn known(&self, epoch: u64) -> Result<Arc<Known>, String> {
        let find = || self.lock().get(&epoch).map(Arc::clone);
        if let Some(known) = find() {
            return Ok(known);
        }
        let mut failed = self.fetching.lock().await;
        // Whoever had the turn before may have fetched it, or have been told why not.
        if let Some(known) = find() {
            return Ok(known);
        }
        failed.retain(|_, (at, _)| at.elapsed() < FAILED_LASTING);
        if let Some((_, why)) = failed.get(&epoch) {
            return Err(why.clone());
        }
        match self.settle.epoch(epoch).await {
            Ok(view) => {
                let committees = Committees::new(&view, COMMITTEE);
                let known = Arc::new(Known { view, committees });
                self.keep(epoch, &known);
                Ok(known)
            }
            Err(error) => {
                let why = crate::chain(&error);
                while failed.len() >= FAILED_MAX && failed.pop_first().is_some() {}
                failed.insert(epoch, (Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn keep(&self, epoch: u64, known: &Arc<Known>) {
        let mut epochs = self.lock();
        epochs.insert(epoch, Arc::clone(known));
        while epochs.len() > EPOCHS_MAX {
            // Not epoch 0, which tells the length.
            let oldest = epochs.keys().copied().find(|epoch| *epoch != 0);
            oldest.map(|oldest| epochs.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use welkin_proto::settle::SettleRefusal;

    use super::*;
    use crate::settlement::{Answer, BoxFuture, Question, Settlement, SettlementError};

    /// Counts who asks, and who asks at once.
    #[derive(Clone, Debug, Default)]
    struct Counting(Arc<(AtomicUsize, AtomicUsize, AtomicUsize)>, Arc<AtomicBool>);

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
                if self.1.load(Ordering::SeqCst) && epoch != 0 {
                    return Ok(Answer::Refused(SettleRefusal::NotYet));
                }
                let (seed, checkers) = ([0; 32], Vec::new());
                Ok(Answer::Epoch(EpochView { epoch, seed, checkers, epoch_seconds: 60 }))
            })
        }
    }

    #[tokio::test]
    async fn strangers_make_one_fetch_at_a_time() {
        let counting = Counting::default();
        let assignments = Assignments::new(Settle::new(counting.clone()));
        let minute = welkin_check::minute_of(crate::outside::now());
        let stranger = |number| {
            let checker = NodeId::from_bytes([number; 32]);
            assignments.check(checker, ContainerId::from_bytes([1; 16]), minute, None)
        };
        // There is no list yet: who waited is told so, too, and nobody asks again at once.
        counting.1.store(true, Ordering::SeqCst);
        let strangers = tokio::join!(stranger(1), stranger(2), stranger(3), stranger(4));
        assert!(strangers.0.unwrap_err().contains("ask again"));
        assert!(strangers.3.is_err());
        let (asked, _, most) = &*counting.0;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        counting.1.store(false, Ordering::SeqCst);
        tokio::time::sleep(FAILED_LASTING).await;
        let strangers = tokio::join!(stranger(1), stranger(2), stranger(3), stranger(4));
        assert!(strangers.0.unwrap_err().contains("not assigned") && strangers.3.is_err());
        assert_eq!(most.load(Ordering::SeqCst), 1);
        // The length, the list that was not there, and the list.
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
