//! Whose fault it was, from everything that happened on a device about the same time.
//!
//! 1. A fault of the host on the device within [`WINDOW_US`] makes everything there the host's:
//!    broken hardware can make any work fail.
//! 2. Else an error that work causes is the buyer's if the process belongs to the lease's sandbox.
//! 3. Else what is the network's is the network's, and the rest nobody's: an error of work that
//!    can't be traced to the lease may have been the host's own.

use std::collections::BTreeSet;

use welkin_types::Fault;

use super::line::Event;
use super::rules::{Severity, Symptom, rule_of};

/// How long before and after an error another one on the same device explains it.
pub const WINDOW_US: u64 = 60_000_000;

/// What was decided, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// Whose fault.
    pub fault: Fault,
    /// The symptom that decided.
    pub symptom: Symptom,
    /// How bad the worst was.
    pub severity: Severity,
}

/// Decides about a lease that ended badly at `at_us` on these devices, whose sandbox had these
/// processes. Events without a time or device count as near. Nothing if nothing happened.
pub fn attribute(
    events: &[Event],
    at_us: u64,
    devices: &BTreeSet<String>,
    pids: &BTreeSet<u32>,
) -> Option<Attribution> {
    let is_near = |event: &&Event| {
        let in_time = event.at_us.is_none_or(|at| at.abs_diff(at_us) <= WINDOW_US);
        // Drivers name a card with or without its function: 0000:3b:00 and 0000:3b:00.0.
        let same = |device: &String| {
            devices
                .iter()
                .any(|own| own.starts_with(device.as_str()) || device.starts_with(own.as_str()))
        };
        in_time && event.device.as_ref().is_none_or(same)
    };
    let near: Vec<_> = events.iter().filter(is_near).collect();
    let severity = near.iter().map(|event| rule_of(event.symptom).severity).max()?;
    let decided =
        |fault: Fault, event: &Event| Attribution { fault, symptom: event.symptom, severity };
    let of_fault =
        |fault: Fault| near.iter().filter(move |event| rule_of(event.symptom).fault == fault);
    // What was corrected in time, or only makes hardware slow, explains no failure.
    let host =
        of_fault(Fault::Host).filter(|event| rule_of(event.symptom).severity >= Severity::Drain);
    if let Some(event) = host.max_by_key(|event| rule_of(event.symptom).severity) {
        return Some(decided(Fault::Host, event));
    }
    let is_own = |event: &&&&Event| event.pid.is_some_and(|pid| pids.contains(&pid));
    if let Some(event) = of_fault(Fault::Buyer).find(|event| is_own(&event)) {
        return Some(decided(Fault::Buyer, event));
    }
    if let Some(event) = of_fault(Fault::Network).next() {
        return Some(decided(Fault::Network, event));
    }
    near.first().map(|event| decided(Fault::Unknown, event))
}
