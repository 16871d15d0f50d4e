//! A whole picture: joined from tiles, hashed, written as PNG.

use crate::config::{ConfigError, RenderConfig, Tile};
use crate::hex::to_hex;
use crate::render::TileImage;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt;

/// The [`Picture::hash`] of [`RenderConfig::DEMO`], in hexadecimal digits.
pub const EXPECTED_HASH: &str = "353bf30ae5d8f4c3fc229620d7088ae2323fee7d7dcefd87f0a2e04259f198c6";

/// A whole picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

/// Puts the tiles of a picture together, in whatever order they come.
///
/// # Errors
/// When a tile is of another picture, or the tiles do not cover each pixel exactly once.
pub fn join(config: &RenderConfig, images: &[TileImage]) -> Result<Picture, JoinError> {
    config.check().map_err(JoinError::Config)?;
    let whole = Tile::whole(config);
    let mut is_covered = vec![false; whole.rgb_len() / 3];
    let mut rgb = vec![0; whole.rgb_len()];
    for TileImage { config: tile_config, tile, rgb: tile_rgb } in images {
        if tile_config != config {
            return Err(JoinError::OtherPicture(*tile));
        }
        if !tile.is_within(config) || tile_rgb.len() != tile.rgb_len() {
            return Err(JoinError::BadTile(*tile));
        }
        let row_len = tile.width as usize;
        for (row, pixels) in tile_rgb.chunks_exact(row_len * 3).enumerate() {
            let start = (tile.y as usize + row) * config.width as usize + tile.x as usize;
            let covered = &mut is_covered[start..start + row_len];
            if covered.contains(&true) {
                return Err(JoinError::Overlap(*tile));
            }
            covered.fill(true);
            rgb[start * 3..(start + row_len) * 3].copy_from_slice(pixels);
        }
    }
    let width = config.width as usize;
    match is_covered.chunks_exact(width).position(|row| row.contains(&false)) {
        Some(row) => Err(JoinError::Missing { row }),
        None => Ok(Picture { width: config.width, height: config.height, rgb }),
    }
}

impl Picture {
    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of each pixel, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// SHA-256 of width, height (little-endian, 4 bytes each) and the pixels.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.width.to_le_bytes());
        hasher.update(self.height.to_le_bytes());
        hasher.update(&self.rgb);
        hasher.finalize().into()
    }

    /// [`Picture::hash`] in hexadecimal digits.
    pub fn hash_hex(&self) -> String {
        to_hex(&self.hash())
    }

    /// The bytes of a PNG file.
    ///
    /// # Panics
    /// Never: a picture has pixels, the number of bytes that they need, and memory takes them all.
    #[expect(clippy::expect_used, reason = "writing a whole picture to memory cannot fail")]
    pub fn to_png(&self) -> Vec<u8> {
        self.write_png().expect("a picture has a size and all of its pixels")
    }

    fn write_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        encoder.set_filter(png::Filter::Adaptive);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{}, {})", self.width, self.height, self.hash_hex())
    }
}

/// Why tiles do not make a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// The picture is of an impossible size or quality.
    Config(ConfigError),
    /// This tile is of a picture of another size or quality.
    OtherPicture(Tile),
    /// This tile is not within the picture or has the wrong number of bytes.
    BadTile(Tile),
    /// This tile covers pixels that an earlier one covers.
    Overlap(Tile),
    /// No tile covers all of this row, the first such.
    Missing {
        /// Rows above it.
        row: usize,
    },
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tile, problem) = match self {
            Self::Config(_) => return write!(f, "there is no such picture"),
            Self::Missing { row } => return write!(f, "no tile covers all of row {row}"),
            Self::OtherPicture(tile) => (tile, "is of another picture"),
            Self::BadTile(tile) => (tile, "is not a part of the picture"),
            Self::Overlap(tile) => (tile, "covers pixels of an earlier tile"),
        };
        let Tile { x, y, width, height } = tile;
        write!(f, "the tile of {width}x{height} pixels at {x},{y} {problem}")
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::OtherPicture(_) | Self::BadTile(_) | Self::Overlap(_) | Self::Missing { .. } => {
                None
            }
        }
    }
}
