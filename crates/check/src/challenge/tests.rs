//! Both sides against each other, the committed vectors, and what verifying costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use welkin_types::{ContainerId, NodeId};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn shape(n: u32, rounds: u32) -> Shape {
    Shape::new(n, rounds).unwrap()
}

fn opened(products: &[Product], secret: &Secret, shape: Shape, rows: u32) -> Vec<Vec<Opening>> {
    let open = |(round, product): (u32, &Product)| product.open(&secret.rows(shape, round, rows));
    (0..).zip(products).map(open).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn honest_work_is_accepted_and_a_wrong_entry_is_not(
        seed: [u8; 32], random: [u8; 32], n in 1..70_u32, rounds in 1..3_u32,
        round in 0..3_usize, row in 0..70_usize, column in 0..70_usize, error in 1..u32::MAX,
    ) {
        let shape = shape(n, rounds);
        let secret = Secret::new(random);
        let (products, roots) = commit(&seed, shape);
        let openings = opened(&products, &secret, shape, n);
        let cost = verify(&seed, shape, &roots, &secret, n, &openings).unwrap();
        // B once, and each row of each round.
        prop_assert_eq!(cost.macs, u64::from((1 + rounds * 2) * n * n));
        // One wrong entry, committed to as if it were right.
        let (round, row, column) =
            (round % roots.len(), row % shape.len(), column % shape.len());
        let mut rows: Vec<_> = openings[round].iter().map(|opening| opening.row.clone()).collect();
        rows[row][column] = rows[row][column].wrapping_add(error.cast_signed());
        let tree = Tree::new((0..).zip(&rows).map(|(index, row)| leaf(index, row)).collect());
        let mut forged = openings;
        for (opening, row) in forged[round].iter_mut().zip(rows) {
            *opening = Opening { path: tree.path(opening.index), index: opening.index, row };
        }
        let mut roots = roots;
        roots[round] = tree.root();
        let result = verify(&seed, shape, &roots, &secret, n, &forged);
        let row = u32::try_from(row).unwrap();
        let round = u32::try_from(round).unwrap();
        prop_assert_eq!(result, Err(Fraud::Product { round, row }));
    }

    #[test]
    fn other_rows_or_rounds_than_asked_for_are_refused(seed: [u8; 32], random: [u8; 32]) {
        let (shape, secret) = (shape(40, 2), Secret::new(random));
        let (products, roots) = commit(&seed, shape);
        let good = opened(&products, &secret, shape, 5);
        let run = |openings: &[Vec<Opening>]| verify(&seed, shape, &roots, &secret, 5, openings);
        prop_assert!(run(&good).is_ok());
        let mut fewer = good.clone();
        fewer[1].pop();
        prop_assert_eq!(run(&fewer), Err(Fraud::Rows(1)));
        prop_assert_eq!(run(&good[..1]), Err(Fraud::Rounds { wanted: 2, found: 1 }));
        let mut swapped = good;
        swapped[0][0].row[3] ^= 1;
        let row = swapped[0][0].index;
        prop_assert_eq!(run(&swapped), Err(Fraud::Commitment { round: 0, row }));
        let later = opened(&products, &secret, shape, 5);
        let another = verify(&random, shape, &roots, &secret, 5, &later);
        prop_assert!(seed == random || another.is_err());
    }
}

/// GPU kernels must give these bytes; they never change.
#[test]
fn vectors_hold() {
    let mut text = String::from(
        "# seed rounds n: SHA-256 of row 0 of A, of the last row of B, roots of the rounds,\n\
         # first and last entry of the last product, unit 5 of residency with 16 double rounds\n",
    );
    for (seed, n, rounds) in [(1, 1, 1), (2, 64, 2), (3, 100, 1), (4, 128, 3), (5, 257, 1)] {
        let (seed, shape) = ([seed; 32], shape(n, rounds));
        let mut row = vec![0; shape.len()];
        let mut digest = |write: &dyn Fn(&mut [i8])| {
            write(&mut row);
            let bytes: Vec<u8> = row.iter().map(|entry| entry.cast_unsigned()).collect();
            hex(&Sha256::digest(bytes))
        };
        let a = digest(&|row| row_of_a(&seed, 0, row));
        let b = digest(&|row| row_of_b(&seed, n - 1, row));
        let (products, roots) = commit(&seed, shape);
        let last = products.last().unwrap();
        writeln!(text, "{} {rounds} {n}", seed[0]).unwrap();
        writeln!(text, "  a {a}\n  b {b}").unwrap();
        roots.iter().for_each(|root| writeln!(text, "  root {}", hex(root)).unwrap());
        let (first, end) = (last.row(0)[0], *last.row(n - 1).last().unwrap());
        writeln!(text, "  entries {first} {end}").unwrap();
        let fill = residency::Fill { seed, units: 10, double_rounds: 16 };
        let words: Vec<u8> = fill.unit(5).iter().flat_map(|word| word.to_le_bytes()).collect();
        writeln!(text, "  unit {}", hex(&words[..16])).unwrap();
    }
    assert_eq!(text, include_str!("../../vectors/challenge.txt"), "\n{text}");
}

