//! Does what the watches want: ends leases, tests parts, brings them back, writes it all down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};
use welkin_check::health::{Severity, Symptom, WatchInput, WatchOutput, rule_of};
use welkin_kernels::Stop;
use welkin_lease::Unit;
use welkin_types::{Fault, LeaseId, Reason, ReservationId};

use super::part::{Part, Test};
use super::report::{is_repaired, name_of};
use super::{clocks, in_words, test};
use crate::host::registry::Command;
use crate::host::{Host, preempt};

/// The pause between two looks at the kernel's log, and while more is there than one look takes.
const PAUSE: Duration = Duration::from_millis(250);
const FLOOD_PAUSE: Duration = Duration::from_millis(50);
/// How often what runs on a broken part is told to end, and parts are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long writing the report down may take before a test goes on without it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the report is written where nothing that matters has changed.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Tests that end at once.
const TESTED_MAX: usize = 16;

/// The end of a self-test: of which part, which attempt, and what was found.
type Tested = (Unit, u32, Result<String, String>);

/// Watches this host until it is asked to stop.
pub(in crate::host) async fn serve(host: Arc<Host>) {
    let (done, mut tested) = mpsc::channel::<Tested>(TESTED_MAX);
    let (mut ticked, mut saver) = (None::<Instant>, Saver::default());
    loop {
        let has_more = host.health.read_log(&host);
        if ticked.is_none_or(|at| at.elapsed() >= TICK) {
            ticked = Some(Instant::now());
            tick(&host, &done, saver.is_written(&host));
        }
        act(&host);
        saver.save(&host);
        let pause = if has_more { FLOOD_PAUSE } else { PAUSE };
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            Some(end) = tested.recv() => {
                end_test(&host, end);
                ticked = None;
            }
        }
    }
}

/// Looks after every part that is out of service. `is_written`: a test that was wanted before is on the
/// disk as begun, so that it counts even if it ends the machine.
fn tick(host: &Arc<Host>, done: &mpsc::Sender<Tested>, is_written: bool) {
    let mut inner = host.health.inner();
    let now = clocks();
    let mut wanted = Vec::new();
    for (unit, part) in &mut inner.parts {
        let may_test = is_written && matches!(part.test, Test::Wanted);
        let mut outputs = part.handle(now, WatchInput::Tick);
        if part.is_retired() && is_repaired(&host.dir, unit) {
            info!(unit = name_of(unit), "said to be repaired");
            outputs.extend(part.handle(now, WatchInput::Repaired));
        }
        if !part.is_in_service() {
            let leases = occupants(host, unit);
            if leases.is_empty() && part.is_draining() {
                outputs.extend(part.handle(now, WatchInput::Drained));
            }
            if leases.is_empty() && may_test && matches!(part.test, Test::Wanted) {
                let stop = Stop::default();
                part.test = Test::Running(stop.clone());
                begin_test(host, unit.clone(), part.attempt(), stop, done.clone());
            }
            if let Some(symptom) = part.symptom().filter(|_| part.is_stopping()) {
                // Said again until they are gone: one may just have been on its way into service.
                leases.into_iter().for_each(|lease| end_lease(host, lease, symptom));
            }
        }
        wanted.extend(outputs.into_iter().map(|output| (unit.clone(), output)));
    }
    inner.is_urgent |= !wanted.is_empty();
    inner.outputs.extend(wanted);
}

/// The leases that have something of a unit, those included that are just being opened. A reservation
/// without one running has nothing.
fn occupants(host: &Host, unit: &Unit) -> Vec<LeaseId> {
    let mut found = host.slots().occupants(unit);
    found.retain(|lease| !host.reservations.contains(ReservationId::of_lane(*lease)));
    found
}

/// What failed under a lease ends it at once; what only has to leave service lets it end in order.
fn end_lease(host: &Host, lease: LeaseId, symptom: Symptom) {
    let Some(handle) = host.registry.handle(lease) else { return };
    let rule = rule_of(symptom);
    let reason = match rule.fault {
        Fault::Host => Reason::HostFault,
        Fault::Buyer | Fault::Network | Fault::Unknown => Reason::DeviceFault,
    };
    let command = match rule.severity {
        Severity::Lost => Command::Fault(reason, in_words(symptom)),
        Severity::Drain | Severity::Degraded | Severity::Note => Command::Drain(reason),
    };
    // A queue that is full is tried again with the next tick.
    let _ = handle.commands.try_send(command);
}

fn begin_test(host: &Arc<Host>, unit: Unit, attempt: u32, stop: Stop, done: mpsc::Sender<Tested>) {
    info!(unit = name_of(&unit), attempt, "self-test");
    let on = Arc::clone(host);
    host.shutdown.spawn_until_asked("self-test", async move {
        let tested = unit.clone();
        let run = tokio::task::spawn_blocking(move || test::run(&on, &tested, &stop));
        let found = run.await.unwrap_or_else(|error| Err(error.to_string()));
        let _ = done.send((unit, attempt, found)).await;
    });
}

