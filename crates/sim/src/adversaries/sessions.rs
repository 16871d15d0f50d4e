//! Sessions: hosts that throttle once they are checked, and buyers that blame the host.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::zip;

use alloy_primitives::U256;
use welkin_check::health::{attribute, read_line};
use welkin_check::score::{
    Card, Dimension, Ppm, Said, SessionQuality, checkers_agree, payer_weight,
};
use welkin_ledger::epoch::{
    Book, Capacity, Cause, Charge, Container, Conviction, Delivery, Emissions, Evidence, Fault,
    Licence, Offence, PenaltyRefusal, Roster, Rules, Verdict, settle,
};
use welkin_match::synth::Chance;
use welkin_proto::digest::{Figures, MinuteDigest, Series, Side};
use welkin_types::{AccountId, ContainerId, LeaseId, NodeId, UnixMillis};

use super::hardware::{kdays, number, stake, terms};

/// Sessions of an hour that a host has in a day.
const A_DAY: u8 = 12;
/// So many in a hundred are a checker's, of so many checkers.
const MYSTERY_PERCENT: u32 = 5;
const CHECKERS: u32 = 64;
/// Minutes that stand for a session's hour: all of them are alike.
const MINUTES: u32 = 6;
/// What a buyer pays in fees for its hour, in USD micros.
const FEE_MICROS: u64 = 400_000;
/// Tokens a second of a host that does what its class does, in thousandths.
const WHOLE: u16 = 1_000;
const CLASS: &str = "h100-sxm-80";

/// How sessions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Tokens a second that the host gives, in thousandths of what its class does.
    pub(super) tokens: u16,
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

/// Who has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// A buyer that signs what it measured.
    Buyer,
    /// A buyer that signs that nothing worked.
    Blamer,
    /// A checker.
    Checker(u32),
}

impl Guest {
    fn draw(chance: &mut Chance, blames_percent: u32) -> Self {
        let is_blamed = chance.below(100) < blames_percent;
        let is_mystery = chance.below(100) < MYSTERY_PERCENT;
        match (is_mystery, is_blamed) {
            (true, _) => Self::Checker(chance.below(CHECKERS)),
            (false, true) => Self::Blamer,
            (false, false) => Self::Buyer,
        }
    }

    /// What it signs. Of a checker's session, which is a job, only availability is valued.
    fn says(self, tokens: u16) -> Series {
        let served = |first_token_ms, tokens, errors| Figures::Inference {
            first_token_ms: Some(first_token_ms),
            tokens_milli: Some(tokens),
            errors_milli: Some(errors),
        };
        match self {
            Self::Buyer => series(Side::Buyer, served(200, tokens, 0)),
            Self::Blamer => series(Side::Buyer, served(60_000, 0, WHOLE)),
            Self::Checker(_) => series(Side::Checker, Figures::None),
        }
    }
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
        let draw = |_| Guest::draw(&mut chance, service.blames_percent);
        let guests: Vec<_> = (0..A_DAY).map(draw).collect();
        // The twin has the same guests, and nobody blames it.
        let blameless = |guest: &Guest| match guest {
            Guest::Blamer => Guest::Buyer,
            Guest::Buyer | Guest::Checker(_) => *guest,
        };
        let of_twin: Vec<_> = guests.iter().map(blameless).collect();
        let (own, good) = (settled(&guests, service.tokens), settled(&of_twin, WHOLE));
        for (hour, (guest, (own, good))) in (0..).zip(zip(&guests, zip(&own, &good))) {
            let at = u64::from(day) * 86_400 + hour * 3_600;
            qualities += u64::from(own.settled.ppm()) / 1_000;
            count += 1;
            note(&mut card, at, *guest, own);
            note(&mut twin, at, *guest, good);
            let grade = |card: &Card| card.explain(at).grade;
            if grade(&card) > grade(&twin) && served.found_session.is_none() {
                served.found_session = Some(count);
            }
            if *guest == Guest::Blamer {
                match charge(&mut record, count - 1) {
                    Ok(_) => served.charged += 1,
                    Err(_) => served.refused += 1,
                }
            }
        }
        earned += paid(&terms, &own);
        honest += paid(&terms, &good);
    }
    served.earned_permille = earned * 1_000 / honest.max(1);
    served.quality_permille = qualities / u64::from(count.max(1));
    served
}

/// What the sessions of a day come to, when its epoch is settled. A host has no source for figures of
/// inference: it says that it was there.
fn settled(guests: &[Guest], tokens: u16) -> Vec<SessionQuality> {
    let host = series(Side::Host, Figures::None);
    let of = |guest: &Guest, checkers| {
        let own = guest.says(tokens);
        Said { host: vec![&host], buyer: vec![&own] }.quality(0..MINUTES, checkers)
    };
    // One word each: a checker's sessions on one container are all alike here.
    let found: BTreeMap<u32, Ppm> = guests
        .iter()
        .filter_map(|guest| match guest {
            Guest::Checker(number) => Some((*number, of(guest, None).buyer?)),
            Guest::Buyer | Guest::Blamer => None,
        })
        .collect();
    let checkers = checkers_agree(&found.into_values().collect::<Vec<_>>());
    guests.iter().map(|guest| of(guest, checkers)).collect()
}

/// What a side measured of a session; its signature is taken for given.
fn series(side: Side, figures: Figures) -> Series {
    let minute = |minute| MinuteDigest {
        minute,
        watched: 60,
        answered: 60,
        round_trip: None,
        loss: None,
        figures,
    };
    Series {
        lease: LeaseId::from_bytes([4; 16]),
        host: NodeId::from_bytes([2; 32]),
        buyer: AccountId::from_bytes([5; 20]),
        side,
        part: 0,
        began: UnixMillis(0),
        start: Vec::new(),
        minutes: (0..MINUTES).map(minute).collect(),
    }
}

fn note(card: &mut Card, at: u64, guest: Guest, quality: &SessionQuality) {
    let (value, weight) = match guest {
        Guest::Checker(_) => (quality.buyer.unwrap_or(quality.settled), 1_000_000),
        // All fees of a container's day weigh together, each session by its part.
        Guest::Buyer | Guest::Blamer => {
            let all = payer_weight(FEE_MICROS * u64::from(A_DAY));
            (quality.settled, all / u32::from(A_DAY))
        }
    };
    card.observe(Dimension::Quality, at, value, weight);
    // No lease is lost here, whatever its buyer says of it.
    card.observe(Dimension::Sessions, at, Ppm::ONE, weight);
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
fn paid(terms: &welkin_ledger::epoch::Terms, sessions: &[SessionQuality]) -> u64 {
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
    evidence.deliveries = (0..A_DAY)
        .zip(sessions)
        .map(|(period, quality)| Delivery {
            container: 0,
            period,
            lease: LeaseId::from_bytes([period; 16]),
            seconds: 3_600,
            quality_bp: quality.settled.basis_points(),
            indexer: 0,
            matched: 3_600,
        })
        .collect();
    let settled = settle(terms, &Book::new(Emissions::new(5_000_000)), &mut evidence);
    let of_host = |cause| matches!(cause, Cause::Capacity(_) | Cause::Delivery(_));
    let shares = settled.shares.iter().filter(|share| of_host(share.cause));
    kdays(shares.map(|share| share.weight).sum())
}
