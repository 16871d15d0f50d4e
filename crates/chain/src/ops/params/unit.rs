//! What a parameter counts, and how people write that.

use alloy_primitives::{U256, uint};

use crate::ath;

/// What a parameter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Hundredths of a percent.
    BasisPoints,
    /// Percent.
    Percent,
    /// Seconds.
    Seconds,
    /// Wei.
    Ath,
    /// Thousandths of an ATH.
    MilliAth,
    /// Micro-dollars.
    Dollars,
    /// Things.
    Count,
    /// A factor, in parts of 1e18.
    Factor,
    /// Yes (1) or no (0).
    Flag,
    /// Seconds since 1970.
    Time,
}

/// Why a text is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no value here: {form}")]
pub struct UnitError {
    text: String,
    form: &'static str,
}

const MILLI: U256 = uint!(1_000_000_000_000_000_U256);

impl Unit {
    /// How it is written.
    pub const fn form(self) -> &'static str {
        match self {
            Self::BasisPoints => "write it as `12.5%`",
            Self::Percent => "write it as `4%`",
            Self::Seconds => "write it as `90s`, `30m`, `12h` or `2d`",
            Self::Ath | Self::MilliAth => "write it as `100ATH`",
            Self::Dollars => "write it as `0.05` US dollars",
            Self::Count => "write it as a whole number",
            Self::Factor => "write it as `1.5`",
            Self::Flag => "write it as `yes` or `no`",
            Self::Time => "write it as seconds since 1970",
        }
    }

    /// A value for people.
    pub fn show(self, value: U256) -> String {
        match self {
            Self::BasisPoints => format!("{}%", decimals(value, 2)),
            Self::Percent => format!("{value}%"),
            Self::Seconds => seconds(value),
            Self::Ath => ath::show(value),
            Self::MilliAth => ath::show(value.saturating_mul(MILLI)),
            Self::Dollars => format!("${}", decimals(value, 6)),
            Self::Count | Self::Time => value.to_string(),
            Self::Factor => decimals(value, 18),
            Self::Flag => if value.is_zero() { "no" } else { "yes" }.to_owned(),
        }
    }

    /// Reads what a person wrote.
    ///
    /// # Errors
    ///
    /// [`UnitError`] with the form that is understood.
    pub fn parse(self, text: &str) -> Result<U256, UnitError> {
        let text = text.trim();
        let read = match self {
            Self::BasisPoints => text.strip_suffix('%').and_then(|text| number(text, 2)),
            Self::Percent => text.strip_suffix('%').and_then(|text| number(text, 0)),
            Self::Seconds => span(text),
            Self::Ath => ath(text),
            Self::MilliAth => {
                ath(text).filter(|wei| (*wei % MILLI).is_zero()).map(|wei| wei / MILLI)
            }
            Self::Dollars => number(text.trim_start_matches('$'), 6),
            Self::Count | Self::Time => number(text, 0),
            Self::Factor => number(text, 18),
            Self::Flag => match text {
                "yes" | "true" => Some(U256::ONE),
                "no" | "false" => Some(U256::ZERO),
                _ => None,
            },
        };
        read.ok_or_else(|| UnitError { text: text.chars().take(60).collect(), form: self.form() })
    }
}

/// A decimal number with at most so many digits after its point, in units of the last one.
fn number(text: &str, places: usize) -> Option<U256> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let (whole, part) = (whole.replace('_', ""), part.replace('_', ""));
    if whole.len() + part.len() == 0
        || whole.len() > 40
        || part.len() > places
        || !is_digits(&whole)
        || !is_digits(&part)
    {
        return None;
    }
    U256::from_str_radix(&format!("{whole}{part:0<places$}"), 10).ok()
}

fn ath(text: &str) -> Option<U256> {
    let upper = text.to_ascii_uppercase();
    ath::parse(upper.strip_suffix("ATH").unwrap_or(&upper)).ok()
}

fn span(text: &str) -> Option<U256> {
    let (digits, factor) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1_u64),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3_600),
        (at, 'd') => (&text[..at], 86_400),
        _ => (text, 1),
    };
    number(digits, 0)?.checked_mul(U256::from(factor))
}

fn seconds(value: U256) -> String {
    for (factor, letter) in [(86_400_u64, 'd'), (3_600, 'h'), (60, 'm')] {
        let factor = U256::from(factor);
        if value >= factor && (value % factor).is_zero() {
            return format!("{}{letter}", value / factor);
        }
    }
    format!("{value}s")
}

fn decimals(value: U256, places: usize) -> String {
    let (whole, part) = value.div_rem(U256::from(10).pow(U256::from(places)));
    if part.is_zero() {
        return whole.to_string();
    }
    let part = format!("{part:0>places$}");
    format!("{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        for (unit, value, shown) in [
            (Unit::BasisPoints, 1_250_u64, "12.5%"),
            (Unit::Percent, 4, "4%"),
            (Unit::Seconds, 86_400, "1d"),
            (Unit::Seconds, 90, "90s"),
            (Unit::Seconds, 0, "0s"),
            (Unit::MilliAth, 30_500, "30.5 ATH"),
            (Unit::Dollars, 50_000, "$0.05"),
            (Unit::Count, 15, "15"),
            (Unit::Factor, 1_500_000_000_000_000_000, "1.5"),
            (Unit::Flag, 1, "yes"),
        ] {
            let value = U256::from(value);
            assert_eq!(unit.show(value), shown);
            assert_eq!(unit.parse(&shown.replace(' ', "")), Ok(value), "{shown}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_form() {
        for (unit, text) in [
            (Unit::BasisPoints, "12.5"),
            (Unit::BasisPoints, "12.555%"),
            (Unit::Percent, "-4%"),
            (Unit::Seconds, "d"),
            (Unit::Seconds, "1 week"),
            (Unit::MilliAth, "0.0001ATH"),
            (Unit::Dollars, "$"),
            (Unit::Count, "1.5"),
            (Unit::Flag, "maybe"),
            (Unit::Ath, "1e9"),
        ] {
            let error = unit.parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("write it as"), "{error}");
        }
    }
}
