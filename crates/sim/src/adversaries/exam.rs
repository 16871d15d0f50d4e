//! A challenge in virtual time: the real examiner, real row numbers, real classes; what the host
//! says, and how long it takes, is the actor's.

use std::collections::BTreeMap;

use welkin_check::challenge::{
    ClassTable, Cost, Device, ExamInput, ExamOutput, Examiner, ExaminerConfig, Fraud, MatchedClass,
    Outcome, Secret, Shape,
};
use welkin_match::synth::Chance;
use welkin_types::{Class, ContainerId, NodeId};

use super::duty::bytes;
use super::network::Network;

/// Rows and columns, rounds: as checkers ask GPUs.
const WORK: (u32, u32) = (8_192, 16);
/// The least time that work may take, as checkers give it.
const LIMIT_US_LEAST: u64 = 1_000_000;
/// Computing the opened rows again and sending them.
const OPEN_US: u64 = 100_000;
const PINGS: u32 = 4;

/// What a host does with a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It works at this rate, after a delay, with so many of its rows wrong (in basis points), and
    /// answers residency probes as if it had so much memory.
    Work { mmac_per_s: u64, delay_us: u64, wrong_bp: u32 },
    /// It says that it is busy, or that an order came.
    Refuse,
    /// It ends the stream, or says nothing.
    Leave,
}

/// What a checker concludes; nothing where nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The rows are right: at this class, or none.
    Proved(Option<Class>),
    /// No commitment, or not the rows, in time.
    TooSlow,
    /// A wrong row, with what the host signed.
    Wrong,
    /// Refused with a fair word.
    NotNow,
}

/// One device that is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) claimed: &'a Class,
    /// The memory that counts: what is claimed, or what residency has shown.
    pub(super) memory_mib: u64,
    pub(super) network: &'a Network,
    pub(super) deed: Deed,
    /// The outage that begins next: nothing goes through after it.
    pub(super) cut_after_us: u64,
}

/// The work of a challenge.
pub(super) fn shape() -> Option<Shape> {
    Shape::new(WORK.0, WORK.1)
}

/// Asks devices, each of a host of its own, in one window.
pub(super) fn examine(table: &ClassTable, asked: &[Asked<'_>], chance: &mut Chance) -> Vec<Word> {
    let Some(shape) = shape() else { return Vec::new() };
    if asked.iter().any(|asked| asked.deed == Deed::Refuse) {
        return vec![Word::NotNow; asked.len()];
    }
    let device = |(number, asked): (u8, &Asked<'_>)| {
        let limit_us = table.limit_us(asked.claimed, shape.macs())?.max(LIMIT_US_LEAST);
        let (host, container) =
            (NodeId::from_bytes([number; 32]), ContainerId::from_bytes([number; 16]));
        Some(Device { host, container, index: 0, shape, limit_us })
    };
    let devices: Vec<_> = (0..).zip(asked).filter_map(device).collect();
    let config = ExaminerConfig { rows: 271_u32.div_ceil(WORK.1), ..ExaminerConfig::default() };
    let secret = Secret::new(bytes(chance));
    let examiner = Examiner::new(config, bytes(chance), secret, devices.clone());
    let outcomes = Run { asked, now: 0, events: BTreeMap::new(), count: 0, wrong: BTreeMap::new() }
        .play(examiner, &devices, chance);
    let words = outcomes.into_iter().zip(asked).map(|(outcome, asked)| match outcome {
        Some(Outcome::Met { mmac_per_s }) => {
            Word::Proved(match table.matched(asked.claimed, mmac_per_s, asked.memory_mib) {
                MatchedClass::Claimed => Some(asked.claimed.clone()),
                MatchedClass::Lower(lower) => Some(lower),
                MatchedClass::None => None,
            })
        }
        Some(Outcome::Fraud(_)) => Word::Wrong,
        Some(Outcome::Late | Outcome::Silent) => Word::TooSlow,
        Some(Outcome::Apart) | None => Word::NotNow,
    });
    words.collect()
}

/// What comes when.
struct Run<'a> {
    asked: &'a [Asked<'a>],
    now: u64,
    events: BTreeMap<(u64, u32), ExamInput>,
    count: u32,
    wrong: BTreeMap<usize, Fraud>,
}

