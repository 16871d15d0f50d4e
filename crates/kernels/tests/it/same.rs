//! What every device must do alike, to the bit.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use welkin_check::challenge::residency::{self, Fill, Probe};
use welkin_check::challenge::{self, Seeds, Shape, leaf, rows_of_product};
use welkin_kernels::{Device, KernelError, Stop, commit};

const VECTORS: &str = include_str!("../../../check/vectors/challenge.txt");

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The roots and the last product's corners in the committed vectors.
pub(crate) fn meets_the_vectors(device: &mut dyn Device) {
    let mut lines = VECTORS.lines().filter(|line| !line.starts_with('#')).peekable();
    let mut seen = 0;
    while let Some(head) = lines.next() {
        let numbers: Vec<u32> = head.split(' ').map(|word| word.parse().unwrap()).collect();
        let [seed, rounds, n] = numbers[..] else { panic!("{head}") };
        let (seed, shape) = ([u8::try_from(seed).unwrap(); 32], Shape::new(n, rounds).unwrap());
        let done = commit(device, &seed, shape, &Stop::default()).unwrap();
        let last = usize::try_from(rounds - 1).unwrap();
        let corners = done.open_round(device, last, &[0, n - 1], &Stop::default()).unwrap();
        let mut roots = done.roots().into_iter();
        while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
            let (name, value) = line.trim().split_once(' ').unwrap();
            match name {
                "root" => assert_eq!(hex(&roots.next().unwrap()), value, "{head}"),
                "entries" => {
                    let corners = (corners[0].row[0], *corners[1].row.last().unwrap());
                    assert_eq!(format!("{} {}", corners.0, corners.1), value, "{head}");
                }
                // Of matrices and of memory; products and walks depend on them.
                "a" | "b" | "unit" => (),
                other => panic!("{other}"),
            }
        }
        assert_eq!(roots.next(), None);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

/// Any seed and size: the hashes of all rows, and rows in any order.
pub(crate) fn meets_the_reference(device: &mut dyn Device, cases: u32, n_max: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let cell = std::cell::RefCell::new(device);
    let input =
        (any::<[u8; 32]>(), any::<bool>(), 1..n_max, prop::collection::vec(any::<u32>(), 1..90));
    let run = |(seed, is_first, n, rows): ([u8; 32], bool, u32, Vec<u32>)| {
        let device = &mut *cell.borrow_mut();
        let (shape, stop) = (Shape::new(n, 1).unwrap(), Stop::default());
        let first = Seeds::first(seed);
        let seeds = if is_first { first } else { first.next(&seed) };
        let all: Vec<u32> = (0..n).collect();
        let entries = rows_of_product(&seeds, shape, &all);
        let rows_of = entries.chunks_exact(usize::try_from(n).unwrap());
        let leaves: Vec<_> = all.iter().zip(rows_of).map(|(i, row)| leaf(*i, row)).collect();
        prop_assert_eq!(device.product(&seeds, shape, &stop).unwrap(), leaves);
        let rows: Vec<u32> = rows.into_iter().map(|row| row % n).collect();
        let found = device.rows(&seeds, shape, &rows, &stop).unwrap();
        prop_assert_eq!(found, rows_of_product(&seeds, shape, &rows));
        Ok(())
    };
    TestRunner::new(config).run(&input, run).unwrap();
}

/// Any filling and probe: every walk ends where the reference's does.
pub(crate) fn walks_as_the_reference(device: &mut dyn Device, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let cell = std::cell::RefCell::new(device);
    let input =
        (any::<[u8; 32]>(), any::<[u8; 32]>(), 1..20_000_u32, 1..9_u32, 1..150_u32, 0..70_u32);
    let run = |(seed, nonce, units, double_rounds, walkers, steps)| {
        let device = &mut *cell.borrow_mut();
        let fill = Fill { seed, units, double_rounds };
        let probe = Probe { nonce, walkers, steps };
        device.fill(&fill, &Stop::default()).unwrap();
        let found = device.walk(&probe, &Stop::default()).unwrap();
        let expected = residency::answer(&probe, units, |place| fill.unit(place));
        prop_assert_eq!(&found, &expected);
        let chosen: Vec<u32> = (0..walkers).step_by(7).collect();
        prop_assert!(residency::verify(&fill, &probe, &found, &chosen));
        Ok(())
    };
    TestRunner::new(config).run(&input, run).unwrap();
    let device = cell.into_inner();
    device.release();
    let probe = Probe { nonce: [0; 32], walkers: 3, steps: 3 };
    assert_eq!(device.walk(&probe, &Stop::default()), Ok(Vec::new()));
}

/// Told to stop, it stops, and works again afterwards.
pub(crate) fn stops(device: &mut dyn Device) {
    let (seed, shape) = ([4; 32], Shape::new(200, 2).unwrap());
    let stop = Stop::default();
    stop.stop();
    assert_eq!(device.product(&Seeds::first(seed), shape, &stop), Err(KernelError::Stopped));
    let fill = Fill { seed, units: 1 << 13, double_rounds: 8 };
    assert_eq!(device.fill(&fill, &stop), Err(KernelError::Stopped));
    let late = Stop::default();
    let (teller, began) = (late.clone(), std::time::Instant::now());
    let long = Shape::new(512, challenge::ROUNDS_MAX).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            teller.stop();
        });
        let ended = commit(device, &seed, long, &late).map(|_| ());
        assert_eq!(ended, Err(KernelError::Stopped));
    });
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    let done = commit(device, &seed, shape, &Stop::default()).unwrap();
    assert_eq!(done.roots(), challenge::commit(&seed, shape).1);
}

/// More than it has is refused in words, before any of it is taken.
pub(crate) fn has_bounds(device: &mut dyn Device) {
    let shape = Shape::new(100_000, 1).unwrap();
    let refused = device.product(&Seeds::first([0; 32]), shape, &Stop::default()).unwrap_err();
    assert!(matches!(refused, KernelError::OutOfMemory { .. }), "{refused}");
    assert!(!refused.remedy().is_empty());
    let fill = Fill { seed: [0; 32], units: u32::MAX, double_rounds: 1 };
    let refused = device.fill(&fill, &Stop::default()).unwrap_err();
    assert!(matches!(refused, KernelError::OutOfMemory { .. }), "{refused}");
}
