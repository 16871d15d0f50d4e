//! Checkers that do not check: that copy others, that always say yes, that say no for a bribe.

use std::collections::BTreeMap;

use welkin_check::assignment;
use welkin_check::score::{Ppm, outliers};
use welkin_ledger::epoch::{
    Book, Cause, Container, Emissions, Evidence, Licence, Roster, Verdict, incidents, settle,
};
use welkin_match::synth::Chance;
use welkin_types::{AccountId, ContainerId, NodeId};

use super::duty::bytes;
use super::hardware::{number, terms};
use super::network::Network;

const LICENCES: u32 = 40;
const CONTAINERS: u32 = 40;
const COMMITTEE: usize = super::COMMITTEE as usize;
/// Periods in which a container really is offline, in thousandths.
const OFFLINE_PERMILLE: u32 = 10;

/// How licence 0 behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// As it should.
    Honest,
    /// It says what most others of the committee said.
    Copies,
    /// It always says online.
    Yes,
    /// It says offline about the bribed-for container, of which so many licences are bribed.
    BribedNo(u32),
    /// It always says offline.
    No,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paid {
    /// Its pay, in thousandths of what the honest have on average.
    pub paid_permille: u64,
    /// Of its verdicts so many in a thousand were far from what was agreed.
    pub outlier_permille: u64,
    /// The same of honest licences.
    pub honest_outlier_permille: u64,
    /// Hours in which the container that was bribed for was found offline and was not.
    pub victim_hours: u32,
    /// Charges against it.
    pub victim_slashed: u32,
}

fn id(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

fn node(number: u32) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn licence_of(node: NodeId) -> u32 {
    let [a, b, c, d, ..] = *node.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What each of a committee says, licence by licence.
type Said = BTreeMap<u32, bool>;

fn say(
    habit: Habit,
    committee: &[u32],
    (container, is_online): (u32, bool),
    network: &Network,
    chance: &mut Chance,
) -> Said {
    let mut said: Said =
        committee.iter().map(|licence| (*licence, is_online && network.probe(chance))).collect();
    let bribed = match habit {
        Habit::BribedNo(bribed) if container == 0 => bribed,
        _ => 0,
    };
    for licence in committee.iter().filter(|licence| **licence < bribed) {
        said.insert(*licence, false);
    }
    if !committee.contains(&0) {
        return said;
    }
    let others = || said.iter().filter(|(licence, _)| **licence != 0).map(|(_, said)| *said);
    let own = match habit {
        Habit::Honest | Habit::BribedNo(_) => return said,
        Habit::Copies => 2 * others().filter(|said| *said).count() > others().count(),
        Habit::Yes => true,
        Habit::No => false,
    };
    said.insert(0, own);
    said
}

/// Plays so many days.
pub(super) fn play(habit: Habit, days: u32, network: &Network, seed: u64) -> Paid {
    let mut chance = Chance::new(seed);
    let terms = terms(3);
    let mut book = Book::new(Emissions::new(5_000_000));
    let nodes: Vec<_> = (0..LICENCES).map(node).collect();
    let mut paid = Paid::default();
    let (mut own, mut honest, mut verdicts) = (0_u128, 0_u128, [(0_u64, 0_u64); 2]);
    for _ in 0..days {
        let seed = bytes(&mut chance);
        let Some(mut evidence) = empty() else { return paid };
        let mut truly_offline = 0;
        for (period, container) in (0..24_u8).flat_map(|p| (0..CONTAINERS).map(move |c| (p, c))) {
            let is_online = chance.below(1_000) >= OFFLINE_PERMILLE;
            truly_offline += u32::from(container == 0 && !is_online);
            let minute = u64::from(period) * 60;
            let committee = assignment(&seed, minute, &nodes, id(container), COMMITTEE);
            let committee: Vec<_> = committee.into_iter().map(licence_of).collect();
            let said = say(habit, &committee, (container, is_online), network, &mut chance);
            let values =
                said.iter().map(|(l, said)| (*l, if *said { Ppm::ONE } else { Ppm::ZERO }));
            let far = outliers(&values.collect());
            for (licence, said) in &said {
                evidence.verdicts.push(Verdict::new(container, period, *licence, *said));
                let (all, out) = &mut verdicts[usize::from(*licence == 0)];
                *all += 1;
                *out += u64::from(far.contains(licence));
            }
        }
        let settled = settle(&terms, &book, &mut evidence);
        for share in &settled.shares {
            match share.cause {
                Cause::Tasks(0) => own += u128::from(share.units),
                Cause::Tasks(_) => honest += u128::from(share.units),
                _ => (),
            }
        }
        for found in incidents(&terms, &evidence).iter().filter(|found| found.container == 0) {
            if let welkin_ledger::epoch::Incident::Day { offline_minutes } = found.incident {
                paid.victim_hours += (offline_minutes / 30).saturating_sub(truly_offline);
                paid.victim_slashed += u32::from(truly_offline == 0);
            }
        }
        book = settled.book;
        book.emissions.advance(1, alloy_primitives::U256::from(1));
    }
    let permille = |(all, out): (u64, u64)| out * 1_000 / all.max(1);
    let paid_permille = own * 1_000 * u128::from(LICENCES - 1) / honest.max(1);
    paid.paid_permille = u64::try_from(paid_permille).unwrap_or(u64::MAX);
    paid.outlier_permille = permille(verdicts[1]);
    paid.honest_outlier_permille = permille(verdicts[0]);
    paid
}

fn empty() -> Option<Evidence> {
    let container = |which| Container {
        id: id(which),
        owner: AccountId::from_bytes([1; 20]),
        class: number("h100-sxm-80"),
        is_staked: true,
    };
    let licence = |number: u32| {
        let mut owner = [2; 20];
        owner[..4].copy_from_slice(&number.to_be_bytes());
        Licence { number, owner: AccountId::from_bytes(owner) }
    };
    let containers = (0..CONTAINERS).map(container).collect();
    let roster = Roster::new(containers, (0..LICENCES).map(licence).collect(), vec![]).ok()?;
    Some(Evidence { roster, ..Evidence::default() })
}
