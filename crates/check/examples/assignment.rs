//! Who checks what in the whole network: `cargo run --release -p welkin-check --example assignment`.
//!
//! 427,000 containers, 91,000 checkers, three for each container and minute. Finds what every checker
//! visits in a minute, which containers have fewer than three, and who stands in for these. Ends with
//! `RESULT assignment …`: `seconds` is that minute of the whole network; `prove_us` and `verify_us`
//! are one checker's proof of a minute.

#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::unwrap_used, reason = "what it makes up is in range")]
#![expect(clippy::disallowed_methods, reason = "it measures time from outside")]

use std::time::Instant;

use welkin_check::sortition::{Committees, Lot, Proof, VrfKey};
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::{Turn, TurnProof};
use welkin_types::{ContainerId, NodeId};

const CONTAINERS: u32 = 427_000;
const CHECKERS: u32 = 91_000;
const COMMITTEE: usize = welkin_proto::epoch::COMMITTEE as usize;
const EPOCH: u64 = 20_000;
/// The last minute of a period: in it others stand in.
const MINUTE: u64 = EPOCH * 1_440 + 59;
const PROOFS: u32 = 500;

fn node(number: u32) -> NodeId {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn container(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

fn lot(number: u32) -> Lot {
    let mut output = [7; 32];
    output[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    Lot::new(output)
}

fn main() {
    let key = VrfKey::from_seed(&[1; 32]).unwrap();
    let listed = |number| Listed { node: node(number), number, vrf: key.public().0 };
    let checkers = (0..CHECKERS).map(listed).collect();
    let view = EpochView { epoch: EPOCH, seed: [5; 32], checkers, epoch_seconds: 86_400 };
    let containers: Vec<_> = (0..CONTAINERS).map(container).collect();
    let begun = Instant::now();
    let committees = Committees::new(&view, COMMITTEE);
    let map = committees.map(MINUTE, &containers);
    let mut counts = vec![0_u8; containers.len()];
    let mut visits = 0_u64;
    for number in 0..CHECKERS {
        for place in map.visited(&lot(number)) {
            let count = &mut counts[usize::try_from(place).unwrap()];
            *count = count.saturating_add(1);
            visits += 1;
        }
    }
    let drawn = begun.elapsed().as_secs_f64();
    let (mut short, mut named) = (0, 0);
    for (container, _) in containers.iter().zip(&counts).filter(|(_, count)| **count < 3) {
        short += 1;
        named += committees.stand_ins(MINUTE, *container).len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let none = counts.iter().filter(|count| **count == 0).count();
    println!("{visits} visits in {drawn:.3} s; {none} containers have none, {short} fewer than 3");
    println!("{named} stand in, in {:.3} s", seconds - drawn);
    let begun = Instant::now();
    let prove = |number| {
        let (ticket, _) = committees.ticket(node(number), MINUTE).unwrap();
        key.prove(&ticket, [2; 32])
    };
    let proofs: Vec<(Proof, [u8; 32])> = (0..PROOFS).map(prove).collect();
    let prove_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(PROOFS);
    let begun = Instant::now();
    for (number, (proof, output)) in (0..).zip(&proofs) {
        let turn = Turn { minute: MINUTE, proof: TurnProof::from_bytes(&proof.0) };
        assert_eq!(committees.shown(node(number), &turn), Some(Lot::new(*output)));
    }
    let verify_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(PROOFS);
    println!(
        "RESULT assignment seconds={seconds:.3} prove_us={prove_us:.0} verify_us={verify_us:.0}"
    );
}
