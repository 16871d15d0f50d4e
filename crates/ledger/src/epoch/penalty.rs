//! What a provider's fault costs: versioned rules, graded, taken from rewards before stake.
//!
//! The arithmetic is that of `contracts/src/Slashing.sol`. A share is of the stake that is required
//! (K × coefficient). Only a provider's fault is punished, only with evidence, and no evidence
//! twice. What is taken goes to the harmed buyer up to the harm and the rule's cap, then a fixed
//! bounty at most to who reported, then to the treasury; nobody who accuses or decides gets a part.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::U256;
use welkin_types::{AccountId, ContainerId};

const WHOLE_BP: u64 = 10_000;
/// The most of what is taken that a bounty can be, in basis points.
const BOUNTY_BP_MAX: u64 = 1_000;
const DAY: u64 = 86_400;
const MONTH_MINUTES: u64 = 30 * 24 * 60;

/// Where a fault came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nobody can tell.
    Unknown,
    /// The host, its machine or its operator.
    Provider,
    /// The buyer or its work.
    Buyer,
    /// What lies between them.
    Network,
}

/// Which family of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// A share of the stake for each incident.
    Incidents,
    /// Uptime of days and months.
    Uptime,
}

/// What somebody is charged with; the number is the contract's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Offence {
    /// Went down while delivering.
    DownDelivering = 1,
    /// Went down while reserved.
    DownReserved = 2,
    /// Lied to an indexer.
    LyingToIndexer = 3,
    /// Hardware is far below what was registered.
    FarBelowSpecification = 4,
    /// Offline for 30 minutes of a day or more.
    DayOffline = 11,
    /// Offline for more than 48 hours on end.
    TwoDaysOffline = 12,
    /// Offline for more than 120 hours on end.
    FiveDaysOffline = 13,
    /// Less than 99 % of a month online.
    MonthBelow99 = 14,
    /// Less than 95 % of a month online.
    MonthBelow95 = 15,
}

impl Offence {
    /// The contract's code.
    pub const fn code(self) -> u16 {
        self as u16
    }
}

/// What a buyer gets back of a lease beside the penalty. The service fee is waived with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refund {
    /// Nothing.
    None,
    /// What the affected period cost.
    Period,
    /// What the 24-hour period cost.
    Day,
}

/// A rule. Shares of the required stake in basis points, by how often it happened lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For the first time.
    pub first: u16,
    /// For the second time within `memory_seconds`.
    pub second: u16,
    /// From the third time on.
    pub further: u16,
    /// The most of a penalty that goes to the harmed buyer.
    pub buyer: u16,
    /// For how long a conviction counts.
    pub memory_seconds: u32,
    /// What the buyer gets back.
    pub refund: Refund,
    /// Whether the container earns nothing until its stake is whole again.
    pub halts: bool,
}

/// A version of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Which version, as on the chain.
    pub version: u32,
    /// Which family.
    pub generation: Generation,
    /// The rules.
    pub rules: BTreeMap<Offence, Rule>,
}

impl Rules {
    /// Generation 1: a third of K·S for going down at work, all of it from the third time on and
    /// for fraud or hardware far below specification. Going down while idle costs no stake.
    pub fn incidents(version: u32) -> Self {
        let third = |refund| rule([3_333, 3_333, 10_000], refund);
        let whole = rule([10_000; 3], Refund::Period);
        let rules = BTreeMap::from([
            (Offence::DownDelivering, third(Refund::Period)),
            (Offence::DownReserved, third(Refund::Day)),
            (Offence::LyingToIndexer, whole),
            (Offence::FarBelowSpecification, whole),
        ]);
        Self { version, generation: Generation::Incidents, rules }
    }

    /// Generation 2: less than 30 minutes a day offline, at least 99 % of a month online; graded.
    /// Fraud costs as much as in generation 1.
    pub fn uptime(version: u32) -> Self {
        let whole = rule([10_000; 3], Refund::Period);
        let rules = BTreeMap::from([
            (Offence::DayOffline, rule([200, 400, 800], Refund::Period)),
            (Offence::TwoDaysOffline, rule([3_000; 3], Refund::Day)),
            (Offence::FiveDaysOffline, rule([5_000; 3], Refund::Day)),
            (Offence::MonthBelow99, rule([200, 400, 800], Refund::None)),
            (Offence::MonthBelow95, rule([1_000, 2_000, 4_000], Refund::None)),
            (Offence::LyingToIndexer, whole),
            (Offence::FarBelowSpecification, whole),
        ]);
        Self { version, generation: Generation::Uptime, rules }
    }