#[test]
fn a_long_row_is_the_generators_blocks() {
    let (seed, mut row) = ([9; 32], vec![0; 3_000]);
    row_of_b(&seed, 7, &mut row);
    let key = super::chacha::key(&seed);
    let words = (0..).flat_map(|number| super::chacha::block(&key, [number, 0, 1, 7], 4));
    let bytes = words.flat_map(u32::to_le_bytes).map(u8::cast_signed).take(row.len());
    assert!(bytes.eq(row.iter().copied()));
}

/// The naive product, by the definition.
#[test]
fn the_reference_is_the_product() {
    let (seed, n) = ([9; 32], 37);
    let shape = shape(37, 1);
    let product = Product::compute(&Factor::new(&[8; 32], shape), &seed, shape);
    let row = |write: fn(&[u8; 32], u32, &mut [i8]), seed: &[u8; 32], index| {
        let mut row = vec![0; n];
        write(seed, index, &mut row);
        row
    };
    let b: Vec<_> = (0..37).map(|index| row(row_of_b, &[8; 32], index)).collect();
    for index in 0..37 {
        let a = row(row_of_a, &seed, index);
        let expected: Vec<i32> =
            (0..n).map(|j| (0..n).map(|k| i32::from(a[k]) * i32::from(b[k][j])).sum()).collect();
        assert_eq!(product.row(index), expected);
    }
    assert!(product.row(37).is_empty());
}

/// Counted on real runs at two sizes, which fixes the formula; then by the formula at 8192.
#[test]
fn verifying_costs_a_thousandth_at_8192() {
    let rows = ExaminerConfig::default().rows;
    let cost_at = |n: u32, rows: u32| Cost {
        macs: u64::from(n) * u64::from(n) + 2 * u64::from(rows * n),
        generated: u64::from(n) * u64::from(n) + u64::from(rows * n),
        hashed: u64::from(4 * rows * n),
    };
    for n in [48, 96] {
        let (shape, secret) = (shape(n, 1), Secret::new([1; 32]));
        let (products, roots) = commit(&[2; 32], shape);
        let openings = opened(&products, &secret, shape, 20);
        let cost = verify(&[2; 32], shape, &roots, &secret, 20, &openings).unwrap();
        assert_eq!(cost, cost_at(n, 20));
    }
    let cost = cost_at(8_192, rows);
    let prover = shape(8_192, 1).macs();
    // Even if a generated or hashed byte cost as much as a multiplication.
    let all = cost.macs + cost.generated + cost.hashed;
    assert!(prover / cost.macs >= 1_000, "{}", prover / cost.macs);
    assert!(prover / all >= 1_000, "{}", prover / all);
}

#[test]
fn rows_are_different_and_depend_on_the_secret() {
    let shape = shape(1_000, 2);
    let secret = Secret::new([7; 32]);
    let rows = secret.rows(shape, 0, 271);
    assert_eq!(rows.len(), 271);
    assert!(rows.windows(2).all(|pair| pair[0] < pair[1]) && rows[270] < 1_000);
    assert_ne!(rows, secret.rows(shape, 1, 271));
    assert_ne!(rows, Secret::new([8; 32]).rows(shape, 0, 271));
    assert_eq!(secret.rows(Shape::new(3, 1).unwrap(), 0, 271), [0, 1, 2]);
    assert_eq!(format!("{secret:?}"), "Secret(..)");
}

#[test]
fn shapes_are_bounded_and_sized_to_memory() {
    assert!(Shape::new(0, 1).is_none() && Shape::new(1, 0).is_none());
    assert!(Shape::new(N_MAX + 1, 1).is_none() && Shape::new(1, ROUNDS_MAX + 1).is_none());
    assert!(i64::from(N_MAX) * 128 * 128 <= i64::from(i32::MAX));
    // 70 % of 24 GiB.
    let bytes = (24_u64 << 30) * 7 / 10;
    let n = Shape::n_for_bytes(bytes);
    assert!(shape(n, 1).bytes() <= bytes && shape(n + 1, 1).bytes() > bytes);
}

