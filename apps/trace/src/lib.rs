//! The demo job: a small path tracer whose picture is the same, bit for bit, everywhere.
//!
//! A picture is cut into bands by [`tiles`], each band is rendered by [`render_tile`] on any machine,
//! travels as the bytes of [`encode_tile`], and [`join`] puts the whole together. Whoever rendered a
//! band, with however many threads, the [`Picture::hash`] is the same; so a second machine can check
//! the first one by rendering the same band again.
//!
//! *Invariant: exact arithmetic.* Only operations that IEEE 754 rounds exactly are used: `+ - * /`,
//! `sqrt` and comparisons. No sine, power or fused multiply-add; those differ between platforms.
//!
//! *Invariant: no hidden order.* Each sample of each pixel draws its numbers from its own position,
//! so neither tiling nor threads can change a result.
//!
//! What it does not do: read files or the network, use a GPU, or load scenes; there is one scene.

#![forbid(unsafe_code)]

mod bvh;
mod camera;
mod codec;
mod config;
mod hex;
mod integrator;
mod letters;
mod material;
mod picture;
mod render;
mod sampler;
mod scene;
mod shape;
mod vector;

pub use codec::{CodecError, TILE_BYTES_MAX, decode_tile, encode_tile};
pub use config::{BOUNCES_MAX, ConfigError, DIMENSION_MAX, RenderConfig, SAMPLES_MAX, Tile, tiles};
pub use hex::to_hex;
pub use picture::{EXPECTED_HASH, JoinError, Picture, join};
pub use render::{TileImage, render_tile};
pub use scene::Scene;
