//! Detect, drain, requalify: one container's way out of service and back.
//!
//! The rule: handle once, then poll until [`WatchOutput::Idle`], only then handle again.
//!
//! `healthy → draining → requalifying → healthy`, each stage timed. What is lost skips draining. A
//! test that fails is tried again after a pause that doubles; after [`WatchConfig::attempts`] the
//! container is retired until its operator brings it back. One that fails again within
//! [`WatchConfig::relapse_us`] of its return waits before its first test, twice as long with each
//! time, and is retired as well once it has relapsed so often: also where its host was started anew
//! between.

use std::collections::VecDeque;

use welkin_types::Fault;

use super::rules::{Severity, Symptom, rule_of};

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// How long leases have to end in order, in microseconds.
    pub drain_us: u64,
    /// How long a test may take.
    pub test_us: u64,
    /// The pause before the second test.
    pub pause_us: u64,
    /// How many tests, and how many relapses, before the container is retired.
    pub attempts: u32,
    /// A fault so soon after the return is a relapse.
    pub relapse_us: u64,
}

impl Default for WatchConfig {
    /// Ten minutes to drain, five to test, a minute's pause, five tests, a day until all is forgotten.
    fn default() -> Self {
        Self {
            drain_us: 600_000_000,
            test_us: 300_000_000,
            pause_us: 60_000_000,
            attempts: 5,
            relapse_us: 86_400_000_000,
        }
    }
}

/// What a watch is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchInput {
    /// Time has passed.
    Tick,
    /// A symptom, with whose fault it was found to be.
    Seen {
        /// What.
        symptom: Symptom,
        /// Whose fault.
        fault: Fault,
    },
    /// No lease runs any more.
    Drained,
    /// A test ended.
    Tested {
        /// Whether the container passed.
        passed: bool,
    },
    /// The operator says that it is repaired.
    Repaired,
}

/// What a watch wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchOutput {
    /// Take no new lease; the present ones end by then.
    Drain {
        /// The deadline.
        until_us: u64,
        /// Why.
        symptom: Symptom,
    },
    /// End all leases now.
    Stop {
        /// Why.
        symptom: Symptom,
    },
    /// Run the self-test.
    Test {
        /// Which attempt, counted from 1.
        attempt: u32,
    },
    /// In service again, after so long.
    Back {
        /// From the symptom to now, in microseconds.
        out_us: u64,
        /// Of it, draining.
        drain_us: u64,
    },
    /// Out of service until the operator repairs it.
    Retired {
        /// Why.
        symptom: Symptom,
    },
    /// Nothing until then, or until there is other input.
    Idle {
        /// When to handle [`WatchInput::Tick`], with the reason.
        wake_at: Option<(u64, &'static str)>,
    },
}

/// Where a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In service.
    Healthy,
    /// Its leases end.
    Draining {
        /// When they must have ended.
        until_us: u64,
    },
    /// Is being tested.
    Testing {
        /// When the test must have ended.
        until_us: u64,
    },
    /// Waits for the next test.
    Pausing {
        /// Until when.
        until_us: u64,
    },
    /// Out of service.
    Retired,
}

/// What must survive a restart, on whatever clock: times are how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whether leases still had time to end.
    pub is_draining: bool,
    /// Whether only the operator brings it back.
    pub is_retired: bool,
    /// Why.
    pub symptom: Symptom,
    /// How long ago that was seen, in microseconds.
    pub seen_ago_us: u64,
    /// Tests that were begun.
    pub attempt: u32,
    /// Relapses.
    pub relapses: u32,
}

/// What must survive a restart of a container in service that was out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// How long ago it came back, in microseconds.
    pub back_ago_us: u64,
    /// How often it had relapsed.
    pub relapses: u32,
}

/// One container's watch.
#[derive(Clone, Debug)]
pub struct Watch {
    config: WatchConfig,
    stage: Stage,
    symptom: Symptom,
    seen_us: u64,
    drained_us: u64,
    attempt: u32,
    relapses: u32,
    /// Until when a fault is a relapse; 0 until it has been back.
    relapse_until_us: u64,
    now: u64,
    outputs: VecDeque<WatchOutput>,
}

