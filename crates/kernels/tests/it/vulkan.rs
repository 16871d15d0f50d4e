//! Every Vulkan device of this machine. They are put aside in a plain run, whose build has no
//! Vulkan: the stage of `scripts/test` that has it runs them on lavapipe.

use welkin_check::challenge::{Seeds, Shape};
use welkin_kernels::vulkan::{Adapters, Gpu};
use welkin_kernels::{Device as _, DeviceKind, KernelError, Stop, commit};

use crate::{exam, same};

/// All devices, opened with a gigabyte each.
fn gpus() -> Vec<Gpu> {
    let adapters = Adapters::find();
    assert!(!adapters.all().is_empty(), "no Vulkan device: install mesa-vulkan-drivers");
    adapters.all().iter().map(|adapter| adapter.open(Some(1 << 30)).unwrap()).collect()
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn every_device_meets_the_vectors() {
    gpus().iter_mut().for_each(|gpu| same::meets_the_vectors(gpu));
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn any_shape_is_as_the_reference_has_it() {
    gpus().iter_mut().for_each(|gpu| same::meets_the_reference(gpu, 40, 300));
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn any_walk_is_as_the_reference_has_it() {
    gpus().iter_mut().for_each(|gpu| same::walks_as_the_reference(gpu, 24));
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn work_is_stopped_and_bounded() {
    for gpu in &mut gpus() {
        same::stops(gpu);
        same::has_bounds(gpu);
    }
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn an_exam_is_passed_by_honest_work_only() {
    for gpu in &mut gpus() {
        exam::honest_work_passes(gpu);
        exam::wrong_rows_fail(gpu);
    }
}

/// Two open devices work side by side and do not mix.
#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn several_devices_at_once_do_not_mix() {
    let mut open: Vec<Gpu> = gpus().into_iter().chain(gpus()).collect();
    let shape = Shape::new(150, 2).unwrap();
    std::thread::scope(|scope| {
        for (seed, gpu) in (0_u8..).zip(&mut open) {
            scope.spawn(move || {
                let found = commit(gpu, &[seed; 32], shape, &Stop::default()).unwrap();
                let expected = welkin_check::challenge::commit(&[seed; 32], shape).1;
                assert_eq!(found.roots(), expected);
            });
        }
    });
}

/// B in several panels, rows in several blocks, memory in several buffers, as large devices have it.
#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn what_one_buffer_does_not_hold_is_cut_and_put_together() {
    let adapters = Adapters::find();
    for adapter in adapters.all() {
        let mut gpu = adapter.open_with_buffers(Some(1 << 30), 256 << 10).unwrap();
        same::meets_the_reference(&mut gpu, 8, 900);
        same::walks_as_the_reference(&mut gpu, 12);
    }
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn a_large_product_is_the_references() {
    let mut gpu = gpus().remove(0);
    let (seeds, shape) = (Seeds::first([7; 32]), Shape::new(4_500, 1).unwrap());
    let rows = [0, 1, 1_000, 4_095, 4_096, 4_499];
    let found = gpu.rows(&seeds, shape, &rows, &Stop::default()).unwrap();
    assert!(found == welkin_check::challenge::rows_of_product(&seeds, shape, &rows));
}

#[test]
#[ignore = "run by scripts/test: needs a Vulkan device"]
fn a_device_that_is_not_there_is_named_with_those_that_are() {
    let adapters = Adapters::find();
    let name = adapters.all()[0].info().name.clone();
    assert_eq!(adapters.named(&name, 0).unwrap().info().name, name);
    for (wanted, place) in [("H9000", 0), (name.as_str(), 99)] {
        let refused = adapters.named(wanted, place).unwrap_err();
        assert!(matches!(refused, KernelError::NoAdapter(_)));
        assert!(refused.to_string().contains(&name), "{refused}");
        assert!(refused.remedy().contains("vulkaninfo"));
    }
    if adapters.all()[0].info().name.contains("llvmpipe") {
        assert_eq!(adapters.all()[0].info().kind, DeviceKind::Software);
    }
}
