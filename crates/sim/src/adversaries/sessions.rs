//! Sessions: hosts that throttle once they are checked, and buyers that blame the host.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::U256;
use welkin_check::health::{attribute, read_line};
use welkin_check::score::{
    Card, Dimension, Metric, Minute, Ppm, ServiceKind, payer_weight, session_quality,
};
use welkin_ledger::epoch::{
    Book, Capacity, Cause, Charge, Container, Conviction, Delivery, Emissions, Evidence, Fault,
    Licence, Offence, PenaltyRefusal, Roster, Rules, Verdict, settle,
};
use welkin_match::synth::Chance;
use welkin_types::{AccountId, ContainerId, LeaseId};

use super::hardware::{kdays, number, stake, terms};

/// Sessions of an hour that a host has in a day.
const A_DAY: u8 = 12;
/// Ordinary sessions are judged by two; so many in a hundred are a checker's.
const MYSTERY_PERCENT: u32 = 5;
/// What a buyer pays in fees for its hour, in USD micros.
const FEE_MICROS: u64 = 400_000;
const CLASS: &str = "h100-sxm-80";

/// How sessions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Tokens a second that the host gives, in thousandths of what its class does.
    pub(super) tokens: u32,
    /// In so many of a hundred sessions the buyer says that nothing worked.
    pub(super) blames_percent: u32,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// After how many sessions its grade was worse than an honest twin's.
    pub found_session: Option<u32>,
    /// What was earned, in thousandths of what an honest twin earns.
    pub earned_permille: u64,
    /// Its mean quality, in thousandths.
    pub quality_permille: u64,
    /// Charges that the rules took, and refused since no fault was shown.
    pub charged: u32,
    /// Charges refused.
    pub refused: u32,
}

/// Plays so many days.
pub(super) fn play(service: Service, days: u32, seed: u64) -> Served {
    let mut chance = Chance::new(seed);
    let (mut card, mut twin) = (Card::default(), Card::default());
    let mut served = Served::default();
    let (mut earned, mut honest, mut qualities, mut count) = (0, 0, 0_u64, 0_u32);
    let mut record = Conviction::default();
    let terms = terms(3);
    for day in 0..days {
        let mut deliveries = [Vec::new(), Vec::new()];
        for session in 0..A_DAY {
            let at = u64::from(day) * 86_400 + u64::from(session) * 3_600;
            let is_blamed = chance.below(100) < service.blames_percent;
            let is_mystery = chance.below(100) < MYSTERY_PERCENT;
            let is_blamed = is_blamed && !is_mystery;
            let quality = quality(service.tokens, is_blamed);
            let good = self::quality(1_000, false);
            qualities += u64::from(quality.ppm()) / 1_000;
            count += 1;
            note(&mut card, at, quality, is_mystery);
            note(&mut twin, at, good, is_mystery);
            let grade = |card: &Card| card.explain(at).grade;
            if grade(&card) > grade(&twin) && served.found_session.is_none() {
                served.found_session = Some(count);
            }
            if is_blamed {
                let lease = day * u32::from(A_DAY) + u32::from(session);
                match charge(&mut record, lease) {
                    Ok(_) => served.charged += 1,
                    Err(_) => served.refused += 1,
                }
            }
            for (list, quality) in deliveries.iter_mut().zip([quality, good]) {
                list.push((session, quality));
            }
        }
        let [own, other] = deliveries;
        earned += paid(&terms, &own);
        honest += paid(&terms, &other);
    }
    served.earned_permille = earned * 1_000 / honest.max(1);
    served.quality_permille = qualities / u64::from(count.max(1));
    served
}

/// A session's quality from what buyer and host signed, in mystery sessions a checker for the buyer.
fn quality(tokens: u32, is_blamed: bool) -> Ppm {
    let host = 1_000;
    let buyer = if is_blamed { 0 } else { tokens };
    let measured = BTreeMap::from([
        (Metric::Tokens, vec![buyer, host]),
        (Metric::FirstToken, vec![if is_blamed { 60_000 } else { 200 }, 200]),
        (Metric::Errors, vec![if is_blamed { 1_000 } else { 0 }, 0]),
    ]);
    let minute = Minute { available_seconds: 60, measured };
    session_quality(ServiceKind::Inference, &vec![minute; 6])
}

