//! The checker's side of a challenge: all devices at once, by its own clock.
//!
//! The rule: handle once, then poll until [`ExamOutput::Idle`], only then handle again.
//!
//! - The clock of a device runs from [`ExamInput::Sent`] to [`ExamInput::Committed`], both by this
//!   side. The least round trip observed is subtracted, at most [`ExaminerConfig::rtt_us_max`] and a quarter of the time: a
//!   host that answers pings late gains no more than that.
//! - If the devices were not all asked within one window, a device may have worked for two: then
//!   nothing is concluded for any.
//! - Rows are chosen by a secret that leaves this side only as row numbers, after the commitment,
//!   and others for each device: the first to commit must not tell the next what to compute.
//! - Every device gets one outcome. Verifying is left to the caller, since it may take seconds.

use std::collections::{BTreeMap, VecDeque};

use welkin_types::{ContainerId, NodeId};

use super::matrix::{Shape, device_seed};
use super::merkle::Opening;
use super::verify::{Cost, Fraud, Secret, verify};
use crate::way::without_way;

/// How a checker examines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExaminerConfig {
    /// Rows to open of each round.
    pub rows: u32,
    /// Within what time all devices must have been asked, in microseconds.
    pub window_us: u64,
    /// The most that is subtracted for the way, in microseconds.
    pub rtt_us_max: u64,
    /// How long opening the rows may take, in microseconds.
    pub open_us: u64,
}

impl Default for ExaminerConfig {
    /// 271 rows (5 % of wrong rows are missed once in 2²⁰), a window of 250 ms, 30 s to open.
    fn default() -> Self {
        Self { rows: 271, window_us: 250_000, rtt_us_max: 500_000, open_us: 30_000_000 }
    }
}

/// A device to be examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where.
    pub host: NodeId,
    /// Of which container.
    pub container: ContainerId,
    /// Which of the container's devices.
    pub index: u32,
    /// What it has to do.
    pub shape: Shape,
    /// How long it may take, in microseconds, the way not counted.
    pub limit_us: u64,
}

/// What an examiner is told. Times are microseconds of the checker's own steady clock; devices are
/// named by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExamInput {
    /// Time has passed.
    Tick,
    /// A round trip to a host was observed.
    RoundTrip {
        /// To which.
        host: NodeId,
        /// In microseconds.
        us: u64,
    },
    /// The assignment of a device left this machine.
    Sent {
        /// Which.
        device: usize,
    },
    /// A device committed to these roots.
    Committed {
        /// Which.
        device: usize,
        /// A root for each round.
        roots: Vec<[u8; 32]>,
    },
    /// A device opened rows.
    Opened {
        /// Which.
        device: usize,
        /// By round.
        openings: Vec<Vec<Opening>>,
    },
    /// A [`ExamOutput::Verify`] is done.
    Verified {
        /// Which.
        device: usize,
        /// What it found.
        result: Result<Cost, Fraud>,
    },
}

/// What a device's examination came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did the work at this rate, in millions of multiply-adds a second.
    Met {
        /// The rate.
        mmac_per_s: u64,
    },
    /// It did not do the work.
    Fraud(Fraud),
    /// No commitment came in time.
    Late,
    /// The rows were not opened in time.
    Silent,
    /// The devices were not asked within one window: nothing is concluded.
    Apart,
}

/// What an examiner wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExamOutput {
    /// Send this to a device, and say when it left.
    Assign {
        /// Which.
        device: usize,
        /// Its seed.
        seed: [u8; 32],
        /// What to do.
        shape: Shape,
    },
    /// Ask a device to open these rows, by round.
    Open {
        /// Which.
        device: usize,
        /// The rows.
        rows: Vec<Vec<u32>>,
    },
    /// Run [`Examination::run`] and hand back its result.
    Verify {
        /// Which.
        device: usize,
        /// What to run.
        examination: Box<Examination>,
    },
    /// A device's outcome.
    Done {
        /// Which.
        device: usize,
        /// What it came to.
        outcome: Outcome,
    },
    /// Nothing until then, or until there is other input.
    Idle {
        /// When to handle [`ExamInput::Tick`], with the reason; none once all is done.
        wake_at: Option<(u64, &'static str)>,
    },
}

