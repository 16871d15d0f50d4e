//! What evidence is worth: shares, evidence that ages, and what of it is certain.
//!
//! The checkers' evaluation of containers and the buyers' of indexers count by the same rules. All
//! of it is in integers, so that every machine agrees.

mod fixed;

use std::fmt;

use fixed::{Q32, half_lives, minus_log2, power_of_half};

/// A share in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ppm(u32);

impl Ppm {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// All.
    pub const ONE: Self = Self(1_000_000);

    /// So many parts per million, at most all.
    pub const fn new(ppm: u32) -> Self {
        if ppm > 1_000_000 { Self::ONE } else { Self(ppm) }
    }

    /// `part` of `whole`, rounded down; nothing of nothing.
    pub fn of(part: u64, whole: u64) -> Self {
        let ppm = (u128::from(part) * 1_000_000).checked_div(u128::from(whole)).unwrap_or(0);
        Self::new(u32::try_from(ppm).unwrap_or(u32::MAX))
    }

    /// The number.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// The same in basis points, rounded down.
    pub fn basis_points(self) -> u16 {
        u16::try_from(self.0 / 100).unwrap_or(10_000)
    }

    fn to_q32(self) -> u64 {
        u64::from(self.0) * Q32 / 1_000_000
    }

    fn from_q32(q32: u64) -> Self {
        let ppm = u128::from(q32) * 1_000_000 + u128::from(Q32 / 2);
        Self::new(u32::try_from(ppm / u128::from(Q32)).unwrap_or(u32::MAX))
    }
}

/// In percent, with two digits.
impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 10_000, self.0 / 100 % 100)
    }
}

/// z² of Wilson's bound with z = 1.96, in millionths.
pub const Z_SQUARED_PPM: u64 = 3_841_600;

/// Decayed evidence for and against: a Beta distribution without its prior.
///
/// After `dt` seconds both sums are 2^(−dt/H) of what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beta {
    /// For it, in 2⁻³² of an observation.
    good: u64,
    /// In all.
    all: u64,
    /// When it was last observed, in seconds since 1970.
    at: u64,
}

impl Beta {
    /// Adds an observation of weight `weight_ppm` (a whole one is 1,000,000). One from before the
    /// last counts with its age.
    pub fn observe(&mut self, half_life_seconds: u64, at: u64, value: Ppm, weight_ppm: u32) {
        let mut weight = u64::from(weight_ppm) * Q32 / 1_000_000;
        if at >= self.at {
            let keep = half_lives(at - self.at, half_life_seconds);
            self.good = fixed::times(self.good, keep);
            self.all = fixed::times(self.all, keep);
            self.at = at;
        } else {
            weight = fixed::times(weight, half_lives(self.at - at, half_life_seconds));
        }
        self.all = self.all.saturating_add(weight);
        self.good = self.good.saturating_add(fixed::times(weight, value.to_q32())).min(self.all);
    }

    /// The same, aged to a later moment.
    #[must_use]
    pub fn aged(&self, half_life_seconds: u64, now: u64) -> Self {
        let keep = half_lives(now.saturating_sub(self.at), half_life_seconds);
        let aged = |sum| fixed::times(sum, keep);
        Self { good: aged(self.good), all: aged(self.all), at: self.at.max(now) }
    }

    /// When it was last observed, in seconds since 1970.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// How many observations count, rounded to thousandths.
    pub fn count_milli(&self) -> u64 {
        fixed::round(u128::from(self.all) * 1_000)
    }

    /// The mean.
    pub fn mean(&self) -> Ppm {
        Ppm::of(self.good, self.all)
    }

    /// Wilson's upper bound: what the share is at most, with 97.5 % certainty; all of nothing.
    pub fn upper(&self) -> Ppm {
        let against = Self { good: self.all - self.good, ..*self };
        Ppm::new(1_000_000 - against.lower().ppm())
    }

    /// Wilson's lower bound: what the share is at least, with 97.5 % certainty.
    ///
    /// ```
    /// use welkin_types::evidence::{Beta, Ppm};
    /// let mut beta = Beta::default();
    /// for _ in 0..10 {
    ///     beta.observe(86_400, 0, Ppm::ONE, 1_000_000);
    /// }
    /// assert_eq!(beta.lower().to_string(), "72.24 %");
    /// ```
    pub fn lower(&self) -> Ppm {
        if self.all == 0 {
            return Ppm::ZERO;
        }
        // (s + z²/2 − z·√(s(n − s)/n + z²/4)) / (n + z²), in 2⁻³².
        let (good, all) = (u128::from(self.good), u128::from(self.all));
        let z2 = u128::from(Z_SQUARED_PPM) * u128::from(Q32) / 1_000_000;
        let under = good * (all - good) / all + z2 / 4;
        let root = (under * z2).isqrt();
        let top = (good + z2 / 2).saturating_sub(root);
        let ppm = top * 1_000_000 / (all + z2);
        Ppm::new(u32::try_from(ppm).unwrap_or(u32::MAX))
    }
}

/// Π xᵢ^(wᵢ/Σw). Nothing if one of weight is nothing, or if there is no weight.
pub fn geometric_mean(parts: impl Iterator<Item = (Ppm, u32)>) -> Ppm {
    let (mut logs, mut weights) = (0_u128, 0_u128);
    for (value, weight) in parts.filter(|(_, weight)| *weight > 0) {
        if value == Ppm::ZERO {
            return Ppm::ZERO;
        }
        logs += u128::from(minus_log2(value.to_q32())) * u128::from(weight);
        weights += u128::from(weight);
    }
    let mean = logs.checked_div(weights).and_then(|mean| u64::try_from(mean).ok());
    mean.map_or(Ppm::ZERO, |mean| Ppm::from_q32(power_of_half(mean)))
}

/// The most weight of one payer in an epoch: that of 100 USD in fees.
pub const PAYER_WEIGHT_MAX: u32 = 10_000_000;

/// The weight of a buyer's word, in millionths of an observation: the root of the fees it paid in
/// the epoch, in USD, so that made-up sessions cost real fees and many accounts gain little.
pub fn payer_weight(fee_micros: u64) -> u32 {
    // √(micros / 10⁶) · 10⁶ = √(micros · 10⁶)
    let root = (u128::from(fee_micros) * 1_000_000).isqrt();
    u32::try_from(root).unwrap_or(u32::MAX).min(PAYER_WEIGHT_MAX)
}
