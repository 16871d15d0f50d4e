//! Settles a day of the whole network: `cargo run --release -p welkin-ledger --example epoch`.
//!
//! 427,000 containers of 22,000 owners, 91,000 licences, three verdicts on every container in each
//! of 24 hours, a fifth of the containers in sessions. Ends with `RESULT epoch-427k …` and
//! `RESULT claim-proof …`. Making the evidence is not timed.

#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::unwrap_used, reason = "what it makes up is in range")]
#![expect(clippy::disallowed_methods, reason = "it measures time and memory from outside")]

use std::time::Instant;

use welkin_ledger::epoch::{
    Book, Capacity, ClassTerms, Container, Delivery, Emissions, Evidence, Licence, Roster, Stream,
    Terms, Uptime, Verdict, settle,
};
use welkin_types::{AccountId, Class, ContainerId, LeaseId};

const CONTAINERS: u32 = 427_000;
const LICENCES: u32 = 91_000;
const OWNERS: u64 = 22_000;
const PERIODS: u8 = 24;

/// A generator of Weyl's kind with a mix: the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn account(number: u64) -> AccountId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AccountId::from_bytes(bytes)
}

fn roster(numbers: &mut Numbers) -> Roster {
    let containers = (0..CONTAINERS).map(|_| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&numbers.next().to_be_bytes());
        Container {
            id: ContainerId::from_bytes(id),
            owner: account(numbers.below(OWNERS)),
            class: u16::try_from(numbers.below(8)).unwrap(),
            is_staked: numbers.below(100) > 0,
        }
    });
    let containers = containers.collect();
    let licences = (0..LICENCES)
        .map(|number| Licence { number: number + 1, owner: account(100_000 + u64::from(number)) });
    Roster::new(containers, licences.collect(), (0..50).map(|n| account(900_000 + n)).collect())
        .unwrap()
}

fn evidence(numbers: &mut Numbers) -> Evidence {
    let mut evidence = Evidence { roster: roster(numbers), ..Evidence::default() };
    let licence = |numbers: &mut Numbers| u32::try_from(numbers.below(LICENCES.into())).unwrap();
    for period in 0..PERIODS {
        for container in 0..CONTAINERS {
            let is_online = numbers.below(100) > 0;
            for _ in 0..3 {
                let lies = numbers.below(1_000) == 0;
                let licence = licence(numbers);
                evidence.verdicts.push(Verdict::new(container, period, licence, is_online ^ lies));
            }
            if numbers.below(5) == 0 {
                let mut lease = [0; 16];
                lease[..8].copy_from_slice(&numbers.next().to_be_bytes());
                let seconds = u16::try_from(numbers.below(3_601)).unwrap();
                evidence.deliveries.push(Delivery {
                    container,
                    period,
                    lease: LeaseId::from_bytes(lease),
                    seconds,
                    matched: seconds,
                    quality_bp: u16::try_from(9_000 + numbers.below(1_001)).unwrap(),
                    indexer: u16::try_from(numbers.below(50)).unwrap(),
                });
            }
        }
    }
    for container in 0..CONTAINERS {
        let class = evidence.roster.containers()[usize::try_from(container).unwrap()].class;
        for _ in 0..3 {
            let licence = licence(numbers);
            evidence.capacities.push(Capacity { container, licence, class: Some(class) });
        }
    }
    evidence.uptimes.extend((0..LICENCES).map(|licence| Uptime { licence, periods: 0xff_ffff }));
    evidence
}

/// The most memory that this process ever held.
fn rss_mib() -> u64 {
    let status = String::from_utf8(std::fs::read("/proc/self/status").unwrap()).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

fn main() {
    let mut numbers = Numbers(1);
    let mut evidence = evidence(&mut numbers);
    let classes = (0..8_u32).map(|number| ClassTerms {
        class: Class::try_from(format!("class-{number}")).unwrap(),
        capacity: 10 << number,
    });
    let terms = Terms::public(classes.collect());
    let book = Book::new(Emissions::new(5_000_000));
    println!("{} verdicts, {} deliveries", evidence.verdicts.len(), evidence.deliveries.len());
    let begun = Instant::now();
    let settled = settle(&terms, &book, &mut evidence);
    let seconds = begun.elapsed().as_secs_f64();
    let claims = settled.claims.list();
    println!("{} claims, {} shares, {:?}", claims.len(), settled.shares.len(), settled.refused);
    println!("RESULT epoch-427k seconds={seconds:.2} rss_mib={}", rss_mib());
    let begun = Instant::now();
    let mut hashes = 0;
    const ROUNDS: usize = 10_000;
    for round in 0..ROUNDS {
        let claim = claims[round * 7_919 % claims.len()];
        hashes += settled.claims.proof(claim.account, claim.stream).unwrap().1.len();
    }
    let us = begun.elapsed().as_secs_f64() * 1e6 / 1e4;
    let begun = Instant::now();
    let told = settled.explain(claims[0].account, Stream::Hosts).shares.len();
    let explain_us = begun.elapsed().as_secs_f64() * 1e6;
    println!("{} hashes a proof; {told} shares of one account", hashes / ROUNDS);
    println!("RESULT claim-proof us={us:.2} explain_us={explain_us:.1}");
}
