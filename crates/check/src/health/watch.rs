//! Detect, drain, requalify: one container's way out of service and back.
//!
//! The rule: handle once, then poll until [`WatchOutput::Idle`], only then handle again.
//!
//! `healthy → draining → requalifying → healthy`, each stage timed. What is lost skips draining. A
//! test that fails is tried again after a pause that doubles; after [`WatchConfig::attempts`] the
//! container is retired until its operator brings it back.

use std::collections::VecDeque;

use super::rules::{Fault, Severity, Symptom, rule_of};

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// How long leases have to end in order, in microseconds.
    pub drain_us: u64,
    /// How long a test may take.
    pub test_us: u64,
    /// The pause before the second test.
    pub pause_us: u64,
    /// How many tests before the container is retired.
    pub attempts: u32,
}

impl Default for WatchConfig {
    /// Ten minutes to drain, five to test, a minute's pause, five tests.
    fn default() -> Self {
        Self { drain_us: 600_000_000, test_us: 300_000_000, pause_us: 60_000_000, attempts: 5 }
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

/// One container's watch.
#[derive(Clone, Debug)]
pub struct Watch {
    config: WatchConfig,
    stage: Stage,
    symptom: Symptom,
    seen_us: u64,
    drained_us: u64,
    attempt: u32,
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
            now: 0,
            outputs: VecDeque::new(),
        }
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
            (WatchInput::Drained, Stage::Draining { .. }) => self.test(),
            (WatchInput::Tested { passed }, Stage::Testing { .. }) => self.on_tested(passed),
            (WatchInput::Repaired, Stage::Retired) => {
                self.attempt = 0;
                self.test();
            }
            _ => (),
        }
        match self.stage {
            Stage::Draining { until_us } if self.now >= until_us => {
                self.outputs.push_back(WatchOutput::Stop { symptom: self.symptom });
                self.test();
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
                if is_lost {
                    self.outputs.push_back(WatchOutput::Stop { symptom });
                    return self.test();
                }
                let until_us = self.now.saturating_add(self.config.drain_us);
                self.stage = Stage::Draining { until_us };
                self.outputs.push_back(WatchOutput::Drain { until_us, symptom });
            }
            Stage::Draining { .. } if is_lost => {
                self.symptom = symptom;
                self.outputs.push_back(WatchOutput::Stop { symptom });
                self.test();
            }
            // What is seen during a test fails it.
            Stage::Testing { .. } => self.on_tested(false),
            Stage::Draining { .. } | Stage::Pausing { .. } | Stage::Retired => (),
        }
    }

    fn test(&mut self) {
        if self.attempt == 0 {
            self.drained_us = self.now;
        }
        self.attempt += 1;
        self.stage = Stage::Testing { until_us: self.now.saturating_add(self.config.test_us) };
        self.outputs.push_back(WatchOutput::Test { attempt: self.attempt });
    }

    fn on_tested(&mut self, passed: bool) {
        if passed {
            self.stage = Stage::Healthy;
            let out_us = self.now - self.seen_us;
            let drain_us = self.drained_us.saturating_sub(self.seen_us);
            return self.outputs.push_back(WatchOutput::Back { out_us, drain_us });
        }
        if self.attempt >= self.config.attempts {
            self.stage = Stage::Retired;
            return self.outputs.push_back(WatchOutput::Retired { symptom: self.symptom });
        }
        let doubled = 1_u64.checked_shl(self.attempt - 1).unwrap_or(u64::MAX);
        let pause = self.config.pause_us.saturating_mul(doubled);
        self.stage = Stage::Pausing { until_us: self.now.saturating_add(pause) };
    }
}
