//! The bytes of a rendered tile.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | `WELKTILE` |
//! | 8 | 2 | version, 1 |
//! | 10 | 16 | picture: width, height, samples, bounces |
//! | 26 | 16 | tile: x, y, width, height |
//! | 42 | 4 | bytes of pixels, `width * height * 3` |
//! | 46 | n | pixels, row by row: red, green, blue |
//! | 46 + n | 32 | SHA-256 of all before |
//!
//! *Invariant: one form.* A tile has one encoding, and only that one decodes, so the hash of the
//! bytes may stand for the tile. Nothing is reserved before the length was checked.

use crate::config::{ConfigError, DIMENSION_MAX, RenderConfig, Tile};
use crate::render::TileImage;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt;

const MAGIC: &[u8; 8] = b"WELKTILE";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 46;
const CHECKSUM_LEN: usize = 32;

/// The longest encoding: a whole picture of the largest size.
pub const TILE_BYTES_MAX: usize =
    HEADER_LEN + DIMENSION_MAX as usize * DIMENSION_MAX as usize * 3 + CHECKSUM_LEN;

/// Writes a tile as bytes.
pub fn encode_tile(image: &TileImage) -> Vec<u8> {
    let TileImage { config, tile, rgb } = image;
    let mut bytes = Vec::with_capacity(HEADER_LEN + rgb.len() + CHECKSUM_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let rgb_len = u32::try_from(rgb.len()).unwrap_or(u32::MAX);
    for number in [
        config.width,
        config.height,
        config.samples,
        config.bounces_max,
        tile.x,
        tile.y,
        tile.width,
        tile.height,
        rgb_len,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(rgb);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Reads a tile from bytes that anyone may have written.
///
/// # Errors
/// When the bytes are not exactly what [`encode_tile`] makes of a tile within its picture.
pub fn decode_tile(bytes: &[u8]) -> Result<TileImage, CodecError> {
    let mut rest = bytes;
    if take::<8>(&mut rest)? != *MAGIC {
        return Err(CodecError::Magic);
    }
    let version = u16::from_le_bytes(take(&mut rest)?);
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let mut number = || take(&mut rest).map(u32::from_le_bytes);
    let config = RenderConfig {
        width: number()?,
        height: number()?,
        samples: number()?,
        bounces_max: number()?,
    };
    let tile = Tile { x: number()?, y: number()?, width: number()?, height: number()? };
    let rgb_len = number()? as usize;
    config.check().map_err(CodecError::Config)?;
    if !tile.is_within(&config) {
        return Err(CodecError::Outside(tile));
    }
    if rgb_len != tile.rgb_len() {
        return Err(CodecError::PixelBytes { told: rgb_len, expected: tile.rgb_len() });
    }
    let expected = HEADER_LEN + rgb_len + CHECKSUM_LEN;
    if bytes.len() != expected {
        return Err(CodecError::Length { found: bytes.len(), expected });
    }
    let (covered, checksum) = bytes.split_at(HEADER_LEN + rgb_len);
    if Sha256::digest(covered).as_slice() != checksum {
        return Err(CodecError::Checksum);
    }
    Ok(TileImage { config, tile, rgb: covered[HEADER_LEN..].to_vec() })
}

/// Why bytes are not a tile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// They do not begin with the mark of a tile.
    Magic,
    /// They end within the header.
    Truncated,
    /// They are of another version of the format.
    Version(u16),
    /// The picture is of an impossible size or quality.
    Config(ConfigError),
    /// The tile is empty or not within its picture.
    Outside(Tile),
    /// The header tells another number of pixel bytes than its size needs.
    PixelBytes {
        /// What the header tells.
        told: usize,
        /// What the size of the tile needs.
        expected: usize,
    },
    /// There are more or fewer bytes than the header tells.
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Some byte was changed on the way.
    Checksum,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "this is not a rendered tile"),
            Self::Truncated => write!(f, "the tile ends within its header"),
            Self::Version(version) => {
                write!(f, "the tile has version {version} of the format, not {VERSION}")
            }
            Self::Config(_) => write!(f, "the tile is of an impossible picture"),
            Self::Outside(tile) => {
                let Tile { x, y, width, height } = tile;
                write!(f, "the tile of {width}x{height} pixels at {x},{y} is not in its picture")
            }
            Self::PixelBytes { told, expected } => {
                write!(f, "the tile tells of {told} bytes of pixels, its size needs {expected}")
            }
            Self::Length { found, expected } => {
                write!(f, "the tile has {found} bytes instead of {expected}")
            }
            Self::Checksum => write!(f, "the checksum of the tile is wrong"),
        }
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Magic
            | Self::Truncated
            | Self::Version(_)
            | Self::Outside(_)
            | Self::PixelBytes { .. }
            | Self::Length { .. }
            | Self::Checksum => None,
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (head, tail) = rest.split_first_chunk().ok_or(CodecError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image() -> TileImage {
        let config = RenderConfig { width: 7, height: 9, samples: 2, bounces_max: 3 };
        let tile = Tile { x: 1, y: 2, width: 5, height: 4 };
        TileImage { config, tile, rgb: (0..60).collect() }
    }

    /// Changes the header number at `offset` and makes the checksum right again.
    fn forged(offset: usize, number: u32) -> Vec<u8> {
        let mut bytes = encode_tile(&image());
        bytes[offset..offset + 4].copy_from_slice(&number.to_le_bytes());
        let end = bytes.len() - CHECKSUM_LEN;
        let checksum = Sha256::digest(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn a_tile_comes_back() {
        assert_eq!(decode_tile(&encode_tile(&image())), Ok(image()));
    }

    #[test]
    fn every_shorter_piece_is_refused() {
        let bytes = encode_tile(&image());
        for len in 0..bytes.len() {
            assert!(decode_tile(&bytes[..len]).is_err(), "{len} bytes were taken for a tile");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode_tile(&longer), Err(CodecError::Length { found: 139, expected: 138 }));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let bytes = encode_tile(&image());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_tile(&changed).is_err(), "bit {bit} may be changed");
        }
    }

    #[test]
    fn a_lie_with_a_right_checksum_is_refused() {
        let error = |offset, number| decode_tile(&forged(offset, number)).unwrap_err();
        assert!(matches!(error(10, 0), CodecError::Config(_)));
        assert!(matches!(error(14, u32::MAX), CodecError::Config(_)));
        assert!(matches!(error(26, u32::MAX), CodecError::Outside(_)));
        assert!(matches!(error(38, 0), CodecError::Outside(_)));
        assert!(matches!(error(38, 5), CodecError::PixelBytes { told: 60, expected: 75 }));
        assert!(matches!(error(42, u32::MAX), CodecError::PixelBytes { .. }));
    }

    proptest! {
        #[test]
        fn garbage_is_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), marked: bool) {
            if marked && bytes.len() >= 10 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
            }
            prop_assert!(decode_tile(&bytes).is_err());
        }
    }
}
