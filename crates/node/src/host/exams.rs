//! Challenges of this host's hardware: which are taken, and that they never disturb a lease.
//!
//! Only an assigned checker gets one, once for each device in its minute, on a slot that is idle and
//! while the container's [`Budget`] lasts. An order ends what is under way at once; it does not wait
//! for it. The work itself is in `serve`.

mod devices;
mod serve;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::debug;
use welkin_check::challenge::{Budget, Prover, ProverInput, ProverOutput, ProverRefusal, Shape};
use welkin_kernels::Stop;
use welkin_proto::ContainerOffer;
use welkin_proto::exam::{ExamRefusal, ExamWork};
use welkin_types::{ContainerId, NodeId};

use super::Host;
use crate::assignments::Assignments;
use crate::outside;
use crate::settlement::Settle;

pub(crate) use serve::serve;

/// The most challenges in an hour, of all containers together.
const PER_HOUR: usize = 720;
/// Devices of a container that can be told apart.
const DEVICES_MAX: u32 = 64;
/// How often the list of checkers is fetched anew because it does not name somebody.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// The most challenges that are remembered, so that none is given twice.
const GIVEN_MAX: usize = 16_384;
/// For how many minutes they are.
const GIVEN_MINUTES: u64 = 8;
/// The most memory that a challenge takes of a processor's.
const CPU_BYTES_MAX: u64 = 1 << 30;

/// What has happened to challenges; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExamCounters {
    /// Begun.
    pub begun: u64,
    /// Done: the rows were opened.
    pub done: u64,
    /// Refused, whatever the reason.
    pub refused: u64,
    /// Of these, because the checker was not assigned.
    pub unassigned: u64,
    /// Ended because an order came.
    pub ordered: u64,
}

/// The challenges of a host.
#[derive(Debug)]
pub(crate) struct Exams {
    assignments: Assignments,
    /// Held for a few lines.
    inner: Mutex<Inner>,
    #[cfg_attr(
        not(feature = "vulkan"),
        expect(dead_code, reason = "only GPUs are kept open between challenges")
    )]
    devices: Arc<devices::Devices>,
    begun: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    unassigned: AtomicU64,
    ordered: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    prover: Prover,
    /// The number of each container, from which its devices are numbered.
    numbers: BTreeMap<ContainerId, u32>,
    budgets: BTreeMap<ContainerId, Budget>,
    under_way: BTreeMap<u32, (ContainerId, Stop)>,
    given: BTreeMap<(u64, NodeId, ContainerId, u32), ()>,
}

/// A challenge that was taken; its device is free again when this is dropped.
#[derive(Debug)]
struct Taken<'a> {
    exams: &'a Exams,
    container: ContainerId,
    number: u32,
    stop: Stop,
    /// When the device began what it is at, in microseconds; 0 while it waits for the checker.
    since: AtomicU64,
    /// How long it was at work before.
    spent: AtomicU64,
}

impl Exams {
    pub(crate) fn new(settle: Settle, containers: &[ContainerOffer]) -> Self {
        let numbers = (0..).zip(containers).map(|(number, offer)| (offer.id, number * DEVICES_MAX));
        let numbers: BTreeMap<_, _> = numbers.collect();
        let memory = containers.iter().flat_map(|offer| {
            let first = numbers.get(&offer.id).copied().unwrap_or(0);
            let bytes = match offer.resources.gpus.as_slice() {
                [] => vec![offer.resources.memory_bytes.min(CPU_BYTES_MAX)],
                gpus => gpus.iter().map(|gpu| gpu.vram_bytes).collect(),
            };
            (first..).zip(bytes)
        });
        let inner = Inner {
            prover: Prover::new(memory.collect(), PER_HOUR),
            budgets: numbers.keys().map(|id| (*id, Budget::default())).collect(),
            numbers,
            under_way: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        Self {
            assignments: Assignments::new(settle, RENEW_EVERY),
            inner: Mutex::new(inner),
            devices: Arc::default(),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unassigned: AtomicU64::new(0),
            ordered: AtomicU64::new(0),
        }
    }

    pub(crate) fn counters(&self) -> ExamCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExamCounters {
            begun: load(&self.begun),
            done: load(&self.done),
            refused: load(&self.refused),
            unassigned: load(&self.unassigned),
            ordered: load(&self.ordered),
        }
    }

