//! That a proof has one output, which never changes.

use super::*;

const RANDOM: [u8; 32] = [9; 32];

fn key(number: u32) -> VrfKey {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    VrfKey::from_seed(&seed).unwrap()
}

fn ticket(licence: u32) -> Ticket {
    Ticket { seed: [5; 32], at: 7, licence }
}

/// There is one output: a checker can't try until it likes whom it visits.
#[test]
fn randomness_changes_the_proof_but_not_the_output() {
    let ticket = ticket(3);
    let (first, output) = key(3).prove(&ticket, RANDOM);
    let (second, same) = key(3).prove(&ticket, [8; 32]);
    assert_ne!(first, second);
    assert_eq!(output, same);
    assert_eq!(first.verify(&key(3).public(), &ticket), Some(output));
    assert_eq!(format!("{:?}", key(3)), "VrfKey(..)");
}

#[test]
fn a_proof_is_its_holders_for_one_ticket_and_as_it_was_made() {
    let (proof, output) = key(3).prove(&ticket(3), RANDOM);
    assert_eq!(proof.verify(&key(3).public(), &ticket(3)), Some(output));
    assert_eq!(proof.verify(&key(4).public(), &ticket(3)), None);
    for other in [ticket(4), Ticket { at: 8, ..ticket(3) }, Ticket { seed: [6; 32], ..ticket(3) }] {
        assert_eq!(proof.verify(&key(3).public(), &other), None);
    }
    for place in 0..PROOF_BYTES {
        let mut forged = proof;
        forged.0[place] ^= 1;
        assert_eq!(forged.verify(&key(3).public(), &ticket(3)), None, "byte {place}");
    }
}

/// The outputs must never change, or old epochs could not be checked.
#[test]
fn vectors_hold() {
    let (_, output) = key(1).prove(&ticket(1), RANDOM);
    let hex = output.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex, "2b696eb16a7d507bfed43884cab232e6ff590a10843beaf4d735f3a02afa3094");
}
