//! Adversaries against the real rules, in virtual time, from a seed.
//!
//! Attackers are actors that answer the protocol's questions. Who asks them when is decided by the
//! real assignments and sortition, a challenge by the real examiner and class table, what follows
//! from the findings by the real settlement, incidents and penalties, trust in indexers by the
//! buyers' own rules. Nothing here knows whom to find: a row of the table is what those concluded.
//!
//! What is a model: how fast hardware is, what the network does to packets, what things cost
//! ([`CLASSES`], [`STAKE_DAYS`], [`OWN_PERCENT`], [`RENT_PERCENT`]), and that a wrong row of a product is found when it is looked at.

mod attack;
mod checkers;
mod committee;
mod duty;
mod exam;
mod favour;
mod hardware;
mod network;
mod places;
mod report;
mod sessions;
mod trial;

use attack::{Attack, HONEST, attacks};
pub use checkers::{Habit, Paid};
pub use committee::Committee;
pub use duty::Assigned;
use duty::Duties;
pub use favour::Favour;
pub use hardware::{CLASSES, OWN_PERCENT, RENT_PERCENT, STAKE_DAYS};
pub use network::{GOOD, NETWORKS, Network};
pub use places::Claim;
pub use sessions::Served;
use trial::{Ended, Scene, Trial, daily};
use welkin_check::challenge::ClassTable;
use welkin_proto::epoch::COMMITTEE;

/// The largest N of committees that are tried.
const N_MAX: u32 = 3;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The seed: the same one gives the same table.
    pub seed: u64,
    /// How many days each trial has.
    pub days: u32,
    /// Trials of each attack.
    pub trials: u32,
    /// Checkers' licences.
    pub licences: u32,
}

impl Config {
    /// The table of the documentation: a week, 24 times.
    pub const FULL: Self = Self { seed: 1, days: 7, trials: 24, licences: 64 };
    /// A short form for tests.
    pub const SHORT: Self = Self { seed: 1, days: 3, trials: 2, licences: 32 };
}

/// What an attack came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The attack.
    pub attack: &'static str,
    /// Which form of it, and which rules it met.
    pub variant: &'static str,
    /// How checks were assigned, where it matters.
    pub assigned: Option<Assigned>,
    /// Trials of which so many in a thousand were found out within an hour, a day, the run.
    pub found_permille: [u32; 3],
    /// The median time until it was found out, in seconds, over all trials.
    pub median_seconds: Option<u32>,
    /// What was taken on average, in thousandths of a day's reward of the claimed class.
    pub taken_milli: i64,
    /// What it brought on average, likewise; none where the rules say nothing about money.
    pub net_milli: Option<i64>,
    /// Why it is known to pay, or not to be found.
    pub known: Option<&'static str>,
}

impl Row {
    /// Whether it brought more than honesty.
    pub fn pays(&self) -> bool {
        self.net_milli.is_some_and(|net| net > 0)
    }
}

