//! Passive health: what the kernel's log and sensors say of this machine, and that it is obeyed.
//!
//! Each GPU, and the machine as a whole, is a part with a watch of its own (`welkin_check::health`).
//! A part with a fault is out of service at once: its slots are not free, and no heartbeat says
//! otherwise. Its leases go on while the fault leaves them time, else they end by the host's fault;
//! then it is tested as `welkin host check` does, and comes back. How things stand is on the disk
//! (`report`), so that no restart brings a part back.
//!
//! [`serve`] does what the watches want; sensors are read by a task of their own ([`sensors`]).

mod config;
mod log;
mod part;
mod report;
mod sensors;
mod serve;
mod test;
mod units;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};
use welkin_check::health::{
    Event, Severity, Symptom, WINDOW_US, WatchConfig, WatchInput, WatchOutput, attribute, rule_of,
};
use welkin_lease::{Devices, Slots, Unit};
use welkin_runtime::inventory::Gpu;
use welkin_types::{Fault, Reason, UnixMillis};

pub use config::HealthConfig;
pub use log::{KERNEL_LOG, LogCounters};
pub use report::{
    EventReport, HealthReport, LogReport, Outage, UnitReport, UnitState, say_repaired,
};
pub(super) use sensors::watch as watch_sensors;
pub(super) use serve::serve;

use super::Host;
use crate::outside;
use log::Log;
use part::Part;
use report::{EVENTS_MAX, UNITS_MAX, name_of, unit_of};

/// The most events that are remembered to tell whose fault an end was.
const RECENT_MAX: usize = 256;

/// The same is said in the host's log once it has not been seen for so long.
const SAID_EVERY: Duration = Duration::from_secs(600);

/// Opens the kernel's log ahead, while this process still may.
///
/// # Errors
///
/// Where it may not, or there is none.
pub fn open_kernel_log(config: &HealthConfig) -> std::io::Result<File> {
    log::open(&config.kernel_log)
}

/// A host's health.
#[derive(Debug)]
pub(crate) struct Health {
    config: WatchConfig,
    /// Held for a few lines, and while the log is read.
    inner: Mutex<Inner>,
    /// What the sensors of GPUs said last, by the host's names of them.
    loads: Mutex<BTreeMap<String, GpuLoad>>,
}

/// What a GPU's sensors say of its work; 0 where they say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GpuLoad {
    /// How busy it is, in percent.
    pub(crate) busy_percent: u8,
    /// How hot it is, in degrees Celsius.
    pub(crate) temperature_c: u8,
    /// What keeps it out of service for as long as they say so.
    pub(crate) fault: Option<Symptom>,
}

#[derive(Debug)]
struct Inner {
    log: Option<Log>,
    disks: BTreeSet<String>,
    parts: BTreeMap<Unit, Part>,
    /// What was seen lately, with when it arrived.
    recent: VecDeque<(u64, Option<Unit>, Event)>,
    shown: VecDeque<EventReport>,
    outputs: Vec<(Unit, WatchOutput)>,
    /// Something that must be on the disk has changed.
    is_urgent: bool,
}

/// Two clocks: one that never jumps, and the time of day.
fn clocks() -> (u64, UnixMillis) {
    (u64::try_from(outside::uptime().as_micros()).unwrap_or(u64::MAX), outside::now())
}

