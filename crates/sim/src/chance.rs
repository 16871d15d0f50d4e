//! The world's one source of chance: a seeded stream of numbers (`SplitMix64`).

/// A seeded stream.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from `low` to below `high`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.word() % (high - low)
    }

    /// Whether something of a probability of `percent` happens.
    pub(crate) const fn happens(&mut self, percent: u64) -> bool {
        self.word() % 100 < percent
    }

    /// An index below `count`; 0 if there is none.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(1).max(1);
        usize::try_from(self.word() % count).unwrap_or(0)
    }

    /// Sixteen bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.word().to_be_bytes());
        bytes[8..].copy_from_slice(&self.word().to_be_bytes());
        bytes
    }
}
