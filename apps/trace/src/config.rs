//! What to render: the size and quality of a picture, and which part of it.

use std::error::Error;
use std::fmt;

/// The widest and highest picture, in pixels.
pub const DIMENSION_MAX: u32 = 8192;
/// The most samples of one pixel.
pub const SAMPLES_MAX: u32 = 65_536;
/// The most bounces of one path.
pub const BOUNCES_MAX: u32 = 64;

/// The size and quality of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderConfig {
    /// Pixels in a row, 1 to [`DIMENSION_MAX`].
    pub width: u32,
    /// Rows, 1 to [`DIMENSION_MAX`].
    pub height: u32,
    /// Paths for each pixel, 1 to [`SAMPLES_MAX`].
    pub samples: u32,
    /// Bounces after which a path ends, 1 to [`BOUNCES_MAX`].
    pub bounces_max: u32,
}

impl RenderConfig {
    /// The picture of the demo; its hash is [`EXPECTED_HASH`](crate::EXPECTED_HASH).
    pub const DEMO: Self = Self { width: 480, height: 270, samples: 64, bounces_max: 8 };

    /// Tells whether all numbers are within their bounds.
    ///
    /// # Errors
    /// The first number that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, value, max) in [
            ("width", self.width, DIMENSION_MAX),
            ("height", self.height, DIMENSION_MAX),
            ("samples", self.samples, SAMPLES_MAX),
            ("bounces", self.bounces_max, BOUNCES_MAX),
        ] {
            if value == 0 || value > max {
                return Err(ConfigError { name, value, max });
            }
        }
        Ok(())
    }
}

impl Default for RenderConfig {
    fn default() -> Self {
        Self::DEMO
    }
}

/// A number of a [`RenderConfig`] that is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigError {
    /// Which number.
    pub name: &'static str,
    /// What it is.
    pub value: u32,
    /// The most it may be; the least is 1.
    pub max: u32,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be 1 to {}, not {}", self.name, self.max, self.value)
    }
}

impl Error for ConfigError {}

/// A rectangle of a picture, in pixels from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Pixels to the left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Pixels in a row, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl Tile {
    /// The whole picture.
    pub const fn whole(config: &RenderConfig) -> Self {
        Self { x: 0, y: 0, width: config.width, height: config.height }
    }

    /// Whether it has pixels and all of them are in the picture.
    pub fn is_within(&self, config: &RenderConfig) -> bool {
        let fits = |start: u32, len: u32, max: u32| {
            len > 0 && start.checked_add(len).is_some_and(|end| end <= max)
        };
        fits(self.x, self.width, config.width) && fits(self.y, self.height, config.height)
    }

    /// The bytes of its pixels, three for each.
    pub(crate) fn rgb_len(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }
}

/// Cuts a picture into `n` bands of nearly the same height, from top to bottom; there are never more
/// bands than rows, and at least one.
pub fn tiles(config: &RenderConfig, n: u32) -> Vec<Tile> {
    let n = n.clamp(1, config.height.max(1));
    let mut bands = Vec::new();
    let (share, n_larger) = (config.height / n, config.height % n);
    let mut y = 0;
    for band in 0..n {
        let height = share + u32::from(band < n_larger);
        bands.push(Tile { x: 0, y, width: config.width, height });
        y += height;
    }
    bands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_the_picture_once() {
        let config = RenderConfig { height: 37, ..RenderConfig::DEMO };
        for n in 0..50 {
            let bands = tiles(&config, n);
            let mut y = 0;
            for band in &bands {
                assert!(band.is_within(&config) && band.y == y, "band {band:?} of {n}");
                y += band.height;
            }
            assert_eq!((y, bands.len()), (37, n.clamp(1, 37) as usize));
        }
    }

    #[test]
    fn bounds_are_checked() {
        assert_eq!(RenderConfig::DEMO.check(), Ok(()));
        let error = RenderConfig { samples: 0, ..RenderConfig::DEMO }.check().unwrap_err();
        assert_eq!(error.to_string(), "samples must be 1 to 65536, not 0");
        let outside = Tile { x: 0, y: u32::MAX, width: 1, height: 1 };
        assert!(!outside.is_within(&RenderConfig::DEMO));
    }
}
