//! Renders one tile, with rows shared out to threads.

use crate::config::{RenderConfig, Tile};
use crate::integrator::radiance;
use crate::sampler::Sampler;
use crate::scene::Scene;
use crate::vector::{Vector, vector};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The most threads that are started.
const THREADS_MAX: usize = 256;
/// Finished rows not yet reported; threads wait when there are more.
const REPORTS_MAX: usize = 64;

/// A rendered tile.
#[derive(Clone, PartialEq, Eq)]
pub struct TileImage {
    /// The picture that it is a part of.
    pub config: RenderConfig,
    /// Which part.
    pub tile: Tile,
    /// Red, green and blue of each pixel, row by row: `tile.width * tile.height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for TileImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, tile, rgb } = self;
        f.debug_struct("TileImage")
            .field("config", config)
            .field("tile", tile)
            .field("rgb_len", &rgb.len())
            .finish()
    }
}

/// Renders `tile` of the picture with `threads` threads (at least one).
///
/// After each row `progress` is called, on the calling thread, with the rows done and the rows in
/// all. The result does not depend on `threads`, nor on how the picture is cut into tiles.
pub fn render_tile(
    scene: &Scene,
    config: &RenderConfig,
    tile: Tile,
    threads: usize,
    progress: &mut dyn FnMut(u32, u32),
) -> TileImage {
    let mut rgb = vec![0; tile.rgb_len()];
    let row_len = (tile.width as usize * 3).max(1);
    let rows = Mutex::new((tile.y..).zip(rgb.chunks_exact_mut(row_len)));
    thread::scope(|scope| {
        let (done_tx, done_rx) = sync_channel(REPORTS_MAX);
        for _ in 0..threads.clamp(1, THREADS_MAX) {
            let (rows, done_tx) = (&rows, done_tx.clone());
            scope.spawn(move || render_rows(scene, config, tile, rows, &done_tx));
        }
        drop(done_tx);
        for (done, ()) in (1..).zip(done_rx) {
            progress(done, tile.height);
        }
    });
    TileImage { config: *config, tile, rgb }
}

/// Takes rows until there are none.
fn render_rows<'a>(
    scene: &Scene,
    config: &RenderConfig,
    tile: Tile,
    rows: &Mutex<impl Iterator<Item = (u32, &'a mut [u8])>>,
    done_tx: &SyncSender<()>,
) {
    loop {
        let row = rows.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((y, pixels)) = row else { return };
        for (x, pixel) in (tile.x..).zip(pixels.chunks_exact_mut(3)) {
            pixel.copy_from_slice(&render_pixel(scene, config, (x, y)));
        }
        // The caller stops listening only when it panics; then there is nobody to tell.
        let _ = done_tx.send(());
    }
}

fn render_pixel(scene: &Scene, config: &RenderConfig, (x, y): (u32, u32)) -> [u8; 3] {
    let size = (config.width, config.height);
    let mut sum = Vector::ZERO;
    for sample in 0..config.samples {
        let mut sampler = Sampler::new(x, y, sample);
        let ray = scene.camera().ray((x, y), size, &mut sampler);
        sum += radiance(scene, ray, config.bounces_max, &mut sampler);
    }
    let light = film(sum * (1.0 / f64::from(config.samples)));
    [byte(light.x), byte(light.y), byte(light.z)]
}

/// Turns linear light into shares of full brightness, as film does: a curve that is steep in the
/// middle and flat at both ends (Narkowicz' fraction).
fn film(light: Vector) -> Vector {
    let curve = |value: f64| {
        let value = value * EXPOSURE;
        (value * (2.51 * value + 0.03)) / (value * (2.43 * value + 0.59) + 0.14)
    };
    vector(curve(light.x), curve(light.y), curve(light.z))
}

/// How much brighter the picture is than the light that was collected.
const EXPOSURE: f64 = 1.0;

/// The byte of a linear share, with a gamma of 2.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` keeps what is outside at the nearest byte, which is what is wanted"
)]
fn byte(linear: f64) -> u8 {
    (linear.sqrt() * 255.0 + 0.5) as u8
}
