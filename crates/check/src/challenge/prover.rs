//! The host's side of a challenge: which to take, and what to answer.
//!
//! The rule: handle once, then poll until [`ProverOutput::Idle`], only then handle again.
//!
//! A challenge costs the device's time, so only assigned checkers get one, one at a time for each
//! device, and no more than [`Prover::new`]'s limit an hour. A checker that asks again for what is
//! under way changes nothing.

use std::collections::{BTreeMap, VecDeque};

use welkin_types::NodeId;

use super::matrix::Shape;
use super::merkle::Opening;

const HOUR_US: u64 = 3_600_000_000;
/// How long a finished challenge waits for the rows to be asked for.
const OPEN_US: u64 = 120_000_000;

/// What a prover is told. Times are microseconds of the host's steady clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProverInput {
    /// Time has passed.
    Tick,
    /// A checker sent a challenge.
    Assigned {
        /// Who.
        checker: NodeId,
        /// Whether its assignment was verified.
        is_assigned: bool,
        /// For which device.
        device: u32,
        /// The seed.
        seed: [u8; 32],
        /// What to do.
        shape: Shape,
    },
    /// The device has computed all rounds.
    Computed {
        /// Which.
        device: u32,
        /// The rounds' roots.
        roots: Vec<[u8; 32]>,
    },
    /// The device stopped before it was done: an order came, or it failed.
    Stopped {
        /// Which.
        device: u32,
        /// What the checker is told.
        why: ProverRefusal,
    },
    /// A checker asks for rows.
    Asked {
        /// Who.
        checker: NodeId,
        /// Of which device.
        device: u32,
        /// Which, by round.
        rows: Vec<Vec<u32>>,
    },
    /// The device has read the rows.
    Read {
        /// Which.
        device: u32,
        /// The rows, by round.
        openings: Vec<Vec<Opening>>,
    },
}

/// Why a challenge or a question is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProverRefusal {
    /// The checker is not assigned.
    #[error("not assigned in this epoch: show the proof of an assignment")]
    NotAssigned,
    /// The device is at another challenge.
    #[error("the device is at another challenge: ask again later")]
    Busy,
    /// Too many in the last hour.
    #[error("too many challenges in an hour: ask again later")]
    TooMany,
    /// There is no such device, or it can't hold the matrices.
    #[error("no such device, or the challenge is larger than its memory")]
    TooLarge,
    /// An order came: leases come before challenges.
    #[error("an order came first: ask again when the device is idle")]
    Ordered,
    /// The device failed.
    #[error("the device failed at the work")]
    Failed,
    /// Nothing was committed to this checker, or too long ago.
    #[error("nothing to open: begin again")]
    NothingToOpen,
}

