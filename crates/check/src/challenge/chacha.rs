//! ChaCha's core (RFC 8439, 2.3) with any number of double rounds: additions, exclusive-ors and
//! rotations of 32-bit words, which every GPU does alike.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng as _};

const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The words of a key.
pub(crate) fn key(seed: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(seed.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// One block of 16 words.
pub(crate) fn block(key: &[u32; 8], tail: [u32; 4], double_rounds: u32) -> [u32; 16] {
    let mut initial = [0; 16];
    initial[..4].copy_from_slice(&CONSTANTS);
    initial[4..12].copy_from_slice(key);
    initial[12..].copy_from_slice(&tail);
    let mut x = initial;
    for _ in 0..double_rounds {
        quarter(&mut x, [0, 4, 8, 12]);
        quarter(&mut x, [1, 5, 9, 13]);
        quarter(&mut x, [2, 6, 10, 14]);
        quarter(&mut x, [3, 7, 11, 15]);
        quarter(&mut x, [0, 5, 10, 15]);
        quarter(&mut x, [1, 6, 11, 12]);
        quarter(&mut x, [2, 7, 8, 13]);
        quarter(&mut x, [3, 4, 9, 14]);
    }
    for (word, first) in x.iter_mut().zip(initial) {
        *word = word.wrapping_add(first);
    }
    x
}

/// ChaCha's stream with eight rounds, from block 0 on: the bytes of each [`block`] with the tail
/// `[number, 0, nonce[0], nonce[1]]`. Many blocks are made at once, as the processor allows.
pub(crate) fn stream(seed: &[u8; 32], nonce: [u32; 2]) -> impl Rng + use<> {
    let mut stream = ChaCha8Rng::from_seed(*seed);
    stream.set_stream(u64::from(nonce[0]) | u64::from(nonce[1]) << 32);
    stream
}

#[inline(always)]
fn quarter(x: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_its_blocks_one_after_the_other() {
        let seed = [0x5a; 32];
        for length in [0, 1, 63, 64, 65, 1_000, 5_000] {
            let mut bytes = vec![0; length];
            stream(&seed, [7, u32::MAX]).fill_bytes(&mut bytes);
            let numbers = (0_u32..).take(length.div_ceil(64));
            let words = numbers.flat_map(|number| block(&key(&seed), [number, 0, 7, u32::MAX], 4));
            let blocks: Vec<u8> = words.flat_map(u32::to_le_bytes).take(length).collect();
            assert_eq!(bytes, blocks);
        }
    }

    /// RFC 8439, 2.3.2.
    #[test]
    fn the_block_is_that_of_the_rfc() {
        let mut seed = [0; 32];
        seed.iter_mut().zip(0_u8..).for_each(|(byte, value)| *byte = value);
        let tail = [1, 0x0900_0000, 0x4a00_0000, 0];
        let words = block(&key(&seed), tail, 10);
        assert_eq!(words[..4], [0xe4e7_f110, 0x1559_3bd1, 0x1fdd_0f50, 0xc471_20a3]);
        assert_eq!(words[12..], [0xd19c_12b5, 0xb94e_16de, 0xe883_d0cb, 0x4e3c_50a2]);
    }
}
