//! Devices against the reference: the committed vectors, any shape, walks, a whole exam.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod cpu;
mod exam;
mod same;
#[cfg(feature = "vulkan")]
mod vulkan;
