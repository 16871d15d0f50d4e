//! Blocks of bytes on a disk: what was written whole is read, and where it is torn reading ends.
//!
//! A block is "wkf1", its kind, its layout's version, two bytes that are 0, its length (4 bytes,
//! little-endian, as all numbers), when it was written (8), a checksum of all that (8), and a body.
//! The checksum finds what a crash or a disk does to a file; it is no signature, for the file is the
//! indexer's own.

use welkin_types::UnixMillis;

use crate::checksum::sum_of;

const MAGIC: [u8; 4] = *b"wkf1";
/// Rises when what hosts announce is encoded otherwise, or a body.
const VERSION: u8 = 2;
/// So much of the head is in the checksum.
const SUMMED_BYTES: usize = 20;
/// The longest body.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hosts,
    Left,
    Scores,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Hosts, Self::Left, Self::Scores];

    const fn number(self) -> u8 {
        match self {
            Self::Hosts => 1,
            Self::Left => 2,
            Self::Scores => 3,
        }
    }
}

/// A block as it was read: whole, by its checksum.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub(super) kind: Kind,
    pub(super) body: &'a [u8],
    /// When it was written.
    pub at: UnixMillis,
}

/// What stands before a block's body.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    kind: Kind,
    at: UnixMillis,
    length: usize,
    /// The checksum of what stands here, and of everything.
    begun: u64,
    sum: u64,
}

/// Why reading ends before the end of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Not such a block, or of another version.
    #[error("what stands there is no block of this version")]
    Alien,
    /// Cut off.
    #[error("the last block is not whole")]
    Torn,
    /// Altered.
    #[error("a block's checksum is wrong")]
    Sum,
}

impl Head {
    /// How long it is.
    pub const BYTES: usize = 28;

    /// Reads what stands before a body.
    ///
    /// # Errors
    ///
    /// [`BlockError::Alien`] where it is of no such block.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, BlockError> {
        let mut head = Reader(bytes);
        let begin = head.take::<8>().ok_or(BlockError::Torn)?;
        let [m0, m1, m2, m3, kind, VERSION, 0, 0] = begin else { return Err(BlockError::Alien) };
        let kind = Kind::ALL.into_iter().find(|known| known.number() == kind);
        let kind = kind.filter(|_| [m0, m1, m2, m3] == MAGIC).ok_or(BlockError::Alien)?;
        let length = head.u32().ok_or(BlockError::Torn)? as usize;
        let at = UnixMillis(head.u64().ok_or(BlockError::Torn)?);
        let sum = head.u64().ok_or(BlockError::Torn)?;
        if length > BODY_BYTES_MAX {
            return Err(BlockError::Alien);
        }
        Ok(Self { kind, at, length, begun: sum_of(0, &bytes[..SUMMED_BYTES]), sum })
    }

    /// How long the body is.
    pub const fn body_bytes(&self) -> usize {
        self.length
    }

    /// The block with its body.
    ///
    /// # Errors
    ///
    /// [`BlockError`] where the body is another.
    pub fn with(self, body: &[u8]) -> Result<Block<'_>, BlockError> {
        if body.len() != self.length {
            return Err(BlockError::Torn);
        }
        if self.sum != sum_of(self.begun, body) {
            return Err(BlockError::Sum);
        }
        Ok(Block { kind: self.kind, body, at: self.at })
    }
}

impl<'a> Block<'a> {
    /// Whether it holds hosts, not what is read when there is time.
    pub fn has_hosts(&self) -> bool {
        self.kind == Kind::Hosts
    }

    /// Splits the first block off.
    ///
    /// # Errors
    ///
    /// [`BlockError`] where there is no whole one.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BlockError> {
        let (head, rest) = bytes.split_first_chunk().ok_or(BlockError::Torn)?;
        let head = Head::parse(head)?;
        let (body, rest) = rest.split_at_checked(head.length).ok_or(BlockError::Torn)?;
        Ok((head.with(body)?, rest))
    }
}

/// Appends a block.
pub(super) fn append(out: &mut Vec<u8>, kind: Kind, now: UnixMillis, body: &[u8]) {
    let begin = out.len();
    out.reserve(Head::BYTES + body.len());
    out.extend(MAGIC);
    out.extend([kind.number(), VERSION, 0, 0]);
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(now.0.to_le_bytes());
    let sum = sum_of(sum_of(0, &out[begin..]), body);
    out.extend(sum.to_le_bytes());
    out.extend_from_slice(body);
}

/// Reads numbers one after the other.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// So many bytes, whose number stands before them.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Appends bytes with their number before them.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}
