//! What the texts of all quantities share: exact decimals, ranges `A..B`, and what is wrong.
//!
//! No float takes part: a decimal is its digits and where the point stands.

/// Why a text is not the quantity that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// Not of the form of this quantity.
    #[error("`{text}` is not {what}: write it like {like}")]
    Syntax {
        /// What was given, cut.
        text: String,
        /// What was wanted.
        what: &'static str,
        /// An example of it.
        like: &'static str,
    },
    /// A number without its unit.
    #[error("`{text}` has no unit: write {text}{first} or {text}{second}")]
    NoUnit {
        /// What was given, cut.
        text: String,
        /// A unit.
        first: &'static str,
        /// Another unit.
        second: &'static str,
    },
    /// A number with a unit that is not known.
    #[error("`{text}`: `{unit}` is not a unit, use one of {known}")]
    Unit {
        /// What was given, cut.
        text: String,
        /// The unit in it, cut.
        unit: String,
        /// The units.
        known: &'static str,
    },
    /// More decimals than the quantity can hold.
    #[error("`{text}` is not a whole number of {what}")]
    Fraction {
        /// What was given, cut.
        text: String,
        /// The smallest part of the quantity.
        what: &'static str,
    },
    /// A range whose end is before its beginning.
    #[error("`{text}` is an empty range: the smaller value stands first")]
    EmptyRange {
        /// What was given, cut.
        text: String,
    },
    /// Outside of what the quantity can be.
    #[error("`{text}` is out of bounds: it must be {bounds}")]
    Bounds {
        /// What was given, cut.
        text: String,
        /// What it may be.
        bounds: &'static str,
    },
}

/// The most characters of a given text that an error repeats.
const QUOTE_LEN_MAX: usize = 60;

/// Cuts `text` and escapes its control characters, to be repeated in an error.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == QUOTE_LEN_MAX {
            quoted.push('…');
            break;
        }
        if c.is_control() {
            quoted.extend(c.escape_default());
        } else {
            quoted.push(c);
        }
    }
    quoted
}

/// An exact decimal number: `digits / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    /// All digits, without the point.
    digits: u128,
    /// How many of them stand behind the point.
    scale: u32,
}

impl Decimal {
    /// The most digits before the point: enough for the largest size in bytes.
    const WHOLE_LEN_MAX: usize = 18;
    /// The most digits behind the point.
    const PART_LEN_MAX: usize = 6;

    /// Reads digits, perhaps a point and more digits; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, part) = match text.split_once('.') {
            Some((whole, part)) if !part.is_empty() => (whole, part),
            Some(_) => return None,
            None => (text, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let is_long = whole.len() > Self::WHOLE_LEN_MAX || part.len() > Self::PART_LEN_MAX;
        if whole.is_empty() || is_long || !is_digits(whole) || !is_digits(part) {
            return None;
        }
        let digits = format!("{whole}{part}").parse().ok()?;
        Some(Self { digits, scale: u32::try_from(part.len()).ok()? })
    }

    /// This times `unit` where that is a whole number.
    pub(super) fn times(self, unit: u64) -> Option<u128> {
        let product = self.digits.checked_mul(u128::from(unit))?;
        let divisor = 10_u128.pow(self.scale);
        product.is_multiple_of(divisor).then(|| product / divisor)
    }
}

/// Writes `thousandths` as a decimal without needless zeros: 500 is `0.5`.
pub(super) fn write_thousandths(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Splits `64.5GB` before the first character that is neither digit nor point, and drops the
/// spaces around both halves.
pub(super) fn split_unit(text: &str) -> (&str, &str) {
    let is_unit = |c: char| !c.is_ascii_digit() && c != '.';
    let (number, unit) = text.split_at(text.find(is_unit).unwrap_or(text.len()));
    (number.trim(), unit.trim())
}

/// Reads `A`, `A..`, `..B`, `A..B` or `..` with `parse` for each end; a single value is both.
pub(super) fn parse_range<T: Copy + Ord>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, QuantityError>,
) -> Result<(Option<T>, Option<T>), QuantityError> {
    let Some((low, high)) = text.split_once("..") else {
        let value = Some(parse(text.trim())?);
        return Ok((value, value));
    };
    let end = |text: &str| match text.trim() {
        "" => Ok(None),
        text => parse(text).map(Some),
    };
    let (low, high) = (end(low)?, end(high)?);
    match (low, high) {
        (Some(low), Some(high)) if high < low => {
            Err(QuantityError::EmptyRange { text: quote(text) })
        }
        ends => Ok(ends),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        let times = |text: &str, unit| Decimal::parse(text).and_then(|d| d.times(unit));
        assert_eq!(times("1.5", 1_000), Some(1_500));
        assert_eq!(times("0.1", 1 << 30), None);
        assert_eq!(times("007", 1), Some(7));
        assert_eq!(times("999999999999.999999", 1_000_000), Some(999_999_999_999_999_999));
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1_0",
            "1234567890123456789",
            "0.1234567",
            "٣",
            "1.2.3",
        ] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn quotes_are_short_and_printable() {
        assert_eq!(quote("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(quote(&"é".repeat(100)).chars().count(), QUOTE_LEN_MAX + 1);
    }

    proptest! {
        #[test]
        fn thousandths_and_back(value: u32) {
            let read = Decimal::parse(&write_thousandths(value)).and_then(|d| d.times(1_000));
            prop_assert_eq!(read, Some(u128::from(value)));
        }
    }
}
