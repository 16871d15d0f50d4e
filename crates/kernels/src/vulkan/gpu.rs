//! An open Vulkan device: buffers, kernels, waiting, and what goes wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use welkin_check::challenge::residency::{Fill, Probe, Walk};
use welkin_check::challenge::{Seeds, Shape};

use super::kernels;
use super::memory::Memory;
use super::product::Product;
use crate::{Device, DeviceInfo, DeviceKind, KernelError, Stop};

/// How long a step may take before the device counts as lost. Steps are a second on slow ones.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// Steps that the device may have before it.
const STEPS_AHEAD: usize = 3;

/// A Vulkan device, open.
#[derive(Debug)]
pub struct Gpu {
    info: DeviceInfo,
    pub(super) board: Board,
    product: Option<Product>,
    memory: Option<Memory>,
}

/// The device with its kernels.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) is_software: bool,
    pub(super) make_a: wgpu::ComputePipeline,
    pub(super) make_b: wgpu::ComputePipeline,
    pub(super) multiply: wgpu::ComputePipeline,
    pub(super) leaves: wgpu::ComputePipeline,
    pub(super) fill: wgpu::ComputePipeline,
    wrong: Wrong,
    ahead: Mutex<VecDeque<wgpu::SubmissionIndex>>,
}

/// The first thing that went wrong.
#[derive(Clone, Debug, Default)]
struct Wrong(Arc<Mutex<Option<KernelError>>>);

impl Wrong {
    fn note(&self, error: KernelError) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device explains whatever else fails.
        if first.is_none() || matches!(error, KernelError::Lost(_)) {
            *first = Some(error);
        }
    }

    fn take(&self) -> Option<KernelError> {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            // It stays lost.
            Some(KernelError::Lost(why)) => Some(KernelError::Lost(why.clone())),
            _ => first.take(),
        }
    }
}

impl Gpu {
    pub(super) fn new(
        info: DeviceInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Result<Self, KernelError> {
        let wrong = Wrong::default();
        let heard = wrong.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            heard.note(match error {
                wgpu::Error::OutOfMemory { .. } => KernelError::OutOfMemory { bytes: 0 },
                other => KernelError::Fault(other.to_string()),
            });
        }));
        let heard = wrong.clone();
        device.set_device_lost_callback(move |reason, why| {
            // Closing it is no loss.
            if !matches!(reason, wgpu::DeviceLostReason::Destroyed) {
                heard.note(KernelError::Lost(why));
            }
        });
        let factors = kernels::factors();
        let board = Board {
            make_a: pipeline(&device, &factors, "make_a"),
            make_b: pipeline(&device, &factors, "make_b"),
            multiply: pipeline(&device, &kernels::multiply(), "multiply"),
            leaves: pipeline(&device, &kernels::leaves(), "leaves"),
            fill: pipeline(&device, &kernels::fill(), "fill"),
            is_software: info.kind == DeviceKind::Software,
            device,
            queue,
            wrong,
            ahead: Mutex::default(),
        };
        board.healthy(0)?;
        Ok(Self { info, board, product: None, memory: None })
    }

    /// Fails where so many bytes are more than the device has.
    fn room(&self, bytes: u64) -> Result<(), KernelError> {
        match self.info.memory_bytes {
            Some(most) if bytes > most => Err(KernelError::OutOfMemory { bytes }),
            _ => Ok(()),
        }
    }

    /// The buffers of this shape: those of before where they fit.
    fn product_of(&mut self, shape: Shape) -> Result<Product, KernelError> {
        match self.product.take() {
            Some(product) if product.n() == shape.n() => Ok(product),
            _ => {
                self.room(Product::bytes(&self.board, shape))?;
                Product::new(&self.board, shape)
            }
        }
    }
}