    /// What an incident is charged as under these rules; nothing if they have no rule for it.
    pub fn offence(&self, incident: &Incident) -> Option<Offence> {
        let offence = match *incident {
            Incident::Down { is_reserved: true, .. }
                if self.generation == Generation::Incidents =>
            {
                Offence::DownReserved
            }
            Incident::Down { is_delivering: true, .. }
                if self.generation == Generation::Incidents =>
            {
                Offence::DownDelivering
            }
            Incident::Down { .. } => return None,
            Incident::Offline { minutes_on_end } if minutes_on_end > 120 * 60 => {
                Offence::FiveDaysOffline
            }
            Incident::Offline { minutes_on_end } if minutes_on_end > 48 * 60 => {
                Offence::TwoDaysOffline
            }
            Incident::Offline { .. } => return None,
            Incident::Day { offline_minutes } if offline_minutes >= 30 => Offence::DayOffline,
            Incident::Day { .. } => return None,
            Incident::Month { offline_minutes } => {
                let offline = u64::from(offline_minutes) * 100;
                match offline {
                    _ if offline > 5 * MONTH_MINUTES => Offence::MonthBelow95,
                    _ if offline > MONTH_MINUTES => Offence::MonthBelow99,
                    _ => return None,
                }
            }
            Incident::Lie => Offence::LyingToIndexer,
            Incident::Specification => Offence::FarBelowSpecification,
        };
        self.rules.contains_key(&offence).then_some(offence)
    }

    /// Decides charges in the order given, remembering convictions.
    ///
    /// A charge that is refused changes nothing.
    ///
    /// # Errors
    ///
    /// [`PenaltyRefusal`]
    pub fn convict(
        &self,
        record: &mut Conviction,
        charge: &Charge,
        now_seconds: u64,
    ) -> Result<U256, PenaltyRefusal> {
        if charge.fault != Fault::Provider {
            return Err(PenaltyRefusal::NotProvider(charge.fault));
        }
        if charge.evidence == [0; 32] {
            return Err(PenaltyRefusal::NoEvidence);
        }
        let rule = self.rules.get(&charge.offence);
        let rule = rule.ok_or(PenaltyRefusal::NoRule(charge.offence, self.version))?;
        if !record.used.insert((charge.container, charge.offence, charge.evidence)) {
            return Err(PenaltyRefusal::Used);
        }
        let past = record.counts.entry((charge.container, charge.offence)).or_default();
        let is_remembered = now_seconds <= past.1.saturating_add(u64::from(rule.memory_seconds));
        let before = if is_remembered { past.0 } else { 0 };
        *past = (before.saturating_add(1), now_seconds);
        let share = match before {
            0 => rule.first,
            1 => rule.second,
            _ => rule.further,
        };
        Ok(share_of(charge.required_stake, u64::from(share)))
    }

    /// Takes a penalty: from pending rewards first, then from stake.
    pub fn take(&self, charge: &Charge, penalty: U256, bounty: U256, from: &Collateral) -> Taken {
        let from_rewards = penalty.min(from.pending_rewards);
        let from_stake = (penalty - from_rewards).min(from.stake);
        let taken = from_rewards + from_stake;
        let cap = self.rules.get(&charge.offence).map_or(0, |rule| u64::from(rule.buyer));
        let owed = match charge.buyer {
            Some(_) => charge.harm.min(share_of(penalty, cap)),
            None => U256::ZERO,
        };
        let to_buyer = taken.min(owed);
        let bounty = if charge.reporter.is_some() { bounty } else { U256::ZERO };
        let to_reporter = bounty.min(share_of(taken, BOUNTY_BP_MAX)).min(taken - to_buyer);
        Taken {
            from_rewards,
            from_stake,
            to_buyer,
            to_reporter,
            to_treasury: taken - to_buyer - to_reporter,
            left: penalty - taken,
        }
    }
}

const fn rule(shares: [u16; 3], refund: Refund) -> Rule {
    let [first, second, further] = shares;
    #[expect(clippy::cast_possible_truncation, reason = "90 days are far below 2^32 seconds")]
    let memory_seconds = (90 * DAY) as u32;
    Rule { first, second, further, buyer: 5_000, memory_seconds, refund, halts: true }
}

fn share_of(amount: U256, bp: u64) -> U256 {
    amount.saturating_mul(U256::from(bp)) / U256::from(WHOLE_BP)
}

/// What happened, as evidence shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Went down.
    Down {
        /// While a session ran.
        is_delivering: bool,
        /// While it was reserved.
        is_reserved: bool,
    },
    /// Is offline for so long.
    Offline {
        /// Minutes without a break.
        minutes_on_end: u32,
    },
    /// A day is over.
    Day {
        /// Minutes offline in it.
        offline_minutes: u32,
    },
    /// Thirty days are over.
    Month {
        /// Minutes offline in them.
        offline_minutes: u32,
    },
    /// Said something to an indexer that evidence contradicts.
    Lie,
    /// Hardware is far below what was registered.
    Specification,
}