/// What a prover wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProverOutput {
    /// Let the device compute.
    Compute {
        /// Which.
        device: u32,
        /// The seed.
        seed: [u8; 32],
        /// What to do.
        shape: Shape,
    },
    /// Send the commitment.
    Commit {
        /// To whom.
        checker: NodeId,
        /// Of which device.
        device: u32,
        /// The roots.
        roots: Vec<[u8; 32]>,
    },
    /// Let the device read rows.
    Read {
        /// Which.
        device: u32,
        /// The rows, by round.
        rows: Vec<Vec<u32>>,
    },
    /// Send the opened rows; the device's memory is free again.
    Open {
        /// To whom.
        checker: NodeId,
        /// Of which device.
        device: u32,
        /// The rows.
        openings: Vec<Vec<Opening>>,
    },
    /// Stop what a device does: nobody came for it.
    Drop {
        /// Which.
        device: u32,
    },
    /// Tell a checker why not.
    Refuse {
        /// Whom.
        checker: NodeId,
        /// Which device.
        device: u32,
        /// Why.
        why: ProverRefusal,
    },
    /// Nothing until then, or until there is other input.
    Idle {
        /// When to handle [`ProverInput::Tick`], with the reason.
        wake_at: Option<(u64, &'static str)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Computing { shape: Shape },
    Committed { shape: Shape, until: u64 },
    Reading,
}

/// The host's machine.
#[derive(Clone, Debug)]
pub struct Prover {
    /// Memory by device, in bytes.
    devices: BTreeMap<u32, u64>,
    per_hour: usize,
    under_way: BTreeMap<u32, (NodeId, Stage)>,
    begun: VecDeque<u64>,
    now: u64,
    outputs: VecDeque<ProverOutput>,
}

impl Prover {
    /// A prover for devices of so many bytes each, with at most so many challenges an hour in all.
    pub const fn new(devices: BTreeMap<u32, u64>, per_hour: usize) -> Self {
        Self {
            devices,
            per_hour,
            under_way: BTreeMap::new(),
            begun: VecDeque::new(),
            now: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input. A time before the last one is taken as the last one; what comes at the wrong
    /// stage is refused or ignored.
    pub fn handle(&mut self, now_us: u64, input: ProverInput) {
        self.now = self.now.max(now_us);
        match input {
            ProverInput::Tick => (),
            ProverInput::Assigned { checker, is_assigned, device, seed, shape } => {
                match self.take(checker, is_assigned, device, shape) {
                    Ok(true) => {
                        self.outputs.push_back(ProverOutput::Compute { device, seed, shape });
                    }
                    Ok(false) => (),
                    Err(why) => self.refuse(checker, device, why),
                }
            }
            ProverInput::Computed { device, roots } => self.on_computed(device, roots),
            ProverInput::Stopped { device, why } => {
                if let Some((checker, _)) = self.under_way.remove(&device) {
                    self.refuse(checker, device, why);
                }
            }
            ProverInput::Asked { checker, device, rows } => self.on_asked(checker, device, rows),
            ProverInput::Read { device, openings } => {
                if let Some((checker, Stage::Reading)) = self.under_way.get(&device).copied() {
                    self.under_way.remove(&device);
                    self.outputs.push_back(ProverOutput::Open { checker, device, openings });
                }
            }
        }
        self.on_deadlines();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> ProverOutput {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let committed = self.under_way.values().filter_map(|(_, stage)| match stage {
            Stage::Committed { until, .. } => Some((*until + 1, "nobody asked for rows")),
            Stage::Computing { .. } | Stage::Reading => None,
        });
        ProverOutput::Idle { wake_at: committed.min() }
    }

    /// Whether to begin; `false` if it has begun already.
    fn take(
        &mut self,
        checker: NodeId,
        is_assigned: bool,
        device: u32,
        shape: Shape,
    ) -> Result<bool, ProverRefusal> {
        if !is_assigned {
            return Err(ProverRefusal::NotAssigned);
        }
        if self.devices.get(&device).is_none_or(|bytes| shape.bytes() > *bytes) {
            return Err(ProverRefusal::TooLarge);
        }
        if let Some((other, _)) = self.under_way.get(&device) {
            return if *other == checker { Ok(false) } else { Err(ProverRefusal::Busy) };
        }
        self.begun.retain(|begun| begun + HOUR_US > self.now);
        if self.begun.len() >= self.per_hour {
            return Err(ProverRefusal::TooMany);
        }
        self.begun.push_back(self.now);
        self.under_way.insert(device, (checker, Stage::Computing { shape }));
        Ok(true)
    }

    fn on_computed(&mut self, device: u32, roots: Vec<[u8; 32]>) {
        if let Some((checker, stage)) = self.under_way.get_mut(&device)
            && let Stage::Computing { shape } = *stage
        {
            *stage = Stage::Committed { shape, until: self.now.saturating_add(OPEN_US) };
            self.outputs.push_back(ProverOutput::Commit { checker: *checker, device, roots });
        }
    }

    fn on_asked(&mut self, checker: NodeId, device: u32, rows: Vec<Vec<u32>>) {
        let committed = match self.under_way.get(&device) {
            Some((owner, Stage::Committed { shape, .. })) if *owner == checker => Some(*shape),
            _ => None,
        };
        let is_asked_well = committed.is_some_and(|shape| {
            let in_range = |row: &u32| *row < shape.n();
            rows.len() == usize::try_from(shape.rounds()).unwrap_or(usize::MAX)
                && rows.iter().all(|rows| rows.len() <= shape.len() && rows.iter().all(in_range))
        });
        if !is_asked_well {
            return self.refuse(checker, device, ProverRefusal::NothingToOpen);
        }
        self.under_way.insert(device, (checker, Stage::Reading));
        self.outputs.push_back(ProverOutput::Read { device, rows });
    }

    fn refuse(&mut self, checker: NodeId, device: u32, why: ProverRefusal) {
        self.outputs.push_back(ProverOutput::Refuse { checker, device, why });
    }

    fn on_deadlines(&mut self) {
        let now = self.now;
        let is_over =
            |stage: &Stage| matches!(stage, Stage::Committed { until, .. } if now > *until);
        let over: Vec<_> = self
            .under_way
            .iter()
            .filter(|(_, (_, stage))| is_over(stage))
            .map(|(d, _)| *d)
            .collect();
        for device in over {
            self.under_way.remove(&device);
            self.outputs.push_back(ProverOutput::Drop { device });
        }
    }
}