impl Health {
    /// The health of a host with these GPUs, as it was written down in its folder. `ahead` is the
    /// kernel's log, if it was opened already; `folders` are where the host keeps its things.
    pub(super) fn load(
        dir: &Path,
        config: &HealthConfig,
        ahead: Option<File>,
        gpus: &[Gpu],
        folders: [&Path; 3],
    ) -> Self {
        let report = match HealthReport::load(dir) {
            Ok(report) => report,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => HealthReport::default(),
            Err(error) => {
                warn!(%error, "how this host's parts stood can't be read: all are tested anew");
                let untested = |unit: &Unit| UnitReport {
                    unit: name_of(unit).to_owned(),
                    state: UnitState::Waiting,
                    ..UnitReport::default()
                };
                let units = all_units(gpus).iter().map(untested).collect();
                HealthReport { units, ..HealthReport::default() }
            }
        };
        let (watch, now) = (config.watch(), clocks());
        let HealthReport { log, units, events, .. } = report;
        let known = units.into_iter().take(UNITS_MAX);
        let mut parts: BTreeMap<_, _> =
            known.map(|unit| (unit_of(&unit.unit), Part::restore(watch, unit, now))).collect();
        for unit in all_units(gpus) {
            parts.entry(unit).or_insert_with(|| Part::new(watch));
        }
        let path = config.kernel_log.clone();
        let has_log = !path.as_os_str().is_empty();
        let log = has_log.then(|| Log::new(path, ahead, (log.cursor, log.counters)));
        let inner = Inner {
            log,
            disks: units::disks_of(folders),
            parts,
            recent: VecDeque::new(),
            shown: events.into(),
            outputs: Vec::new(),
            is_urgent: false,
        };
        Self { config: watch, inner: Mutex::new(inner), loads: Mutex::default() }
    }

    /// What GPUs' sensors said last, by the host's names of them.
    pub(crate) fn loads(&self) -> BTreeMap<String, GpuLoad> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what GPUs' sensors say now. One that is not among them is not known any more.
    fn loaded(&self, loads: BTreeMap<String, GpuLoad>) {
        *self.loads.lock().unwrap_or_else(PoisonError::into_inner) = loads;
    }

