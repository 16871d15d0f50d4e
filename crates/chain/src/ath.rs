//! Sums of ATH: wei on the chain, decimals for people.

use alloy_primitives::{U256, uint};

/// Decimals of the token.
const DECIMALS: usize = 18;
/// A whole ATH, in wei.
pub const WHOLE: U256 = uint!(1_000_000_000_000_000_000_U256);

/// Why a text is no sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no sum of ATH: digits, with at most 18 after a point, such as `12.5`")]
pub struct AthError(String);

/// Reads a sum such as `1500`, `1_500` or `0.25`.
///
/// # Errors
///
/// [`AthError`] where it is none.
pub fn parse(text: &str) -> Result<U256, AthError> {
    let no = || AthError(text.chars().take(60).collect());
    let plain: String = text.trim().chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0
        || whole.len() > 30
        || part.len() > DECIMALS
        || !is_digits(whole)
        || !is_digits(part)
    {
        return Err(no());
    }
    let digits = format!("{whole}{part:0<DECIMALS$}");
    U256::from_str_radix(&digits, 10).map_err(|_| no())
}

/// A sum for people: whole ATH, with as many decimals as it has.
pub fn show(wei: U256) -> String {
    let (whole, part) = wei.div_rem(WHOLE);
    if part.is_zero() {
        return format!("{whole} ATH");
    }
    let part = format!("{part:0>DECIMALS$}");
    format!("{whole}.{} ATH", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_and_shown() {
        for (text, shown) in [
            ("1500", "1500 ATH"),
            ("1_500.50", "1500.5 ATH"),
            (".25", "0.25 ATH"),
            ("0.000000000000000001", "0.000000000000000001 ATH"),
            ("0", "0 ATH"),
        ] {
            assert_eq!(parse(text).map(show).as_deref(), Ok(shown));
        }
        for text in ["", ".", "1.2.3", "-1", "1e18", "0x10", "0.0000000000000000001", "ten"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