fn end_test(host: &Host, (unit, attempt, found): Tested) {
    // What the test has provoked fails it.
    host.health.read_log(host);
    let mut inner = host.health.inner();
    let Some(part) = inner.parts.get_mut(&unit) else { return };
    part.test = Test::Idle;
    if attempt != part.attempt() {
        // It took too long, and the next one waits for it.
        part.test = Test::Wanted;
        return;
    }
    let passed = found.is_ok();
    let text = found.unwrap_or_else(|why| why);
    info!(unit = name_of(&unit), attempt, passed, found = text, "self-test ended");
    part.found(text);
    let outputs = part.handle(clocks(), WatchInput::Tested { passed });
    inner.is_urgent = true;
    inner.outputs.extend(outputs.into_iter().map(|output| (unit.clone(), output)));
}

/// Carries out what the watches want.
fn act(host: &Arc<Host>) {
    let outputs = std::mem::take(&mut host.health.inner().outputs);
    if outputs.is_empty() {
        return;
    }
    let seconds = |micros: u64| micros / 1_000_000;
    for (unit, output) in outputs {
        let name = name_of(&unit);
        match output {
            WatchOutput::Drain { symptom, .. } => {
                let (reason, remedy) = (symptom.code(), rule_of(symptom).remedy);
                warn!(unit = name, reason, remedy, "out of service: its leases end in order");
            }
            WatchOutput::Stop { symptom } => {
                let (reason, remedy) = (symptom.code(), rule_of(symptom).remedy);
                warn!(unit = name, reason, remedy, "out of service: its leases end now");
            }
            WatchOutput::Back { out_us, drain_us } => {
                let (out_s, drain_s) = (seconds(out_us), seconds(drain_us));
                info!(unit = name, out_s, drain_s, "in service again");
                let given = {
                    // Something may have been seen since it passed.
                    let inner = host.health.inner();
                    let part = inner.parts.get(&unit);
                    let is_back = part.is_some_and(Part::is_in_service);
                    is_back.then(|| host.slots().readmit(&unit))
                };
                preempt::hand_out(host, given.unwrap_or_default());
            }
            WatchOutput::Retired { symptom } => {
                let (reason, remedy) = (symptom.code(), rule_of(symptom).remedy);
                warn!(
                    unit = name,
                    reason,
                    remedy,
                    "out of service until it is repaired: `welkin host health --repaired {name}`"
                );
            }
            WatchOutput::Test { .. } | WatchOutput::Idle { .. } => (),
        }
    }
    // Challenges make way for a test.
    host.containers.iter().for_each(|container| {
        if !host.slots().withdrawn_of(container.id).is_empty() {
            host.exams.yield_to_order(container.id);
        }
    });
    host.changed.notify_waiters();
}

/// Writes the report down, one at a time, and never waits for the disk.
#[derive(Default)]
struct Saver {
    saved: Option<Instant>,
    counted: Option<super::LogCounters>,
    under_way: Option<tokio::task::JoinHandle<bool>>,
    is_failing: Arc<std::sync::atomic::AtomicBool>,
}

impl Saver {
    /// Whether what must be on the disk is there, or can't be brought there.
    fn is_written(&self, host: &Host) -> bool {
        let is_over = self.under_way.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
        // A disk that hangs takes no report either, and must not use up all tests.
        let hangs = !is_over && self.saved.is_some_and(|at| at.elapsed() >= WRITE_TIMEOUT);
        let is_failing = self.is_failing.load(std::sync::atomic::Ordering::Relaxed);
        hangs || is_over && (is_failing || !host.health.inner().is_urgent)
    }

    fn save(&mut self, host: &Arc<Host>) {
        if self.under_way.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let is_urgent = std::mem::take(&mut host.health.inner().is_urgent);
        let is_due = self.saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY);
        if !is_urgent && !is_due {
            return;
        }
        let report = host.health.report();
        let is_same = self.counted == Some(report.log.counters);
        let is_quiet = report.units.iter().all(|unit| unit.state == super::UnitState::InService);
        self.saved = Some(Instant::now());
        if !is_urgent && is_same && is_quiet {
            return;
        }
        self.counted = Some(report.log.counters);
        let (on, failing) = (Arc::clone(host), Arc::clone(&self.is_failing));
        self.under_way = Some(tokio::task::spawn_blocking(move || {
            use std::sync::atomic::Ordering::Relaxed;
            let saved = report.save(&on.dir, is_urgent);
            if let Err(error) = &saved {
                on.health.inner().is_urgent |= is_urgent;
                if !failing.swap(true, Relaxed) {
                    warn!(%error, "the report of this host's health can't be written");
                }
            } else {
                failing.store(false, Relaxed);
            }
            saved.is_ok()
        }));
    }
}
