//! Independent processes settle the same published evidence.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "processes hand each other files")]
#![expect(clippy::print_stdout, reason = "and print what they found")]

use std::path::PathBuf;
use std::process::Command;

use welkin_ledger::epoch::{
    Book, Capacity, ClassTerms, Container, Delivery, Emissions, Evidence, Licence, Roster, Terms,
    Verdict, settle,
};
use welkin_types::{AccountId, Class, ContainerId, LeaseId};

const FILE: &str = "WELKIN_TEST_EVIDENCE";

fn evidence() -> Evidence {
    let container = |number: u8| Container {
        id: ContainerId::from_bytes([number; 16]),
        owner: AccountId::from_bytes([number / 3; 20]),
        class: u16::from(number % 2),
        is_staked: true,
    };
    let licence = |number: u8| Licence {
        number: u32::from(number),
        owner: AccountId::from_bytes([100 + number; 20]),
    };
    let indexers = vec![AccountId::from_bytes([200; 20])];
    let roster =
        Roster::new((0..30).map(container).collect(), (0..9).map(licence).collect(), indexers);
    let mut evidence = Evidence { roster: roster.unwrap(), ..Evidence::default() };
    for place in 0..30 {
        for licence in 0..3 {
            let licence = (place + licence) % 9;
            let class = Some(u16::try_from(place % 2).unwrap());
            evidence.capacities.push(Capacity { container: place, licence, class });
            for period in 0..24 {
                let is_online = (place + u32::from(period)) % 7 > 0;
                evidence.verdicts.push(Verdict::new(place, period, licence, is_online));
            }
        }
        evidence.deliveries.push(Delivery {
            container: place,
            period: 3,
            lease: LeaseId::from_bytes([9; 16]),
            seconds: 1_000,
            quality_bp: 9_000,
            indexer: 0,
            matched: 1_000,
        });
    }
    evidence
}

fn root(mut evidence: Evidence) -> String {
    let class = |name: &str, capacity| ClassTerms {
        class: Class::try_from(name.to_owned()).unwrap(),
        capacity,
    };
    let terms = Terms::public(vec![class("h100-sxm-80", 100), class("cpu-8", 1)]);
    let settled = settle(&terms, &Book::new(Emissions::new(5_000_000)), &mut evidence);
    let bytes = [settled.claims.root(), settled.data].concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(name: &str, evidence: &Evidence) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, postcard::to_stdvec(evidence).unwrap()).unwrap();
    path
}

/// What a process of its own makes of a file.
fn elsewhere(path: &PathBuf) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "settles_a_file", "--ignored", "--nocapture"])
        .env(FILE, path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find_map(|word| word.strip_prefix("root=")).unwrap().to_owned()
}

#[test]
fn three_processes_agree_and_a_flipped_report_changes_the_root() {
    let published = evidence();
    let mut other_order = published.clone();
    other_order.verdicts.reverse();
    other_order.capacities.rotate_left(7);
    let first = elsewhere(&file("first", &published));
    assert_eq!(first, elsewhere(&file("second", &other_order)));
    assert_eq!(first, root(published.clone()));
    let mut flipped = published;
    flipped.verdicts[100] = flipped.verdicts[100].opposite();
    let changed = elsewhere(&file("flipped", &flipped));
    assert_ne!(first[..64], changed[..64]);
    assert_ne!(first[64..], changed[64..]);
}

#[test]
#[ignore = "started by three_processes_agree_and_a_flipped_report_changes_the_root"]
fn settles_a_file() {
    let bytes = std::fs::read(std::env::var(FILE).unwrap()).unwrap();
    println!("root={}", root(postcard::from_bytes(&bytes).unwrap()));
}

#[test]
fn a_damaged_file_is_refused() {
    let bytes = postcard::to_stdvec(&evidence()).unwrap();
    for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(postcard::from_bytes::<Evidence>(&bytes[..end]).is_err());
    }
}