fn note(card: &mut Card, at: u64, quality: Ppm, is_mystery: bool) {
    let weight = if is_mystery { 1_000_000 } else { payer_weight(FEE_MICROS) };
    card.observe(Dimension::Quality, at, quality, weight);
    let ended = if quality >= Ppm::new(100_000) { Ppm::ONE } else { Ppm::ZERO };
    card.observe(Dimension::Sessions, at, ended, weight);
    for dimension in [
        Dimension::Availability,
        Dimension::Hardware,
        Dimension::Start,
        Dimension::Network,
        Dimension::Health,
    ] {
        for _ in 0..3 {
            card.observe(dimension, at, Ppm::ONE, 1_000_000);
        }
    }
}

/// A buyer's charge: its own work crashed the GPU (every other time), or nothing at all was seen.
fn charge(record: &mut Conviction, lease: u32) -> Result<U256, PenaltyRefusal> {
    let line = "NVRM: Xid (PCI:0000:3b:00): 31, pid=4711, name=python, Ch 00000008";
    let seen = lease.is_multiple_of(2).then(|| read_line(line)).flatten();
    let events: Vec<_> = seen.into_iter().collect();
    let devices = BTreeSet::from(["0000:3b:00.0".to_owned()]);
    let decided = attribute(&events, 0, &devices, &BTreeSet::from([4_711]));
    let fault = match decided.map(|decided| decided.fault) {
        Some(welkin_types::Fault::Host) => Fault::Provider,
        Some(welkin_types::Fault::Buyer) => Fault::Buyer,
        Some(welkin_types::Fault::Network) => Fault::Network,
        Some(welkin_types::Fault::Unknown) | None => Fault::Unknown,
    };
    let mut evidence = [1; 32];
    evidence[..4].copy_from_slice(&lease.to_be_bytes());
    let charge = Charge {
        container: id(),
        offence: Offence::DownDelivering,
        fault,
        evidence,
        required_stake: stake(CLASS),
        buyer: Some(AccountId::from_bytes([5; 20])),
        harm: U256::from(1_000),
        reporter: None,
    };
    Rules::incidents(1).convict(record, &charge, u64::from(lease) * 3_600)
}

const fn id() -> ContainerId {
    ContainerId::from_bytes([3; 16])
}

/// What a day with these sessions earns, by settlement.
fn paid(terms: &welkin_ledger::epoch::Terms, sessions: &[(u8, Ppm)]) -> u64 {
    let class = number(CLASS);
    let owner = AccountId::from_bytes([1; 20]);
    let containers = vec![Container { id: id(), owner, class, is_staked: true }];
    let licences = (0..3).map(|number| Licence { number, owner }).collect();
    let Ok(roster) = Roster::new(containers, licences, vec![owner]) else { return 0 };
    let mut evidence = Evidence { roster, ..Evidence::default() };
    for licence in 0..3 {
        evidence.capacities.push(Capacity { container: 0, licence, class: Some(class) });
        let online = (0..24).map(|period| Verdict::new(0, period, licence, true));
        evidence.verdicts.extend(online);
    }
    evidence.deliveries = sessions
        .iter()
        .map(|(period, quality)| Delivery {
            container: 0,
            period: *period,
            lease: LeaseId::from_bytes([*period; 16]),
            seconds: 3_600,
            quality_bp: quality.basis_points(),
            indexer: 0,
            matched: 3_600,
        })
        .collect();
    let settled = settle(terms, &Book::new(Emissions::new(5_000_000)), &mut evidence);
    let of_host = |cause| matches!(cause, Cause::Capacity(_) | Cause::Delivery(_));
    let shares = settled.shares.iter().filter(|share| of_host(share.cause));
    kdays(shares.map(|share| share.weight).sum())
}
