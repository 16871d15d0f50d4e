//! The work of a hardware challenge, on processors and on any Vulkan device.
//!
//! What the work is stands in `welkin_check::challenge`, with vectors that every device must meet to
//! the bit. Here is who does it: [`Device`] is what does products and walks through memory, [`Cpu`]
//! one with threads, and with the feature `vulkan` `vulkan::Gpu` one with compute shaders. [`commit`]
//! and [`Commitment::open`] are a prover's part, the same on all.
//!
//! **Architecture invariant:** a device never waits for ever and never takes memory without bound:
//! every piece of work looks at its [`Stop`] between blocks, and whatever goes wrong is a
//! [`KernelError`] that says what helps.

#![forbid(unsafe_code)]

mod commit;
mod cpu;
mod device;
#[cfg(feature = "vulkan")]
pub mod vulkan;

pub use commit::{Commitment, commit};
pub use cpu::Cpu;
pub use device::{Device, DeviceInfo, DeviceKind, KernelError, Stop};