impl Watch {
    /// A watch over a container in service.
    pub const fn new(config: WatchConfig) -> Self {
        Self {
            config,
            stage: Stage::Healthy,
            symptom: Symptom::Lockup,
            seen_us: 0,
            drained_us: 0,
            attempt: 0,
            relapses: 0,
            relapse_until_us: 0,
            now: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes up the watch over a container that was out of service when its host ended. A test that
    /// was under way has failed: it may be what ended the host.
    pub fn restore(config: WatchConfig, kept: Kept, now_us: u64) -> Self {
        let seen_us = now_us.saturating_sub(kept.seen_ago_us);
        let left = config.drain_us.saturating_sub(kept.seen_ago_us);
        let mut watch = Self {
            symptom: kept.symptom,
            seen_us,
            drained_us: now_us,
            attempt: kept.attempt,
            relapses: kept.relapses,
            now: now_us,
            ..Self::new(config)
        };
        watch.stage = match kept {
            Kept { is_retired: true, .. } => Stage::Retired,
            Kept { is_draining: true, .. } => {
                Stage::Draining { until_us: now_us.saturating_add(left) }
            }
            _ if kept.attempt >= config.attempts => Stage::Retired,
            // Before its first test it waits as often as it has relapsed.
            _ if kept.attempt == 0 => {
                Stage::Pausing { until_us: watch.after_pause(kept.relapses.saturating_sub(1)) }
            }
            _ => Stage::Pausing { until_us: watch.after_pause(kept.attempt - 1) },
        };
        watch
    }

    /// Takes up the watch over a container that was in service when its host ended.
    pub fn resume(config: WatchConfig, past: Past, now_us: u64) -> Self {
        let left = config.relapse_us.saturating_sub(past.back_ago_us);
        Self {
            relapses: past.relapses,
            relapse_until_us: now_us.saturating_add(left),
            now: now_us,
            ..Self::new(config)
        }
    }

    /// What must survive a restart; nothing while the container is in service.
    pub fn kept(&self) -> Option<Kept> {
        (self.stage != Stage::Healthy).then(|| Kept {
            is_draining: matches!(self.stage, Stage::Draining { .. }),
            is_retired: self.stage == Stage::Retired,
            symptom: self.symptom,
            seen_ago_us: self.now.saturating_sub(self.seen_us),
            attempt: self.attempt,
            relapses: self.relapses,
        })
    }

    /// How often it has relapsed; nothing once so much time has passed that all is forgotten.
    pub fn relapses(&self) -> u32 {
        let is_over = self.stage == Stage::Healthy && self.now >= self.relapse_until_us;
        if is_over { 0 } else { self.relapses }
    }

    /// Where the container is.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes an input; a time before the last one is taken as the last one.
    pub fn handle(&mut self, now_us: u64, input: WatchInput) {
        self.now = self.now.max(now_us);
        match (input, self.stage) {
            (WatchInput::Seen { symptom, fault }, _) => self.on_seen(symptom, fault),
            (WatchInput::Drained, Stage::Draining { .. }) => self.first_test(),
            (WatchInput::Tested { passed }, Stage::Testing { .. }) => self.on_tested(passed),
            (WatchInput::Repaired, Stage::Retired) => {
                (self.attempt, self.relapses) = (0, 0);
                self.test();
            }
            _ => (),
        }
        match self.stage {
            Stage::Draining { until_us } if self.now >= until_us => {
                self.outputs.push_back(WatchOutput::Stop { symptom: self.symptom });
                self.first_test();
            }
            Stage::Testing { until_us } if self.now >= until_us => self.on_tested(false),
            Stage::Pausing { until_us } if self.now >= until_us => self.test(),
            _ => (),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> WatchOutput {
        self.outputs.pop_front().unwrap_or_else(|| {
            let wake_at = match self.stage {
                Stage::Healthy | Stage::Retired => None,
                Stage::Draining { until_us } => Some((until_us, "leases must have ended")),
                Stage::Testing { until_us } => Some((until_us, "the test must have ended")),
                Stage::Pausing { until_us } => Some((until_us, "the next test")),
            };
            WatchOutput::Idle { wake_at }
        })
    }

    fn on_seen(&mut self, symptom: Symptom, fault: Fault) {
        let severity = rule_of(symptom).severity;
        // A buyer's mistake takes no container out of service.
        if fault == Fault::Buyer || severity < Severity::Drain {
            return;
        }
        let is_lost = severity == Severity::Lost;
        match self.stage {
            Stage::Healthy => {
                (self.symptom, self.seen_us, self.attempt) = (symptom, self.now, 0);
                // What work may have caused retires nothing, and takes no relapse back.
                self.relapses = match fault {
                    _ if self.now >= self.relapse_until_us => 0,
                    Fault::Host => self.relapses + 1,
                    Fault::Buyer | Fault::Network | Fault::Unknown => self.relapses,
                };
                if is_lost {
                    self.outputs.push_back(WatchOutput::Stop { symptom });
                    return self.first_test();
                }
                let until_us = self.now.saturating_add(self.config.drain_us);
                self.stage = Stage::Draining { until_us };
                self.outputs.push_back(WatchOutput::Drain { until_us, symptom });
            }
            Stage::Draining { .. } if is_lost => {
                self.symptom = symptom;
                self.outputs.push_back(WatchOutput::Stop { symptom });
                self.first_test();
            }
            // What is seen during a test fails it.
            Stage::Testing { .. } => self.on_tested(false),
            Stage::Draining { .. } | Stage::Pausing { .. } | Stage::Retired => (),
        }
    }

    /// Nothing runs any more: the first test follows, after a pause if it relapsed.
    fn first_test(&mut self) {
        self.drained_us = self.now;
        match self.relapses {
            0 => self.test(),
            relapses if relapses >= self.config.attempts => self.retire(),
            relapses => self.stage = Stage::Pausing { until_us: self.after_pause(relapses - 1) },
        }
    }

    /// When a pause of this many doublings that begins now ends.
    fn after_pause(&self, doublings: u32) -> u64 {
        let doubled = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        self.now.saturating_add(self.config.pause_us.saturating_mul(doubled))
    }

    fn retire(&mut self) {
        self.stage = Stage::Retired;
        self.outputs.push_back(WatchOutput::Retired { symptom: self.symptom });
    }

    fn test(&mut self) {
        self.attempt += 1;
        self.stage = Stage::Testing { until_us: self.now.saturating_add(self.config.test_us) };
        self.outputs.push_back(WatchOutput::Test { attempt: self.attempt });
    }

    fn on_tested(&mut self, passed: bool) {
        if passed {
            self.stage = Stage::Healthy;
            self.relapse_until_us = self.now.saturating_add(self.config.relapse_us);
            let out_us = self.now - self.seen_us;
            let drain_us = self.drained_us.saturating_sub(self.seen_us);
            return self.outputs.push_back(WatchOutput::Back { out_us, drain_us });
        }
        if self.attempt >= self.config.attempts {
            return self.retire();
        }
        self.stage = Stage::Pausing { until_us: self.after_pause(self.attempt - 1) };
    }
}