impl Run<'_> {
    fn play(
        mut self,
        mut examiner: Examiner,
        devices: &[Device],
        chance: &mut Chance,
    ) -> Vec<Option<Outcome>> {
        let mut outcomes = vec![None; devices.len()];
        for (device, asked) in devices.iter().zip(self.asked) {
            let pings = (0..PINGS).map(|_| asked.network.round_trip_us(chance));
            let us = pings.min().unwrap_or(0);
            examiner.handle(0, ExamInput::RoundTrip { host: device.host, us });
        }
        loop {
            match examiner.poll() {
                ExamOutput::Assign { device, shape, .. } => {
                    examiner.handle(self.now, ExamInput::Sent { device });
                    self.on_assigned(device, shape, chance);
                }
                ExamOutput::Open { device, rows } => self.on_asked(device, &rows, chance),
                ExamOutput::Verify { device, .. } => {
                    let result = self.wrong.get(&device).map_or(Ok(Cost::default()), |f| Err(*f));
                    examiner.handle(self.now, ExamInput::Verified { device, result });
                }
                ExamOutput::Done { device, outcome } => outcomes[device] = Some(outcome),
                ExamOutput::Idle { wake_at } => {
                    let next = self.events.first_key_value().map(|((at, _), _)| *at);
                    let wake = wake_at.map(|(at, _)| at);
                    let Some(at) = next.into_iter().chain(wake).min() else { return outcomes };
                    self.now = self.now.max(at);
                    let input = match next {
                        Some(next) if next == at => self.events.pop_first().map(|(_, input)| input),
                        _ => None,
                    };
                    examiner.handle(self.now, input.unwrap_or(ExamInput::Tick));
                }
            }
        }
    }

    fn later(&mut self, device: usize, us: u64, input: ExamInput) {
        let at = self.now + us;
        if at <= self.asked[device].cut_after_us {
            self.count += 1;
            self.events.insert((at, self.count), input);
        }
    }

    fn on_assigned(&mut self, device: usize, shape: Shape, chance: &mut Chance) {
        let Asked { network, deed, .. } = self.asked[device];
        let Deed::Work { mmac_per_s, delay_us, .. } = deed else { return };
        let there = network.way_us(chance) + network.way_us(chance);
        let took = there + delay_us + shape.macs() / mmac_per_s.max(1);
        let rounds = usize::try_from(shape.rounds()).unwrap_or(0);
        let roots = vec![[1; 32]; rounds];
        self.later(device, took, ExamInput::Committed { device, roots });
    }

    /// The rows that are asked for. One that is wrong passes verification once in 2³²: here never.
    fn on_asked(&mut self, device: usize, rows: &[Vec<u32>], chance: &mut Chance) {
        let Asked { network, deed, .. } = self.asked[device];
        let Deed::Work { delay_us, wrong_bp, .. } = deed else { return };
        let salt = chance.word();
        let is_wrong = |round: u32, row: u32| {
            let place = u64::from(round) << 32 | u64::from(row);
            Chance::new(salt ^ place).below(10_000) < wrong_bp
        };
        let all =
            (0_u32..).zip(rows).flat_map(|(round, rows)| rows.iter().map(move |r| (round, *r)));
        let wrong = all.into_iter().find(|(round, row)| is_wrong(*round, *row));
        if let Some((round, row)) = wrong {
            self.wrong.insert(device, Fraud::Product { round, row });
        }
        let openings = vec![Vec::new(); rows.len()];
        let took = network.round_trip_us(chance) + OPEN_US + delay_us;
        self.later(device, took, ExamInput::Opened { device, openings });
    }
}