/// What befell honest hosts on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Honest {
    /// The network.
    pub network: &'static str,
    /// How checks were assigned.
    pub assigned: Assigned,
    /// Whether a finding below the class was believed at once, as nodes do now.
    pub asked_once: bool,
    /// Hosts and days that were simulated.
    pub host_days: u32,
    /// Days in which less than its class was proven.
    pub days_lowered: u32,
    /// Hours that were found offline.
    pub hours_offline: u32,
    /// Hosts of which something was taken for being offline.
    pub charged_offline: u32,
    /// Hosts of which something was taken for a fraud.
    pub charged_fraud: u32,
    /// Of how many hosts.
    pub hosts: u32,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// From what.
    pub config: Config,
    /// Attacks by hosts.
    pub rows: Vec<Row>,
    /// Honest hosts, by network.
    pub honest: Vec<Honest>,
    /// Committees of 2N + 1 with f liars.
    pub committees: Vec<Committee>,
    /// How often a minute's committee has a majority of liars: N, their share of the pool in
    /// percent, millionths.
    pub majorities: Vec<(u32, u32, u32)>,
    /// Checkers that do not check.
    pub checkers: Vec<(&'static str, Habit, Paid)>,
    /// Claims of place by a host in Frankfurt, with so many percent of the checkers lying.
    pub claims: Vec<(&'static str, u32, Claim)>,
    /// Indexers that offer their own operator's hosts in so many of a hundred cases.
    pub indexers: Vec<(u32, u32, Favour)>,
    /// Buyers that blame the host in so many of a hundred sessions.
    pub blamed: Vec<(u32, Served)>,
}

impl Table {
    /// The least probability, in thousandths, that a paying attack is found within a day.
    pub fn worst_paying_day_permille(&self) -> u32 {
        let paying = self.rows.iter().filter(|row| row.pays());
        paying.map(|row| row.found_permille[1]).min().unwrap_or(1_000)
    }

    /// Honest hosts under the rule that a bad finding is asked again.
    fn ruled(&self) -> impl Iterator<Item = &Honest> {
        self.honest.iter().filter(|honest| !honest.asked_once)
    }

    /// Days of honest hosts in which less than their class was proven, in millionths.
    pub fn false_positive_ppm(&self) -> u64 {
        let sum = |of: fn(&Honest) -> u32| self.ruled().map(|h| u64::from(of(h))).sum::<u64>();
        sum(|honest| honest.days_lowered) * 1_000_000 / sum(|honest| honest.host_days).max(1)
    }

    /// Honest hosts that were charged with a fraud, or with anything by at most N liars of 2N + 1.
    pub fn honest_slashed(&self) -> u32 {
        let hosts = self.ruled().map(|honest| honest.charged_fraud).sum::<u32>();
        let few = self.committees.iter().filter(|committee| committee.liars <= committee.n);
        hosts + few.map(|committee| committee.slashed).sum::<u32>()
    }
}

/// Simulates everything.
pub fn run(config: Config) -> Table {
    let scene = Scene {
        terms: hardware::terms(COMMITTEE),
        table: ClassTable::published(),
        days: config.days.max(1),
        licences: config.licences.max(u32::from(COMMITTEE)),
    };
    let duties = [Assigned::Publicly, Assigned::Privately].map(|assigned| {
        let of = |trial| {
            let seed = seed(config.seed, 1_000 + trial);
            Duties::new(assigned, scene.licences, COMMITTEE, scene.days, seed)
        };
        (assigned, (0..config.trials).map(of).collect::<Vec<_>>())
    });
    let of = |assigned: Assigned| {
        let found = duties.iter().find(|(how, _)| *how == assigned);
        found.map(|(_, duties)| &duties[..]).unwrap_or_default()
    };
    let mut rows: Vec<_> = attacks()
        .into_iter()
        .map(|attack| row(attack, &trials(&scene, attack, GOOD, of(attack.assigned), config.seed)))
        .collect();
    rows.extend(throttled(config));
    rows.extend(displaced(config));
    let honest = NETWORKS.iter().flat_map(|network| {
        let kinds = [Assigned::Publicly, Assigned::Privately].into_iter();
        kinds
            .flat_map(|assigned| [false, true].map(|once| (assigned, once)))
            .map(|(assigned, once)| {
                let attack = Attack { assigned, ..if once { HONEST.once() } else { HONEST } };
                let trials = trials(&scene, attack, *network, of(assigned), config.seed);
                honest(*network, assigned, once, &trials)
            })
            .collect::<Vec<_>>()
    });
    Table {
        config,
        rows,
        honest: honest.collect(),
        committees: committees(config),
        majorities: majorities(config),
        checkers: idle_checkers(config),
        claims: claims(config),
        indexers: indexers(config),
        blamed: blamed(config),
    }
}

/// A seed of its own for each part.
fn seed(seed: u64, part: u32) -> u64 {
    welkin_match::synth::Chance::new(seed.rotate_left(17) ^ u64::from(part)).word()
}

fn trials(
    scene: &Scene,
    attack: Attack,
    network: Network,
    duties: &[Duties],
    from: u64,
) -> Vec<Ended> {
    let run = |(number, duties)| {
        let trial = Trial::new(scene, attack, network, duties, seed(from, number))?;
        Some(trial.run())
    };
    (0..).zip(duties).filter_map(run).collect()
}

fn permille(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 1_000 / whole.max(1)).unwrap_or(u32::MAX)
}