/// Both machines and a clock; devices answer after a time of their own.
struct Exam {
    examiner: Examiner,
    prover: Prover,
    devices: Vec<Device>,
    outcomes: BTreeMap<usize, Outcome>,
}

const CHECKER: NodeId = NodeId::from_bytes([1; 32]);
const HOST: NodeId = NodeId::from_bytes([2; 32]);

fn device(index: u32) -> Device {
    let container = ContainerId::from_bytes([3; 16]);
    Device { host: HOST, container, index, shape: shape(32, 2), limit_us: 10_000 }
}

impl Exam {
    fn new(devices: u32) -> Self {
        let devices: Vec<_> = (0..devices).map(device).collect();
        let config = ExaminerConfig { rows: 8, ..ExaminerConfig::default() };
        let examiner = Examiner::new(config, [5; 32], Secret::new([6; 32]), devices.clone());
        let memory = devices.iter().map(|device| (device.index, 1 << 20)).collect();
        Self { examiner, prover: Prover::new(memory, 10), devices, outcomes: BTreeMap::new() }
    }

    /// Runs the exam; a device commits after `work_us` and `way_us` on the way.
    fn run(&mut self, work_us: impl Fn(u32) -> u64, way_us: u64, cheat: bool) {
        let (mut products, mut commits) = (BTreeMap::new(), BTreeMap::new());
        let mut now = 1_000_000;
        self.examiner.handle(now, ExamInput::RoundTrip { host: HOST, us: way_us });
        loop {
            match self.examiner.poll() {
                ExamOutput::Assign { device, seed, shape } => {
                    let done = commit(if cheat { &[0; 32] } else { &seed }, shape);
                    self.examiner.handle(now, ExamInput::Sent { device });
                    let index = self.devices[device].index;
                    let roots = self.computed(now, index, seed, shape, done.1);
                    products.insert(device, done.0);
                    commits.insert((now + work_us(index) + way_us, device), roots);
                }
                ExamOutput::Open { device, rows } => {
                    let openings =
                        self.read(now, self.devices[device].index, rows, &products[&device]);
                    self.examiner.handle(now, ExamInput::Opened { device, openings });
                }
                ExamOutput::Verify { device, examination } => {
                    let result = examination.run();
                    self.examiner.handle(now, ExamInput::Verified { device, result });
                }
                ExamOutput::Done { device, outcome } => {
                    assert!(self.outcomes.insert(device, outcome).is_none());
                }
                ExamOutput::Idle { wake_at: None } => break,
                ExamOutput::Idle { wake_at: Some((at, _)) } => {
                    let next = commits.first_key_value().map(|(key, _)| *key);
                    now = next.map_or(at, |(arrives, _)| at.min(arrives));
                    match next.filter(|(arrives, _)| *arrives == now) {
                        Some(key) => {
                            let roots = commits.remove(&key).unwrap();
                            let committed = ExamInput::Committed { device: key.1, roots };
                            self.examiner.handle(now, committed);
                        }
                        None => self.examiner.handle(now, ExamInput::Tick),
                    }
                }
            }
        }
    }

    /// Lets the prover take the work, and commit.
    fn computed(
        &mut self,
        now: u64,
        device: u32,
        seed: [u8; 32],
        shape: Shape,
        roots: Vec<[u8; 32]>,
    ) -> Vec<[u8; 32]> {
        let assigned =
            ProverInput::Assigned { checker: CHECKER, is_assigned: true, device, seed, shape };
        self.prover.handle(now, assigned);
        assert_eq!(self.prover.poll(), ProverOutput::Compute { device, seed, shape });
        self.prover.handle(now, ProverInput::Computed { device, roots });
        let ProverOutput::Commit { roots, .. } = self.prover.poll() else { panic!() };
        roots
    }

    /// Lets the prover read rows, and open them.
    fn read(
        &mut self,
        now: u64,
        device: u32,
        rows: Vec<Vec<u32>>,
        products: &[Product],
    ) -> Vec<Vec<Opening>> {
        self.prover.handle(now, ProverInput::Asked { checker: CHECKER, device, rows });
        let ProverOutput::Read { rows, .. } = self.prover.poll() else { panic!() };
        let openings = products.iter().zip(&rows).map(|(product, rows)| product.open(rows));
        let openings = openings.collect();
        self.prover.handle(now, ProverInput::Read { device, openings });
        let ProverOutput::Open { openings, .. } = self.prover.poll() else { panic!() };
        openings
    }
}

