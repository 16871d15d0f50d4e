//! One lease on its host, from acceptance to receipt.
//!
//! Feed it with [`HostLease::handle`], then drain [`HostLease::poll`] until [`Effect::Idle`]; only
//! then the next input. Effects are to be carried out in order; [`Effect::Save`] comes before
//! every effect that tells somebody of the change.
//!
//! Invariants: only `running` adds seconds; the uncovered part never exceeds the exposure by more
//! than the time between two ticks, or after a restart by the time the buyer is given to come back;
//! after a final state nothing is started; a lease that ran always
//! ends with its sandbox destroyed before its receipt is made; a spot lease is never killed before
//! its notice is over.

use std::collections::VecDeque;
use std::time::Duration;

use welkin_proto::{Exit, LogSummary, Order, SignedByAccount, SpotTerms, StageTime, Voucher, Wipe};
use welkin_types::{LeaseState, Reason, UnixMillis, Usd};

use crate::record::LeaseRecord;
use crate::slots::Devices;

/// The bounds that a host works under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The most seconds of uncovered work.
    pub exposure_seconds: u64,
    /// How often a voucher is asked for.
    pub voucher_every: Duration,
    /// How long a command may take to end when it must.
    pub stop_grace: Duration,
    /// The longest that a buyer may give its command to end.
    pub stop_grace_max: Duration,
    /// The longest time until `running`, whatever the task says.
    pub start_max: Duration,
    /// How long the buyer may take for its last voucher.
    pub last_voucher: Duration,
    /// How long the buyer may take to come back after a restart of the host. It could not pay
    /// while the host was gone, so until then uncovered work is no reason to stop.
    pub buyer_return: Duration,
    /// How long a spot lease goes on at most when its container is taken back.
    pub notice: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            exposure_seconds: 10,
            voucher_every: Duration::from_secs(2),
            stop_grace: Duration::from_secs(10),
            stop_grace_max: Duration::from_secs(120),
            start_max: Duration::from_secs(1_800),
            last_voucher: Duration::from_secs(3),
            buyer_return: Duration::from_secs(20),
            notice: Duration::from_secs(*SpotTerms::NOTICE_SECONDS.end() as u64),
        }
    }
}

/// What can happen to a lease.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// It waited for a slot, and has one with these devices now.
    Placed(Devices),
    /// A sandbox of this id is ready and so are the files.
    Prepared([u8; 16]),
    /// The command runs.
    Started,
    /// It could not be made to run.
    Broken(Reason, String),
    /// The command has ended.
    Exited(Exit),
    /// A voucher whose signature is good.
    Voucher(Box<SignedByAccount<Voucher>>),
    /// The buyer wants it to end, within this time.
    Stop(Duration),
    /// The owner of the host wants it to end, or its hardware has to leave service.
    Drain(Reason),
    /// What it runs on has failed: what ran is lost. The reason says whose fault that is.
    Fault(Reason, String),
    /// An order on demand needs the container of this spot lease.
    Preempt,
    /// The command that writes the checkpoint has ended.
    Checkpointed,
    /// The buyer has the checkpoint, or does without.
    Fetched,
    /// The reservation that it runs on is over.
    ReservationEnded,
    /// The settlement service says that the buyer's money is used up.
    FundsExhausted,
    /// The sandbox is gone and so is what it wrote.
    Wiped(Wipe, LogSummary, ResourcesUsed),
    /// The reservation is closed: so much was paid in all. The rest is given up.
    Settled(Usd),
    /// The host came back and found the sandbox like this.
    Restored(Found),
}

/// What a lease used besides time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourcesUsed {
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// The most memory at once, in bytes.
    pub memory_peak_bytes: u64,
}

/// What a restarted host finds of a lease's sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The command still runs.
    Running,
    /// The command ended meanwhile.
    Exited(Exit),
    /// There is none.
    Nothing,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the record down.
    Save,
    /// Tell the buyer of a state.
    Tell(StageTime, Option<String>),
    /// Get a sandbox ready; then [`Input::Prepared`].
    Prepare,
    /// Start the command in the prepared sandbox.
    Start,
    /// Say in the sandbox until when the command may run.
    Notice(UnixMillis),
    /// Run the command that writes the checkpoint; then [`Input::Checkpointed`].
    Checkpoint(UnixMillis),
    /// Tell the buyer that it can fetch the checkpoint until then.
    Offer(UnixMillis),
    /// Ask the command to end (SIGTERM).
    Terminate,
    /// End the command and all that it started.
    Kill,
    /// Destroy the sandbox and wipe; then [`Input::Wiped`].
    Destroy,
    /// Tell the buyer what was used, so that it sends a voucher.
    AskVoucher {
        /// Seconds used.
        seconds: u64,
        /// Seconds covered.
        covered: u64,
    },
    /// Cash the newest voucher, keep money aside for what follows.
    Redeem,
    /// Cash the last voucher and end the reservation; then [`Input::Settled`]. No voucher is taken
    /// any more.
    Close,
    /// Make, save and send the receipt. The lease is over.
    Receipt,
    /// Nothing to do until an input or, at the latest, this moment.
    Idle {
        /// When to tick, if ever.
        wake_at: Option<UnixMillis>,
        /// Why then.
        why: &'static str,
    },
}