    /// Takes out of service what was out of service before the restart.
    pub(super) fn withdraw_from(&self, slots: &mut Slots) {
        for (unit, part) in &self.inner().parts {
            if !part.is_in_service() {
                let reason = part.symptom().map(Symptom::code);
                info!(unit = name_of(unit), reason, "still out of service");
                slots.withdraw(unit.clone());
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new in the kernel's log; says whether more may be there.
    pub(crate) fn read_log(&self, host: &Host) -> bool {
        let mut inner = self.inner();
        let Some(mut log) = inner.log.take() else { return false };
        let mut events = Vec::new();
        let has_more = log.read(outside::uptime(), |event| {
            // What one pass may hold is bounded, and so is what is kept of it.
            events.push(event);
        });
        inner.log = Some(log);
        for event in events {
            let unit = units::unit_of(&event, &host.gpus, &inner.disks);
            let rule = rule_of(event.symptom);
            inner.remember(unit.clone(), event);
            if let Some(unit) = unit {
                inner.see(host, unit, rule.symptom, rule.fault, self.config);
            }
        }
        has_more
    }

    /// Takes what a sensor means.
    pub(super) fn sensed(&self, host: &Host, unit: Unit, symptom: Symptom) {
        let mut inner = self.inner();
        let event = Event { at_us: None, symptom, device: None, pid: None };
        inner.remember(Some(unit.clone()), event);
        inner.see(host, unit, symptom, rule_of(symptom).fault, self.config);
    }

    /// Whose fault it is that a command on these devices failed just now, where that is not the
    /// buyer's: reason and words for the end of its lease.
    pub(crate) fn blame(&self, host: &Host, devices: &Devices) -> Option<(Reason, String)> {
        // The kernel may have said it a moment ago.
        self.read_log(host);
        let inner = self.inner();
        let (now, _) = clocks();
        let is_its = |unit: &Unit| match unit {
            Unit::Host => true,
            Unit::Device(device) => devices.contains(device),
        };
        let near = inner.recent.iter().filter(|(_, unit, _)| unit.as_ref().is_some_and(is_its));
        // An error of work on the machine as a whole may be anybody's.
        let near = near.filter(|(_, unit, event)| {
            *unit != Some(Unit::Host) || rule_of(event.symptom).fault != Fault::Buyer
        });
        // They are about its devices, so neither device nor the clock of the log is compared again.
        let events: Vec<Event> = near
            .map(|(at, _, event)| Event { at_us: Some(*at), device: None, ..event.clone() })
            .collect();
        let pids = events.iter().filter_map(|event| event.pid).collect();
        let found = attribute(&events, now, &BTreeSet::new(), &pids)?;
        let reason = match found.fault {
            Fault::Host => Reason::HostFault,
            Fault::Unknown if found.severity >= Severity::Drain => Reason::DeviceFault,
            Fault::Unknown | Fault::Buyer | Fault::Network => {
                let symptom = found.symptom.code();
                debug!(symptom, fault = %found.fault, "a command failed, and the log tells why");
                return None;
            }
        };
        Some((reason, in_words(found.symptom)))
    }

    /// Why these units are out of service, in a sentence.
    pub(crate) fn why_out(&self, units: &[Unit]) -> Option<String> {
        let inner = self.inner();
        units.iter().find_map(|unit| {
            let part = inner.parts.get(unit)?;
            let symptom = part.symptom()?;
            let since =
                part.out_since().map_or_else(String::new, |since| format!(" since {since}"));
            Some(format!("out of service{since} until it has passed a test: {}", in_words(symptom)))
        })
    }

    /// How everything stands.
    pub(crate) fn report(&self) -> HealthReport {
        let (inner, now) = (self.inner(), clocks());
        let log = inner.log.as_ref().map_or_else(LogReport::default, |log| LogReport {
            path: log.path().to_owned(),
            trouble: log.trouble().map(str::to_owned),
            counters: log.counters(),
            cursor: log.cursor(),
        });
        let units = inner.parts.iter().map(|(unit, part)| part.report(name_of(unit), now));
        let (units, events) = (units.collect(), inner.shown.iter().cloned().collect());
        HealthReport { at: now.1, log, units, events }
    }
}

impl Inner {
    fn remember(&mut self, unit: Option<Unit>, event: Event) {
        let (now, wall) = clocks();
        let name = unit.as_ref().map_or("", name_of).to_owned();
        let symptom = event.symptom.code();
        let rule = rule_of(event.symptom);
        let place = self.shown.iter().position(|one| one.unit == name && one.symptom == symptom);
        let known = place.and_then(|place| self.shown.remove(place));
        // Said once for many: a flood of lines must not flood the host's own log.
        let is_new = known.as_ref().is_none_or(|one| wall.since(one.at) > SAID_EVERY);
        if is_new {
            info!(unit = name, symptom, fault = %rule.fault, device = event.device, "health");
        }
        let count = known.filter(|_| !is_new).map_or(0, |one| one.count);
        let fault = Some(rule.fault);
        let count = count + 1;
        self.shown.push_back(EventReport { at: wall, unit: name, symptom, fault, count });
        while self.shown.len() > EVENTS_MAX {
            self.shown.pop_front();
        }
        let is_old = |(at, ..): &(u64, _, _)| now.saturating_sub(*at) > WINDOW_US;
        while self.recent.len() >= RECENT_MAX || self.recent.front().is_some_and(is_old) {
            // What tells most about an end is kept longest: a flood of notes pushes only notes out.
            let is_note =
                |(_, _, event): &(u64, _, Event)| rule_of(event.symptom).severity == Severity::Note;
            let place = self.recent.iter().position(|one| is_old(one) || is_note(one));
            self.recent.remove(place.unwrap_or(0));
        }
        self.recent.push_back((now, unit, event));
    }

    fn see(
        &mut self,
        host: &Host,
        unit: Unit,
        symptom: Symptom,
        fault: Fault,
        config: WatchConfig,
    ) {
        let part = self.parts.entry(unit.clone()).or_insert_with(|| Part::new(config));
        let outputs = part.handle(clocks(), WatchInput::Seen { symptom, fault });
        if !part.is_in_service() && host.slots().withdraw(unit.clone()) {
            // Before anything else is done about it: no order gets it any more, and indexers hear.
            host.changed.notify_waiters();
        }
        self.is_urgent |= !outputs.is_empty();
        self.outputs.extend(outputs.into_iter().map(|output| (unit.clone(), output)));
    }
}

/// What a symptom is, for people and machines.
fn in_words(symptom: Symptom) -> String {
    let rule = rule_of(symptom);
    format!("{} ({}: {})", rule.meaning, symptom.code(), rule.source)
}

fn all_units(gpus: &[Gpu]) -> Vec<Unit> {
    let devices = gpus.iter().map(|gpu| Unit::Device(gpu.id.clone()));
    std::iter::once(Unit::Host).chain(devices).collect()
}

#[cfg(test)]
mod tests;
