//! The end of a spot lease for an order on demand, and the wait of that order.
//!
//! At the notice billing ends. The sandbox is told until when it may run, then the checkpoint's
//! command runs, then the buyer may fetch what that wrote, then the command is asked to end. What of
//! this takes too long is cut short, so that the command has the last quarter of the notice for
//! itself; at the end of the notice it is killed.

use std::time::Duration;

use welkin_types::{CapacityType, LeaseState, Reason, UnixMillis};

use super::{Effect, HostLease};
use crate::slots::Devices;

/// How long it may take beyond its notice until a spot lease is gone: it is killed and wiped.
const LEAVE_MAX: Duration = Duration::from_secs(60);

impl HostLease {
    /// How long this spot lease goes on after its container is taken back.
    fn notice(&self) -> Duration {
        Duration::from_secs(self.record.launch.terms.notice_seconds.into())
    }

    /// Begins to wait for a slot.
    pub(super) fn wait_for_slot(&mut self, now: UnixMillis) {
        self.place_by = Some(now.after(self.policy.notice + LEAVE_MAX));
    }

    /// What a lease that has no slot yet waits for, in words.
    pub fn waits_for(&self) -> Option<String> {
        let notice = self.policy.notice.as_secs();
        (self.record.state() == LeaseState::Placing)
            .then(|| format!("waits for a spot lease to end, at most {notice} s"))
    }

    pub(super) fn placed(&mut self, now: UnixMillis, devices: Devices) {
        if self.record.state() == LeaseState::Placing {
            self.place_by = None;
            self.record.devices = devices;
            self.enter(now, LeaseState::Pulling, Reason::Normal);
            self.prepare(now);
        }
    }

    pub(super) fn preempt(&mut self, now: UnixMillis) {
        if self.record.launch.terms.capacity != CapacityType::Spot {
            return;
        }
        let notice = self.notice();
        if self.record.state() != LeaseState::Running {
            return self.stop(now, LeaseState::Preempted, Reason::Preempted, notice);
        }
        self.ending = Some((LeaseState::Preempted, Reason::Preempted));
        self.ask_at = None;
        let kill_at = now.after(notice);
        self.kill_at = Some(kill_at);
        self.enter(now, LeaseState::Stopping, Reason::Preempted);
        self.effects.push_back(Effect::Notice(kill_at));
        let Some(checkpoint) = &self.record.launch.checkpoint else {
            self.effects.push_back(Effect::Terminate);
            return;
        };
        let until = now.after(notice * 3 / 4);
        self.terminate_at = Some(until);
        if checkpoint.argv.is_empty() {
            self.checkpointed();
        } else {
            self.effects.push_back(Effect::Checkpoint(until));
        }
    }

    pub(super) fn checkpointed(&mut self) {
        let Some(until) = self.terminate_at else { return };
        let checkpoint = self.record.launch.checkpoint.as_ref();
        if checkpoint.is_some_and(|checkpoint| !checkpoint.path.is_empty()) {
            self.effects.push_back(Effect::Offer(until));
        } else {
            self.terminate_now();
        }
    }

    /// Asks a command that was given notice to end, once.
    pub(super) fn terminate_now(&mut self) {
        if self.terminate_at.take().is_some() {
            self.effects.push_back(Effect::Terminate);
        }
    }

    /// When a stopping command is killed that outlived the host's process.
    pub(super) fn restored_kill_at(&self, now: UnixMillis, reason: Reason) -> UnixMillis {
        let since = self.record.stages.last().map_or(now, |stage| stage.at);
        match reason {
            Reason::Preempted => since.after(self.notice()).max(now),
            _ => now.after(self.policy.stop_grace),
        }
    }
}