/// The state machine of one lease on its host.
#[derive(Debug)]
pub struct HostLease {
    record: LeaseRecord,
    policy: Policy,
    effects: VecDeque<Effect>,
    /// When the start must have succeeded.
    start_by: Option<UnixMillis>,
    /// When waiting for a slot ends.
    place_by: Option<UnixMillis>,
    /// When a command that was given notice is asked to end, whatever of its checkpoint is there.
    terminate_at: Option<UnixMillis>,
    /// When a stopping command is killed.
    kill_at: Option<UnixMillis>,
    /// What the stop will have been for.
    ending: Option<(LeaseState, Reason)>,
    /// When the next voucher is asked for.
    ask_at: Option<UnixMillis>,
    /// When waiting for the last voucher ends.
    close_at: Option<UnixMillis>,
    /// Until when the buyer may come back after a restart.
    return_by: Option<UnixMillis>,
    /// Seconds covered when money was last moved.
    redeemed_seconds: u64,
    /// Whether the last voucher is being cashed.
    is_closing: bool,
    /// What was paid in all, once that is known.
    paid: Option<Usd>,
    detail: Option<String>,
    last_now: UnixMillis,
}

impl HostLease {
    /// Cash a voucher once this many more seconds are covered.
    const REDEEM_EVERY_SECONDS: u64 = 120;

    /// Takes over a lease that has just been accepted and written down.
    pub fn new(record: LeaseRecord, policy: Policy, now: UnixMillis) -> Self {
        let mut lease = Self::bare(record, policy, now);
        let stage = lease.record.stages.last().copied();
        lease.effects.extend(stage.map(|stage| Effect::Tell(stage, None)));
        if lease.record.state() == LeaseState::Placing {
            lease.wait_for_slot(now);
        } else {
            lease.prepare(now);
        }
        lease
    }

    /// From here on the time until the start counts.
    fn prepare(&mut self, now: UnixMillis) {
        let (limit, most) = (self.record.launch.start_seconds_max, self.policy.start_max);
        let asked = if limit == 0 { most } else { Duration::from_secs(limit) };
        self.start_by = Some(now.after(asked.min(most)));
        self.effects.push_back(Effect::Prepare);
    }

    /// Takes over a lease found on disk after a restart; [`Input::Restored`] must follow.
    pub fn restore(record: LeaseRecord, policy: Policy, now: UnixMillis) -> Self {
        Self::bare(record, policy, now)
    }

    fn bare(record: LeaseRecord, policy: Policy, now: UnixMillis) -> Self {
        Self {
            redeemed_seconds: record.covered().0,
            record,
            policy,
            effects: VecDeque::new(),
            start_by: None,
            place_by: None,
            terminate_at: None,
            kill_at: None,
            ending: None,
            ask_at: None,
            close_at: None,
            return_by: None,
            is_closing: false,
            paid: None,
            detail: None,
            last_now: now,
        }
    }

    /// What is written down of it.
    pub const fn record(&self) -> &LeaseRecord {
        &self.record
    }

    /// For the shell's own fields: the receipt and the buyer's signature under it.
    pub const fn record_mut(&mut self) -> &mut LeaseRecord {
        &mut self.record
    }

    /// What the lease costs: what was paid for what was used.
    pub fn cost(&self) -> Usd {
        let order = self.order();
        let due = order.price.cost(self.record.usage.seconds);
        self.paid.unwrap_or_default().min(due).min(self.record.covered().1).min(order.budget)
    }

    /// Whether the receipt is made.
    pub const fn is_over(&self) -> bool {
        self.record.receipt.is_some()
    }

    fn order(&self) -> &Order {
        &self.record.order.message
    }

