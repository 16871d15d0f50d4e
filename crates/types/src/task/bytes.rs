//! Amounts of memory and disk: `512MiB`, `1.5GB`, and ranges of them: `64GB..`.
//!
//! `GB` is 10^9 bytes and `GiB` is 2^30, as the words mean. A bare number is refused: whether
//! `64` means bytes or gigabytes is a guess, and a wrong guess costs money.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quantity::{Decimal, QuantityError, parse_range, quote, split_unit};
use super::text::TextForm;

/// A number of bytes.
///
/// ```
/// use welkin_types::task::ByteSize;
/// let size: ByteSize = "1.5GB".parse().unwrap();
/// assert_eq!((size.bytes(), size.to_string()), (1_500_000_000, "1500MB".to_owned()));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ByteSize(u64);

/// The pattern of one size.
macro_rules! size_pattern {
    () => {
        r"[0-9]+(\.[0-9]+)?\s*([KkMmGgTt][Ii]?)?[Bb]"
    };
}

/// Every unit, each decimal one before its binary sibling.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

impl ByteSize {
    /// The largest size: 10^18 bytes.
    pub const MAX: Self = Self(1_000_000_000_000_000_000);

    /// Makes a size from a number of bytes; at most [`Self::MAX`].
    pub fn new(bytes: u64) -> Self {
        Self(bytes.min(Self::MAX.0))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    /// Prints the size exactly, in the unit that needs the fewest digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            UNITS.iter().filter(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (name, unit) = exact.max_by_key(|(_, unit)| *unit).unwrap_or(&UNITS[0]);
        f.pad(&format!("{}{name}", self.0 / unit))
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, name) = split_unit(text);
        let number = Decimal::parse(number).ok_or_else(|| QuantityError::Syntax {
            text: quote(text),
            what: "a size",
            like: "64GB, 1.5GB or 512MiB",
        })?;
        if name.is_empty() {
            let text = quote(text.trim());
            return Err(QuantityError::NoUnit { text, first: "GB", second: "GiB" });
        }
        let found = UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name));
        let (_, unit) = found.ok_or_else(|| QuantityError::Unit {
            text: quote(text),
            unit: quote(name),
            known: "B, KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024)",
        })?;
        let bytes = number
            .times(*unit)
            .ok_or_else(|| QuantityError::Fraction { text: quote(text), what: "bytes" })?;
        u64::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= Self::MAX.0)
            .map(Self)
            .ok_or_else(|| QuantityError::Bounds { text: quote(text), bounds: "at most 1000000TB" })
    }
}

impl TextForm for ByteSize {
    const NAME: &'static str = "ByteSize";
    const ABOUT: &'static str = "A size: a number and a unit. GB is 10^9 bytes, GiB is 2^30.";
    const PATTERN: &'static str = concat!(r"^\s*", size_pattern!(), r"\s*$");
    const EXAMPLES: &'static [&'static str] = &["16GB", "512MiB"];
}

/// Sizes from a smallest to a largest one, both included.
///
/// A single size is the range of just that size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// The smallest, in bytes.
    pub min: u64,
    /// The largest, in bytes; `None` if there is none.
    pub max: Option<u64>,
}

impl ByteRange {
    /// Every size.
    pub const ANY: Self = Self { min: 0, max: None };

    /// Whether `bytes` is one of these.
    pub fn contains(&self, bytes: u64) -> bool {
        self.min <= bytes && self.max.is_none_or(|max| bytes <= max)
    }

    /// Whether this has a largest size other than its smallest.
    pub(super) fn is_capped(&self) -> bool {
        self.max.is_some_and(|max| max != self.min)
    }

    /// The smallest size, or what fits of `default` where none was said.
    pub(super) fn min_or(&self, default: u64) -> u64 {
        if self.min > 0 { self.min } else { self.max.unwrap_or(default).min(default) }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, Some(max)) if min == max => write!(f, "{}", ByteSize(min)),
            (0, None) => f.write_str(".."),
            (min, None) => write!(f, "{}..", ByteSize(min)),
            (0, Some(max)) => write!(f, "..{}", ByteSize(max)),
            (min, Some(max)) => write!(f, "{}..{}", ByteSize(min), ByteSize(max)),
        }
    }
}