/// A charge against a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Against which.
    pub container: ContainerId,
    /// Of what.
    pub offence: Offence,
    /// Where the fault came from.
    pub fault: Fault,
    /// Hash of the evidence.
    pub evidence: [u8; 32],
    /// What the container's stake must be, in wei.
    pub required_stake: U256,
    /// Who was harmed.
    pub buyer: Option<AccountId>,
    /// By how much, in wei.
    pub harm: U256,
    /// Who reported it.
    pub reporter: Option<AccountId>,
}

/// Past convictions: how often and when last, and which evidence was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conviction {
    counts: BTreeMap<(ContainerId, Offence), (u32, u64)>,
    used: BTreeSet<(ContainerId, Offence, [u8; 32])>,
}

/// What a penalty can be taken from, in wei.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collateral {
    /// Rewards that were claimed and not yet released.
    pub pending_rewards: U256,
    /// Stake, with what is being unstaked.
    pub stake: U256,
}

/// What was taken and where it goes, in wei.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// From rewards.
    pub from_rewards: U256,
    /// From stake.
    pub from_stake: U256,
    /// To the harmed buyer.
    pub to_buyer: U256,
    /// To who reported it.
    pub to_reporter: U256,
    /// To the treasury.
    pub to_treasury: U256,
    /// Not there to be taken.
    pub left: U256,
}