    /// Takes one input. Time never runs backwards: an earlier `now` counts as the last one.
    pub fn handle(&mut self, now: UnixMillis, input: Input) {
        let now = now.max(self.last_now);
        self.last_now = now;
        match input {
            Input::Tick => (),
            Input::Placed(devices) => self.placed(now, devices),
            Input::Prepared(sandbox) => self.prepared(now, sandbox),
            Input::Started => self.started(now),
            Input::Broken(reason, detail) => self.broken(now, reason, detail),
            Input::Exited(exit) => self.exited(now, exit),
            Input::Voucher(voucher) => self.voucher(now, *voucher),
            Input::Stop(grace) => {
                // Stopping does not bill, so how long it may last is the host's to bound.
                let grace = grace.min(self.policy.stop_grace_max);
                self.stop(now, LeaseState::Stopped, Reason::BuyerStopped, grace);
            }
            Input::Drain(reason) => {
                let grace = self.policy.stop_grace;
                self.stop(now, LeaseState::Preempted, reason, grace);
            }
            Input::Fault(reason, detail) => self.fault(now, reason, detail),
            Input::Preempt => self.preempt(now),
            Input::ReservationEnded => {
                let grace = self.policy.stop_grace;
                self.stop(now, LeaseState::Expired, Reason::ReservationEnded, grace);
            }
            Input::Checkpointed => self.checkpointed(),
            Input::Fetched => self.terminate_now(),
            Input::FundsExhausted => {
                let grace = self.policy.stop_grace.min(Duration::from_secs(2));
                self.stop(now, LeaseState::Expired, Reason::FundsExhausted, grace);
            }
            Input::Wiped(wipe, logs, used) => self.wiped(now, wipe, logs, used),
            Input::Settled(paid) => self.settled(paid),
            Input::Restored(found) => self.restored(now, found),
        }
        self.check_times(now);
    }

    /// Returns the next effect; [`Effect::Idle`] ends the drain.
    #[must_use]
    pub fn poll(&mut self) -> Effect {
        self.effects.pop_front().unwrap_or_else(|| self.idle())
    }