#[test]
fn the_way_is_not_counted_and_the_rate_is_the_checkers() {
    let mut exam = Exam::new(2);
    exam.run(|_| 4_096, 1_000, false);
    // 2 · 32³ in 4,096 us.
    let met = Outcome::Met { mmac_per_s: 16 };
    assert_eq!(exam.outcomes, BTreeMap::from([(0, met), (1, met)]));
    // Whoever is slow at answering pings gains a quarter: 2 · 32³ in three quarters of 8,096 us.
    let mut exam = Exam::new(2);
    exam.run(|_| 4_096, 4_000, false);
    let met = Outcome::Met { mmac_per_s: 10 };
    assert_eq!(exam.outcomes, BTreeMap::from([(0, met), (1, met)]));
}

/// One GPU behind two identities: the second answer comes when the first is done.
#[test]
fn a_shared_device_is_late() {
    let mut exam = Exam::new(2);
    exam.run(|index| 8_000 * u64::from(index + 1), 0, false);
    assert_eq!(exam.outcomes[&0], Outcome::Met { mmac_per_s: 8 });
    assert_eq!(exam.outcomes[&1], Outcome::Late);
}

/// Else the first device's rows would tell the second which few to compute.
#[test]
fn each_device_opens_other_rows() {
    let mut examiner =
        Examiner::new(ExaminerConfig::default(), [5; 32], Secret::new([6; 32]), wide());
    let mut asked = Vec::new();
    for device in 0..2 {
        examiner.handle(0, ExamInput::Sent { device });
    }
    for device in 0..2 {
        examiner.handle(1, ExamInput::Committed { device, roots: vec![[0; 32]] });
    }
    loop {
        match examiner.poll() {
            ExamOutput::Open { rows, .. } => asked.push(rows),
            ExamOutput::Idle { .. } => break,
            _ => (),
        }
    }
    assert_eq!(asked.len(), 2);
    let common = asked[0][0].iter().filter(|row| asked[1][0].contains(row)).count();
    assert!(common < 60, "{common} of 271 rows are the same");
}

fn wide() -> Vec<Device> {
    let shape = shape(8_192, 1);
    [0, 1].map(|index| Device { shape, ..device(index) }).to_vec()
}

#[test]
fn work_for_another_seed_is_fraud() {
    let mut exam = Exam::new(1);
    exam.run(|_| 1, 0, true);
    assert!(matches!(exam.outcomes[&0], Outcome::Fraud(Fraud::Product { round: 0, .. })));
}

#[test]
fn slow_pings_buy_no_more_than_the_bound() {
    let mut exam = Exam::new(1);
    exam.devices[0].limit_us = 10_000;
    exam.run(|_| 20_000, 600_000, false);
    assert_eq!(exam.outcomes[&0], Outcome::Late);
}

#[test]
fn devices_asked_apart_prove_nothing() {
    let mut exam = Exam::new(2);
    exam.examiner.handle(0, ExamInput::Sent { device: 0 });
    exam.examiner.handle(250_001, ExamInput::Sent { device: 1 });
    let done = |device| ExamOutput::Done { device, outcome: Outcome::Apart };
    assert_eq!([exam.examiner.poll(), exam.examiner.poll()], [done(0), done(1)]);
    assert_eq!(exam.examiner.poll(), ExamOutput::Idle { wake_at: None });
}

#[test]
fn silence_ends_and_so_does_rubbish() {
    let mut exam = Exam::new(3);
    let examiner = &mut exam.examiner;
    (0..3).for_each(|device| examiner.handle(0, ExamInput::Sent { device }));
    while !matches!(examiner.poll(), ExamOutput::Idle { .. }) {}
    let roots = vec![[0; 32]; 2];
    examiner.handle(5, ExamInput::Committed { device: 0, roots });
    examiner.handle(5, ExamInput::Committed { device: 1, roots: vec![] });
    examiner.handle(5, ExamInput::Committed { device: 9, roots: vec![] });
    examiner.handle(5, ExamInput::Opened { device: 2, openings: vec![] });
    assert!(matches!(examiner.poll(), ExamOutput::Open { device: 0, .. }));
    let fraud = Outcome::Fraud(Fraud::Rounds { wanted: 2, found: 0 });
    assert_eq!(examiner.poll(), ExamOutput::Done { device: 1, outcome: fraud });
    let wake_at = Some((10_001, "a device is late"));
    assert_eq!(examiner.poll(), ExamOutput::Idle { wake_at });
    examiner.handle(10_001, ExamInput::Tick);
    assert_eq!(examiner.poll(), ExamOutput::Done { device: 2, outcome: Outcome::Late });
    examiner.handle(60_000_000, ExamInput::Opened { device: 0, openings: vec![] });
    assert_eq!(examiner.poll(), ExamOutput::Done { device: 0, outcome: Outcome::Silent });
}

