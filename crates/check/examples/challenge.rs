//! The hardware challenge on this machine's CPU:
//! `cargo run --release -p welkin-check --example challenge [n]`.
//!
//! Times some rows of a product and the verification, counts what both cost, and tries small challenges with
//! honest and with partly wrong work. Ends with `RESULT challenge …`.

#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::unwrap_used, reason = "what it makes up is in range")]
#![expect(clippy::disallowed_methods, reason = "it measures time and memory from outside")]

use std::time::Instant;

use welkin_check::challenge::{
    Budget, ClassTable, Factor, Opening, Product, Secret, Seeds, Shape, Tree, leaf, opened_rows,
    rows_of_product, verify,
};
use welkin_types::Class;

/// A number from /proc/self/status, in MiB.
fn memory_mib(name: &str) -> u64 {
    let status = String::from_utf8(std::fs::read("/proc/self/status").unwrap()).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

/// Resets the peak of resident memory, so that the verifier's own is seen.
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Whether work is accepted of which every `of`-th row is wrong (0: none).
fn trial(number: u64, of: usize, rows: u32) -> bool {
    let shape = Shape::new(256, 1).unwrap();
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let secret = Secret::new(seed.map(|byte| byte ^ 0x5a));
    let product = Product::compute(&Factor::new(&seed, shape), &seed, shape);
    let mut all: Vec<Vec<i32>> = (0..256).map(|row| product.row(row).to_vec()).collect();
    let wrong = |index: &usize| of > 0 && index.is_multiple_of(of);
    (0..all.len()).filter(wrong).for_each(|index| all[index][0] ^= 1);
    let tree = Tree::new((0..).zip(&all).map(|(index, row)| leaf(index, row)).collect());
    let opening = |index: &u32| Opening {
        index: *index,
        row: all[usize::try_from(*index).unwrap()].clone(),
        path: tree.path(*index),
    };
    let openings = secret.rows(shape, 0, rows).iter().map(opening).collect();
    verify(&seed, shape, &[tree.root()], &secret, rows, &[openings]).is_ok()
}

/// Commits to some rows, with arbitrary leaves in place of the others: verifying costs the same.
fn open(n: u32, numbers: &[u32], entries: &[i32]) -> ([u8; 32], Vec<Opening>) {
    let mut leaves = vec![[0; 32]; usize::try_from(n).unwrap()];
    let rows = || numbers.iter().zip(entries.chunks_exact(entries.len() / numbers.len()));
    for (number, row) in rows() {
        leaves[usize::try_from(*number).unwrap()] = leaf(*number, row);
    }
    let tree = Tree::new(leaves);
    let opening = |(number, row): (&u32, &[i32])| Opening {
        index: *number,
        row: row.to_vec(),
        path: tree.path(*number),
    };
    (tree.root(), rows().map(opening).collect())
}

/// Seconds that verifying a GPU's challenge takes, of all its rounds.
fn whole_challenge_s(n: u32) -> f64 {
    let shape = Shape::new(n, 16).unwrap();
    let (mut seeds, secret) = (Seeds::first([3; 32]), Secret::new([4; 32]));
    let (rows, factor) = (opened_rows(shape), Factor::new(seeds.b(), shape));
    let (mut roots, mut openings) = (Vec::new(), Vec::new());
    for round in 0..shape.rounds() {
        let numbers = secret.rows(shape, round, rows);
        let (root, opened) = open(n, &numbers, &factor.rows(seeds.a(), &numbers));
        seeds = seeds.next(&root);
        roots.push(root);
        openings.push(opened);
    }
    drop(factor);
    let begun = Instant::now();
    verify(&[3; 32], shape, &roots, &secret, rows, &openings).unwrap();
    begun.elapsed().as_secs_f64()
}

/// The share of a month, in percent, that a GPU works for checkers of which one always waits, by its
/// host's own account of that time. Every challenge is as long as one may be.
fn gpu_time_percent() -> f64 {
    const MONTH_US: u64 = 30 * 86_400 * 1_000_000;
    const WAIT_US: u64 = 1_000_000;
    let any = Class::try_from("gpu".to_owned()).unwrap();
    let macs = Shape::new(8_192, 16).unwrap().macs();
    let longest = ClassTable::published().limit_us(&any, macs).unwrap();
    let (mut budget, mut now, mut spent) = (Budget::default(), 0, 0);
    while now < MONTH_US {
        if budget.may_begin(now) {
            now += longest;
            spent += longest;
            budget.spend(now, longest);
        } else {
            now += WAIT_US;
        }
    }
    spent as f64 * 100.0 / now as f64
}

fn main() {
    let n = std::env::args().nth(1).map_or(8_192, |text| text.parse().unwrap());
    let shape = Shape::new(n, 1).unwrap();
    let (seed, secret, rows) = ([1; 32], Secret::new([2; 32]), 271);
    let numbers = secret.rows(shape, 0, rows);
    let begun = Instant::now();
    let entries = rows_of_product(&Seeds::first(seed), shape, &numbers);
    // All rows take as long each; making B is a small part.
    let prover = begun.elapsed().as_secs_f64() * f64::from(n) / numbers.len() as f64;
    let (root, openings) = open(n, &numbers, &entries);
    let (roots, openings) = ([root], [openings]);
    drop(entries);
    reset_peak();
    let before = memory_mib("VmRSS:");
    let begun = Instant::now();
    let cost = verify(&seed, shape, &roots, &secret, rows, &openings).unwrap();
    let verifier = begun.elapsed().as_secs_f64();
    let rss = memory_mib("VmHWM:");
    let ratio = shape.macs() / (cost.macs + cost.generated + cost.hashed);
    println!(
        "n {n}: the whole product {prover:.1} s on one core, verifier {verifier:.3} s, {cost:?}"
    );
    println!("{before} MiB before verifying, opened rows included");
    const TRIALS: u64 = 1_000;
    let accepted = |of, rows| (0..TRIALS).filter(|number| trial(*number, of, rows)).count();
    let false_reject = TRIALS - u64::try_from(accepted(0, 16)).unwrap();
    println!("1 of 20 rows wrong, 16 of 256 opened: {} of 1000 accepted", accepted(20, 16));
    println!("1 of 20 rows wrong, 64 of 256 opened: {} of 1000 accepted", accepted(20, 64));
    let false_accept = accepted(20, 135);
    println!(
        "RESULT challenge prover_over_verifier={ratio} time_ratio={:.0} verifier_s={verifier:.3} challenge_s={:.3} \
         verifier_rss_mib={rss} \
         false_accept={:.4} false_reject={:.4} gpu_time_percent={:.2}",
        prover / verifier,
        whole_challenge_s(n),
        f64::from(u32::try_from(false_accept).unwrap()) / 1e3,
        f64::from(u32::try_from(false_reject).unwrap()) / 1e3,
        gpu_time_percent(),
    );
}
