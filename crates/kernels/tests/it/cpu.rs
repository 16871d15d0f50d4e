//! The processor's device.

use welkin_kernels::{Cpu, Device as _, DeviceKind};

use crate::{exam, same};

fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads, 64 << 20)
}

#[test]
fn one_thread_and_many_meet_the_vectors() {
    for threads in [1, 2, 7] {
        let mut cpu = cpu(threads);
        assert_eq!(cpu.info().kind, DeviceKind::Cpu);
        same::meets_the_vectors(&mut cpu);
    }
}

#[test]
fn any_shape_is_as_the_reference_has_it() {
    same::meets_the_reference(&mut cpu(3), 24, 150);
}

#[test]
fn any_walk_is_as_the_reference_has_it() {
    same::walks_as_the_reference(&mut cpu(3), 16);
}

#[test]
fn work_is_stopped_and_bounded() {
    same::stops(&mut cpu(2));
    same::has_bounds(&mut cpu(2));
}

#[test]
fn an_exam_is_passed_by_honest_work_only() {
    exam::honest_work_passes(&mut cpu(2));
    exam::wrong_rows_fail(&mut cpu(2));
}
