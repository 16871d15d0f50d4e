//! The self-test that brings a part back into service.

use welkin_check::challenge::{ClassTable, MatchedClass};
use welkin_kernels::{Cpu, Device, DeviceKind, KernelError, Stop};
use welkin_lease::Unit;
use welkin_runtime::inventory::gpu_readings;
use welkin_types::Class;

use super::sensors;
use crate::host::{Host, exams};
use crate::selftest::{challenge, resident};

/// The most memory and threads that a test of the machine takes.
const CPU_BYTES_MAX: u64 = 1 << 30;
const CPU_THREADS_MAX: usize = 64;

/// Tests a part as a checker would; what was found, or why it does not pass.
pub(super) fn run(host: &Host, unit: &Unit, stop: &Stop) -> Result<String, String> {
    match unit {
        Unit::Host => machine(host, stop),
        Unit::Device(device) => gpu(host, device, stop),
    }
}

fn machine(host: &Host, stop: &Stop) -> Result<String, String> {
    let found = sensors::machine(&host.dir).into_iter().find(|symptom| sensors::is_fault(*symptom));
    if let Some(symptom) = found {
        return Err(super::in_words(symptom));
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let bytes = welkin_runtime::inventory::memory_bytes() / 8;
    let bytes = bytes.min(CPU_BYTES_MAX);
    let mut cpu = Cpu::new(threads.min(CPU_THREADS_MAX), bytes);
    examine(&mut cpu, bytes, None, stop).map_err(|error| error.to_string())?
}

fn gpu(host: &Host, device: &str, stop: &Stop) -> Result<String, String> {
    let gpu = host.gpus.iter().find(|gpu| gpu.id == device);
    let gpu = gpu.ok_or("it is not there any more: the driver does not list it")?;
    if sensors::is_gone(gpu) {
        return Err("its device node is gone: reset the GPU or restart the machine".to_owned());
    }
    // It would be out of service again after the next look at its sensors. Asked anew: what they said
    // last may be of before the fault, or of before its reset.
    let is_asked = gpu.is_nvidia();
    let readings = if is_asked { gpu_readings(&host.gpu_search) } else { Vec::new() };
    let loads = sensors::loads(&host.gpus, &readings);
    if let Some(symptom) = loads.get(device).and_then(|load| load.fault) {
        return Err(super::in_words(symptom));
    }
    let kind = crate::host::gpus::kind_of(gpu);
    let class = crate::host::gpus::class_of(&kind);
    let bytes = gpu.vram_bytes.unwrap_or(0);
    let mut lent = exams::lend_anew(host, device)
        .map_err(|why| format!("it can't be opened for a test: {why}"))?;
    let tested = lent.work(|device| examine(device, bytes, class.as_ref(), stop));
    tested.map_err(|error| format!("{error}: {}", error.remedy()))?
}

/// Exact results, memory that holds what was written, and a GPU's rate where its class has one. The
/// rate of a processor is not judged: other work of the machine may share it.
fn examine(
    device: &mut dyn Device,
    bytes: u64,
    class: Option<&Class>,
    stop: &Stop,
) -> Result<Result<String, String>, KernelError> {
    let measured = challenge(device, bytes, stop)?;
    if let Some(fraud) = measured.fraud {
        return Ok(Err(format!("wrong results: {fraud}")));
    }
    let rate = measured.mmac_per_s;
    device.release();
    let walked = resident(device, bytes, stop)?;
    device.release();
    if !walked.is_right {
        return Ok(Err("memory does not hold what was written".to_owned()));
    }
    let table = ClassTable::published();
    let of_class = class.filter(|_| device.info().kind == DeviceKind::Gpu);
    let of_class = of_class.filter(|class| table.rate(class).is_some());
    if let Some(class) = of_class
        && !matches!(table.matched(class, rate, bytes >> 20), MatchedClass::Claimed)
    {
        return Ok(Err(format!("{rate} MMAC/s are too slow for {class}")));
    }
    let (n, mib) = (measured.n, walked.bytes >> 20);
    Ok(Ok(format!("exact, {rate} MMAC/s at n = {n}, {mib} MiB held")))
}