#[test]
fn a_prover_takes_few_challenges_and_only_assigned_ones() {
    let mut prover = Prover::new(BTreeMap::from([(0, 1 << 20), (1, 100)]), 2);
    let shape = shape(32, 1);
    let assigned = |checker: u8, device, is_assigned| ProverInput::Assigned {
        checker: NodeId::from_bytes([checker; 32]),
        is_assigned,
        device,
        seed: [0; 32],
        shape,
    };
    let refused = |prover: &mut Prover, now, input| {
        prover.handle(now, input);
        match prover.poll() {
            ProverOutput::Refuse { why, .. } => Some(why),
            _ => None,
        }
    };
    assert_eq!(refused(&mut prover, 0, assigned(1, 0, false)), Some(ProverRefusal::NotAssigned));
    assert_eq!(refused(&mut prover, 0, assigned(1, 1, true)), Some(ProverRefusal::TooLarge));
    assert_eq!(refused(&mut prover, 0, assigned(1, 7, true)), Some(ProverRefusal::TooLarge));
    assert_eq!(refused(&mut prover, 0, assigned(1, 0, true)), None);
    assert_eq!(refused(&mut prover, 1, assigned(1, 0, true)), None);
    assert_eq!(refused(&mut prover, 1, assigned(2, 0, true)), Some(ProverRefusal::Busy));
    let asked = |checker: u8, rows: Vec<Vec<u32>>| ProverInput::Asked {
        checker: NodeId::from_bytes([checker; 32]),
        device: 0,
        rows,
    };
    let nothing = Some(ProverRefusal::NothingToOpen);
    assert_eq!(refused(&mut prover, 2, asked(1, vec![vec![0]])), nothing);
    prover.handle(3, ProverInput::Computed { device: 0, roots: vec![[0; 32]] });
    assert!(matches!(prover.poll(), ProverOutput::Commit { .. }));
    assert_eq!(refused(&mut prover, 4, asked(2, vec![vec![0]])), nothing);
    assert_eq!(refused(&mut prover, 4, asked(1, vec![vec![32]])), nothing);
    assert_eq!(refused(&mut prover, 4, asked(1, vec![])), nothing);
    // An order comes: the checker is told, and the device is free again.
    let stopped = ProverInput::Stopped { device: 0, why: ProverRefusal::Ordered };
    assert_eq!(refused(&mut prover, 4, stopped.clone()), Some(ProverRefusal::Ordered));
    assert_eq!(refused(&mut prover, 4, stopped), None);
    assert_eq!(refused(&mut prover, 4, asked(1, vec![vec![0]])), nothing);
    prover = Prover::new(BTreeMap::from([(0, 1 << 20), (1, 100)]), 2);
    assert_eq!(refused(&mut prover, 0, assigned(1, 0, true)), None);
    prover.handle(3, ProverInput::Computed { device: 0, roots: vec![[0; 32]] });
    assert!(matches!(prover.poll(), ProverOutput::Commit { .. }));
    // Nobody asks: the device is free again.
    prover.handle(200_000_000, ProverInput::Tick);
    assert_eq!(prover.poll(), ProverOutput::Drop { device: 0 });
    assert_eq!(refused(&mut prover, 200_000_000, assigned(2, 0, true)), None);
    prover.handle(200_000_001, ProverInput::Computed { device: 0, roots: vec![] });
    while !matches!(prover.poll(), ProverOutput::Idle { .. }) {}
    prover.handle(400_000_000, ProverInput::Tick);
    assert_eq!(prover.poll(), ProverOutput::Drop { device: 0 });
    let too_many = Some(ProverRefusal::TooMany);
    assert_eq!(refused(&mut prover, 400_000_000, assigned(3, 0, true)), too_many);
    assert_eq!(refused(&mut prover, 3_700_000_000, assigned(3, 0, true)), None);
}
