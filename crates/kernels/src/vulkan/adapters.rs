//! Which Vulkan devices there are.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::gpu::Gpu;
use crate::{DeviceInfo, DeviceKind, KernelError};

/// The most devices of one machine.
const ADAPTERS_MAX: usize = 64;
/// The least that the largest buffer may be.
const BUFFER_BYTES_LEAST: u64 = 256 << 10;

/// The machine's Vulkan devices.
#[derive(Debug)]
pub struct Adapters {
    found: Vec<Adapter>,
}

/// One of them, not opened.
#[derive(Clone, Debug)]
pub struct Adapter {
    inner: wgpu::Adapter,
    info: DeviceInfo,
}

impl Adapters {
    /// Asks the Vulkan loader. None where there is no loader or no driver.
    pub fn find() -> Self {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        let instance = wgpu::Instance::new(descriptor);
        let found = ready(instance.enumerate_adapters(wgpu::Backends::VULKAN)).unwrap_or_default();
        let found = found.into_iter().take(ADAPTERS_MAX).map(|inner| {
            let info = info_of(&inner.get_info());
            Adapter { inner, info }
        });
        Self { found: found.collect() }
    }

    /// All of them, in the loader's order.
    pub fn all(&self) -> &[Adapter] {
        &self.found
    }

    /// One by the place of its name among those of the same name: the first `H100`, the second.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoAdapter`] with what there is instead.
    pub fn named(&self, name: &str, place: usize) -> Result<&Adapter, KernelError> {
        let mut same = self.found.iter().filter(|adapter| adapter.info.name == name);
        same.nth(place).ok_or_else(|| {
            let names: Vec<_> = self.found.iter().map(|one| one.info.name.as_str()).collect();
            let there =
                if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
            KernelError::NoAdapter(format!("{name} (number {place}); found: {there}"))
        })
    }
}

impl Adapter {
    /// What it is.
    pub const fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Opens it. `memory_bytes` is its memory, which Vulkan does not tell.
    ///
    /// # Errors
    ///
    /// [`KernelError::Open`], or [`KernelError::Fault`] where its driver refuses the kernels.
    pub fn open(&self, memory_bytes: Option<u64>) -> Result<Gpu, KernelError> {
        self.open_with_buffers(memory_bytes, u64::MAX)
    }

    /// Opens it with no buffer larger than so many bytes, at least 256 KiB, where its driver can't
    /// be trusted with large ones.
    ///
    /// # Errors
    ///
    /// As [`Adapter::open`].
    pub fn open_with_buffers(
        &self,
        memory_bytes: Option<u64>,
        buffer_bytes_max: u64,
    ) -> Result<Gpu, KernelError> {
        let most = buffer_bytes_max.max(BUFFER_BYTES_LEAST);
        let mut limits = self.inner.limits();
        limits.max_buffer_size = limits.max_buffer_size.min(most);
        limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(most);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("welkin challenge"),
            required_features: wgpu::Features::empty(),
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..wgpu::DeviceDescriptor::default()
        };
        let failed = |why: String| KernelError::Open { name: self.info.name.clone(), why };
        let asked = ready(self.inner.request_device(&descriptor));
        let asked = asked.ok_or_else(|| failed("the driver gave no answer".to_owned()))?;
        let (device, queue) = asked.map_err(|error| failed(error.to_string()))?;
        Gpu::new(DeviceInfo { memory_bytes, ..self.info.clone() }, device, queue)
    }
}

fn info_of(info: &wgpu::AdapterInfo) -> DeviceInfo {
    let kind = match info.device_type {
        wgpu::DeviceType::Cpu => DeviceKind::Software,
        _ => DeviceKind::Gpu,
    };
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    DeviceInfo { name: info.name.clone(), kind, driver, memory_bytes: None }
}

/// The result of a future that is there at once, as they are where nothing is asynchronous below.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
