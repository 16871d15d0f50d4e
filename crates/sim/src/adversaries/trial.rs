//! One host over some days: checks, challenges, a settlement a day, charges, and what it comes to.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use welkin_check::challenge::{self, ClassTable, Windows};
use welkin_ledger::epoch::{
    Book, Capacity, Cause, Charge, Collateral, Container, Conviction, Emissions, Evidence, Fault,
    Incident, Licence, Offence, Roster, Rules, Terms, Verdict, incidents, settle,
};
use welkin_match::synth::Chance;
use welkin_types::{AccountId, Class, ContainerId};

use super::attack::{Attack, Move};
use super::duty::{Check, Duties, EXAM_PERCENT, bytes};
use super::exam::{Asked, Deed, Word, examine};
use super::hardware::{MILLI, PENDING_PERCENT, capacity, kdays, number, rate, stake};
use super::network::{Network, is_out};

/// Containers of the claimed class in the network, of whom partners are drawn.
const CLASS_SIZE: u32 = 1_000;

/// Where something happens.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) terms: Terms,
    pub(super) table: ClassTable,
    pub(super) days: u32,
    pub(super) licences: u32,
}

/// What a trial came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// When settlement first found less than the registered class, in seconds.
    pub(super) found_second: Option<u32>,
    /// What was taken of stakes and pending rewards, in thousandths of a K-day.
    pub(super) taken: u64,
    /// Of that, for another reason than being offline.
    pub(super) taken_for_fraud: u64,
    /// Rewards less costs, what was taken, and what the same hardware brings an honest host.
    pub(super) net: i64,
    /// Days settled, and those of them in which less than the registered class was proven.
    pub(super) days: u32,
    pub(super) days_lowered: u32,
    /// Hours that settlement found offline.
    pub(super) hours_offline: u32,
}

/// Who is challenged together with a container.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Others that have the same device.
    sharers: u32,
    /// The first turn that it can have: 1 if another one is always served before.
    first: u32,
    /// Others with devices of their own.
    honest: usize,
}

/// A day's findings of one licence.
#[derive(Clone, Debug, Default)]
struct Own {
    last: Option<Option<u16>>,
    asked: challenge::Asked,
    periods: BTreeMap<u8, (u32, u32)>,
}