    fn idle(&self) -> Effect {
        let mut next: Option<(UnixMillis, &'static str)> = None;
        let candidates = [
            (self.place_by, "no slot comes free"),
            (self.start_by, "the start takes too long"),
            (self.terminate_at, "the command must be asked to end"),
            (self.kill_at, "the command must end"),
            (self.ask_at, "a voucher is due"),
            (self.close_at, "the last voucher is due"),
            (self.run_limit(), "the run takes too long"),
        ];
        for (at, why) in candidates {
            if let Some(at) = at
                && next.is_none_or(|(earliest, _)| at < earliest)
            {
                next = Some((at, why));
            }
        }
        Effect::Idle { wake_at: next.map(|(at, _)| at), why: next.map_or("", |(_, why)| why) }
    }

    fn run_limit(&self) -> Option<UnixMillis> {
        let limit = self.record.launch.run_seconds_max;
        let running = self.record.stages.last().filter(|s| s.state == LeaseState::Running)?;
        (limit > 0).then(|| running.at.after(Duration::from_secs(limit)))
    }

    fn enter(&mut self, now: UnixMillis, state: LeaseState, reason: Reason) {
        let stage = StageTime { state, reason, at: now };
        self.record.stages.push(stage);
        self.effects.push_back(Effect::Save);
        let detail = if state.is_final() { self.detail.take() } else { None };
        self.effects.push_back(Effect::Tell(stage, detail));
    }

    fn prepared(&mut self, now: UnixMillis, sandbox: [u8; 16]) {
        if self.record.state() != LeaseState::Pulling {
            // Stopped while it was being prepared: the sandbox is of no use.
            self.record.sandbox = sandbox;
            return;
        }
        self.record.sandbox = sandbox;
        self.enter(now, LeaseState::Starting, Reason::Normal);
        self.effects.push_back(Effect::Start);
    }

    fn started(&mut self, now: UnixMillis) {
        if self.record.state() == LeaseState::Starting {
            self.start_by = None;
            self.ask_at = Some(now.after(self.policy.voucher_every));
            self.enter(now, LeaseState::Running, Reason::Normal);
        }
    }

    fn broken(&mut self, now: UnixMillis, reason: Reason, detail: String) {
        if self.record.state().is_final() {
            return;
        }
        self.detail = Some(detail);
        let state =
            if reason == Reason::SandboxLost { LeaseState::Lost } else { LeaseState::Failed };
        let (state, reason) = self.ending.take().unwrap_or((state, reason));
        self.finish(now, state, reason);
    }

    /// What the buyer has promised by now is billed, no more: how much of it ran on sound hardware is
    /// not known, and nothing is after it.
    fn fault(&mut self, now: UnixMillis, reason: Reason, detail: String) {
        if self.record.state().is_final() {
            return;
        }
        self.detail = Some(detail);
        self.ending = None;
        self.finish(now, LeaseState::Lost, reason);
        self.bill_only_covered();
    }

    fn exited(&mut self, now: UnixMillis, exit: Exit) {
        let state = self.record.state();
        if state.is_final() {
            return;
        }
        if matches!(state, LeaseState::Placing | LeaseState::Pulling) {
            let text = "the sandbox ended before its command was started".to_owned();
            return self.broken(now, Reason::SandboxFailed, text);
        }
        // A sandbox can be over before the word that it runs has arrived.
        self.started(now);
        self.record.exit = Some(exit);
        // It ended by itself before it was asked to.
        if self.terminate_at.is_some() {
            self.ending = None;
        }
        let (state, reason) = self.ending.take().unwrap_or(match exit {
            Exit { oom: true, .. } => (LeaseState::Failed, Reason::OutOfMemory),
            Exit { code: Some(0), .. } => (LeaseState::Succeeded, Reason::ExitedZero),
            Exit { code: Some(_), .. } => (LeaseState::Failed, Reason::ExitedNonZero),
            Exit { .. } => (LeaseState::Failed, Reason::KilledBySignal),
        });
        self.finish(now, state, reason);
    }

    fn voucher(&mut self, now: UnixMillis, voucher: SignedByAccount<Voucher>) {
        let (seconds, amount) = self.record.covered();
        // A promise for what was not used would be paid, and stand in no receipt. An honest one
        // answers a question that named the seconds.
        if voucher.message.seconds > self.record.seconds(now) {
            return;
        }
        let is_more = voucher.message.amount > amount || voucher.message.seconds > seconds;
        if !is_more || voucher.message.amount < amount || self.is_closing {
            return;
        }
        self.record.voucher = Some(voucher);
        self.return_by = None;
        self.effects.push_back(Effect::Save);
        let (seconds, _) = self.record.covered();
        if self.close_at.is_some() {
            self.close_if_covered();
        } else if seconds >= self.redeemed_seconds.saturating_add(Self::REDEEM_EVERY_SECONDS) {
            self.redeemed_seconds = seconds;
            self.effects.push_back(Effect::Redeem);
        }
    }

    fn stop(&mut self, now: UnixMillis, state: LeaseState, reason: Reason, grace: Duration) {
        match self.record.state() {
            LeaseState::Running => {
                self.ending = Some((state, reason));
                self.kill_at = Some(now.after(grace));
                self.ask_at = None;
                self.enter(now, LeaseState::Stopping, reason);
                self.effects.push_back(Effect::Terminate);
            }
            LeaseState::Stopping => {
                // Asked again: the earlier end holds.
                self.terminate_now();
                let at = now.after(grace);
                self.kill_at = Some(self.kill_at.map_or(at, |kill_at| kill_at.min(at)));
            }
            LeaseState::Placing | LeaseState::Pulling | LeaseState::Starting => {
                self.ending = Some((state, reason));
                self.finish(now, state, reason);
            }
            _ => (),
        }
    }

    /// Enters a final state; the sandbox goes, the last voucher is asked for.
    fn finish(&mut self, now: UnixMillis, state: LeaseState, reason: Reason) {
        self.start_by = None;
        self.place_by = None;
        self.terminate_at = None;
        self.kill_at = None;
        self.ask_at = None;
        self.enter(now, state, reason);
        self.record.usage.seconds = self.record.seconds(now);
        self.effects.push_back(Effect::Destroy);
    }

    fn wiped(&mut self, now: UnixMillis, wipe: Wipe, logs: LogSummary, used: ResourcesUsed) {
        if !self.record.state().is_final() || self.record.wipe.is_some() {
            return;
        }
        self.record.wipe = Some(wipe);
        self.record.logs = logs;
        self.record.usage.cpu_us = used.cpu_us;
        self.record.usage.memory_peak_bytes = used.memory_peak_bytes;
        self.effects.push_back(Effect::Save);
        if self.is_covered() {
            self.close();
        } else {
            self.close_at = Some(now.after(self.policy.last_voucher));
            self.ask(self.record.usage.seconds);
        }
    }

    /// Whether no more is promised: all is, or the budget has no room for a further second.
    fn is_covered(&self) -> bool {
        let (covered, _) = self.record.covered();
        covered >= self.record.usage.seconds
            || self.order().price.cost(covered.saturating_add(1)) > self.order().budget
    }

    fn close(&mut self) {
        self.close_at = None;
        self.is_closing = true;
        self.effects.push_back(Effect::Close);
    }

    fn close_if_covered(&mut self) {
        if self.is_covered() {
            self.close();
        }
    }

    fn settled(&mut self, paid: Usd) {
        if self.is_closing && !self.record.settled {
            self.paid = Some(paid);
            // What the last voucher does not cover is given up.
            let covered = self.record.covered().0;
            self.record.usage.seconds = self.record.usage.seconds.min(covered);
            self.record.settled = true;
            self.effects.push_back(Effect::Receipt);
        }
    }

    fn restored(&mut self, now: UnixMillis, found: Found) {
        if self.record.receipt.is_some() {
            return;
        }
        if self.record.settled && self.paid.is_some() {
            self.effects.push_back(Effect::Receipt);
            return;
        }
        if self.record.state().is_final() {
            // Closing a second time changes nothing and says what was paid.
            self.record.settled = false;
            match self.record.wipe {
                None => self.effects.push_back(Effect::Destroy),
                Some(_) => self.close(),
            }
            return;
        }
        match (self.record.state(), found) {
            (LeaseState::Running, Found::Running) => {
                self.ask_at = Some(now);
                self.return_by = Some(now.after(self.policy.buyer_return));
            }
            (LeaseState::Stopping, Found::Running) => {
                let stage = self.record.stages.last();
                let reason = stage.map_or(Reason::BuyerStopped, |stage| stage.reason);
                self.ending = Some((final_state_of(reason), reason));
                self.kill_at = Some(self.restored_kill_at(now, reason));
                // Whether it was asked is not known; twice does no harm.
                self.effects.push_back(Effect::Terminate);
            }
            (LeaseState::Starting, Found::Running) => self.started(now),
            (
                LeaseState::Running | LeaseState::Stopping | LeaseState::Starting,
                Found::Exited(exit),
            ) => {
                self.exited(now, exit);
                self.bill_only_covered();
            }
            _ => {
                self.finish(now, LeaseState::Lost, Reason::HostRestarted);
                self.bill_only_covered();
            }
        }
    }

    /// When the work ended is not known: bill what the buyer has promised, no more.
    fn bill_only_covered(&mut self) {
        self.record.usage.seconds = self.record.usage.seconds.min(self.record.covered().0);
    }

    fn check_times(&mut self, now: UnixMillis) {
        if self.start_by.is_some_and(|at| at <= now) {
            self.detail = Some("the start took longer than the task allows".to_owned());
            self.finish(now, LeaseState::Failed, Reason::StartTimeout);
        }
        if self.place_by.is_some_and(|at| at <= now) {
            self.detail = Some("the spot lease that it waited for did not leave".to_owned());
            self.finish(now, LeaseState::Failed, Reason::HostsBusy);
        }
        if self.terminate_at.is_some_and(|at| at <= now) {
            self.terminate_now();
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.terminate_at = None;
            self.effects.push_back(Effect::Kill);
        }
        if self.close_at.is_some_and(|at| at <= now) {
            self.close();
        }
        if self.record.state() == LeaseState::Running {
            self.check_running(now);
        }
    }

    fn check_running(&mut self, now: UnixMillis) {
        let seconds = self.record.seconds(now);
        let (covered, _) = self.record.covered();
        let short = self.policy.stop_grace.min(Duration::from_secs(2));
        if self.run_limit().is_some_and(|at| at <= now) {
            let grace = self.policy.stop_grace;
            self.stop(now, LeaseState::Expired, Reason::RunTimeout, grace);
        } else if self.order().price.cost(seconds) > self.order().budget {
            self.stop(now, LeaseState::Expired, Reason::FundsExhausted, short);
        } else if seconds.saturating_sub(covered) > self.policy.exposure_seconds
            && self.return_by.is_none_or(|at| at <= now)
        {
            self.stop(now, LeaseState::Expired, Reason::Uncovered, short);
        } else if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = Some(now.after(self.policy.voucher_every));
            self.ask(seconds);
        }
    }

    fn ask(&mut self, seconds: u64) {
        let (covered, _) = self.record.covered();
        self.effects.push_back(Effect::AskVoucher { seconds, covered });
    }
}

/// The final state that a stop for this reason leads to.
const fn final_state_of(reason: Reason) -> LeaseState {
    match reason {
        Reason::HostDrained | Reason::HostFault | Reason::DeviceFault | Reason::Preempted => {
            LeaseState::Preempted
        }
        Reason::RunTimeout
        | Reason::Uncovered
        | Reason::FundsExhausted
        | Reason::ReservationEnded => LeaseState::Expired,
        _ => LeaseState::Stopped,
    }
}

mod preempt;
#[cfg(test)]
mod tests;
