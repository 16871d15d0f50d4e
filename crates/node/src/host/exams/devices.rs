//! What does the work: threads for a container without GPUs, else its GPUs through Vulkan.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use welkin_kernels::{Cpu, Device, KernelError};
use welkin_proto::exam::ExamRefusal;
use welkin_types::ContainerId;

use super::CPU_BYTES_MAX;
use super::serve::offer;
use crate::host::Host;
use crate::outside;

/// Opened devices that nobody uses just now: opening one loads its kernels, which takes time that
/// would count as work.
#[derive(Default)]
pub(super) struct Devices(Mutex<BTreeMap<String, Box<dyn Device>>>);

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Devices").field(&self.kept().len()).finish()
    }
}

/// A device that is used. Dropped, it is kept for the next challenge, without its memory.
pub(in crate::host) struct Lent {
    device: Option<Box<dyn Device>>,
    /// The name it is kept under, and where.
    kept_as: Option<(String, Arc<Devices>)>,
}

impl Lent {
    /// A device that is not worth keeping.
    fn once(device: impl Device + 'static) -> Self {
        Self { device: Some(Box::new(device)), kept_as: None }
    }

    /// Works with it.
    pub(in crate::host) fn work<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Device) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let Some(device) = &mut self.device else { return Err(KernelError::Stopped) };
        let done = work(&mut **device);
        if matches!(done, Err(KernelError::Lost(_) | KernelError::Fault(_))) {
            // It is opened anew.
            self.kept_as = None;
        }
        done
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(mut device), Some((name, home))) = (self.device.take(), self.kept_as.take()) {
            device.release();
            home.kept().insert(name, device);
        }
    }
}

impl Devices {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Box<dyn Device>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device that a challenge is for; opening it may take a while.
pub(super) fn lend(host: &Host, container: ContainerId, device: u32) -> Result<Lent, ExamRefusal> {
    let offer = offer(host, container).ok_or(ExamRefusal::TooLarge)?;
    if !offer.resources.gpus.is_empty() {
        return gpu(host, container, device);
    }
    if device != 0 {
        return Err(ExamRefusal::TooLarge);
    }
    let threads = usize::try_from(offer.resources.cpu_milli.div_ceil(1_000)).unwrap_or(1);
    let bytes = offer.resources.memory_bytes.min(CPU_BYTES_MAX);
    Ok(Lent::once(Cpu::new(threads, bytes)))
}

/// A GPU of an idle slot.
fn gpu(host: &Host, container: ContainerId, device: u32) -> Result<Lent, ExamRefusal> {
    let place = usize::try_from(device).unwrap_or(usize::MAX);
    let own = {
        let slots = host.slots();
        let devices = slots.idle(outside::now(), container).ok_or(ExamRefusal::Busy)?;
        devices.iter().nth(place).cloned().ok_or(ExamRefusal::TooLarge)?
    };
    open(host, own)
}

/// A GPU, opened anew: what was kept of it may be of before a fault.
pub(super) fn lend_anew(host: &Host, own: &str) -> Result<Lent, ExamRefusal> {
    #[cfg(feature = "vulkan")]
    host.exams.devices.kept().remove(own);
    open(host, own.to_owned())
}

#[cfg(not(feature = "vulkan"))]
fn open(_host: &Host, _own: String) -> Result<Lent, ExamRefusal> {
    Err(ExamRefusal::NoKernels)
}

#[cfg(feature = "vulkan")]
fn open(host: &Host, own: String) -> Result<Lent, ExamRefusal> {
    let home = Arc::clone(&host.exams.devices);
    if let Some(device) = home.kept().remove(&own) {
        return Ok(Lent { device: Some(device), kept_as: Some((own, Arc::clone(&home))) });
    }
    let before = host.gpus.iter().take_while(|gpu| gpu.id != own);
    let gpu = host.gpus.iter().find(|gpu| gpu.id == own).ok_or(ExamRefusal::TooLarge)?;
    let place = before.filter(|other| other.name == gpu.name).count();
    let adapters = welkin_kernels::vulkan::Adapters::find();
    let opened = adapters.named(&gpu.name, place).and_then(|found| found.open(gpu.vram_bytes));
    match opened {
        Ok(device) => Ok(Lent { device: Some(Box::new(device)), kept_as: Some((own, home)) }),
        Err(error) => {
            tracing::warn!(gpu = own, %error, remedy = error.remedy(), "a GPU can't be challenged");
            Err(ExamRefusal::Failed)
        }
    }
}

/// Opens all GPUs ahead of their first challenge.
#[cfg(feature = "vulkan")]
pub(super) fn warm(host: &Host) {
    for gpu in &host.gpus {
        // What can't be opened was said.
        drop(open(host, gpu.id.clone()));
    }
}
