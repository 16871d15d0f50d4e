//! Memory filled with units, in as many buffers as it takes, and walks through it.

use welkin_check::challenge::residency::{Fill, Probe, STEPS_MAX, UNIT_BYTES, WALKERS_MAX, Walk};
use wgpu::BufferUsages as Use;

use super::gpu::{Board, bytes_of, pipeline, words_of};
use super::kernels;
use crate::{KernelError, Stop};

/// Units that a step fills.
const UNITS_AT_ONCE: u32 = 1 << 20;
/// Visits of all walkers in a step.
const VISITS_AT_ONCE: u32 = 1 << 22;
/// The most buffers; bindings for the parameters and the walks come on top.
const BUFFERS_MAX: u32 = 96;
/// The most groups along one side of a dispatch.
const GROUPS_MAX: u32 = 32_768;

/// Filled memory.
#[derive(Debug)]
pub(super) struct Memory {
    fill: Fill,
    /// Units of a buffer.
    held: u32,
    buffers: Vec<wgpu::Buffer>,
    params: wgpu::Buffer,
    step: wgpu::ComputePipeline,
}

impl Memory {
    /// What it takes.
    pub(super) fn bytes(fill: &Fill) -> u64 {
        u64::from(fill.units) * UNIT_BYTES
    }

    pub(super) fn new(board: &Board, fill: &Fill, stop: &Stop) -> Result<Self, KernelError> {
        let held = u32::try_from(board.buffer_max() / UNIT_BYTES).unwrap_or(u32::MAX);
        let held = held.clamp(1, fill.units.max(1));
        let count = fill.units.div_ceil(held);
        let limits = board.device.limits();
        let bindings = limits.max_storage_buffers_per_shader_stage.saturating_sub(1);
        if count > bindings.min(BUFFERS_MAX) {
            return Err(KernelError::OutOfMemory { bytes: Self::bytes(fill) });
        }
        let params = board.buffer(64, Use::UNIFORM | Use::COPY_DST);
        let mut buffers = Vec::new();
        for number in 0..count {
            let units = held.min(fill.units - number * held);
            buffers.push(board.buffer(u64::from(units) * UNIT_BYTES, Use::STORAGE));
            board.healthy(Self::bytes(fill))?;
        }
        let step = pipeline(&board.device, &kernels::step(buffers.len().max(1)), "walk_on");
        board.healthy(0)?;
        let memory = Self { fill: *fill, held, buffers, params, step };
        memory.write(board, stop)?;
        Ok(memory)
    }

    fn write(&self, board: &Board, stop: &Stop) -> Result<(), KernelError> {
        for (number, buffer) in (0..).zip(&self.buffers) {
            let before = number * self.held;
            let units = self.held.min(self.fill.units - before);
            let mut place = 0;
            while place < units {
                stop.check()?;
                let count = UNITS_AT_ONCE.min(units - place);
                self.tell(board, [before + place, place, count, 0, 0]);
                let groups = count.div_ceil(64);
                let groups = [groups.min(GROUPS_MAX), groups.div_ceil(GROUPS_MAX)];
                board.run(&board.fill, &[&self.params, buffer], groups)?;
                place += count;
            }
        }
        board.finish()
    }

    pub(super) fn walk(
        &self,
        board: &Board,
        probe: &Probe,
        stop: &Stop,
    ) -> Result<Vec<Walk>, KernelError> {
        let walkers = probe.walkers.min(WALKERS_MAX);
        if walkers == 0 || self.buffers.is_empty() {
            return Ok(Vec::new());
        }
        let start = |walker| {
            let walk = Walk::start(probe, walker, self.fill.units);
            let [a, b] = walk.seen();
            [walk.place(), a, b, 0]
        };
        let words: Vec<u32> = (0..walkers).flat_map(start).collect();
        let bytes = 16 * u64::from(walkers);
        let walks = board.buffer(bytes, Use::STORAGE | Use::COPY_SRC | Use::COPY_DST);
        let staging = board.buffer(bytes, Use::MAP_READ | Use::COPY_DST);
        board.healthy(bytes)?;
        board.queue.write_buffer(&walks, 0, &bytes_of(&words));
        let bound: Vec<_> = [&self.params, &walks].into_iter().chain(&self.buffers).collect();
        let at_once = (VISITS_AT_ONCE / walkers).max(1);
        let mut left = probe.steps.min(STEPS_MAX);
        while left > 0 {
            stop.check()?;
            let steps = at_once.min(left);
            self.tell(board, [0, 0, 0, walkers, steps]);
            board.run(&self.step, &bound, [walkers.div_ceil(64), 1])?;
            left -= steps;
        }
        let words = board.read(&walks, &staging, bytes)?;
        Ok(words.chunks_exact(4).map(|w| Walk::on_its_way(w[0], [w[1], w[2]])).collect())
    }

    fn tell(&self, board: &Board, rest: [u32; 5]) {
        let mut words = words_of(&self.fill.seed);
        words.extend([self.fill.units, self.fill.double_rounds, self.held]);
        words.extend(rest);
        board.queue.write_buffer(&self.params, 0, &bytes_of(&words));
    }
}
