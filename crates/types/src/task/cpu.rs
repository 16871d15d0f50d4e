//! Amounts of processor: `8`, `0.5`, `500m`, and ranges of them: `8..`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quantity::{Decimal, QuantityError, parse_range, quote, split_unit, write_thousandths};
use super::text::TextForm;

/// Amounts of processor from a smallest to a largest one, both included, in thousandths of a core.
///
/// ```
/// use welkin_types::task::CpuRange;
/// let range: CpuRange = "500m..8".parse().unwrap();
/// assert_eq!((range.min_milli, range.max_milli), (500, Some(8_000)));
/// assert_eq!(range.to_string(), "0.5..8");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuRange {
    /// The smallest, in thousandths of a core.
    pub min_milli: u32,
    /// The largest, in thousandths of a core; `None` if there is none.
    pub max_milli: Option<u32>,
}

impl CpuRange {
    /// The most that can be asked for: 4 096 cores.
    pub const MILLI_MAX: u32 = 4_096_000;

    /// Whether this has a largest amount other than its smallest.
    pub(super) fn is_capped(&self) -> bool {
        self.max_milli.is_some_and(|max| max != self.min_milli)
    }

    /// The smallest amount, or what fits of `default` where none was said.
    pub(super) fn min_or(&self, default: u32) -> u32 {
        if self.min_milli > 0 {
            self.min_milli
        } else {
            self.max_milli.unwrap_or(default).min(default)
        }
    }
}

impl fmt::Display for CpuRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = write_thousandths(self.min_milli);
        match (self.min_milli, self.max_milli) {
            (min, Some(max)) if min == max => f.write_str(&low),
            (0, None) => f.write_str(".."),
            (_, None) => write!(f, "{low}.."),
            (0, Some(max)) => write!(f, "..{}", write_thousandths(max)),
            (_, Some(max)) => write!(f, "{low}..{}", write_thousandths(max)),
        }
    }
}

impl FromStr for CpuRange {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (min, max) = parse_range(text, parse_milli)?;
        Ok(Self { min_milli: min.unwrap_or(0), max_milli: max })
    }
}

/// Reads cores, or thousandths of one with the unit `m`, as thousandths.
fn parse_milli(text: &str) -> Result<u32, QuantityError> {
    let (number, unit) = split_unit(text);
    let syntax = || QuantityError::Syntax {
        text: quote(text),
        what: "a number of cores",
        like: "8, 0.5, 500m or 8..16",
    };
    let number = Decimal::parse(number).ok_or_else(syntax)?;
    let unit = match unit {
        "" => 1_000,
        "m" => 1,
        _ => return Err(syntax()),
    };
    let what = "thousandths of a core";
    let milli =
        number.times(unit).ok_or_else(|| QuantityError::Fraction { text: quote(text), what })?;
    u32::try_from(milli).ok().filter(|milli| (1..=CpuRange::MILLI_MAX).contains(milli)).ok_or_else(
        || QuantityError::Bounds { text: quote(text), bounds: "from 0.001 to 4096 cores" },
    )
}

impl TextForm for CpuRange {
    const NAME: &'static str = "CpuRange";
    const ABOUT: &'static str = "Cores, or a range of them: `8`, `8..`, `0.5`, `500m`, `2..8`.";
    const PATTERN: &'static str =
        r"^\s*([0-9]+(\.[0-9]+)?m?|([0-9]+(\.[0-9]+)?m?)?\s*\.\.\s*([0-9]+(\.[0-9]+)?m?)?)\s*$";
    const EXAMPLES: &'static [&'static str] = &["8..", "500m"];
    const NUMBER: bool = true;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> String {
        match text.parse::<CpuRange>() {
            Ok(range) => format!("{} {:?} = {range}", range.min_milli, range.max_milli),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn texts() {
        for (text, expected) in [
            ("8", "8000 Some(8000) = 8"),
            ("8..", "8000 None = 8.."),
            ("0.5", "500 Some(500) = 0.5"),
            ("500m", "500 Some(500) = 0.5"),
            ("2..8", "2000 Some(8000) = 2..8"),
            ("0.25..1.5", "250 Some(1500) = 0.25..1.5"),
            ("..8", "0 Some(8000) = ..8"),
            ("4096", "4096000 Some(4096000) = 4096"),
            ("0", "`0` is out of bounds: it must be from 0.001 to 4096 cores"),
            ("4097", "`4097` is out of bounds: it must be from 0.001 to 4096 cores"),
            ("0.0005", "`0.0005` is not a whole number of thousandths of a core"),
            ("0.5m", "`0.5m` is not a whole number of thousandths of a core"),
            ("8+", "`8+` is not a number of cores: write it like 8, 0.5, 500m or 8..16"),
            ("8 cores", "`8 cores` is not a number of cores: write it like 8, 0.5, 500m or 8..16"),
            ("", "`` is not a number of cores: write it like 8, 0.5, 500m or 8..16"),
            ("-1", "`-1` is not a number of cores: write it like 8, 0.5, 500m or 8..16"),
            ("8..2", "`8..2` is an empty range: the smaller value stands first"),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(min in 1..=CpuRange::MILLI_MAX, more in proptest::option::of(0..=CpuRange::MILLI_MAX)) {
            let max_milli = more.map(|more| (min + more).min(CpuRange::MILLI_MAX));
            let range = CpuRange { min_milli: min, max_milli };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn no_text_panics(text: String, near in "[0-9.m ]{0,12}") {
            let _ = (text.parse::<CpuRange>(), near.parse::<CpuRange>());
        }
    }
}
