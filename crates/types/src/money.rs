//! Money and shares of it, in integers.
//!
//! One rounding rule: a cost is computed once from the total of seconds and rounded down to a
//! whole micro-dollar; a share is rounded down and the rest is what remains, so that nothing is
//! lost or made. The same rule stands in the contracts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Millionths of a US dollar in one dollar.
const MICROS: u64 = 1_000_000;

/// Seconds in an hour.
const HOUR_SECONDS: u128 = 3_600;

/// An amount of money in millionths of a US dollar.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Usd(u64);

/// Why an amount could not be read or computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Not a decimal number of dollars.
    #[error("`{0}` is not an amount in US dollars: write it like 2.50, with at most 6 decimals")]
    Syntax(String),
    /// Larger than the largest amount.
    #[error("the amount is larger than {}", Usd::MAX)]
    Overflow,
}

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount: one thousand million dollars. Sums of many stay far from overflow.
    pub const MAX: Self = Self(1_000_000_000 * MICROS);

    /// Makes an amount from micro-dollars.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The amount in micro-dollars.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Adds, or `None` above [`Self::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|sum| *sum <= Self::MAX.0).map(Self)
    }

    /// Subtracts, or `None` below nothing.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Subtracts, at most to nothing.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Splits off `share` of this amount and returns `(share, rest)`.
    ///
    /// The share is rounded down; the two always add up to the whole.
    ///
    /// ```
    /// use welkin_types::{BasisPoints, Usd};
    /// let (fee, rest) = Usd::from_micros(101).split(BasisPoints::SERVICE_FEE);
    /// assert_eq!((fee.micros(), rest.micros()), (20, 81));
    /// ```
    pub fn split(self, share: BasisPoints) -> (Self, Self) {
        let part = u128::from(self.0) * u128::from(share.0) / u128::from(BasisPoints::WHOLE.0);
        // A share is at most the whole, so it fits where the whole did.
        let part = u64::try_from(part).unwrap_or(self.0);
        (Self(part), Self(self.0 - part))
    }
}

impl fmt::Display for Usd {
    /// Prints at least two decimals and as many as the amount has: `$0.10`, `$0.000123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, micros) = (self.0 / MICROS, self.0 % MICROS);
        let digits = format!("{micros:06}");
        let kept = digits.trim_end_matches('0').len().max(2);
        f.pad(&format!("${dollars}.{}", &digits[..kept]))
    }
}

impl FromStr for Usd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let syntax = || MoneyError::Syntax(text.chars().take(40).collect());
        let number = text.strip_prefix('$').unwrap_or(text);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let is_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(part) || part.len() > 6 {
            return Err(syntax());
        }
        let dollars: u64 = whole.parse().map_err(|_| MoneyError::Overflow)?;
        let micros: u64 = format!("{part:0<6}").parse().map_err(|_| syntax())?;
        dollars
            .checked_mul(MICROS)
            .and_then(|dollars| dollars.checked_add(micros))
            .filter(|sum| *sum <= Self::MAX.0)
            .map(Self)
            .ok_or(MoneyError::Overflow)
    }
}

/// A price: micro-dollars for one hour of one container.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Price(u64);

impl Price {
    /// Makes a price from what an hour costs.
    pub const fn per_hour(usd: Usd) -> Self {
        Self(usd.0)
    }

    /// What an hour costs.
    pub const fn hour(self) -> Usd {
        Usd(self.0)
    }

    /// What `seconds` of use cost in total, rounded down; at most [`Usd::MAX`].
    ///
    /// Always computed from the total of seconds, never summed from parts.
    ///
    /// ```
    /// use welkin_types::{Price, Usd};
    /// let price = Price::per_hour("0.36".parse().unwrap());
    /// assert_eq!(price.cost(10), "0.001".parse::<Usd>().unwrap());
    /// ```
    pub fn cost(self, seconds: u64) -> Usd {
        let micros = u128::from(self.0) * u128::from(seconds) / HOUR_SECONDS;
        u64::try_from(micros).map_or(Usd::MAX, |micros| Usd(micros.min(Usd::MAX.0)))
    }

    /// How many whole seconds `amount` pays for; `u64::MAX` where the price is nothing.
    pub fn seconds_for(self, amount: Usd) -> u64 {
        if self.0 == 0 {
            return u64::MAX;
        }
        // The largest s with floor(price * s / 3600) <= amount.
        let bound = (u128::from(amount.0) + 1) * HOUR_SECONDS;
        u64::try_from(bound.div_ceil(u128::from(self.0)) - 1).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/h", Usd(self.0))
    }
}

/// A share in hundredths of a percent. 2 000 is 20 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);
    /// The network's service fee.
    pub const SERVICE_FEE: Self = Self(2_000);

    /// Makes a share, or `None` above the whole.
    pub const fn new(points: u16) -> Option<Self> {
        if points <= Self::WHOLE.0 { Some(Self(points)) } else { None }
    }

    /// The share in hundredths of a percent.
    pub const fn points(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn split_loses_nothing(micros in 0..=Usd::MAX.0, points in 0..=10_000_u16) {
            let whole = Usd::from_micros(micros);
            let (part, rest) = whole.split(BasisPoints::new(points).unwrap());
            prop_assert_eq!(part.checked_add(rest), Some(whole));
        }

        #[test]
        fn text_and_back(micros in 0..=Usd::MAX.0) {
            let amount = Usd::from_micros(micros);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }

        #[test]
        fn cost_grows_with_time(price in 0..1_000_000_000_u64, a in 0..10_000_000_u64, b in 0..10_000_000_u64) {
            let price = Price(price);
            prop_assert!(price.cost(a.min(b)) <= price.cost(a.max(b)));
        }

        #[test]
        fn seconds_for_is_the_inverse_of_cost(price in 1..1_000_000_000_u64, micros in 0..1_000_000_000_u64) {
            let (price, amount) = (Price(price), Usd(micros));
            let seconds = price.seconds_for(amount);
            prop_assert!(price.cost(seconds) <= amount);
            prop_assert!(price.cost(seconds + 1) > amount);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Usd>();
        }
    }

    #[test]
    fn bad_amounts_are_refused() {
        for text in ["", "-1", "1.", ".5", "1e3", "0.0000001", "1,5"] {
            assert!(matches!(text.parse::<Usd>(), Err(MoneyError::Syntax(_))), "{text}");
        }
        assert_eq!("99999999999999999999".parse::<Usd>(), Err(MoneyError::Overflow));
        assert_eq!("1000000000.000001".parse::<Usd>(), Err(MoneyError::Overflow));
    }
}