/// When trials were found out: within an hour, a day and the run, and the median.
fn found(seconds: &[Option<u32>]) -> ([u32; 3], Option<u32>) {
    let within = |most: u32| {
        let found = seconds.iter().flatten().filter(|second| **second <= most).count();
        permille(found, seconds.len())
    };
    let mut sorted: Vec<_> = seconds.iter().map(|second| second.unwrap_or(u32::MAX)).collect();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().filter(|second| *second < u32::MAX);
    ([within(3_600), within(86_400), within(u32::MAX)], median)
}

fn row(attack: Attack, trials: &[Ended]) -> Row {
    let seconds: Vec<_> = trials.iter().map(|ended| ended.found_second).collect();
    let (found_permille, median_seconds) = found(&seconds);
    let count = i64::try_from(trials.len().max(1)).unwrap_or(1);
    let a_day = i64::try_from(daily(attack.claimed).max(1)).unwrap_or(1);
    let days = |kdays: i64| kdays * 1_000 / a_day / count;
    let taken: u64 = trials.iter().map(|ended| ended.taken).sum();
    Row {
        attack: attack.name,
        variant: attack.variant,
        assigned: Some(attack.assigned),
        found_permille,
        median_seconds,
        taken_milli: days(i64::try_from(taken).unwrap_or(i64::MAX)),
        net_milli: Some(days(trials.iter().map(|ended| ended.net).sum())),
        known: attack.known,
    }
}

fn honest(network: Network, assigned: Assigned, asked_once: bool, trials: &[Ended]) -> Honest {
    let sum = |of: fn(&Ended) -> u32| trials.iter().map(of).sum();
    Honest {
        network: network.name,
        assigned,
        asked_once,
        host_days: sum(|ended| ended.days),
        days_lowered: sum(|ended| ended.days_lowered),
        hours_offline: sum(|ended| ended.hours_offline),
        charged_offline: sum(|ended| u32::from(ended.taken > ended.taken_for_fraud)),
        charged_fraud: sum(|ended| u32::from(ended.taken_for_fraud > 0)),
        hosts: u32::try_from(trials.len()).unwrap_or(u32::MAX),
    }
}

/// Hosts that are fast in challenges and slow in sessions.
fn throttled(config: Config) -> Vec<Row> {
    const WHY: &str = "a buyer alone costs it ten points of a session and its grade, no stake";
    let half = (500, "half speed in sessions, the rest sold elsewhere");
    let tenth = (900, "nine tenths of the speed");
    let slow = (200, "a fifth of the speed");
    let rows = [half, tenth, slow].map(|(tokens, variant)| {
        let service = sessions::Service { tokens, blames_percent: 0 };
        let all: Vec<_> = (0..config.trials)
            .map(|trial| sessions::play(service, config.days, seed(config.seed, 2_000 + trial)))
            .collect();
        // Two hours a session, so that half of the time is sold.
        let second = |session: u32| session * 7_200;
        let seconds: Vec<_> = all.iter().map(|s| s.found_session.map(second)).collect();
        let (found_permille, median_seconds) = found(&seconds);
        let earned: u64 = all.iter().map(|served| served.earned_permille).sum();
        let earned = i64::try_from(earned / u64::from(config.trials.max(1))).unwrap_or(0);
        let sold = i64::from(1_000 - tokens) * RENT_PERCENT / 100 / 2;
        let net = i64::from(config.days) * (earned - 1_000 + sold);
        Row {
            attack: "throttled after the check",
            variant,
            assigned: None,
            found_permille,
            median_seconds,
            taken_milli: 0,
            net_milli: Some(net),
            known: Some(WHY),
        }
    });
    rows.to_vec()
}

