//! Chances of a day: waiting times, lengths and ranks, in integers only, so that every machine draws
//! the same.

use welkin_match::synth::Chance;

/// One, where a number has 16 binary places.
pub(super) const ONE: u64 = 1 << 16;
/// The logarithm of e to the base 2, with 16 binary places.
const LOG2_E: i64 = 94_548;
/// The natural logarithm of 2, with 16 binary places.
const LN_2: u64 = 45_426;
/// The mean of [`Draw::log_normal`] over its median, with 16 binary places: e to the power ½.
pub(super) const MEAN_OVER_MEDIAN: u64 = 108_051;
/// The longest that is drawn, in medians.
const LONGEST: u64 = 24;

/// A seeded stream of chances.
#[derive(Clone, Debug)]
pub(super) struct Draw(Chance);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(Chance::new(seed))
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0.word()
    }

    /// A number below `most`, or 0.
    pub(super) fn below(&mut self, most: u32) -> u32 {
        self.0.below(most)
    }

    /// A number from `low` to below `high`.
    pub(super) fn within(&mut self, low: u64, high: u64) -> u64 {
        let wide = u128::from(self.0.word()) * u128::from(high.saturating_sub(low));
        low + u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// True in so many of a thousand cases.
    pub(super) fn permille(&mut self, of_thousand: u32) -> bool {
        self.below(1_000) < of_thousand
    }

    /// The wait for something that happens every `mean` on average, whatever happened before.
    pub(super) fn exponential(&mut self, mean: u64) -> u64 {
        let even = (self.0.word() >> 33) + 1;
        let halvings = (31 << 16) - log2(even);
        scale(mean, halvings * LN_2 / ONE)
    }

    /// A length of which half are below `median`, and whose logarithm spreads by one.
    pub(super) fn log_normal(&mut self, median: u64) -> u64 {
        let mut sum = 0;
        for _ in 0..3 {
            let word = self.0.word();
            sum += [0, 16, 32, 48].map(|shift| word >> shift & 0xffff).iter().sum::<u64>();
        }
        // Twelve even numbers: their spread is one, their mean six.
        let normal = sum.cast_signed() - (6 << 16);
        scale(median, exp2((normal * LOG2_E) >> 16)).min(median * LONGEST)
    }

    /// A number below `most`, small ones more often: the n-th about 1/n times as often as the first.
    pub(super) fn rank(&mut self, most: u32) -> u32 {
        let even = self.0.word() >> 48;
        let power = exp2((log2(u64::from(most.max(1))) * even / ONE).cast_signed());
        u32::try_from(power / ONE).unwrap_or(1).clamp(1, most.max(1)) - 1
    }
}

/// `number` times a factor with 16 binary places.
pub(super) fn scale(number: u64, factor: u64) -> u64 {
    u64::try_from((u128::from(number) * u128::from(factor)) >> 16).unwrap_or(u64::MAX)
}

/// The logarithm to the base 2 of a number from 1 to 2^32, with 16 binary places.
fn log2(number: u64) -> u64 {
    let whole = u64::from(number.max(1).ilog2());
    let mut mantissa = if whole > 31 { number >> (whole - 31) } else { number << (31 - whole) };
    let mut places = 0;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        places <<= 1;
        if mantissa >> 32 != 0 {
            mantissa >>= 1;
            places |= 1;
        }
    }
    whole << 16 | places
}

/// Two to the power of a number with 16 binary places, with as many; from 2^-16 to 2^40.
fn exp2(power: i64) -> u64 {
    let power = power.clamp(-(16 << 16), 40 << 16);
    let (whole, places) = (power >> 16, power & 0xffff);
    let mut value = 1_u64 << 31;
    for (bit, root) in ROOTS.iter().enumerate() {
        if places >> (15 - bit) & 1 == 1 {
            value = (value * root) >> 31;
        }
    }
    let value = u128::from(value) << 40;
    u64::try_from(value >> (55 - whole)).unwrap_or(u64::MAX)
}

/// Two to the powers ½, ¼ and so on, with 31 binary places.
const ROOTS: [u64; 16] = roots();

const fn roots() -> [u64; 16] {
    let (mut all, mut last, mut at) = ([0; 16], 2_u64 << 31, 0);
    while at < 16 {
        last = (last << 31).isqrt();
        all[at] = last;
        at += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_logarithms_undo_each_other() {
        for number in [1, 2, 3, 10, 1_000, 65_537, u64::from(u32::MAX)] {
            let back = exp2(log2(number).cast_signed()) / ONE;
            assert!(back.abs_diff(number) <= 1 + number / 5_000, "{number} {back}");
        }
        assert_eq!(exp2(-(1 << 16)), ONE / 2);
        assert_eq!(scale(1_000, exp2(LOG2_E)), 2_718);
    }

    #[test]
    fn draws_are_as_they_say() {
        let mut draw = Draw::new(1);
        let mean = (0..100_000).map(|_| draw.exponential(1_000)).sum::<u64>() / 100_000;
        assert!((980..1_020).contains(&mean), "{mean}");
        let mut lengths: Vec<_> = (0..100_000).map(|_| draw.log_normal(1_000)).collect();
        lengths.sort_unstable();
        assert!((980..1_020).contains(&lengths[50_000]), "{}", lengths[50_000]);
        let mean = lengths.iter().sum::<u64>() / 100_000;
        let expected = scale(1_000, MEAN_OVER_MEDIAN);
        assert!(mean.abs_diff(expected) < expected / 50, "{mean}");
        let first = (0..100_000).filter(|_| draw.rank(1_000) == 0).count();
        assert!((9_000..11_500).contains(&first), "{first}");
        assert!((0..10_000).all(|_| (5..9).contains(&draw.within(5, 9)) && draw.rank(7) < 7));
    }
}
