//! The work on a processor: the reference's arithmetic, spread over threads by rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use welkin_check::challenge::residency::{self, Fill, Probe, UNIT_BYTES, WALKERS_MAX, Walk};
use welkin_check::challenge::{Factor, Seeds, Shape, leaf};

use crate::{Device, DeviceInfo, DeviceKind, KernelError, Stop};

/// The most rows that a thread takes at a time …
const BLOCK: u32 = 16;
/// … and the most multiplications, so that a stop comes soon.
const BLOCK_MACS: u64 = 1 << 26;
/// Units that are computed between two looks at [`Stop`].
const UNITS_AT_ONCE: u32 = 1 << 12;
/// The most threads.
const THREADS_MAX: usize = 256;

/// Threads of a processor as a device.
#[derive(Debug)]
pub struct Cpu {
    info: DeviceInfo,
    threads: usize,
    /// B of the last product, by its seed and shape.
    factor: Option<([u8; 32], Shape, Arc<Factor>)>,
    filled: Option<(Fill, Vec<[u32; 16]>)>,
}

impl Cpu {
    /// A device of so many threads and bytes.
    pub fn new(threads: usize, memory_bytes: u64) -> Self {
        let threads = threads.clamp(1, THREADS_MAX);
        let info = DeviceInfo {
            name: format!("{threads} threads"),
            kind: DeviceKind::Cpu,
            driver: String::new(),
            memory_bytes: Some(memory_bytes),
        };
        Self { info, threads, factor: None, filled: None }
    }

    /// Fails where so many bytes are more than it may use.
    fn room(&self, bytes: u64) -> Result<(), KernelError> {
        match self.info.memory_bytes {
            Some(most) if bytes > most => Err(KernelError::OutOfMemory { bytes }),
            _ => Ok(()),
        }
    }

    /// B of these products: that of the last one where it is the same.
    fn factor(&mut self, seed: &[u8; 32], shape: Shape) -> Arc<Factor> {
        match &self.factor {
            Some((of, size, factor)) if of == seed && *size == shape => Arc::clone(factor),
            _ => {
                // One at a time.
                self.factor = None;
                let factor = Arc::new(Factor::new(seed, shape));
                self.factor = Some((*seed, shape, Arc::clone(&factor)));
                factor
            }
        }
    }

    /// Calls `work` for blocks of 0..count on all threads; the results in order.
    fn spread<T: Send>(
        &self,
        count: u32,
        block: u32,
        stop: &Stop,
        work: impl Fn(std::ops::Range<u32>) -> Vec<T> + Sync,
    ) -> Result<Vec<T>, KernelError> {
        let next = AtomicU32::new(0);
        let blocks = count.div_ceil(block);
        let run = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= blocks || stop.is_stopped() {
                    return done;
                }
                let from = number * block;
                done.push((from, work(from..count.min(from.saturating_add(block)))));
            }
        };
        let mut parts = thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads).map(|_| scope.spawn(run)).collect();
            let mut parts = run();
            for other in others {
                match other.join() {
                    Ok(more) => parts.extend(more),
                    Err(_) => return Err(KernelError::Fault("a thread ended early".to_owned())),
                }
            }
            Ok(parts)
        })?;
        stop.check()?;
        parts.sort_unstable_by_key(|(from, _)| *from);
        Ok(parts.into_iter().flat_map(|(_, part)| part).collect())
    }
}

impl Device for Cpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn product(
        &mut self,
        seeds: &Seeds,
        shape: Shape,
        stop: &Stop,
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        self.room(shape.bytes())?;
        stop.check()?;
        let factor = self.factor(seeds.b(), shape);
        let n = usize::try_from(shape.n()).unwrap_or(usize::MAX);
        let row_macs = u64::from(shape.n()).pow(2);
        let block = u32::try_from(BLOCK_MACS / row_macs.max(1)).unwrap_or(BLOCK).clamp(1, BLOCK);
        self.spread(shape.n(), block, stop, |rows| {
            let numbers: Vec<u32> = rows.collect();
            let entries = factor.rows(seeds.a(), &numbers);
            let rows = numbers.iter().zip(entries.chunks_exact(n));
            rows.map(|(number, row)| leaf(*number, row)).collect()
        })
    }

    fn rows(
        &mut self,
        seeds: &Seeds,
        shape: Shape,
        numbers: &[u32],
        stop: &Stop,
    ) -> Result<Vec<i32>, KernelError> {
        self.room(shape.bytes())?;
        stop.check()?;
        let factor = self.factor(seeds.b(), shape);
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let place = |number| usize::try_from(number).unwrap_or(usize::MAX);
        self.spread(count, BLOCK, stop, |rows| {
            factor.rows(seeds.a(), &numbers[place(rows.start)..place(rows.end)])
        })
    }

    fn fill(&mut self, fill: &Fill, stop: &Stop) -> Result<(), KernelError> {
        self.release();
        self.room(u64::from(fill.units) * UNIT_BYTES)?;
        let units = |range: std::ops::Range<u32>| range.map(|unit| fill.unit(unit)).collect();
        let units = self.spread(fill.units, UNITS_AT_ONCE, stop, units)?;
        self.filled = Some((*fill, units));
        Ok(())
    }

    fn walk(&mut self, probe: &Probe, stop: &Stop) -> Result<Vec<Walk>, KernelError> {
        let Some((fill, units)) = &self.filled else { return Ok(Vec::new()) };
        let read = |place: u32| {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            units.get(place).copied().unwrap_or_default()
        };
        let walks = |walkers: std::ops::Range<u32>| {
            walkers.map(|walker| residency::walk(probe, walker, fill.units, read)).collect()
        };
        self.spread(probe.walkers.min(WALKERS_MAX), 1, stop, walks)
    }

    fn release(&mut self) {
        self.factor = None;
        self.filled = None;
    }
}