impl Device for Gpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn product(
        &mut self,
        seeds: &Seeds,
        shape: Shape,
        stop: &Stop,
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        let mut product = self.product_of(shape)?;
        let hashes = product.leaves(&self.board, seeds, stop)?;
        self.product = Some(product);
        Ok(hashes)
    }

    fn rows(
        &mut self,
        seeds: &Seeds,
        shape: Shape,
        numbers: &[u32],
        stop: &Stop,
    ) -> Result<Vec<i32>, KernelError> {
        let mut product = self.product_of(shape)?;
        let rows = product.rows(&self.board, seeds, numbers, stop)?;
        self.product = Some(product);
        Ok(rows)
    }

    fn fill(&mut self, fill: &Fill, stop: &Stop) -> Result<(), KernelError> {
        self.release();
        self.room(Memory::bytes(fill))?;
        self.memory = Some(Memory::new(&self.board, fill, stop)?);
        Ok(())
    }

    fn walk(&mut self, probe: &Probe, stop: &Stop) -> Result<Vec<Walk>, KernelError> {
        let Some(memory) = &self.memory else { return Ok(Vec::new()) };
        memory.walk(&self.board, probe, stop)
    }

    fn release(&mut self) {
        self.product = None;
        self.memory = None;
        // Memory comes back once nothing that uses it is under way.
        let _ = self.board.finish();
    }
}

impl Board {
    /// The largest buffer.
    pub(super) fn buffer_max(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
    }

    /// A buffer; whether there was room is known by [`Board::healthy`].
    pub(super) fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes.max(16).next_multiple_of(16),
            usage,
            mapped_at_creation: false,
        })
    }

    /// Says what went wrong since it was last asked, if anything did. `bytes`: what was asked for.
    pub(super) fn healthy(&self, bytes: u64) -> Result<(), KernelError> {
        match self.wrong.take() {
            None => Ok(()),
            Some(KernelError::OutOfMemory { .. }) => Err(KernelError::OutOfMemory { bytes }),
            Some(error) => Err(error),
        }
    }

    /// Runs a kernel with these buffers bound in order, once few steps are before it.
    pub(super) fn run(
        &self,
        pipeline: &wgpu::ComputePipeline,
        buffers: &[&wgpu::Buffer],
        groups: [u32; 2],
    ) -> Result<(), KernelError> {
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bound = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &bound, &[]);
            pass.dispatch_workgroups(groups[0], groups[1], 1);
        }
        self.submit(encoder)
    }

    fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<(), KernelError> {
        let index = self.queue.submit([encoder.finish()]);
        let oldest = {
            let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            ahead.push_back(index);
            if ahead.len() > STEPS_AHEAD { ahead.pop_front() } else { None }
        };
        match oldest {
            Some(oldest) => self.wait(Some(oldest)),
            None => self.healthy(0),
        }
    }

    fn wait(&self, index: Option<wgpu::SubmissionIndex>) -> Result<(), KernelError> {
        let timeout = Some(STEP_TIMEOUT);
        let polled = self.device.poll(wgpu::PollType::Wait { submission_index: index, timeout });
        if let Err(error) = polled {
            self.wrong.note(KernelError::Lost(format!("a step did not end: {error}")));
        }
        self.healthy(0)
    }

    /// Waits until nothing is under way.
    pub(super) fn finish(&self) -> Result<(), KernelError> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.wait(None)
    }

    /// The first words of a buffer, by way of `staging`.
    pub(super) fn read(
        &self,
        buffer: &wgpu::Buffer,
        staging: &wgpu::Buffer,
        bytes: u64,
    ) -> Result<Vec<u32>, KernelError> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, bytes);
        self.submit(encoder)?;
        let slice = staging.slice(..bytes);
        slice.map_async(wgpu::MapMode::Read, |_| ());
        self.finish()?;
        let words = match slice.get_mapped_range() {
            Ok(view) => words_of(&view),
            Err(error) => return Err(KernelError::Fault(error.to_string())),
        };
        staging.unmap();
        Ok(words)
    }
}

/// A kernel; whether the driver takes it is known by [`Board::healthy`].
pub(super) fn pipeline(device: &wgpu::Device, text: &str, entry: &str) -> wgpu::ComputePipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(entry),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: None,
        module: &module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    })
}

/// Words as the device has them.
pub(super) fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Words for the device.
pub(super) fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
