//! Challenges of this host's hardware: which are taken, and that they never disturb a lease.
//!
//! Only a checker that has shown that it has drawn the container gets one, once for each device in its minute, on a slot that is idle and
//! while the device's [`Budget`] lasts. An order ends what is under way at once; it does not wait
//! for it. The work itself is in `serve`.

mod devices;
mod measure;
mod resident;
mod serve;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::debug;
use welkin_check::challenge::{Budget, Prover, ProverInput, ProverOutput, ProverRefusal, Shape};
use welkin_check::site::Allowance;
use welkin_kernels::Stop;
use welkin_proto::exam::{ExamRefusal, ExamReply};
use welkin_proto::site::{MeasureKind, MeasureWork};
use welkin_proto::{ContainerOffer, Turn};
use welkin_types::{ContainerId, NodeId};

use super::Host;
use crate::assignments::Assignments;
use crate::outside;
use crate::settlement::Settle;

pub(crate) use serve::serve;

/// The most challenges in an hour, of all containers together.
const PER_HOUR: usize = 720;
/// On a host of many containers so many for each: three times what checkers ask by themselves.
const PER_CONTAINER: usize = 27;
/// Devices of a container that can be told apart.
const DEVICES_MAX: u32 = 64;
/// The most challenges that are remembered, so that none is given twice.
const GIVEN_MAX: usize = 16_384;
/// For how many minutes they are.
const GIVEN_MINUTES: u64 = 8;
/// The most checkers' parts of devices' time that are remembered.
const PARTS_MAX: usize = 16_384;
/// The most memory that a challenge takes of a processor's.
const CPU_BYTES_MAX: u64 = 1 << 30;

/// What measurements may send and receive in a day, and write to the disk.
const NETWORK_BYTES_A_DAY: u64 = 1 << 30;
const DISK_BYTES_A_DAY: u64 = 1 << 30;

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
    /// Measurements of network and disk that were begun.
    pub measured: u64,
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
    measured: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    network: Allowance,
    disk: Allowance,
    prover: Prover,
    /// The number of each container, from which its devices are numbered.
    numbers: BTreeMap<ContainerId, u32>,
    /// By device: all of a container may be asked in one window.
    budgets: BTreeMap<u32, Budget>,
    /// What each checker may have of them, but those of whom all is there.
    parts: BTreeMap<(u32, NodeId), Budget>,
    under_way: BTreeMap<u32, (ContainerId, Stop)>,
    given: BTreeMap<(u64, NodeId, ContainerId, u32), ()>,
}

/// What a checker asks a device for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    minute: u64,
    container: ContainerId,
    /// The container to which the checker is assigned: this one, or another one of this host.
    assigned: ContainerId,
    device: u32,
    seed: [u8; 32],
    /// Products; none where memory is to be filled.
    shape: Option<Shape>,
}

