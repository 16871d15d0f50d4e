//! The hardware challenge of each container, as a checker makes it.

use welkin_check::challenge::{ClassTable, MatchedClass};
use welkin_kernels::{Cpu, Device, DeviceKind, KernelError, Stop};
use welkin_node::host::HostContainer;
use welkin_node::selftest::{Measured, Walked, challenge, resident};
use welkin_runtime::inventory::Gpu;
use welkin_types::Class;

use crate::doctor::{Check, Status};

/// Examines one slot of a container: its GPUs, or its share of the processor.
pub(super) fn container(container: &HostContainer, gpus: &[Gpu]) -> Vec<Check> {
    let offer = &container.offer;
    if offer.resources.gpus.is_empty() {
        let threads = usize::try_from(offer.resources.cpu_milli.div_ceil(1_000)).unwrap_or(1);
        let mut cpu = Cpu::new(threads, offer.resources.memory_bytes);
        return examine(&mut cpu, &offer.class, offer.resources.memory_bytes);
    }
    let own = container.slots.iter().flatten();
    let own = own.filter_map(|id| gpus.iter().find(|gpu| gpu.id == *id));
    own.flat_map(|gpu| gpu_checks(gpu, &offer.class, gpus)).collect()
}

#[cfg(not(feature = "vulkan"))]
fn gpu_checks(gpu: &Gpu, class: &Class, _all: &[Gpu]) -> Vec<Check> {
    let found = format!("{class}: {}: not tested, this build has no GPU kernels", gpu.name);
    let remedy = "build with them: `cargo build --release --features vulkan`";
    vec![Check::new("challenge", Status::Skip, found, remedy)]
}

#[cfg(feature = "vulkan")]
fn gpu_checks(gpu: &Gpu, class: &Class, all: &[Gpu]) -> Vec<Check> {
    let before = all.iter().take_while(|other| other.id != gpu.id);
    let place = before.filter(|other| other.name == gpu.name).count();
    let adapters = welkin_kernels::vulkan::Adapters::find();
    let opened = adapters.named(&gpu.name, place).and_then(|found| found.open(gpu.vram_bytes));
    match opened {
        Ok(mut device) => examine(&mut device, class, gpu.vram_bytes.unwrap_or(0)),
        Err(error) => vec![failed(class, &error)],
    }
}

fn failed(class: &Class, error: &KernelError) -> Check {
    Check::new("challenge", Status::Fail, format!("{class}: {error}"), error.remedy())
}

fn examine(device: &mut dyn Device, class: &Class, memory_bytes: u64) -> Vec<Check> {
    let (mut checks, stop) = (Vec::new(), Stop::default());
    match challenge(device, memory_bytes, &stop) {
        Ok(measured) => checks.push(judge(device, class, memory_bytes, &measured)),
        Err(error) => return vec![failed(class, &error)],
    }
    device.release();
    checks.push(match resident(device, memory_bytes, &stop) {
        Ok(Walked { bytes, nanos, is_right: true }) => {
            let mib = bytes >> 20;
            Check::ok("residency", format!("{class}: {mib} MiB held, {nanos} ns a read"))
        }
        Ok(_) => {
            let found = format!("{class}: memory does not hold what was written");
            Check::new("residency", Status::Fail, found, "test the memory, replace what fails")
        }
        Err(error) => {
            let found = format!("{class}: {error}");
            Check::new("residency", Status::Fail, found, error.remedy())
        }
    });
    device.release();
    checks
}

fn judge(device: &dyn Device, class: &Class, memory_bytes: u64, measured: &Measured) -> Check {
    let name = "challenge";
    let (table, info) = (ClassTable::published(), device.info());
    let rate = format!("{} MMAC/s at n = {} on {}", measured.mmac_per_s, measured.n, info.name);
    if let Some(fraud) = &measured.fraud {
        let found = format!("{class}: wrong results ({fraud}), {rate}");
        let remedy =
            "undo overclocking, check power and cooling, update the driver; else replace it";
        return Check::new(name, Status::Fail, found, remedy);
    }
    if info.kind == DeviceKind::Software {
        return Check::ok(name, format!("{class}: exact, {rate}; software has no class"));
    }
    let band = |class: &Class| {
        let (least, centre) = (table.least(class), table.rate(class));
        let parts = least.zip(centre.map(|rate| rate.mmac_per_s));
        parts.map_or_else(String::new, |(least, centre)| {
            format!("; {class} is from {least}, usually {centre}")
        })
    };
    let found = format!("{class}: exact, {rate}{}", band(class));
    match table.matched(class, measured.mmac_per_s, memory_bytes >> 20) {
        MatchedClass::Claimed => Check::ok(name, found),
        MatchedClass::Lower(lower) => {
            let remedy = format!(
                "it would be taken for {lower}: end other work, raise power limits, check cooling, \
                 or offer it as that"
            );
            Check::new(name, Status::Fail, found, &remedy)
        }
        MatchedClass::None if table.rate(class).is_none() => {
            let remedy = "the class has no table yet: it is learnt once several such are checked";
            Check::new(name, Status::Warn, found, remedy)
        }
        MatchedClass::None => {
            let remedy = "slower than every class: end other work, check power limits and cooling";
            Check::new(name, Status::Fail, found, remedy)
        }
    }
}