/// Hosts that say they are elsewhere.
fn displaced(config: Config) -> Vec<Row> {
    const WHY: &str = "no rule charges a claim";
    const SLOW: &str = "an answer that is late shows nothing; buyers see the round trip";
    const NEAR: &str = "too near: 300 km of light are 3 ms";
    let claims = [
        ("Tokyo", false, "Frankfurt as Tokyo", WHY),
        ("New York", false, "Frankfurt as New York", WHY),
        ("Paris", false, "Frankfurt as Paris", NEAR),
        ("Tokyo", true, "Frankfurt as Tokyo, answers delayed", SLOW),
    ];
    let row = |(claim, delays, variant, why)| {
        let seconds: Vec<_> = (0..config.trials)
            .map(|trial| {
                places::play(claim, delays, 0, config.days, seed(config.seed, 3_000 + trial))
            })
            .map(|claim| claim.refuted_minute.map(|minute| minute * 60))
            .collect();
        let (found_permille, median_seconds) = found(&seconds);
        let (attack, assigned, known) =
            ("lies about its place", Some(Assigned::Publicly), Some(why));
        Row {
            attack,
            variant,
            assigned,
            found_permille,
            median_seconds,
            taken_milli: 0,
            net_milli: None,
            known,
        }
    };
    claims.map(row).to_vec()
}

fn committees(config: Config) -> Vec<Committee> {
    let days = config.days * config.trials;
    let of = |(n, liars)| committee::play(n, liars, days, &GOOD, seed(config.seed, 4_000 + n));
    (1..=N_MAX).flat_map(|n| (0..=n + 1).map(move |liars| (n, liars))).map(of).collect()
}

fn majorities(config: Config) -> Vec<(u32, u32, u32)> {
    let minutes = 20 * config.days * config.trials;
    let of = |(n, percent)| {
        let part = 5_000 + 100 * n + percent;
        (n, percent, committee::majority_ppm(n, percent, minutes, seed(config.seed, part)))
    };
    [1, 2, 3, 10]
        .into_iter()
        .flat_map(|n| [10, 20, 33].map(|percent| (n, percent)))
        .map(of)
        .collect()
}

fn idle_checkers(config: Config) -> Vec<(&'static str, Habit, Paid)> {
    let habits = [
        ("honest", Habit::Honest),
        ("copies others", Habit::Copies),
        ("always says yes", Habit::Yes),
        ("always says no", Habit::No),
        ("says no to one host for a bribe", Habit::BribedNo(1)),
        ("a third of all bribed to say no to one host", Habit::BribedNo(13)),
    ];
    let days = config.days;
    let play = |habit| checkers::play(habit, days, &GOOD, seed(config.seed, 6_000));
    habits.map(|(name, habit)| (name, habit, play(habit))).to_vec()
}

fn claims(config: Config) -> Vec<(&'static str, u32, Claim)> {
    let of = |(city, percent)| {
        let seed = seed(config.seed, 7_000 + percent);
        (city, percent, places::play(city, false, percent, config.days, seed))
    };
    let honest = [0, 5, 20, 33].map(|percent| ("Frankfurt", percent));
    let false_ones = ["Paris", "New York", "Tokyo", "Sydney"].map(|city| (city, 0));
    honest.into_iter().chain(false_ones).map(of).collect()
}

fn indexers(config: Config) -> Vec<(u32, u32, Favour)> {
    let of = |(own, an_hour)| {
        let seed = seed(config.seed, 8_000 + own);
        (own, an_hour, favour::play(own, an_hour, config.days, seed))
    };
    [(20, 600), (30, 600), (40, 600), (80, 600), (80, 60)].map(of).to_vec()
}

fn blamed(config: Config) -> Vec<(u32, Served)> {
    let of = |percent| {
        let service = sessions::Service { tokens: 1_000, blames_percent: percent };
        (percent, sessions::play(service, config.days, seed(config.seed, 9_000 + percent)))
    };
    [0, 5, 20, 100].map(of).to_vec()
}