/// A challenge that was taken; its device is free again when this is dropped.
#[derive(Debug)]
struct Taken<'a> {
    exams: &'a Exams,
    number: u32,
    checker: NodeId,
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
            network: Allowance::new(NETWORK_BYTES_A_DAY),
            disk: Allowance::new(DISK_BYTES_A_DAY),
            prover: Prover::new(memory.collect(), PER_HOUR.max(PER_CONTAINER * numbers.len())),
            budgets: BTreeMap::new(),
            parts: BTreeMap::new(),
            numbers,
            under_way: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        Self {
            assignments: Assignments::new(settle),
            inner: Mutex::new(inner),
            devices: Arc::default(),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unassigned: AtomicU64::new(0),
            ordered: AtomicU64::new(0),
            measured: AtomicU64::new(0),
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
            measured: load(&self.measured),
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

    /// Takes what a checker has drawn for a minute, before it asks for anything.
    async fn take_turn(&self, checker: NodeId, turn: Turn) -> ExamReply {
        match self.assignments.show(checker, turn).await {
            Ok(true) => ExamReply::Ready,
            Ok(false) | Err(_) => {
                debug!(%checker, minute = turn.minute, "what a checker shows is not its own");
                self.count_refused(ExamRefusal::NotAssigned);
                ExamReply::Refused(ExamRefusal::NotAssigned)
            }
        }
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
        work: Wanted,
    ) -> Result<Taken<'_>, ExamRefusal> {
        let key = (work.minute, checker, work.container, work.device);
        if self.inner().given.contains_key(&key) {
            return Err(ExamRefusal::TooMany);
        }
        if !self.inner().numbers.contains_key(&work.assigned) {
            return Err(ExamRefusal::TooLarge);
        }
        let checked = self.assignments.check_shown(checker, work.assigned, work.minute).await;
        if let Err(why) = checked {
            debug!(%checker, why, "a challenge is refused");
            return Err(ExamRefusal::NotAssigned);
        }
        let taken = self.begin(checker, work)?;
        // After it was noted, so that an order that comes now either sees it or is seen.
        if host.slots().idle(outside::now(), work.container).is_none() {
            return Err(ExamRefusal::Busy);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(taken)
    }

    /// Takes a measurement, by the same rules: it needs an idle slot, so that it disturbs no lease.
    async fn admit(
        &self,
        host: &Host,
        checker: NodeId,
        work: &MeasureWork,
    ) -> Result<Measuring<'_>, ExamRefusal> {
        // Devices have lower numbers.
        let kind = u32::MAX - work.kind as u32;
        let key = (work.minute, checker, work.container, kind);
        if self.inner().given.contains_key(&key) {
            return Err(ExamRefusal::TooMany);
        }
        let checked = self.assignments.check_shown(checker, work.container, work.minute).await;
        if let Err(why) = checked {
            debug!(%checker, why, "a measurement is refused");
            return Err(ExamRefusal::NotAssigned);
        }
        let measuring = {
            let mut inner = self.inner();
            let first = inner.numbers.get(&work.container).copied();
            // One at a time for a container, beside its devices.
            let number = first.ok_or(ExamRefusal::TooLarge)? + DEVICES_MAX - 1;
            inner.may_give(&key, number)?;
            let bytes = u64::try_from(measure::bytes_of(work)).unwrap_or(u64::MAX);
            let is_left = match work.kind {
                MeasureKind::Download | MeasureKind::Upload => inner.network.take(micros(), bytes),
                MeasureKind::Disk => inner.disk.take(micros(), bytes),
            };
            if !is_left {
                return Err(ExamRefusal::TooMany);
            }
            inner.given.insert(key, ());
            let stop = Stop::default();
            inner.under_way.insert(number, (work.container, stop.clone()));
            Measuring { exams: self, number, stop }
        };
        if host.slots().idle(outside::now(), work.container).is_none() {
            return Err(ExamRefusal::Busy);
        }
        self.measured.fetch_add(1, Ordering::Relaxed);
        Ok(measuring)
    }

    fn begin(&self, checker: NodeId, work: Wanted) -> Result<Taken<'_>, ExamRefusal> {
        // Memory is asked of the device itself when it is filled.
        let shape = work.shape.or_else(|| Shape::new(1, 1)).ok_or(ExamRefusal::TooLarge)?;
        let now = micros();
        let mut inner = self.inner();
        let first = inner.numbers.get(&work.container).copied().ok_or(ExamRefusal::TooLarge)?;
        if work.device >= DEVICES_MAX - 1 {
            return Err(ExamRefusal::TooLarge);
        }
        let number = first + work.device;
        inner.parts.retain(|_, part| !part.is_whole(now));
        let mut part = inner.parts.get(&(number, checker)).copied();
        let is_left = part.as_mut().is_none_or(|part| part.may_begin(now));
        if !inner.budgets.entry(number).or_default().may_begin(now) || !is_left {
            return Err(ExamRefusal::TooMany);
        }
        if part.is_none() && inner.parts.len() >= PARTS_MAX {
            return Err(ExamRefusal::Busy);
        }
        let key = (work.minute, checker, work.container, work.device);
        inner.may_give(&key, number)?;
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
        Ok(Taken { exams: self, number, checker, stop, since, spent })
    }
}

impl Inner {
    /// Whether something was not given yet and its device is free. Also where the same was asked for
    /// twice at once.
    fn may_give(
        &mut self,
        key: &(u64, NodeId, ContainerId, u32),
        number: u32,
    ) -> Result<(), ExamRefusal> {
        let oldest = key.0.saturating_sub(GIVEN_MINUTES);
        self.given.retain(|(minute, ..), ()| *minute >= oldest);
        if self.given.contains_key(key) {
            return Err(ExamRefusal::TooMany);
        }
        if self.given.len() >= GIVEN_MAX || self.under_way.contains_key(&number) {
            return Err(ExamRefusal::Busy);
        }
        Ok(())
    }

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

/// A measurement under way.
#[derive(Debug)]
struct Measuring<'a> {
    exams: &'a Exams,
    number: u32,
    stop: Stop,
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        // What still writes aside ends, too.
        self.stop.stop();
        self.exams.inner().under_way.remove(&self.number);
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
        let spent = self.spent.load(Ordering::Relaxed);
        inner.budgets.entry(self.number).or_default().spend(now, spent);
        let part = inner.parts.entry((self.number, self.checker));
        part.or_insert_with(Budget::of_checker).spend(now, spent);
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
