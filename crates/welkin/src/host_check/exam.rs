//! The hardware challenge of each container, as a checker makes it.

use std::time::{Duration, Instant};

use welkin_check::challenge::residency::{self, Fill, Probe};
use welkin_check::challenge::{
    ClassTable, ExaminerConfig, MatchedClass, Secret, Shape, Tree, verify,
};
use welkin_kernels::{Cpu, Device, DeviceKind, KernelError, Stop, commit};
use welkin_node::host::HostContainer;
use welkin_node::outside;
use welkin_runtime::inventory::Gpu;
use welkin_types::Class;

use crate::doctor::{Check, Status};

/// A product that takes at least so long tells a rate.
const WORK_LEAST: Duration = Duration::from_millis(200);
/// The smallest and the largest products tried.
const N_LEAST: u32 = 256;
const N_MOST: u32 = 16_384;
/// Memory that is filled: this share of a GPU's, a little of a container's on a processor.
const GPU_SHARE_PERCENT: u64 = 70;
const CPU_FILL_BYTES: u64 = 32 << 20;
const DOUBLE_ROUNDS: u32 = 16;
const WALKERS: u32 = 256;
const STEPS: u32 = 512;
const WALKS_CHECKED: u32 = 4;

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
    let mut checks = Vec::new();
    match challenge(device, memory_bytes) {
        Ok(measured) => checks.push(judge(device, class, memory_bytes, &measured)),
        Err(error) => return vec![failed(class, &error)],
    }
    device.release();
    checks.push(match resident(device, memory_bytes) {
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

/// What a challenge showed.
struct Measured {
    n: u32,
    mmac_per_s: u64,
    /// What a checker would say against it.
    fraud: Option<String>,
}

fn challenge(device: &mut dyn Device, memory_bytes: u64) -> Result<Measured, KernelError> {
    let stop = Stop::default();
    let mut n = N_LEAST;
    // The first work of a device also loads its kernels.
    let small = Shape::new(n, 1).ok_or(KernelError::OutOfMemory { bytes: 0 })?;
    commit(device, &outside::random(), small, &stop)?;
    loop {
        let too_large = KernelError::OutOfMemory { bytes: 6 * u64::from(n) * u64::from(n) };
        let shape = Shape::new(n, 1).ok_or(too_large)?;
        let (seed, begun) = (outside::random(), Instant::now());
        let done = commit(device, &seed, shape, &stop)?;
        let took = begun.elapsed();
        let next_fits = 4 * shape.bytes() <= memory_bytes;
        if took < WORK_LEAST && n < N_MOST && next_fits {
            n *= 2;
            continue;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let (secret, rows) = (Secret::new(outside::random()), ExaminerConfig::default().rows);
        let openings = done.open(device, &[secret.rows(shape, 0, rows)], &stop)?;
        let verified = verify(&seed, shape, &done.roots(), &secret, rows, &openings);
        let fraud = verified.err().map(|fraud| fraud.to_string());
        return Ok(Measured { n, mmac_per_s: shape.macs() / micros, fraud });
    }
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

/// What a walk through memory showed.
struct Walked {
    bytes: u64,
    nanos: u128,
    is_right: bool,
}

fn resident(device: &mut dyn Device, memory_bytes: u64) -> Result<Walked, KernelError> {
    let stop = Stop::default();
    let bytes = match device.info().kind {
        DeviceKind::Gpu => memory_bytes / 100 * GPU_SHARE_PERCENT,
        DeviceKind::Cpu | DeviceKind::Software => CPU_FILL_BYTES.min(memory_bytes / 4),
    };
    let units = Fill::units_for_bytes(bytes).max(1);
    let fill = Fill { seed: outside::random(), units, double_rounds: DOUBLE_ROUNDS };
    device.fill(&fill, &stop)?;
    let probe = |steps| Probe { nonce: outside::random(), walkers: WALKERS, steps };
    device.walk(&probe(1), &stop)?;
    let (asked, begun) = (probe(STEPS), Instant::now());
    let ends = device.walk(&asked, &stop)?;
    let nanos = begun.elapsed().as_nanos() / u128::from(WALKERS * STEPS);
    let root = Tree::new(ends.iter().map(residency::Walk::leaf).collect()).root();
    let chosen: Vec<u32> = (0..WALKS_CHECKED).map(|n| n * (WALKERS / WALKS_CHECKED)).collect();
    let is_right = residency::verify(&fill, &asked, &root, &ends, &chosen);
    Ok(Walked { bytes, nanos, is_right })
}