    /// Ends what is under way on a container, without waiting for it.
    pub(crate) fn yield_to_order(&self, container: ContainerId) {
        for (of, stop) in self.inner().under_way.values() {
            if *of == container {
                stop.stop();
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refused(&self, why: ExamRefusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        match why {
            ExamRefusal::NotAssigned => self.unassigned.fetch_add(1, Ordering::Relaxed),
            ExamRefusal::Ordered => self.ordered.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// How long an epoch lasts.
    pub(super) async fn epoch_seconds(&self) -> Result<u64, String> {
        self.assignments.epoch_seconds().await
    }

    /// Has who is assigned now at hand.
    pub(super) async fn look_up(&self) {
        self.assignments.look_up().await;
    }

    /// Takes a challenge, if everything speaks for it. The cheap questions come first.
    async fn take(
        &self,
        host: &Host,
        checker: NodeId,
        work: &ExamWork,
    ) -> Result<Taken<'_>, ExamRefusal> {
        let shape = Shape::new(work.n, work.rounds).filter(|_| work.is_bounded());
        let shape = shape.ok_or(ExamRefusal::TooLarge)?;
        let key = (work.minute, checker, work.container, work.device);
        if self.inner().given.contains_key(&key) {
            return Err(ExamRefusal::TooMany);
        }
        let checked = self.assignments.check(checker, work.container, work.minute).await;
        if let Err(why) = checked {
            debug!(%checker, why, "a challenge is refused");
            return Err(ExamRefusal::NotAssigned);
        }
        let taken = self.begin(checker, work, shape)?;
        // After it was noted, so that an order that comes now either sees it or is seen.
        if host.slots().idle(outside::now(), work.container).is_none() {
            return Err(ExamRefusal::Busy);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(taken)
    }

    fn begin(
        &self,
        checker: NodeId,
        work: &ExamWork,
        shape: Shape,
    ) -> Result<Taken<'_>, ExamRefusal> {
        let now = micros();
        let mut inner = self.inner();
        let first = inner.numbers.get(&work.container).copied().ok_or(ExamRefusal::TooLarge)?;
        if work.device >= DEVICES_MAX {
            return Err(ExamRefusal::TooLarge);
        }
        let number = first + work.device;
        let may_begin =
            inner.budgets.get_mut(&work.container).is_some_and(|budget| budget.may_begin(now));
        if !may_begin {
            return Err(ExamRefusal::TooMany);
        }
        let oldest = work.minute.saturating_sub(GIVEN_MINUTES);
        inner.given.retain(|(minute, ..), ()| *minute >= oldest);
        let key = (work.minute, checker, work.container, work.device);
        // Also where the same was asked for twice at once.
        if inner.given.contains_key(&key) {
            return Err(ExamRefusal::TooMany);
        }
        if inner.given.len() >= GIVEN_MAX || inner.under_way.contains_key(&number) {
            return Err(ExamRefusal::Busy);
        }
        let assigned = ProverInput::Assigned {
            checker,
            is_assigned: true,
            device: number,
            seed: work.seed,
            shape,
        };
        match inner.handle(now, assigned) {
            Some(ProverOutput::Compute { .. }) => (),
            Some(ProverOutput::Refuse { why, .. }) => return Err(told(why)),
            _ => return Err(ExamRefusal::Busy),
        }
        inner.given.insert(key, ());
        let stop = Stop::default();
        inner.under_way.insert(number, (work.container, stop.clone()));
        let (since, spent) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Taken { exams: self, container: work.container, number, stop, since, spent })
    }
}

impl Inner {
    /// Lets the machine take an input; what it wants then. A device that nobody came back for is
    /// stopped: its own task frees it.
    fn handle(&mut self, now: u64, input: ProverInput) -> Option<ProverOutput> {
        self.prover.handle(now, input);
        let mut wanted = None;
        loop {
            match self.prover.poll() {
                ProverOutput::Idle { .. } => return wanted,
                ProverOutput::Drop { device } => {
                    if let Some((_, stop)) = self.under_way.get(&device) {
                        stop.stop();
                    }
                }
                other => wanted = Some(other),
            }
        }
    }
}

impl Taken<'_> {
    /// The device is at work from now on; only that is taken from the budget.
    fn begin_work(&self) {
        self.since.store(micros().max(1), Ordering::Relaxed);
    }

    fn end_work(&self) {
        let since = self.since.swap(0, Ordering::Relaxed);
        if since > 0 {
            self.spent.fetch_add(micros().saturating_sub(since), Ordering::Relaxed);
        }
    }

    fn handle(&self, input: ProverInput) -> Option<ProverOutput> {
        self.exams.inner().handle(micros(), input)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Also where the connection broke in the middle of it.
        self.stop.stop();
        self.end_work();
        let now = micros();
        let mut inner = self.exams.inner();
        inner.under_way.remove(&self.number);
        let stopped = ProverInput::Stopped { device: self.number, why: ProverRefusal::Ordered };
        inner.handle(now, stopped);
        if let Some(budget) = inner.budgets.get_mut(&self.container) {
            budget.spend(now, self.spent.load(Ordering::Relaxed));
        }
    }
}

const fn told(why: ProverRefusal) -> ExamRefusal {
    match why {
        ProverRefusal::NotAssigned => ExamRefusal::NotAssigned,
        ProverRefusal::Busy => ExamRefusal::Busy,
        ProverRefusal::TooMany => ExamRefusal::TooMany,
        ProverRefusal::TooLarge => ExamRefusal::TooLarge,
        ProverRefusal::Ordered => ExamRefusal::Ordered,
        ProverRefusal::Failed => ExamRefusal::Failed,
        ProverRefusal::NothingToOpen => ExamRefusal::NothingToOpen,
    }
}

/// A GPU for the host's own test of it.
pub(super) fn lend_anew(host: &Host, device: &str) -> Result<devices::Lent, ExamRefusal> {
    devices::lend_anew(host, device)
}

/// Opens the host's GPUs ahead of their first challenge, aside.
#[cfg(feature = "vulkan")]
pub(super) fn warm(host: &Arc<Host>) {
    let host = Arc::clone(host);
    host.shutdown.clone().spawn_until_asked("warm", async move {
        let warmed = tokio::task::spawn_blocking(move || devices::warm(&host));
        if let Err(error) = warmed.await {
            tracing::warn!(%error, "the GPUs could not be opened ahead");
        }
    });
}

fn micros() -> u64 {
    u64::try_from(outside::uptime().as_micros()).unwrap_or(u64::MAX)
}
