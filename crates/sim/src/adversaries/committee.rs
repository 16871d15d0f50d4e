//! Committees of 2N + 1 of which f lie together: against an honest host, and for one that pretends.

use welkin_check::assignment;
use welkin_ledger::epoch::{
    Book, Capacity, Container, Emissions, Evidence, Incident, Licence, Roster, Standing, Verdict,
    incidents, settle,
};
use welkin_match::synth::Chance;
use welkin_types::{AccountId, ContainerId, NodeId};

use super::hardware::{number, terms};
use super::network::Network;

/// Findings that an honest checker could not make, in percent: the host was at work.
const MISSING_PERCENT: u32 = 10;
const REGISTERED: &str = "h100-sxm-80";
const REAL: &str = "rtx3090-24";

/// What f of a committee of 2N + 1 can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committee {
    /// N.
    pub n: u32,
    /// How many lie.
    pub liars: u32,
    /// Days of each host.
    pub days: u32,
    /// Charges against the honest host.
    pub slashed: u32,
    /// Hours in which it was found offline.
    pub hours_offline: u32,
    /// Days in which less than its class was proven, or its proof was lost.
    pub days_lowered: u32,
    /// Days in which the pretender was proven at what it claims.
    pub days_believed: u32,
}

/// How liars lie; all of one committee alike, by the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Offline, and hardware that was not there.
    Nothing,
    /// Online, and hardware far below.
    FarBelow,
    /// Both answers to each question: neither counts.
    Contradict,
}

const LIES: [Lie; 3] = [Lie::Nothing, Lie::FarBelow, Lie::Contradict];

fn id(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 16])
}

/// Plays so many days; container 0 is honest, container 1 pretends.
pub(super) fn play(n: u32, liars: u32, days: u32, network: &Network, seed: u64) -> Committee {
    let mut chance = Chance::new(seed);
    let size = 2 * n + 1;
    let terms = terms(u8::try_from(size).unwrap_or(u8::MAX));
    let mut came = Committee { n, liars, days, ..Committee::default() };
    let mut book = Book::new(Emissions::new(5_000_000));
    // Both begin proven at what they registered: a lie must take that away, or keep it.
    let proven = Standing { proven: Some(number(REGISTERED)), proven_in: 0, ..Standing::default() };
    book.containers.insert(id(0), proven);
    for day in 0..days {
        let place = usize::try_from(day).unwrap_or(0) % LIES.len();
        let Some(mut evidence) = evidence(LIES[place], size, liars, network, &mut chance) else {
            return came;
        };
        let settled = settle(&terms, &book, &mut evidence);
        for found in incidents(&terms, &evidence).iter().filter(|found| found.container == 0) {
            came.slashed += 1;
            if let Incident::Day { offline_minutes } = found.incident {
                came.hours_offline += offline_minutes / 30;
            }
        }
        let epoch = book.emissions.epoch;
        let proven = |number| settled.book.containers.get(&id(number)).copied().unwrap_or_default();
        let is_held = epoch.saturating_sub(proven(0).proven_in) <= terms.proof_epochs;
        let is_whole = is_held && proven(0).proven == Some(number(REGISTERED));
        came.days_lowered += u32::from(!is_whole);
        let pretender = proven(1);
        let is_believed =
            pretender.proven_in == epoch && pretender.proven == Some(number(REGISTERED));
        came.days_believed += u32::from(is_believed);
        book = settled.book;
        book.emissions.advance(1, alloy_primitives::U256::from(1));
    }
    came
}

fn evidence(
    lie: Lie,
    size: u32,
    liars: u32,
    network: &Network,
    chance: &mut Chance,
) -> Option<Evidence> {
    let class = number(REGISTERED);
    let container = |which: u8| Container {
        id: id(which),
        owner: AccountId::from_bytes([which + 1; 20]),
        class,
        is_staked: true,
    };
    let licence = |number| Licence { number, owner: AccountId::from_bytes([9; 20]) };
    let all = (0..size).map(licence).collect();
    let roster = Roster::new(vec![container(0), container(1)], all, vec![]).ok()?;
    let mut evidence = Evidence { roster, ..Evidence::default() };
    for licence in 0..size {
        let mut find = |container, class| {
            evidence.capacities.push(Capacity { container, licence, class });
        };
        if licence < liars {
            find(1, Some(class));
            match lie {
                Lie::Nothing => find(0, None),
                Lie::FarBelow => find(0, Some(number(REAL))),
                Lie::Contradict => [None, Some(class)].into_iter().for_each(|said| find(0, said)),
            }
        } else {
            for (container, real) in [(0, class), (1, number(REAL))] {
                if chance.below(100) >= MISSING_PERCENT {
                    find(container, Some(real));
                }
            }
        }
        for period in 0..24 {
            let mut say = |container, is_online| {
                evidence.verdicts.push(Verdict::new(container, period, licence, is_online));
            };
            if licence >= liars {
                [0, 1].into_iter().for_each(|host| say(host, network.probe(chance)));
                continue;
            }
            say(1, true);
            match lie {
                Lie::Nothing => say(0, false),
                Lie::FarBelow => say(0, true),
                Lie::Contradict => [false, true].into_iter().for_each(|said| say(0, said)),
            }
        }
    }
    Some(evidence)
}

/// How often, in millionths, more than half of a minute's committee is of a share (in percent) of
/// 200 licences that lie together.
pub(super) fn majority_ppm(n: u32, percent: u32, minutes: u32, seed: u64) -> u32 {
    const LICENCES: u32 = 200;
    let mut chance = Chance::new(seed);
    let seed = super::duty::bytes(&mut chance);
    let node = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    };
    let nodes: Vec<_> = (0..LICENCES).map(node).collect();
    let is_liar = |node: &NodeId| {
        let [a, b, c, d, ..] = *node.as_bytes();
        u32::from_be_bytes([a, b, c, d]) < LICENCES * percent / 100
    };
    let size = usize::try_from(2 * n + 1).unwrap_or(1);
    let bad = (0..minutes).filter(|minute| {
        let committee = assignment(&seed, u64::from(*minute), &nodes, id(1), size);
        committee.iter().filter(|node| is_liar(node)).count() > size / 2
    });
    let bad = u64::try_from(bad.count()).unwrap_or(0);
    u32::try_from(bad * 1_000_000 / u64::from(minutes.max(1))).unwrap_or(u32::MAX)
}
