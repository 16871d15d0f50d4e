//! Who checks a container when: by what each checker draws in private, with the real committees, and by
//! a public assignment of each minute, to compare it with.

use std::collections::BTreeSet;

use welkin_check::randomness::Randomness;
use welkin_check::sortition::{Committees, Lot, VrfKey};
use welkin_check::{assignment, second_of_minute};
use welkin_match::synth::Chance;
use welkin_proto::settle::{EpochView, Listed};
use welkin_types::{ContainerId, NodeId};

/// Members whose reveals make an epoch's seed.
const MEMBERS: u32 = 7;
const MINUTES_A_DAY: u64 = 1_440;
/// The first day of the simulation, since 1970: an epoch is a day.
const FIRST_DAY: u64 = 20_000;
/// Its first minute.
pub(super) const FIRST_MINUTE: u64 = FIRST_DAY * MINUTES_A_DAY;
/// With how many of a hundred probes a challenge goes, as checkers have it by default.
pub(super) const EXAM_PERCENT: u32 = 5;

/// How checks are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assigned {
    /// By the public seed, a committee each minute: the host knows when.
    Publicly,
    /// As nodes do: each draws in private, a committee each minute on average; nobody knows before.
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
            (0..MEMBERS).filter_map(|_| VrfKey::from_seed(&bytes(&mut chance))).collect();
        let (mut checks, mut last_seed) = (Vec::new(), bytes(&mut chance));
        for day in 0..days {
            last_seed = seed_of(day, &last_seed, &keys, &mut chance);
            let from = checks.len();
            match how {
                Assigned::Publicly => {
                    publicly(&last_seed, day, licences, committee, container, &mut checks);
                }
                Assigned::Privately => {
                    let committees = committees(last_seed, day, licences, committee);
                    privately(&committees, day, container, &mut chance, &mut checks);
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

fn committees(seed: [u8; 32], day: u32, licences: u32, committee: u8) -> Committees {
    // The keys prove draws to others; who draws what is made up below.
    let listed = |number| Listed { node: node(number), number, vrf: [0; 32] };
    let view = EpochView {
        epoch: FIRST_DAY + u64::from(day),
        seed,
        checkers: (0..licences).map(listed).collect(),
        epoch_seconds: 86_400,
    };
    Committees::new(&view, usize::from(committee))
}

/// The outputs of verifiable random functions are random numbers: they are drawn here without the
/// proofs, which would take hours. Where fewer than a committee have come in a period, those who stand
/// in count, as many as are missing.
fn privately(
    committees: &Committees,
    day: u32,
    container: ContainerId,
    chance: &mut Chance,
    checks: &mut Vec<Check>,
) {
    let (mut licences, mut period) = (BTreeSet::new(), None);
    for minute in 0..1_440_u32 {
        let at = FIRST_MINUTE + u64::from(day) * MINUTES_A_DAY + u64::from(minute);
        if committees.span().period_of(at) != period {
            period = committees.span().period_of(at);
            licences.clear();
        }
        let named = committees.stand_ins(at, container);
        let mut standing = Vec::new();
        for licence in 0..committees.checkers() {
            let lot = Lot::new(bytes(chance));
            let second = day * 86_400 + minute * 60 + u32::from(lot.second(container));
            if committees.visits(&lot, at, container) {
                checks.push(Check { second, licence });
                licences.insert(licence);
            } else if let Some(rank) = named.iter().position(|of| *of == node(licence)) {
                standing.push((rank, Check { second, licence }));
            }
        }
        standing.sort_unstable();
        let missing = committees.size().saturating_sub(licences.len());
        let of_new = standing.into_iter().map(|(_, check)| check);
        checks.extend(of_new.filter(|check| !licences.contains(&check.licence)).take(missing));
    }
}
