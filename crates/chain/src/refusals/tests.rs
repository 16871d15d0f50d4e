//! The table of refusals against the committed interfaces.

use std::collections::BTreeSet;
use std::path::Path;

use alloy_sol_types::SolError as _;
use serde_json::Value;

use super::*;
use crate::contracts::Escrow;
use crate::deployment::Contract;

const FILES: [&str; 13] = [
    "AccessManager",
    "Ath",
    "MedianOracle",
    "Treasury",
    "Emissions",
    "CheckerLicense",
    "Registry",
    "Staking",
    "Escrow",
    "Rewards",
    "Slashing",
    "WelkinGovernor",
    "LocalFaucet",
];

fn errors() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/abi");
    let mut found = BTreeSet::new();
    for name in FILES {
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let artefact: Value = serde_json::from_str(&text).unwrap();
        for entry in artefact["abi"].as_array().unwrap() {
            if entry["type"] == "error" {
                let inputs = entry["inputs"].as_array().unwrap();
                let types: Vec<_> = inputs.iter().map(|i| i["type"].as_str().unwrap()).collect();
                let name = entry["name"].as_str().unwrap();
                found.insert(format!("{name}({})", types.join(",")));
            }
        }
    }
    found
}

#[test]
fn every_error_of_every_contract_is_explained() {
    assert_eq!(FILES.len(), Contract::ALL.len());
    let told: BTreeSet<String> = TABLE.iter().map(|(signature, ..)| (*signature).into()).collect();
    assert_eq!(told.len(), TABLE.len(), "an error is told twice");
    let mut known = errors();
    known.insert("Panic(uint256)".to_owned());
    let missing: Vec<_> = known.difference(&told).collect();
    let idle: Vec<_> = told.difference(&known).collect();
    assert!(missing.is_empty() && idle.is_empty(), "missing {missing:?}, of nobody {idle:?}");
}

#[test]
fn values_are_told_as_what_they_are() {
    let whole = U256::from(1_000_000_000_000_000_000_u64);
    let data = Escrow::Funds { needed: whole, available: U256::ZERO }.abi_encode();
    assert_eq!(explain(&data).why, "it needs 1 ATH, and only 0 ATH are there");
    let data = Escrow::NotYet { at: 1_800_000_000 }.abi_encode();
    let refusal = explain(&data);
    assert_eq!(refusal.why, "it can't be done before 2027-01-15 08:00:00 UTC");
    assert_eq!((refusal.name, refusal.next), ("NotYet", "try again then"));
    // Cut off, unknown or empty: still a sentence.
    assert_eq!(explain(&data[..4]).why, "it can't be done before ?");
    assert!(explain(&[1, 2, 3, 4, 5]).why.contains("0x01020304"));
    assert!(explain(&[1]).why.contains("0x01"));
    assert!(explain(&[]).why.contains("without a reason"));
    let data = alloy_sol_types::Revert::from("because").abi_encode();
    assert_eq!(explain(&data).why, "the contract refuses: because");
}

#[test]
fn seconds_are_told_as_dates() {
    for (seconds, shown) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (4_107_542_399, "2100-02-28 23:59:59 UTC"),
    ] {
        assert_eq!(time(seconds), shown);
    }
    time(u64::MAX);
}
