//! Powers and logarithms of two in integers, the same on every machine. Numbers are in 2⁻³².

/// One.
pub(super) const Q32: u64 = 1 << 32;

/// 2^(−2⁻ⁱ) for i from 1 to 32, rounded.
const ROOTS: [u64; 32] = [
    3_037_000_500,
    3_611_622_603,
    3_938_502_376,
    4_112_874_773,
    4_202_935_003,
    4_248_701_965,
    4_271_771_996,
    4_283_353_945,
    4_289_156_690,
    4_292_061_010,
    4_293_513_907,
    4_294_240_540,
    4_294_603_903,
    4_294_785_595,
    4_294_876_445,
    4_294_921_870,
    4_294_944_583,
    4_294_955_939,
    4_294_961_618,
    4_294_964_457,
    4_294_965_876,
    4_294_966_586,
    4_294_966_941,
    4_294_967_119,
    4_294_967_207,
    4_294_967_252,
    4_294_967_274,
    4_294_967_285,
    4_294_967_290,
    4_294_967_293,
    4_294_967_295,
    4_294_967_295,
];

/// The product of two, rounded.
pub(super) fn times(a: u64, b: u64) -> u64 {
    round(u128::from(a) * u128::from(b))
}

/// A number in 2⁻⁶⁴ (or an integer times one in 2⁻³²), rounded to 2⁻³² (or to an integer).
pub(super) fn round(product: u128) -> u64 {
    u64::try_from((product + (1 << 31)) >> 32).unwrap_or(u64::MAX)
}

/// 2^(−x).
pub(super) fn power_of_half(x: u64) -> u64 {
    let whole = u32::try_from(x >> 32).unwrap_or(u32::MAX);
    if whole > 33 {
        return 0;
    }
    let bits = x & (Q32 - 1);
    let mut power = Q32;
    for (place, root) in (1..=32_u32).zip(ROOTS) {
        if bits >> (32 - place) & 1 == 1 {
            power = times(power, root);
        }
    }
    power.checked_shr(whole).unwrap_or(0)
}

/// 2^(−t) for t half-lives.
pub(super) fn half_lives(seconds: u64, half_life: u64) -> u64 {
    let x = (u128::from(seconds) << 32) / u128::from(half_life.max(1));
    power_of_half(u64::try_from(x).unwrap_or(u64::MAX))
}

/// −log₂ x for x above 0 and at most one; of nothing as of the least number.
pub(super) fn minus_log2(x: u64) -> u64 {
    let x = x.clamp(1, Q32);
    // x = 2^(−whole) · m with m from 1 up to 2.
    let whole = x.leading_zeros() - Q32.leading_zeros();
    let mut m = u128::from(x) << whole;
    let mut log = 0_u64;
    for place in 1..=32_u32 {
        m = (m * m) >> 32;
        if m >= 2 << 32 {
            m >>= 1;
            log |= 1 << (32 - place);
        }
    }
    (u64::from(whole) << 32) - log
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn powers_and_logarithms_undo_each_other(x in 1_000_000..=Q32) {
            let back = power_of_half(minus_log2(x));
            prop_assert!(back.abs_diff(x) <= 64, "{back} {x}");
        }

        #[test]
        fn powers_multiply(a in 0..8 * Q32, b in 0..8 * Q32) {
            let both = power_of_half(a + b);
            prop_assert!(both.abs_diff(times(power_of_half(a), power_of_half(b))) <= 64);
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(power_of_half(0), Q32);
        assert_eq!(power_of_half(Q32), Q32 / 2);
        assert_eq!(power_of_half(40 * Q32), 0);
        assert_eq!(power_of_half(Q32 / 2), 3_037_000_500);
        assert_eq!(minus_log2(Q32), 0);
        assert_eq!(minus_log2(Q32 / 8), 3 * Q32);
        assert_eq!(half_lives(7, 7), Q32 / 2);
    }
}
