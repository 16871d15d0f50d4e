//! What network and disk of a host do, so that it can't be said without doing it.
//!
//! What is sent is a chain of blocks, each of which follows from all before it; so is what a disk
//! keeps. Reads follow a chain, too: where the next one is, the last one tells. Who has kept 32 bytes
//! of each block ([`Chain::end`]) can make it again instead of reading it: that a disk was read is
//! not shown by it, only that somebody has done the work of one in that time.

use chacha20::rand_core::Rng as _;
use sha2::{Digest as _, Sha256};

use crate::challenge::chacha;
use crate::way::without_way;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64 << 10;
const DAY_US: u64 = 86_400_000_000;
const MARK: u32 = 0x7769_7265;

/// A chain of blocks that follows from a seed.
///
/// ```
/// use welkin_check::site::Chain;
/// let mut chain = Chain::new(&[1; 32]);
/// assert_eq!(chain.block().len(), welkin_check::site::BLOCK_BYTES);
/// let after_one = chain.end();
/// chain.block();
/// assert_ne!(chain.end(), after_one);
/// ```
#[derive(Clone, Debug)]
pub struct Chain {
    key: [u8; 32],
}

impl Chain {
    /// A chain of which no block was made.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self { key: hash(&[b"welkin/site/chain/1\0", seed]) }
    }

    /// The next block.
    pub fn block(&mut self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        chacha::stream(&self.key, [MARK, 0]).fill_bytes(&mut block);
        self.key = hash(&[&self.key, &block]);
        block
    }

    /// What only who has all blocks so far knows.
    pub const fn end(&self) -> [u8; 32] {
        self.key
    }

    /// The chain that goes on from another's [`Self::end`]: with the ends of all, any block can be made
    /// again by itself.
    pub const fn from_end(end: [u8; 32]) -> Self {
        Self { key: end }
    }
}

/// Reads so many of `blocks`, one after the other, the first by a nonce, and says what was read.
///
/// # Errors
///
/// What `read` fails with.
pub fn read_chain<E>(
    nonce: &[u8; 32],
    blocks: u32,
    steps: u32,
    mut read: impl FnMut(u32) -> Result<Vec<u8>, E>,
) -> Result<[u8; 32], E> {
    let mut seen = hash(&[b"welkin/site/read/1\0", nonce]);
    for _ in 0..steps {
        let word = u32::from_le_bytes([seen[0], seen[1], seen[2], seen[3]]);
        let place = (u64::from(word) * u64::from(blocks)) >> 32;
        seen = hash(&[&seen, &read(u32::try_from(place).unwrap_or(0))?]);
    }
    Ok(seen)
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// A rate in KiB a second, with the least way subtracted: at most a quarter of the time, so that who
/// answers pings late gains little.
///
/// ```
/// use welkin_check::site::kib_per_s;
/// assert_eq!(kib_per_s(1 << 20, 1_000_000, 0), 1_024);
/// assert_eq!(kib_per_s(1 << 20, 1_000_000, 100_000), 1_137);
/// assert_eq!(kib_per_s(1 << 20, 1_000_000, u64::MAX), 1_365);
/// ```
pub fn kib_per_s(bytes: u64, took_us: u64, way_us: u64) -> u32 {
    let took = without_way(took_us, way_us).max(1);
    u32::try_from((bytes.saturating_mul(1_000_000) / took) >> 10).unwrap_or(u32::MAX)
}

/// So many bytes a day, earned as time goes by, and a day's in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    bytes_a_day: u64,
    /// What is left, in bytes times microseconds of a day.
    left: u128,
    now_us: u64,
}

impl Allowance {
    /// With a day's in advance.
    pub fn new(bytes_a_day: u64) -> Self {
        Self { bytes_a_day, left: u128::from(bytes_a_day) * u128::from(DAY_US), now_us: 0 }
    }

    /// Takes so many bytes, if they are left. A time before the last one is taken as the last one.
    pub fn take(&mut self, now_us: u64, bytes: u64) -> bool {
        let passed = now_us.saturating_sub(self.now_us);
        self.now_us = self.now_us.max(now_us);
        let most = u128::from(self.bytes_a_day) * u128::from(DAY_US);
        let grown = u128::from(passed) * u128::from(self.bytes_a_day);
        self.left = (self.left + grown).min(most);
        let wanted = u128::from(bytes) * u128::from(DAY_US);
        let is_left = wanted <= self.left;
        if is_left {
            self.left -= wanted;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever asks, and however often: no more than a day's and what time has earned.
        #[test]
        fn no_more_than_the_allowance_is_spent(
            asks in prop::collection::vec((0..DAY_US / 8, 0..2_000_u64), 1..200),
        ) {
            let mut allowance = Allowance::new(1_000);
            let (mut now, mut spent) = (0, 0);
            for (pause, bytes) in asks {
                now += pause;
                spent += if allowance.take(now, bytes) { bytes } else { 0 };
                prop_assert!(u128::from(spent) <= 1_000 + u128::from(now) * 1_000 / u128::from(DAY_US));
            }
        }
    }

    #[test]
    fn reads_are_those_of_the_chain_and_of_nothing_else() {
        let mut chain = Chain::new(&[7; 32]);
        let blocks: Vec<_> = (0..8).map(|_| chain.block()).collect();
        let read = |place: u32| Ok::<_, ()>(blocks[usize::try_from(place).unwrap()].clone());
        let seen = read_chain(&[1; 32], 8, 20, read).unwrap();
        assert_eq!(read_chain(&[1; 32], 8, 20, read).unwrap(), seen);
        assert_ne!(read_chain(&[2; 32], 8, 20, read).unwrap(), seen);
        let forged = |_| Ok::<_, ()>(vec![0; BLOCK_BYTES]);
        assert_ne!(read_chain(&[1; 32], 8, 20, forged).unwrap(), seen);
        assert_eq!(read_chain(&[1; 32], 8, 20, |_| Err("no disk")), Err("no disk"));
        let mut chain = Chain::new(&[7; 32]);
        for block in &blocks {
            let end = chain.end();
            chain.block();
            assert!(Chain::from_end(end).block() == *block);
        }
        let mut visits = [0; 8];
        let counted = |place: u32| {
            visits[usize::try_from(place).unwrap()] += 1;
            read(place)
        };
        read_chain(&[1; 32], 8, 400, counted).unwrap();
        assert!(visits.iter().all(|count| *count > 20), "{visits:?}");
    }
}
