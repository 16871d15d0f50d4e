//! A checksum for what an indexer writes for itself: it finds torn and decayed bytes, and is no
//! signature.

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The checksum of bytes that follow those of which `before` is the checksum; 0 for none. Four lanes
/// that do not wait for each other, each step of which can be undone, so that no change of one word
/// is missed.
pub(crate) fn sum_of(before: u64, bytes: &[u8]) -> u64 {
    let mut lanes = [1, 2, 3, 4_u64].map(|lane| lane.wrapping_mul(ODD) ^ before);
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let sum = rest.iter().fold(bytes.len() as u64, |sum, byte| step(sum, u64::from(*byte)));
    lanes.into_iter().fold(sum, step)
}

const fn step(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(ODD).rotate_left(29)
}