/// Why a charge is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PenaltyRefusal {
    /// Only a provider's fault is punished.
    #[error("the fault is not the provider's but {0:?}: nothing is taken")]
    NotProvider(Fault),
    /// Nothing shows it.
    #[error("there is no evidence: publish it and charge again with its hash")]
    NoEvidence,
    /// These rules have none for it.
    #[error("version {1} has no rule for {0:?}: charge under a version that has one")]
    NoRule(Offence, u32),
    /// The evidence was used before.
    #[error("this evidence was used before: an incident is punished once")]
    Used,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn charge(number: u8) -> Charge {
        Charge {
            container: ContainerId::from_bytes([1; 16]),
            offence: Offence::DayOffline,
            fault: Fault::Provider,
            evidence: [number; 32],
            required_stake: U256::from(1_000_000),
            buyer: Some(AccountId::from_bytes([2; 20])),
            harm: U256::from(3_000),
            reporter: Some(AccountId::from_bytes([3; 20])),
        }
    }

    #[test]
    fn penalties_grow_and_are_forgotten() {
        let rules = Rules::uptime(2);
        let mut record = Conviction::default();
        let mut convict = |number, day| rules.convict(&mut record, &charge(number), day * DAY);
        assert_eq!(convict(1, 1), Ok(U256::from(20_000)));
        assert_eq!(convict(1, 2), Err(PenaltyRefusal::Used));
        assert_eq!(convict(2, 2), Ok(U256::from(40_000)));
        assert_eq!(convict(3, 3), Ok(U256::from(80_000)));
        assert_eq!(convict(4, 4), Ok(U256::from(80_000)));
        assert_eq!(convict(5, 200), Ok(U256::from(20_000)));
    }

    #[test]
    fn nobody_is_punished_without_evidence_or_for_anothers_fault() {
        let rules = Rules::uptime(2);
        let mut record = Conviction::default();
        for fault in [Fault::Unknown, Fault::Buyer, Fault::Network] {
            let other = Charge { fault, ..charge(1) };
            let refusal = rules.convict(&mut record, &other, 0);
            assert_eq!(refusal, Err(PenaltyRefusal::NotProvider(fault)));
        }
        let refusal = rules.convict(&mut record, &charge(0), 0);
        assert_eq!(refusal, Err(PenaltyRefusal::NoEvidence));
        let old = Rules::incidents(1);
        let refusal = old.convict(&mut record, &charge(1), 0);
        assert_eq!(refusal, Err(PenaltyRefusal::NoRule(Offence::DayOffline, 1)));
        assert_eq!(record, Conviction::default());
    }

    #[test]
    fn the_two_generations_charge_differently() {
        let (old, new) = (Rules::incidents(1), Rules::uptime(2));
        let down = |is_delivering, is_reserved| Incident::Down { is_delivering, is_reserved };
        assert_eq!(old.offence(&down(true, false)), Some(Offence::DownDelivering));
        assert_eq!(old.offence(&down(true, true)), Some(Offence::DownReserved));
        assert_eq!(old.offence(&down(false, false)), None);
        assert_eq!(new.offence(&down(true, true)), None);
        let day = |offline_minutes| Incident::Day { offline_minutes };
        assert_eq!(old.offence(&day(900)), None);
        assert_eq!(new.offence(&day(29)), None);
        assert_eq!(new.offence(&day(30)), Some(Offence::DayOffline));
        let month = |offline_minutes| Incident::Month { offline_minutes };
        assert_eq!(new.offence(&month(432)), None);
        assert_eq!(new.offence(&month(433)), Some(Offence::MonthBelow99));
        assert_eq!(new.offence(&month(2_161)), Some(Offence::MonthBelow95));
        let offline = |hours: u32| Incident::Offline { minutes_on_end: hours * 60 + 1 };
        assert_eq!(new.offence(&offline(47)), None);
        assert_eq!(new.offence(&offline(48)), Some(Offence::TwoDaysOffline));
        assert_eq!(new.offence(&offline(120)), Some(Offence::FiveDaysOffline));
        for rules in [&old, &new] {
            assert_eq!(rules.offence(&Incident::Lie), Some(Offence::LyingToIndexer));
            let far = rules.offence(&Incident::Specification).unwrap();
            assert_eq!(rules.rules[&far].first, 10_000);
        }
    }

    /// The cases of `contracts/test/Staking.t.sol`.
    #[test]
    fn the_contract_takes_the_same() {
        let ath = |count: u64| U256::from(count) * U256::from(10).pow(U256::from(18));
        let rules = Rules::incidents(1);
        let mut record = Conviction::default();
        let charge = |number| Charge {
            offence: Offence::DownDelivering,
            required_stake: ath(133_422),
            harm: ath(10_000),
            ..charge(number)
        };
        let third = ath(133_422) * U256::from(3_333) / U256::from(10_000);
        let mut convict = |number, day| rules.convict(&mut record, &charge(number), day * DAY);
        assert_eq!([convict(1, 3), convict(2, 6)], [Ok(third); 2]);
        assert_eq!(convict(3, 9), Ok(ath(133_422)));
        assert_eq!(convict(4, 100), Ok(third));
        let from = Collateral { pending_rewards: ath(10_000), stake: ath(133_422) };
        let taken = rules.take(&charge(1), third, ath(1_000), &from);
        let expected = Taken {
            from_rewards: ath(10_000),
            from_stake: third - ath(10_000),
            to_buyer: ath(10_000),
            to_reporter: ath(1_000),
            to_treasury: third - ath(11_000),
            left: U256::ZERO,
        };
        assert_eq!(taken, expected);
    }

    /// Rows of the document's tables.
    #[test]
    fn the_document_says_what_the_rules_do() {
        let page = include_str!("../../../../docs/reference/epochs.md");
        for rules in [Rules::incidents(1), Rules::uptime(2)] {
            let generation = if rules.version == 1 { "1" } else { "2" };
            for (offence, rule) in &rules.rules {
                let percent = [rule.first, rule.second, rule.further].map(|bp| match bp % 100 {
                    0 => (bp / 100).to_string(),
                    _ => format!("{}.{:02}", bp / 100, bp % 100),
                });
                let refund = format!("{:?}", rule.refund).to_lowercase();
                let (code, percent) = (offence.code(), percent.join(" | "));
                let row = format!("| {generation} | {code} | {offence:?} | {percent} | {refund} |");
                assert!(page.contains(&row), "{row}");
                assert_eq!((rule.buyer, rule.memory_seconds), (5_000, 90 * 86_400));
            }
        }
    }

    #[test]
    fn every_rule_rises_and_fits_the_contract() {
        for rules in [Rules::incidents(1), Rules::uptime(2)] {
            for rule in rules.rules.values() {
                assert!(rule.first <= rule.second && rule.second <= rule.further);
                assert!(rule.further <= 10_000 && rule.buyer <= 10_000 && rule.first > 0);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_goes_somewhere_and_rewards_go_first(
            penalty: u64, pending: u64, stake: u64, harm: u64, bounty: u64,
            has_buyer: bool, has_reporter: bool,
        ) {
            let rules = Rules::uptime(2);
            let mut charge = Charge { harm: U256::from(harm), ..charge(1) };
            charge.buyer = charge.buyer.filter(|_| has_buyer);
            charge.reporter = charge.reporter.filter(|_| has_reporter);
            let from = Collateral { pending_rewards: U256::from(pending), stake: U256::from(stake) };
            let taken = rules.take(&charge, U256::from(penalty), U256::from(bounty), &from);
            let sum = taken.from_rewards + taken.from_stake;
            prop_assert_eq!(sum + taken.left, U256::from(penalty));
            prop_assert_eq!(sum, taken.to_buyer + taken.to_reporter + taken.to_treasury);
            prop_assert!(taken.from_stake.is_zero() || taken.from_rewards == from.pending_rewards);
            prop_assert!(taken.to_buyer <= charge.harm);
            prop_assert!(taken.to_reporter <= U256::from(bounty));
            prop_assert!(taken.to_reporter * U256::from(10) <= sum);
            prop_assert!(has_buyer || taken.to_buyer.is_zero());
            prop_assert!(has_reporter || taken.to_reporter.is_zero());
        }
    }
}
