//! The hardware challenge on every Vulkan device of this machine, beside one thread of its processor:
//! `cargo run --release -p welkin-kernels --features vulkan --example challenge [n]`.
//!
//! Each device is timed on its second product, meets the reference's roots, passes honest exams and
//! fails dishonest ones. Ends with `RESULT challenge-vulkan …`.

#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::unwrap_used, reason = "it stops at the first surprise")]

use std::time::Instant;

use welkin_check::challenge::residency::{self, Fill, Probe};
use welkin_check::challenge::{
    Opening, Secret, Seeds, Shape, Tree, commit as reference, leaf, verify,
};
use welkin_kernels::vulkan::Adapters;
use welkin_kernels::{Cpu, Device, Stop, commit};

const ROWS: u32 = 135;
const TRIALS: u32 = 100;

fn seed(number: u32) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    seed
}

/// Millions of multiply-adds a second of a device's second product.
fn rate(device: &mut dyn Device, shape: Shape) -> u64 {
    let stop = Stop::default();
    commit(device, &seed(0), shape, &stop).unwrap();
    let begun = Instant::now();
    commit(device, &seed(1), shape, &stop).unwrap();
    shape.macs() / u64::try_from(begun.elapsed().as_micros()).unwrap().max(1)
}

/// Whether an exam is passed of which every `of`-th row is wrong (0: none).
fn passes(device: &mut dyn Device, number: u32, of: usize) -> bool {
    let (shape, stop) = (Shape::new(256, 1).unwrap(), Stop::default());
    let (seed, secret) = (seed(number), Secret::new(seed(!number)));
    if of == 0 {
        let done = commit(device, &seed, shape, &stop).unwrap();
        let rows = secret.rows(shape, 0, ROWS);
        let openings = done.open(device, &[rows], &stop).unwrap();
        return verify(&seed, shape, &done.roots(), &secret, ROWS, &openings).is_ok();
    }
    let numbers: Vec<u32> = (0..shape.n()).collect();
    let mut entries = device.rows(&Seeds::first(seed), shape, &numbers, &stop).unwrap();
    entries.chunks_exact_mut(256).step_by(of).for_each(|row| row[0] ^= 1);
    let rows: Vec<&[i32]> = entries.chunks_exact(256).collect();
    let tree = Tree::new((0..).zip(&rows).map(|(n, row)| leaf(n, row)).collect());
    let open = |index: u32| {
        let row = rows[usize::try_from(index).unwrap()].to_vec();
        Opening { index, row, path: tree.path(index) }
    };
    let openings = secret.rows(shape, 0, ROWS).into_iter().map(open).collect();
    verify(&seed, shape, &[tree.root()], &secret, ROWS, &[openings]).is_ok()
}

/// Nanoseconds a read, with so many bytes held; the walks are verified.
fn walk_ns(device: &mut dyn Device, bytes: u64) -> u128 {
    let stop = Stop::default();
    let units = Fill::units_for_bytes(bytes);
    let fill = Fill { seed: seed(2), units, double_rounds: 16 };
    device.fill(&fill, &stop).unwrap();
    let probe = Probe { nonce: seed(3), walkers: 1_024, steps: 1_024 };
    device.walk(&Probe { steps: 1, ..probe }, &stop).unwrap();
    let begun = Instant::now();
    let ends = device.walk(&probe, &stop).unwrap();
    let nanos = begun.elapsed().as_nanos() / (1_024 * 1_024);
    assert!(residency::verify(&fill, &probe, &ends, &[0, 500, 1_023]));
    device.release();
    nanos
}

fn main() {
    let n = std::env::args().nth(1).map_or(1_024, |text| text.parse().unwrap());
    let (shape, small) = (Shape::new(n, 1).unwrap(), Shape::new(300, 2).unwrap());
    let cpu = rate(&mut Cpu::new(1, 1 << 30), shape);
    println!("one thread: {cpu} MMAC/s at n = {n}");
    let adapters = Adapters::find();
    let (mut slowest, mut false_reject, mut false_accept, mut read_ns) = (u64::MAX, 0, 0, 0);
    for adapter in adapters.all() {
        let mut gpu = adapter.open(Some(2 << 30)).unwrap();
        let own = rate(&mut gpu, shape);
        let expected = reference(&seed(9), small).1;
        let is_same =
            commit(&mut gpu, &seed(9), small, &Stop::default()).unwrap().roots() == expected;
        let count = |gpu: &mut dyn Device, of| {
            (0..TRIALS).filter(|number| passes(gpu, *number, of)).count()
        };
        let rejected = usize::try_from(TRIALS).unwrap() - count(&mut gpu, 0);
        let accepted = count(&mut gpu, 20);
        let ns = walk_ns(&mut gpu, 64 << 20);
        println!(
            "{}: {own} MMAC/s, exact: {is_same}, {rejected} of {TRIALS} honest exams rejected, \
             {accepted} with 1 of 20 rows wrong accepted, {ns} ns a read of 64 MiB",
            adapter.info().name
        );
        assert!(is_same);
        slowest = slowest.min(own);
        false_reject += rejected;
        false_accept += accepted;
        read_ns = read_ns.max(ns);
    }
    println!(
        "RESULT challenge-vulkan adapters={} mmac_per_s={slowest} cpu_thread_mmac_per_s={cpu} \
         read_ns={read_ns} false_accept={false_accept} false_reject={false_reject} trials={TRIALS}",
        adapters.all().len()
    );
}
