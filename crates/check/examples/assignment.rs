//! Who checks what in the whole network: `cargo run --release -p welkin-check --example assignment`.
//!
//! 427,000 containers, 91,000 licences, three checks a container and hour. Expands all licences'
//! outputs, finds the containers that sortition left short of three, and gives those to licences
//! by the public fall-back. Ends with `RESULT assignment …`: `seconds` is an hour of the whole
//! network, both parts; `day_seconds` the expansion of all 24 hours.

#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::unwrap_used, reason = "what it makes up is in range")]
#![expect(clippy::disallowed_methods, reason = "it measures time from outside")]

use std::time::Instant;

use welkin_check::sortition::{Licence, Plan, VrfKey, VrfPublic};
use welkin_types::{AccountId, ContainerId};

const CONTAINERS: u32 = 427_000;
const LICENCES: u32 = 91_000;

fn account(number: u32) -> AccountId {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    AccountId::from_bytes(bytes)
}

fn container(number: u32) -> ContainerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContainerId::from_bytes(bytes)
}

fn output(number: u32) -> [u8; 32] {
    let mut output = [7; 32];
    output[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    output
}

/// How often each container is checked in an hour, and how many checks there are.
fn hour(plan: &Plan) -> (Vec<u8>, u64) {
    let mut counts = vec![0_u8; usize::try_from(CONTAINERS).unwrap()];
    let mut tasks = 0;
    for number in 0..LICENCES {
        plan.for_each_task(&output(number), |task| {
            let count = &mut counts[usize::try_from(task.container).unwrap()];
            *count = count.saturating_add(1);
            tasks += 1;
        });
    }
    (counts, tasks)
}

fn main() {
    let key = VrfPublic([0; 32]);
    let licences: Vec<_> = (0..LICENCES)
        .map(|number| Licence { number, owner: account(number), key, registered: 0 })
        .collect();
    let day = Plan {
        seed: [5; 32],
        epoch: 7,
        containers: CONTAINERS,
        licences: LICENCES,
        checks: 3,
        periods: 24,
        period_seconds: 3_600,
    };
    let plan = Plan { periods: 1, ..day };
    let begun = Instant::now();
    let (counts, tasks) = hour(&plan);
    let expanded = begun.elapsed().as_secs_f64();
    let weights = plan.weights(&licences);
    let mut short = 0;
    let mut given = 0;
    for (number, count) in (0..).zip(&counts).filter(|(_, count)| **count < 3) {
        short += 1;
        let wanted = usize::from(3 - count);
        let owner = account(number % LICENCES);
        given += plan.fallback(&weights, container(number), owner, 0, wanted, &[]).len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let none = counts.iter().filter(|count| **count == 0).count();
    println!("{tasks} tasks in {expanded:.3} s; {none} containers without any, {short} short of 3");
    println!("{given} checks by the fall-back in {:.3} s", seconds - expanded);
    let begun = Instant::now();
    let (_, tasks) = hour(&day);
    let day_seconds = begun.elapsed().as_secs_f64();
    println!("{tasks} tasks of a day");
    let key = VrfKey::from_seed(&[1; 32]).unwrap();
    let begun = Instant::now();
    let proofs: Vec<_> = (0..500).map(|licence| key.prove(&day.ticket(licence), [2; 32])).collect();
    let prove_us = begun.elapsed().as_secs_f64() * 1e6 / 500.0;
    let begun = Instant::now();
    for (licence, (proof, output)) in (0..).zip(&proofs) {
        assert_eq!(proof.verify(&key.public(), &day.ticket(licence)), Some(*output));
    }
    let verify_us = begun.elapsed().as_secs_f64() * 1e6 / 500.0;
    println!(
        "RESULT assignment seconds={seconds:.3} day_seconds={day_seconds:.2} \
         prove_us={prove_us:.0} verify_us={verify_us:.0}"
    );
}