/// Everything that verifying a device takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    seed: [u8; 32],
    shape: Shape,
    roots: Vec<[u8; 32]>,
    secret: Secret,
    rows: u32,
    openings: Vec<Vec<Opening>>,
}

impl Examination {
    /// Verifies.
    ///
    /// # Errors
    ///
    /// [`Fraud`]
    pub fn run(&self) -> Result<Cost, Fraud> {
        verify(&self.seed, self.shape, &self.roots, &self.secret, self.rows, &self.openings)
    }
}

#[derive(Clone, Debug)]
enum Stage {
    Asking,
    Working { since: u64 },
    Opening { took_us: u64, roots: Vec<[u8; 32]>, until: u64 },
    Verifying { took_us: u64 },
    Over,
}

/// The checker's machine for one challenge of several devices.
#[derive(Clone, Debug)]
pub struct Examiner {
    config: ExaminerConfig,
    nonce: [u8; 32],
    secret: Secret,
    devices: Vec<(Device, Stage)>,
    round_trips: BTreeMap<NodeId, u64>,
    first_sent: Option<u64>,
    now: u64,
    outputs: VecDeque<ExamOutput>,
}

impl Examiner {
    /// Begins a challenge; the assignments can be polled at once. `nonce` and `secret` are fresh
    /// random bytes.
    pub fn new(
        config: ExaminerConfig,
        nonce: [u8; 32],
        secret: Secret,
        devices: Vec<Device>,
    ) -> Self {
        let assign = |(number, device): (usize, &Device)| ExamOutput::Assign {
            device: number,
            seed: seed_of(&nonce, device),
            shape: device.shape,
        };
        let outputs = devices.iter().enumerate().map(assign).collect();
        let devices = devices.into_iter().map(|device| (device, Stage::Asking)).collect();
        let round_trips = BTreeMap::new();
        Self { config, nonce, secret, devices, round_trips, first_sent: None, now: 0, outputs }
    }

