//! Examiner and prover against each other, with a device between them.

use std::collections::BTreeMap;

use welkin_check::challenge::{
    Device as Examined, ExamInput, ExamOutput, Examiner, ExaminerConfig, Fraud, Outcome, Prover,
    ProverInput, ProverOutput, Secret, Shape,
};
use welkin_kernels::{Device, Stop, commit};
use welkin_types::{ContainerId, NodeId};

const CHECKER: NodeId = NodeId::from_bytes([1; 32]);
const HOST: NodeId = NodeId::from_bytes([2; 32]);

/// An honest device passes with the rate of the clock it was given.
pub(crate) fn honest_work_passes(device: &mut dyn Device) {
    for seed in 0..4 {
        assert_eq!(outcome(device, seed, |_| ()), Outcome::Met { mmac_per_s: 884 });
    }
}

/// A device that answers one entry of a row wrongly does not.
pub(crate) fn wrong_rows_fail(device: &mut dyn Device) {
    for seed in 0..4 {
        let found = outcome(device, seed, |row| row[3] ^= 1);
        assert!(matches!(found, Outcome::Fraud(Fraud::Commitment { .. })), "{found:?}");
    }
}

fn outcome(device: &mut dyn Device, seed: u8, meddle: impl Fn(&mut Vec<i32>)) -> Outcome {
    let (shape, stop) = (Shape::new(96, 2).unwrap(), Stop::default());
    let container = ContainerId::from_bytes([3; 16]);
    let examined = Examined { host: HOST, container, index: 0, shape, limit_us: 1_000_000 };
    let config = ExaminerConfig { rows: 12, ..ExaminerConfig::default() };
    let secret = Secret::new([seed; 32]);
    let mut examiner = Examiner::new(config, [seed; 32], secret, vec![examined]);
    let mut prover = Prover::new(BTreeMap::from([(0, 1 << 20)]), 10);
    let (mut now, mut done) = (1_000_000, None);
    loop {
        match examiner.poll() {
            ExamOutput::Assign { device: number, seed, shape } => {
                examiner.handle(now, ExamInput::Sent { device: number });
                let assigned = ProverInput::Assigned {
                    checker: CHECKER,
                    is_assigned: true,
                    device: 0,
                    seed,
                    shape,
                };
                prover.handle(now, assigned);
                assert!(matches!(prover.poll(), ProverOutput::Compute { .. }));
                let work = commit(device, &seed, shape, &stop).unwrap();
                // 2 · 96³ in 2 ms.
                now += 2_000;
                prover.handle(now, ProverInput::Computed { device: 0, roots: work.roots() });
                let ProverOutput::Commit { roots, .. } = prover.poll() else { panic!() };
                examiner.handle(now, ExamInput::Committed { device: number, roots });
                done = Some(work);
            }
            ExamOutput::Open { device: number, rows } => {
                prover.handle(now, ProverInput::Asked { checker: CHECKER, device: 0, rows });
                let ProverOutput::Read { rows, .. } = prover.poll() else { panic!() };
                let mut openings = done.as_ref().unwrap().open(device, &rows, &stop).unwrap();
                meddle(&mut openings[1][5].row);
                prover.handle(now, ProverInput::Read { device: 0, openings });
                let ProverOutput::Open { openings, .. } = prover.poll() else { panic!() };
                examiner.handle(now, ExamInput::Opened { device: number, openings });
            }
            ExamOutput::Verify { device, examination } => {
                let result = examination.run();
                examiner.handle(now, ExamInput::Verified { device, result });
            }
            ExamOutput::Done { outcome, .. } => return outcome,
            ExamOutput::Idle { .. } => panic!("it waits for nothing"),
        }
    }
}
