//! Where the random numbers of a sample come from: its pixel, its index, and the question asked.
//!
//! The numbers are Sobol points in pairs, scrambled by hashes (Burley, "Practical hash-based Owen
//! scrambling", 2020). They fill the square evenly, so few samples give little noise, and they are
//! integers until the last multiplication, so they are the same on every machine.

use std::f64::consts::FRAC_PI_4;

/// 2 to the power -32: turns 32 random bits into a number in `0..1`.
const UNIT: f64 = 1.0 / 4_294_967_296.0;

/// A `SplitMix64` generator, for the layout of the scene.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// Starts the sequence that belongs to `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number in `0..1`.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        f64::from(upper(mixed(self.0))) * UNIT
    }
}

/// The numbers of one sample of one pixel, drawn in pairs.
#[derive(Debug)]
pub(crate) struct Sampler {
    pixel_seed: u64,
    sample: u32,
    n_drawn: u64,
}

impl Sampler {
    /// Starts the numbers of sample number `sample` of the pixel at `x`, `y`.
    pub(crate) fn new(x: u32, y: u32, sample: u32) -> Self {
        let position = (u64::from(y) << 32) | u64::from(x);
        Self { pixel_seed: mixed(position ^ 0x5745_4c4b_494e_0001), sample, n_drawn: 0 }
    }

    /// Two numbers in `0..1`.
    pub(crate) fn pair(&mut self) -> (f64, f64) {
        self.n_drawn += 1;
        let seeds = mixed(self.pixel_seed ^ self.n_drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let index = scrambled(self.sample.reverse_bits(), upper(seeds)).reverse_bits();
        let (first, second) = sobol(index);
        let more = mixed(seeds);
        let x = scrambled(first.reverse_bits(), lower(more)).reverse_bits();
        let y = scrambled(second.reverse_bits(), upper(more)).reverse_bits();
        (f64::from(x) * UNIT, f64::from(y) * UNIT)
    }

    /// A point in the disc of radius 1, evenly spread.
    pub(crate) fn disc(&mut self) -> (f64, f64) {
        let (u, v) = self.pair();
        let (a, b) = (2.0 * u - 1.0, 2.0 * v - 1.0);
        let (a_size, b_size) = (a.abs(), b.abs());
        if a_size <= 0.0 && b_size <= 0.0 {
            (0.0, 0.0)
        } else if a_size > b_size {
            let (sine, cosine) = sine_cosine(FRAC_PI_4 * (b / a));
            (a * cosine, a * sine)
        } else {
            let (sine, cosine) = sine_cosine(FRAC_PI_4 * (a / b));
            (b * sine, b * cosine)
        }
    }
}

/// Sine and cosine of an angle of at most an eighth turn, by their series: exact operations only.
fn sine_cosine(angle: f64) -> (f64, f64) {
    let s = angle * angle;
    let sine = angle
        * (1.0
            - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0 * (1.0 - s / 110.0)))));
    let cosine =
        1.0 - s / 2.0 * (1.0 - s / 12.0 * (1.0 - s / 30.0 * (1.0 - s / 56.0 * (1.0 - s / 90.0))));
    (sine, cosine)
}

/// The two first Sobol coordinates of a point, as fractions of 2 to the power 32.
///
/// The second matrix is Pascal's triangle modulo 2, a power of one small matrix, hence five steps.
fn sobol(index: u32) -> (u32, u32) {
    let first = index.reverse_bits();
    let mut second = first;
    for (shift, mask) in [
        (1, 0x5555_5555_u32),
        (2, 0x3333_3333),
        (4, 0x0f0f_0f0f),
        (8, 0x00ff_00ff),
        (16, 0x0000_ffff),
    ] {
        second ^= (second & mask) << shift;
    }
    (first, second)
}

/// Laine and Karras' hash: each bit is changed by the lower bits only. Given a number with its bits
/// reversed this is a nested uniform (Owen) scramble.
fn scrambled(mut bits: u32, seed: u32) -> u32 {
    bits = bits.wrapping_add(seed);
    bits ^= bits.wrapping_mul(0x6c50_b47c);
    bits ^= bits.wrapping_mul(0xb82f_1e52);
    bits ^= bits.wrapping_mul(0xc7af_e638);
    bits ^ bits.wrapping_mul(0x8d22_f6e6)
}

/// The finisher of `SplitMix64`.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

const fn upper(bits: u64) -> u32 {
    (bits >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn lower(bits: u64) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The textbook loop over direction numbers.
    fn sobol_second_slow(mut index: u32) -> u32 {
        let (mut result, mut direction) = (0, 1_u32 << 31);
        while index != 0 {
            if index & 1 == 1 {
                result ^= direction;
            }
            index >>= 1;
            direction ^= direction >> 1;
        }
        result
    }

    #[test]
    fn the_second_sobol_coordinate_follows_its_definition() {
        for index in (0..200).chain([0xffff_ffff, 0x8000_0000, 0xdead_beef]) {
            assert_eq!(sobol(index).1, sobol_second_slow(index), "index {index}");
        }
    }

    #[test]
    fn sixteen_samples_fill_sixteen_cells() {
        let mut seen = [false; 16];
        for sample in 0..16 {
            let (x, y) = Sampler::new(3, 5, sample).pair();
            let row = (0..4).filter(|&i| y >= f64::from(i + 1) / 4.0).count();
            let column = (0..4).filter(|&i| x >= f64::from(i + 1) / 4.0).count();
            seen[row * 4 + column] = true;
        }
        assert_eq!(seen, [true; 16]);
    }

    #[test]
    fn the_series_agree_with_the_library() {
        for step in -100..=100 {
            let angle = f64::from(step) / 100.0 * FRAC_PI_4;
            let (sine, cosine) = sine_cosine(angle);
            assert!((sine - angle.sin()).abs() < 1e-9, "sine of {angle}");
            assert!((cosine - angle.cos()).abs() < 1e-9, "cosine of {angle}");
        }
    }
}
