//! Lengths of time: `30s`, `5m`, `6h`, `2d`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::{QuantityError, quote};
use super::text::TextForm;

/// A length of time in whole seconds.
///
/// ```
/// use welkin_types::task::Span;
/// let span: Span = "90m".parse().unwrap();
/// assert_eq!((span.seconds(), span.to_string()), (5_400, "1h30m".to_owned()));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Span(u32);

/// The units, longest first, in seconds.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Span {
    /// The longest: 3 650 days.
    pub const MAX: Self = Self(3_650 * 86_400);

    /// Makes a length from seconds; at most [`Self::MAX`].
    pub fn from_seconds(seconds: u32) -> Self {
        Self(seconds.min(Self::MAX.0))
    }

    /// The length in seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// The length as the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut text, mut rest) = (String::new(), self.0);
        for (name, unit) in UNITS {
            if rest >= unit {
                text.push_str(&format!("{}{name}", rest / unit));
                rest %= unit;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let trimmed = text.trim();
        if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::NoUnit { text: quote(trimmed), first: "s", second: "m" });
        }
        let seconds = parse_seconds(trimmed).ok_or_else(|| QuantityError::Syntax {
            text: quote(text),
            what: "a length of time",
            like: "30s, 5m, 6h, 2d or 1h30m",
        })?;
        u32::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds <= Self::MAX.0)
            .map(Self)
            .ok_or_else(|| QuantityError::Bounds { text: quote(text), bounds: "at most 3650d" })
    }
}

/// Sums parts like `1h30m`, longer units first and each at most once.
fn parse_seconds(text: &str) -> Option<u64> {
    let (mut rest, mut seconds, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u32 = rest.get(..digits)?.parse().ok()?;
        let name = rest.get(digits..)?.chars().next()?.to_ascii_lowercase();
        // The iterator goes on from the last unit, so a unit can't come twice or out of order.
        let (_, unit) = units.find(|(unit, _)| *unit == name)?;
        seconds += u64::from(count) * u64::from(*unit);
        rest = rest.get(digits + 1..)?;
    }
    (!text.is_empty()).then_some(seconds)
}

impl TextForm for Span {
    const NAME: &'static str = "Span";
    const ABOUT: &'static str = "A length of time in days, hours, minutes and seconds.";
    const PATTERN: &'static str =
        r"^\s*(?=[0-9])([0-9]+[Dd])?([0-9]+[Hh])?([0-9]+[Mm])?([0-9]+[Ss])?\s*$";
    const EXAMPLES: &'static [&'static str] = &["30s", "5m", "1h30m", "2d"];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> String {
        match text.parse::<Span>() {
            Ok(span) => format!("{} = {span}", span.seconds()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn texts() {
        let like = "is not a length of time: write it like 30s, 5m, 6h, 2d or 1h30m";
        for (text, expected) in [
            ("30s", "30 = 30s".to_owned()),
            ("5m", "300 = 5m".to_owned()),
            ("6h", "21600 = 6h".to_owned()),
            ("2d", "172800 = 2d".to_owned()),
            ("1h30m", "5400 = 1h30m".to_owned()),
            ("90m", "5400 = 1h30m".to_owned()),
            ("1D2H3M4S", "93784 = 1d2h3m4s".to_owned()),
            ("0s", "0 = 0s".to_owned()),
            ("30", "`30` has no unit: write 30s or 30m".to_owned()),
            ("", format!("`` {like}")),
            ("m", format!("`m` {like}")),
            ("1.5h", format!("`1.5h` {like}")),
            ("30m1h", format!("`30m1h` {like}")),
            ("1m1m", format!("`1m1m` {like}")),
            ("500ms", format!("`500ms` {like}")),
            ("5 m", format!("`5 m` {like}")),
            ("5µ", format!("`5µ` {like}")),
            ("-5m", format!("`-5m` {like}")),
            ("3651d", "`3651d` is out of bounds: it must be at most 3650d".to_owned()),
            ("4294967295d", "`4294967295d` is out of bounds: it must be at most 3650d".to_owned()),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(seconds in 0..=Span::MAX.0) {
            let span = Span(seconds);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_panics(text: String, near in "[0-9]{0,11}[dhmsé]{0,2}[0-9]{0,3}[hms]?") {
            let _ = (text.parse::<Span>(), near.parse::<Span>());
        }
    }
}
