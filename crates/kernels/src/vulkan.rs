//! Any Vulkan device, by compute shaders that are exact on all of them: additions, exclusive-ors and
//! rotations of 32-bit words, and products of signed bytes summed in 32 bits.
//!
//! Rows of the product are computed in blocks and hashed on the device; only hashes and the rows
//! that are opened come back. Steps are short, so that no driver's watchdog ends them and a
//! [`Stop`](crate::Stop) is heeded soon.

mod adapters;
mod gpu;
mod kernels;
mod memory;
mod product;

pub use adapters::{Adapter, Adapters};
pub use gpu::Gpu;