pub(super) struct Trial<'a> {
    scene: &'a Scene,
    attack: Attack,
    network: Network,
    duties: &'a Duties,
    chance: Chance,
    outages: Vec<(u32, u32)>,
    claimed: Class,
    permille: u64,
    shown_mib: u64,
    windows: Windows,
    /// All containers of the class; the identities of the host come first.
    class: Vec<ContainerId>,
    book: Book,
    record: Conviction,
    /// Earned and not released, before what vests at once.
    pending: u64,
    is_gone: bool,
    ended: Ended,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        scene: &'a Scene,
        attack: Attack,
        network: Network,
        duties: &'a Duties,
        seed: u64,
    ) -> Option<Self> {
        let mut chance = Chance::new(seed);
        let outages = network.outages(scene.days, &mut chance);
        let sizes: Vec<_> =
            super::hardware::CLASSES.iter().map(|(class, _)| rate(&scene.table, class).1).collect();
        Some(Self {
            claimed: Class::try_from(attack.claimed.to_owned()).ok()?,
            // Cards of a class differ, by cooling and luck.
            permille: 940 + u64::from(chance.below(100)),
            shown_mib: attack.shown_mib(&scene.table, &sizes),
            windows: Windows::default(),
            class: (0..CLASS_SIZE).map(identity).collect(),
            book: Book::new(Emissions::new(5_000_000)),
            record: Conviction::default(),
            pending: 0,
            is_gone: false,
            ended: Ended::default(),
            scene,
            attack,
            network,
            duties,
            chance,
            outages,
        })
    }

    pub(super) fn run(mut self) -> Ended {
        let duties = self.duties;
        for day in 0..self.scene.days {
            let (from, to) = (day * 86_400, (day + 1) * 86_400);
            let first = duties.checks.partition_point(|check| check.second < from);
            let last = duties.checks.partition_point(|check| check.second < to);
            self.day(day, &duties.checks[first..last]);
            if self.is_gone {
                break;
            }
        }
        self.ended
    }

    fn day(&mut self, day: u32, checks: &[Check]) {
        let mut licences: BTreeMap<u32, Own> = BTreeMap::new();
        for check in checks {
            let is_up = !is_out(&self.outages, check.second);
            let is_online = is_up && self.network.probe(&mut self.chance);
            let own = licences.entry(check.licence).or_default();
            let period = u8::try_from(check.second % 86_400 / 3_600).unwrap_or(0);
            let told = own.periods.entry(period).or_default();
            told.0 += u32::from(is_online);
            told.1 += 1;
            if is_online && self.chance.below(100) < EXAM_PERCENT {
                let colluders = self.scene.licences * self.attack.colluders_percent / 100;
                let word = match check.licence < colluders {
                    true => Word::Proved(Some(self.claimed.clone())),
                    false => self.challenge(check.second),
                };
                let is_new = self.note(own, word, check.second);
                if is_new && self.ended.found_second.is_none() {
                    let now = self.evidence(&licences);
                    self.look(day, now, check.second);
                }
            }
        }
        if let Some(mut evidence) = self.evidence(&licences) {
            if self.is_gone {
                evidence.halted.push(0);
            }
            self.settle(day, evidence);
        }
    }

    /// A checker's challenge at a second; with it, if the rules are so, its neighbours'.
    fn challenge(&mut self, second: u32) -> Word {
        let cut = self.outages.iter().map(|(from, _)| *from).filter(|from| *from >= second).min();
        let cut_after_us = cut.map_or(u64::MAX, |from| u64::from(from - second) * 1_000_000);
        let deed = match self.attack.at(&self.scene.table, second, self.permille) {
            Move::Refuse => Deed::Refuse,
            Move::Leave => Deed::Leave,
            Move::Work(effort) => Deed::Work {
                mmac_per_s: effort.mmac_per_s,
                delay_us: effort.delay_us,
                wrong_bp: effort.wrong_bp,
            },
        };
        let (network, claimed) = (self.network, self.claimed.clone());
        let asked = Asked {
            claimed: &claimed,
            memory_mib: self.shown_mib,
            network: &network,
            deed,
            cut_after_us,
        };
        let others = self.attack.identities() - 1;
        let Deed::Work { mmac_per_s, .. } = deed else {
            return self.ask(asked, Window::default(), 0).0;
        };
        let work_us = super::exam::shape().map_or(0, |shape| shape.macs() / mmac_per_s.max(1));
        let (mut window, mut beside) = (Window::default(), Vec::new());
        if self.attack.rules.has_window {
            let first = u32::from(others > 0 && !self.attack.alternates);
            window = Window { sharers: others, first, honest: 0 };
        } else if self.attack.rules.has_partners {
            beside = self.windows.partners(identity(0), &self.class, &bytes(&mut self.chance));
            let sharers = beside.iter().filter(|id| self.class[..=to_usize(others)].contains(id));
            let sharers = u32::try_from(sharers.count()).unwrap_or(0);
            // The last identity is always served first, if they don't take turns.
            let is_last = beside.contains(&identity(others)) && !self.attack.alternates;
            let honest = beside.len() - to_usize(sharers);
            window = Window { sharers, first: u32::from(is_last), honest };
        } else if others > 0 {
            // By chance another identity is at a challenge just now, and this one waits.
            let a_day = u64::from(self.exams_a_day()) * u64::from(others);
            if u64::from(self.chance.below(1_000_000)) < a_day * work_us / 86_400 {
                let left = self.chance.below(u32::try_from(work_us).unwrap_or(u32::MAX));
                let asked = Asked { deed: later(deed, u64::from(left)), ..asked };
                return self.ask(asked, window, 0).0;
            }
        }
        let (word, is_whole) = self.ask(asked, window, work_us);
        match is_whole {
            true => self.windows.fast(identity(0)),
            false => self.windows.slow(identity(0), &beside),
        }
        word
    }

    /// Asks as often as the rules say. The try that is best as a whole counts: what the container
    /// itself proved in it, and whether all in the window proved their class.
    fn ask(&mut self, asked: Asked<'_>, window: Window, work_us: u64) -> (Word, bool) {
        let (mut best, mut tries) = ((Word::NotNow, 0, false), 0);
        loop {
            // The shared device works for one after the other.
            let place = window.first + self.chance.below(window.sharers + 1 - window.first);
            let turns = std::iter::once(place)
                .chain((0..=window.sharers).filter(|turn| *turn != place))
                .map(|turn| later(asked.deed, u64::from(turn) * work_us));
            let honest = std::iter::repeat_n(asked.deed, window.honest);
            let all: Vec<_> = turns.chain(honest).map(|deed| Asked { deed, ..asked }).collect();
            let words = examine(&self.scene.table, &all, &mut self.chance);
            tries += 1;
            let claimed = Word::Proved(Some(self.claimed.clone()));
            let is_whole = words.iter().all(|word| *word == claimed);
            let is_wrong = words.iter().any(|w| !matches!(w, Word::Proved(_) | Word::TooSlow));
            let value = words.iter().map(worth).min().unwrap_or(0);
            if tries == 1 || value > best.1 {
                let own = words.into_iter().next().unwrap_or(Word::NotNow);
                best = (own, value, is_whole);
            }
            if self.attack.rules.asks_once || !challenge::asks_again(tries, is_whole, is_wrong) {
                return (best.0, best.2);
            }
        }
    }

    fn exams_a_day(&self) -> u32 {
        let checks = u32::try_from(self.duties.checks.len()).unwrap_or(u32::MAX);
        checks / self.scene.days.max(1) * EXAM_PERCENT / 100
    }

    /// Notes a checker's last word; whether it may change what is concluded.
    fn note(&mut self, own: &mut Own, word: Word, second: u32) -> bool {
        let said = match word {
            Word::NotNow => {
                own.asked.refused(false);
                return self.attack.rules.counts_refusals;
            }
            Word::Proved(class) => class.map(|class| number(class.as_str())),
            Word::TooSlow => None,
            Word::Wrong => {
                // The host signed the commitment: anybody can see that the row is wrong.
                self.ended.found_second.get_or_insert(second);
                self.convict(Offence::LyingToIndexer, [9; 32]);
                None
            }
        };
        own.asked.answered();
        own.last = Some(said);
        said != Some(number(self.attack.claimed))
    }

    fn evidence(&self, licences: &BTreeMap<u32, Own>) -> Option<Evidence> {
        let class = number(self.attack.claimed);
        let (id, owner) = (self.duties.container, AccountId::from_bytes([1; 20]));
        let containers = vec![Container { id, owner, class, is_staked: true }];
        let licence = |number| Licence { number, owner: AccountId::from_bytes([2; 20]) };
        let all = (0..self.scene.licences).map(licence).collect();
        let roster = Roster::new(containers, all, vec![]).ok()?;
        let mut evidence = Evidence { roster, ..Evidence::default() };
        for (licence, own) in licences {
            let is_evasive = self.attack.rules.counts_refusals && own.asked.is_evasive();
            let said = if is_evasive { Some(None) } else { own.last };
            if let Some(class) = said {
                evidence.capacities.push(Capacity { container: 0, licence: *licence, class });
            }
            for (period, (online, asked)) in &own.periods {
                let is_online = 2 * online > *asked;
                evidence.verdicts.push(Verdict::new(0, *period, *licence, is_online));
            }
        }
        Some(evidence)
    }

    /// Whether settlement would find less than the registered class, were the day over now.
    fn look(&mut self, day: u32, evidence: Option<Evidence>, second: u32) {
        let Some(mut evidence) = evidence else { return };
        let settled = settle(&self.scene.terms, &self.book, &mut evidence);
        let standing = settled.book.containers.get(&self.duties.container);
        let is_lower = standing.is_some_and(|standing| {
            standing.proven_in == self.book.emissions.epoch
                && standing.proven != Some(number(self.attack.claimed))
        });
        if is_lower {
            self.ended.found_second = Some(second.max(day * 86_400));
        }
    }

    fn settle(&mut self, day: u32, mut evidence: Evidence) {
        let (terms, claimed) = (&self.scene.terms, number(self.attack.claimed));
        let settled = settle(terms, &self.book, &mut evidence);
        let earned: u128 = settled
            .shares
            .iter()
            .filter(|share| matches!(share.cause, Cause::Capacity(_) | Cause::Delivery(_)))
            .map(|share| share.weight)
            .sum();
        let epoch = self.book.emissions.epoch;
        self.book = settled.book;
        self.book.emissions.advance(settled.units, U256::from(50_000_000_000_000_000_u64));
        let standing = self.book.containers.get(&self.duties.container);
        let is_lowered =
            standing.is_some_and(|s| s.proven_in == epoch && s.proven != Some(claimed));
        self.ended.days += 1;
        self.ended.days_lowered += u32::from(is_lowered);
        let earned = kdays(earned);
        self.pending += earned;
        // The identity that is always served first goes on undisturbed.
        let favoured = if self.is_favoured() { daily(self.attack.claimed) } else { 0 };
        let earned = earned * u64::from(self.looked_at()) + favoured;
        let cost = self.attack.cost() + self.attack.alternative();
        self.ended.net += i64::try_from(earned).unwrap_or(i64::MAX) - cost;
        let uptime = Rules::uptime(2);
        for found in incidents(terms, &evidence) {
            if let Incident::Day { offline_minutes } = found.incident {
                self.ended.hours_offline += offline_minutes / 30;
            }
            if let Some(offence) = uptime.offence(&found.incident) {
                self.convict(offence, found.evidence);
            }
        }
        if self.is_gone {
            self.ended.found_second.get_or_insert((day + 1) * 86_400);
        }
    }

    fn is_favoured(&self) -> bool {
        let rules = self.attack.rules;
        let has_windows = rules.has_window || rules.has_partners;
        has_windows && self.attack.identities() > 1 && !self.attack.alternates
    }

    /// How many identities fare as the one that is simulated.
    fn looked_at(&self) -> u32 {
        self.attack.identities() - u32::from(self.is_favoured())
    }

    /// Charges all identities of the host.
    fn convict(&mut self, offence: Offence, evidence: [u8; 32]) {
        let required_stake = stake(self.attack.claimed);
        let charge = Charge {
            container: self.duties.container,
            offence,
            fault: Fault::Provider,
            evidence,
            required_stake,
            buyer: None,
            harm: U256::ZERO,
            reporter: None,
        };
        let rules = Rules::uptime(2);
        let now = u64::from(self.book.emissions.epoch) * 86_400;
        let Ok(penalty) = rules.convict(&mut self.record, &charge, now) else { return };
        let pending_rewards = U256::from(self.pending * PENDING_PERCENT / 100);
        let from = Collateral { pending_rewards, stake: required_stake };
        let taken = rules.take(&charge, penalty, U256::ZERO, &from);
        let taken = u64::try_from(taken.from_rewards + taken.from_stake).unwrap_or(u64::MAX);
        let taken = taken * u64::from(self.looked_at());
        self.ended.taken += taken;
        self.ended.net -= i64::try_from(taken).unwrap_or(i64::MAX);
        if matches!(offence, Offence::LyingToIndexer | Offence::FarBelowSpecification) {
            self.ended.taken_for_fraud += taken;
            self.is_gone = true;
        }
    }
}

fn later(deed: Deed, us: u64) -> Deed {
    match deed {
        Deed::Work { mmac_per_s, delay_us, wrong_bp } => {
            Deed::Work { mmac_per_s, delay_us: delay_us + us, wrong_bp }
        }
        Deed::Refuse | Deed::Leave => deed,
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A container of the class, by its number.
fn identity(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

/// What a word proves, in capacity.
fn worth(word: &Word) -> u64 {
    match word {
        Word::Proved(Some(class)) => 1 + capacity(class.as_str()),
        Word::Proved(None) => 1,
        Word::TooSlow | Word::Wrong | Word::NotNow => 0,
    }
}

/// What a claimed class earns a day, in thousandths of a K-day.
pub(super) fn daily(class: &str) -> u64 {
    capacity(class) * MILLI
}