    /// Takes an input. A time before the last one is taken as the last one; what comes at the wrong
    /// stage is ignored.
    pub fn handle(&mut self, now_us: u64, input: ExamInput) {
        self.now = self.now.max(now_us);
        match input {
            ExamInput::Tick => (),
            ExamInput::RoundTrip { host, us } => {
                let least = self.round_trips.entry(host).or_insert(us);
                *least = us.min(*least);
            }
            ExamInput::Sent { device } => self.on_sent(device),
            ExamInput::Committed { device, roots } => self.on_committed(device, roots),
            ExamInput::Opened { device, openings } => self.on_opened(device, openings),
            ExamInput::Verified { device, result } => self.on_verified(device, result),
        }
        self.on_deadlines();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> ExamOutput {
        self.outputs.pop_front().unwrap_or_else(|| ExamOutput::Idle { wake_at: self.wake_at() })
    }

    fn on_sent(&mut self, number: usize) {
        let first = *self.first_sent.get_or_insert(self.now);
        if self.now - first > self.config.window_us {
            return self.end_all(Outcome::Apart);
        }
        if let Some((_, stage @ Stage::Asking)) = self.devices.get_mut(number) {
            *stage = Stage::Working { since: self.now };
        }
    }

    fn on_committed(&mut self, number: usize, roots: Vec<[u8; 32]>) {
        let Some((device, Stage::Working { since })) = self.devices.get(number) else { return };
        let way = self.round_trips.get(&device.host).copied().unwrap_or(0);
        let way = way.min(self.config.rtt_us_max);
        let took_us = without_way(self.now - since, way).max(1);
        if took_us > device.limit_us {
            return self.end(number, Outcome::Late);
        }
        let shape = device.shape;
        if roots.len() != usize::try_from(shape.rounds()).unwrap_or(usize::MAX) {
            let found = u32::try_from(roots.len()).unwrap_or(u32::MAX);
            let fraud = Fraud::Rounds { wanted: shape.rounds(), found };
            return self.end(number, Outcome::Fraud(fraud));
        }
        let secret = self.secret.of_device(number);
        let rows = (0..shape.rounds()).map(|round| secret.rows(shape, round, self.config.rows));
        self.outputs.push_back(ExamOutput::Open { device: number, rows: rows.collect() });
        let until = self.now.saturating_add(self.config.open_us);
        self.devices[number].1 = Stage::Opening { took_us, roots, until };
    }

    fn on_opened(&mut self, number: usize, openings: Vec<Vec<Opening>>) {
        let Some((device, stage)) = self.devices.get_mut(number) else { return };
        let Stage::Opening { took_us, roots, until } = stage else { return };
        if self.now > *until {
            return;
        }
        let examination = Box::new(Examination {
            seed: seed_of(&self.nonce, device),
            shape: device.shape,
            roots: std::mem::take(roots),
            secret: self.secret.of_device(number),
            rows: self.config.rows,
            openings,
        });
        *stage = Stage::Verifying { took_us: *took_us };
        self.outputs.push_back(ExamOutput::Verify { device: number, examination });
    }

    fn on_verified(&mut self, number: usize, result: Result<Cost, Fraud>) {
        let Some((device, Stage::Verifying { took_us })) = self.devices.get(number) else {
            return;
        };
        let outcome = match result {
            Ok(_) => Outcome::Met { mmac_per_s: device.shape.macs() / took_us },
            Err(fraud) => Outcome::Fraud(fraud),
        };
        self.end(number, outcome);
    }

    fn on_deadlines(&mut self) {
        if let Some(first) = self.first_sent {
            let is_asking = self.devices.iter().any(|(_, stage)| matches!(stage, Stage::Asking));
            if is_asking && self.now - first > self.config.window_us {
                return self.end_all(Outcome::Apart);
            }
        }
        for number in 0..self.devices.len() {
            let Some(until) = self.until(number) else { continue };
            if self.now > until {
                let outcome = match self.devices[number].1 {
                    Stage::Working { .. } => Outcome::Late,
                    _ => Outcome::Silent,
                };
                self.end(number, outcome);
            }
        }
    }

    /// When a device's patience ends.
    fn until(&self, number: usize) -> Option<u64> {
        let (device, stage) = self.devices.get(number)?;
        match stage {
            Stage::Working { since } => {
                let way = self.round_trips.get(&device.host).copied().unwrap_or(0);
                let way = way.min(self.config.rtt_us_max);
                Some(since.saturating_add(device.limit_us).saturating_add(way))
            }
            Stage::Opening { until, .. } => Some(*until),
            Stage::Asking | Stage::Verifying { .. } | Stage::Over => None,
        }
    }

    fn end(&mut self, number: usize, outcome: Outcome) {
        let Some((_, stage)) = self.devices.get_mut(number) else { return };
        if !matches!(stage, Stage::Over) {
            *stage = Stage::Over;
            self.outputs.push_back(ExamOutput::Done { device: number, outcome });
        }
    }

    fn end_all(&mut self, outcome: Outcome) {
        self.outputs.retain(|output| matches!(output, ExamOutput::Done { .. }));
        (0..self.devices.len()).for_each(|number| self.end(number, outcome));
    }

    fn wake_at(&self) -> Option<(u64, &'static str)> {
        let asking = self.devices.iter().any(|(_, stage)| matches!(stage, Stage::Asking));
        let window = self.first_sent.filter(|_| asking);
        let window = window.map(|first| (first + self.config.window_us + 1, "the window ends"));
        let devices = (0..self.devices.len()).filter_map(|number| self.until(number));
        let deadline = devices.min().map(|until| (until.saturating_add(1), "a device is late"));
        window.into_iter().chain(deadline).min()
    }
}

fn seed_of(nonce: &[u8; 32], device: &Device) -> [u8; 32] {
    device_seed(nonce, device.host, device.container, device.index)
}
