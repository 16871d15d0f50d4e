//! What does the work of a challenge, and what can go wrong with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use welkin_check::challenge::residency::{Fill, Probe, Walk};
use welkin_check::challenge::{Seeds, Shape};

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name, as its driver gives it.
    pub name: String,
    /// What does the work.
    pub kind: DeviceKind,
    /// The driver, with its version; empty for processors.
    pub driver: String,
    /// The most bytes that it may be asked to use, where that is known.
    pub memory_bytes: Option<u64>,
}

/// What does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Threads of a processor.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A Vulkan device that is a program on the processor.
    Software,
}

/// What computes challenges. One piece of work at a time.
pub trait Device: Send {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// The hashes of all rows of a round's product.
    ///
    /// # Errors
    ///
    /// [`KernelError`]
    fn product(
        &mut self,
        seeds: &Seeds,
        shape: Shape,
        stop: &Stop,
    ) -> Result<Vec<[u8; 32]>, KernelError>;

    /// Some rows of a round's product, one after the other.
    ///
    /// # Errors
    ///
    /// [`KernelError`]
    fn rows(
        &mut self,
        seeds: &Seeds,
        shape: Shape,
        numbers: &[u32],
        stop: &Stop,
    ) -> Result<Vec<i32>, KernelError>;

    /// Fills memory, in place of what was there.
    ///
    /// # Errors
    ///
    /// [`KernelError`]; then nothing is held.
    fn fill(&mut self, fill: &Fill, stop: &Stop) -> Result<(), KernelError>;

    /// Walks through what memory was filled with; no walks where it was not.
    ///
    /// # Errors
    ///
    /// [`KernelError`]
    fn walk(&mut self, probe: &Probe, stop: &Stop) -> Result<Vec<Walk>, KernelError>;

    /// Gives all memory back.
    fn release(&mut self);
}

/// Says from anywhere that work is to end. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the work at its next block.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has been said.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Fails where it has been said.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        if self.is_stopped() { Err(KernelError::Stopped) } else { Ok(()) }
    }
}

/// Why work was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no such Vulkan device.
    #[error("no Vulkan device {0}")]
    NoAdapter(String),
    /// The device can't be opened.
    #[error("failed to open the device {name}: {why}")]
    Open {
        /// Which.
        name: String,
        /// What the driver says.
        why: String,
    },
    /// Its memory is too small, or others hold it.
    #[error("the device has too little free memory for {bytes} bytes")]
    OutOfMemory {
        /// How much was asked for.
        bytes: u64,
    },
    /// The driver gave the device up, or it no longer answers.
    #[error("the device was lost: {0}")]
    Lost(String),
    /// The driver refused a kernel.
    #[error("the device refused a kernel: {0}")]
    Fault(String),
    /// It was told to stop.
    #[error("the work was stopped")]
    Stopped,
}

impl KernelError {
    /// What helps.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoAdapter(_) => {
                "install the GPU vendor's Vulkan driver (Debian: mesa-vulkan-drivers for AMD and \
                 Intel, nvidia-vulkan-icd for NVIDIA); `vulkaninfo --summary` must list the GPU"
            }
            Self::Open { .. } => {
                "see that this user may open /dev/dri/render* and /dev/nvidia* (groups render and \
                 video), and that the driver's kernel and user parts have one version"
            }
            Self::OutOfMemory { .. } => {
                "end other programs that use the GPU's memory (nvidia-smi, radeontop), or offer a \
                 class with less memory"
            }
            Self::Lost(_) => {
                "look for Xid or GPU reset lines in `dmesg`, check power and cooling, and restart \
                 the machine if they go on"
            }
            Self::Fault(_) => "update the GPU driver; if it goes on, report it with the message",
            Self::Stopped => "ask again when the device is idle",
        }
    }
}