impl FromStr for ByteRange {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (min, max) = parse_range(text, |text| text.parse::<ByteSize>().map(ByteSize::bytes))?;
        Ok(Self { min: min.unwrap_or(0), max })
    }
}

impl TextForm for ByteRange {
    const NAME: &'static str = "ByteRange";
    const ABOUT: &'static str = "A size, or a range of sizes: `64GB`, `64GB..`, `16GB..64GB`. GB is \
                                 10^9 bytes, GiB is 2^30.";
    const PATTERN: &'static str = concat!(
        r"^\s*(",
        size_pattern!(),
        r"|(",
        size_pattern!(),
        r")?\s*\.\.\s*(",
        size_pattern!(),
        r")?)\s*$"
    );
    const EXAMPLES: &'static [&'static str] = &["64GB..", "512MiB"];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> String {
        match text.parse::<ByteRange>() {
            Ok(range) => format!("{} {:?} = {range}", range.min, range.max),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn good_texts() {
        for (text, expected) in [
            ("64GB", "64000000000 Some(64000000000) = 64GB"),
            ("64gb..", "64000000000 None = 64GB.."),
            ("512MiB", "536870912 Some(536870912) = 512MiB"),
            ("1.5GB", "1500000000 Some(1500000000) = 1500MB"),
            ("1.5gib", "1610612736 Some(1610612736) = 1536MiB"),
            ("0.5 TB", "500000000000 Some(500000000000) = 500GB"),
            ("..64GB", "0 Some(64000000000) = ..64GB"),
            ("16GB .. 64GB", "16000000000 Some(64000000000) = 16GB..64GB"),
            ("1kb", "1000 Some(1000) = 1KB"),
            ("1024B", "1024 Some(1024) = 1KiB"),
            ("0B", "0 Some(0) = 0B"),
            ("..", "0 None = .."),
            (" 2GB ", "2000000000 Some(2000000000) = 2GB"),
            ("1000000TB", "1000000000000000000 Some(1000000000000000000) = 1000000TB"),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        let unit = "is not a unit, use one of B, KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, \
                    TiB (powers of 1024)";
        for (text, expected) in [
            ("64", "`64` has no unit: write 64GB or 64GiB".to_owned()),
            ("64..", "`64` has no unit: write 64GB or 64GiB".to_owned()),
            ("16..64GB", "`16` has no unit: write 16GB or 16GiB".to_owned()),
            ("64G", format!("`64G`: `G` {unit}")),
            ("64Gi", format!("`64Gi`: `Gi` {unit}")),
            ("64 G B", format!("`64 G B`: `G B` {unit}")),
            ("", "`` is not a size: write it like 64GB, 1.5GB or 512MiB".to_owned()),
            ("GB", "`GB` is not a size: write it like 64GB, 1.5GB or 512MiB".to_owned()),
            ("-1GB", "`-1GB` is not a size: write it like 64GB, 1.5GB or 512MiB".to_owned()),
            ("1...2GB", "`1` has no unit: write 1GB or 1GiB".to_owned()),
            ("1.5B", "`1.5B` is not a whole number of bytes".to_owned()),
            ("0.1GiB", "`0.1GiB` is not a whole number of bytes".to_owned()),
            ("64GB..16GB", "`64GB..16GB` is an empty range: the smaller value stands first".into()),
            ("1000001TB", "`1000001TB` is out of bounds: it must be at most 1000000TB".to_owned()),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(min in 0..=ByteSize::MAX.0, more in proptest::option::of(0..=ByteSize::MAX.0)) {
            let range = ByteRange { min, max: more.map(|more| (min + more).min(ByteSize::MAX.0)) };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn round_sizes_and_back(count in 0..1_000_u64, unit in 0..UNITS.len()) {
            let size = ByteSize(count * UNITS[unit].1);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text: String, near in "[0-9.]{0,12} ?[a-zA-Z]{0,3}[0-9.]{0,4}") {
            let _ = (text.parse::<ByteRange>(), near.parse::<ByteRange>());
        }
    }
}
