//! The test that a host makes of its own hardware, as a checker would: rows by a fresh secret,
//! verified from the seed alone, a rate by a clock, and memory that holds what was written.

use std::time::{Duration, Instant};

use welkin_check::challenge::residency::{self, Fill, Probe};
use welkin_check::challenge::{ExaminerConfig, Secret, Shape, verify};
use welkin_kernels::{Device, DeviceKind, KernelError, Stop, commit};

use crate::outside;

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

/// What a challenge of oneself showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The size of the product.
    pub n: u32,
    /// How fast, in millions of multiplications and additions a second.
    pub mmac_per_s: u64,
    /// What a checker would say against it.
    pub fraud: Option<String>,
}

/// What a walk through memory showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// How much was filled.
    pub bytes: u64,
    /// Nanoseconds for a read.
    pub nanos: u128,
    /// Whether it held what was written.
    pub is_right: bool,
}

/// Challenges a device with growing products until one takes long enough to tell a rate.
///
/// # Errors
///
/// [`KernelError`] where the device can't do the work, or `stop` was asked to end it.
pub fn challenge(
    device: &mut dyn Device,
    memory_bytes: u64,
    stop: &Stop,
) -> Result<Measured, KernelError> {
    let mut n = N_LEAST;
    // The first work of a device also loads its kernels.
    let small = Shape::new(n, 1).ok_or(KernelError::OutOfMemory { bytes: 0 })?;
    commit(device, &outside::random(), small, stop)?;
    loop {
        let too_large = KernelError::OutOfMemory { bytes: 6 * u64::from(n) * u64::from(n) };
        let shape = Shape::new(n, 1).ok_or(too_large)?;
        let (seed, begun) = (outside::random(), Instant::now());
        let done = commit(device, &seed, shape, stop)?;
        let took = begun.elapsed();
        let next_fits = 4 * shape.bytes() <= memory_bytes;
        if took < WORK_LEAST && n < N_MOST && next_fits {
            n *= 2;
            continue;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let (secret, rows) = (Secret::new(outside::random()), ExaminerConfig::default().rows);
        let openings = done.open(device, &[secret.rows(shape, 0, rows)], stop)?;
        let verified = verify(&seed, shape, &done.roots(), &secret, rows, &openings);
        let fraud = verified.err().map(|fraud| fraud.to_string());
        return Ok(Measured { n, mmac_per_s: shape.macs() / micros, fraud });
    }
}

/// Fills most of a GPU's memory, or a little of the machine's, and reads it in an order that nobody
/// could foresee.
///
/// # Errors
///
/// [`KernelError`]
pub fn resident(
    device: &mut dyn Device,
    memory_bytes: u64,
    stop: &Stop,
) -> Result<Walked, KernelError> {
    let bytes = match device.info().kind {
        DeviceKind::Gpu => memory_bytes / 100 * GPU_SHARE_PERCENT,
        DeviceKind::Cpu | DeviceKind::Software => CPU_FILL_BYTES.min(memory_bytes / 4),
    };
    let units = Fill::units_for_bytes(bytes).max(1);
    let fill = Fill { seed: outside::random(), units, double_rounds: DOUBLE_ROUNDS };
    device.fill(&fill, stop)?;
    let probe = |steps| Probe { nonce: outside::random(), walkers: WALKERS, steps };
    device.walk(&probe(1), stop)?;
    let (asked, begun) = (probe(STEPS), Instant::now());
    let ends = device.walk(&asked, stop)?;
    let nanos = begun.elapsed().as_nanos() / u128::from(WALKERS * STEPS);
    let chosen: Vec<u32> = (0..WALKS_CHECKED).map(|n| n * (WALKERS / WALKS_CHECKED)).collect();
    let is_right = residency::verify(&fill, &asked, &ends, &chosen);
    Ok(Walked { bytes, nanos, is_right })
}
