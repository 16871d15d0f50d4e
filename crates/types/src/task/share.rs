//! How reliable a host has to be: `>=0.995`, `0.995` or `99.5%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quantity::{Decimal, QuantityError, quote};
use super::text::TextForm;

/// The least share of promised time that a host has kept, in hundredths of a percent.
///
/// ```
/// use welkin_types::task::Reliability;
/// let asked: Reliability = "99.5%".parse().unwrap();
/// assert_eq!((asked.min_bp(), asked.to_string()), (9_950, ">=0.995".to_owned()));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Reliability(u16);

impl Reliability {
    /// Never failed.
    pub const MAX: Self = Self(10_000);

    /// The least share, in hundredths of a percent, at most 10 000.
    pub const fn min_bp(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Reliability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(">={}.{:04}", self.0 / 10_000, self.0 % 10_000);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Reliability {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let number = text.trim();
        let number = number.strip_prefix(">=").unwrap_or(number).trim();
        let (number, unit) =
            number.strip_suffix('%').map_or((number, 10_000), |percent| (percent.trim(), 100));
        let number = Decimal::parse(number).ok_or_else(|| QuantityError::Syntax {
            text: quote(text),
            what: "a reliability",
            like: ">=0.995 or 99.5%",
        })?;
        let points = number.times(unit).ok_or_else(|| QuantityError::Fraction {
            text: quote(text),
            what: "hundredths of a percent",
        })?;
        u16::try_from(points).ok().filter(|points| *points <= Self::MAX.0).map(Self).ok_or_else(
            || QuantityError::Bounds { text: quote(text), bounds: "from 0 to 1, or 0% to 100%" },
        )
    }
}

impl TextForm for Reliability {
    const NAME: &'static str = "Reliability";
    const ABOUT: &'static str =
        "The least share of promised time that a host has kept: `>=0.995`, `0.995` or `99.5%`.";
    const PATTERN: &'static str = r"^\s*(>=)?\s*[0-9]+(\.[0-9]+)?\s*%?\s*$";
    const EXAMPLES: &'static [&'static str] = &[">=0.995", "99.5%"];
    const NUMBER: bool = true;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> String {
        match text.parse::<Reliability>() {
            Ok(share) => format!("{} = {share}", share.min_bp()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn texts() {
        for (text, expected) in [
            (">=0.995", "9950 = >=0.995"),
            ("0.995", "9950 = >=0.995"),
            (">= 99.5%", "9950 = >=0.995"),
            ("99.99%", "9999 = >=0.9999"),
            ("1", "10000 = >=1"),
            ("0", "0 = >=0"),
            ("100 %", "10000 = >=1"),
            ("99.5", "`99.5` is out of bounds: it must be from 0 to 1, or 0% to 100%"),
            ("101%", "`101%` is out of bounds: it must be from 0 to 1, or 0% to 100%"),
            ("0.99999", "`0.99999` is not a whole number of hundredths of a percent"),
            (">0.9", "`>0.9` is not a reliability: write it like >=0.995 or 99.5%"),
            ("high", "`high` is not a reliability: write it like >=0.995 or 99.5%"),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(points in 0..=10_000_u16) {
            let share = Reliability(points);
            prop_assert_eq!(share.to_string().parse(), Ok(share));
        }

        #[test]
        fn no_text_panics(text: String, near in "[>=]{0,2}[0-9.]{0,9}%?") {
            let _ = (text.parse::<Reliability>(), near.parse::<Reliability>());
        }
    }
}
