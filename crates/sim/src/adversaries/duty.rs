//! Who checks a container when, by the real assignments: the public one of each minute, and
//! private sortition with its public fall-back.

use welkin_check::randomness::Randomness;
use welkin_check::sortition::{Licence, Plan, VrfKey};
use welkin_check::{assignment, second_of_minute};
use welkin_match::synth::Chance;
use welkin_types::{AccountId, ContainerId, NodeId};

/// Containers of the network of which one is looked at; they matter for sortition only.
const CONTAINERS: u32 = 64;
/// Members whose reveals make an epoch's seed.
const MEMBERS: u32 = 7;
const MINUTES_A_DAY: u64 = 1_440;
/// The first minute of the simulation, since 1970: a multiple of a day.
pub(super) const FIRST_MINUTE: u64 = 20_000 * MINUTES_A_DAY;

/// How checks are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assigned {
    /// By the public seed, a committee each minute: the host knows when.
    Publicly,
    /// By private sortition, a committee each hour on average: nobody knows before.
    Privately,
}

impl Assigned {
    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publicly => "public",
            Self::Privately => "private",
        }
    }

    /// With how many of a hundred checks a challenge goes.
    pub(super) const fn exam_percent(self) -> u32 {
        match self {
            Self::Publicly => 5,
            Self::Privately => 100,
        }
    }
}

/// One check of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Check {
    /// In seconds since the beginning.
    pub(super) second: u32,
    /// Which licence.
    pub(super) licence: u32,
}

/// All checks of one container in some days.
#[derive(Clone, Debug)]
pub(super) struct Duties {
    pub(super) checks: Vec<Check>,
    pub(super) container: ContainerId,
}

/// The node of a licence.
fn node(licence: u32) -> NodeId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&licence.to_be_bytes());
    NodeId::from_bytes(bytes)
}

pub(super) fn bytes(chance: &mut Chance) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&chance.word().to_be_bytes()));
    bytes
}

impl Duties {
    /// The checks by so many licences in so many days, each with its own seed.
    pub(super) fn new(how: Assigned, licences: u32, committee: u8, days: u32, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut id = [0; 16];
        id.copy_from_slice(&bytes(&mut chance)[..16]);
        let container = ContainerId::from_bytes(id);
        let keys: Vec<_> =
            (0..licences).filter_map(|_| VrfKey::from_seed(&bytes(&mut chance))).collect();
        let (mut checks, mut last_seed) = (Vec::new(), bytes(&mut chance));
        for day in 0..days {
            last_seed = seed_of(day, &last_seed, &keys, &mut chance);
            let from = checks.len();
            match how {
                Assigned::Publicly => {
                    publicly(&last_seed, day, licences, committee, container, &mut checks);
                }
                Assigned::Privately => {
                    let plan = plan(last_seed, day, licences, committee);
                    privately(&plan, &keys, container, committee, &mut chance, &mut checks);
                }
            }
            checks[from..].sort_unstable();
        }
        Self { checks, container }
    }
}

/// An epoch's seed, from a block and the reveals of some members.
fn seed_of(day: u32, last: &[u8; 32], keys: &[VrfKey], chance: &mut Chance) -> [u8; 32] {
    let members = || (0..MEMBERS).zip(keys);
    let block = bytes(chance);
    let public = members().map(|(number, key)| (number, key.public()));
    let mut randomness = Randomness::new(u64::from(day), last, &block, public);
    for (number, key) in members() {
        let (proof, _) = key.prove(&randomness.ticket(number), bytes(chance));
        // A reveal of a member's own key is never refused.
        let _ = randomness.reveal(number, &proof);
    }
    randomness.seed().seed
}

fn publicly(
    seed: &[u8; 32],
    day: u32,
    licences: u32,
    committee: u8,
    container: ContainerId,
    checks: &mut Vec<Check>,
) {
    let nodes: Vec<_> = (0..licences).map(node).collect();
    for minute in 0..1_440_u32 {
        let at = FIRST_MINUTE + u64::from(day) * MINUTES_A_DAY + u64::from(minute);
        for checker in assignment(seed, at, &nodes, container, usize::from(committee)) {
            let own = u32::from(second_of_minute(seed, at, checker, container));
            let [a, b, c, d, ..] = *checker.as_bytes();
            let second = day * 86_400 + minute * 60 + own;
            checks.push(Check { second, licence: u32::from_be_bytes([a, b, c, d]) });
        }
    }
}

fn plan(seed: [u8; 32], day: u32, licences: u32, committee: u8) -> Plan {
    Plan {
        seed,
        epoch: u64::from(day) + 1,
        containers: CONTAINERS,
        licences,
        checks: u32::from(committee),
        periods: 24,
        period_seconds: 3_600,
    }
}

/// The target is the first container of the list. Where fewer than a committee had it among their
/// tasks, licences of the public fall-back check it in the next period.
fn privately(
    plan: &Plan,
    keys: &[VrfKey],
    container: ContainerId,
    committee: u8,
    chance: &mut Chance,
    checks: &mut Vec<Check>,
) {
    let day = u32::try_from(plan.epoch.saturating_sub(1)).unwrap_or(0);
    let mut by_period: Vec<Vec<Check>> = vec![Vec::new(); usize::from(plan.periods)];
    for (licence, key) in (0..).zip(keys) {
        let (_, output) = key.prove(&plan.ticket(licence), bytes(chance));
        plan.for_each_task(&output, |task| {
            if task.container == 0 {
                let second = day * 86_400 + u32::from(task.period) * 3_600 + u32::from(task.second);
                by_period[usize::from(task.period)].push(Check { second, licence });
            }
        });
    }
    let owner = AccountId::from_bytes([1; 20]);
    let licences: Vec<_> = (0..)
        .zip(keys)
        .map(|(number, key)| {
            let owner = AccountId::from_bytes([2; 20]);
            Licence { number, owner, key: key.public(), registered: 0 }
        })
        .collect();
    let weights = plan.weights(&licences);
    for period in 0..plan.periods {
        let reported: Vec<_> = match period.checked_sub(1) {
            Some(before) => by_period[usize::from(before)].iter().map(|c| c.licence).collect(),
            None => vec![0; usize::from(committee)],
        };
        let wanted = usize::from(committee).saturating_sub(reported.len());
        let named = plan.fallback(&weights, container, owner, period, wanted, &reported);
        for licence in named {
            let second = day * 86_400 + u32::from(period) * 3_600 + chance.below(3_600);
            by_period[usize::from(period)].push(Check { second, licence: licence.number });
        }
    }
    checks.extend(by_period.into_iter().flatten());
}
