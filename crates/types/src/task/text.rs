//! Values that stand in a spec as text and are numbers inside.
//!
//! [`Text`] is for files only. What goes over the wire holds the value itself, which serialises as
//! numbers.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{AccountId, ReservationId, Usd};

/// What is known of the text of a value: how it reads, and how a schema describes it.
pub trait TextForm: FromStr<Err: fmt::Display> + fmt::Display {
    /// The type's name in the schema.
    const NAME: &'static str;
    /// What it is, in a sentence.
    const ABOUT: &'static str;
    /// A regular expression that every such text matches.
    const PATTERN: &'static str;
    /// A few such texts.
    const EXAMPLES: &'static [&'static str];
    /// Whether a plain number is such a text too.
    const NUMBER: bool = false;

    /// The text in normal form.
    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// A value that stands in a spec as text.
///
/// A number is read through its shortest decimal text, so that `2.50` is exactly that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<T>(pub T);

impl<T: TextForm> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_text())
    }
}

impl<'de, T: TextForm> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: TextForm> de::Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text like {}", T::EXAMPLES.join(" or "))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
        text.parse().map(Text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text<T>, E> {
        self.visit_str(&number.to_string())
    }
}

impl<T: TextForm> JsonSchema for Text<T> {
    fn schema_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("{}::{}", module_path!(), T::NAME).into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kinds: &[&str] = if T::NUMBER { &["string", "number"] } else { &["string"] };
        json_schema!({
            "description": T::ABOUT,
            "type": kinds,
            "pattern": T::PATTERN,
            "examples": T::EXAMPLES,
        })
    }
}

impl TextForm for Usd {
    const NAME: &'static str = "Usd";
    const ABOUT: &'static str = "An amount in US dollars, with at most 6 decimals.";
    const PATTERN: &'static str = r"^\$?[0-9]+(\.[0-9]{1,6})?$";
    const EXAMPLES: &'static [&'static str] = &["2.50", "40"];
    const NUMBER: bool = true;

    fn to_text(&self) -> String {
        self.to_string().trim_start_matches('$').to_owned()
    }
}

impl TextForm for AccountId {
    const NAME: &'static str = "AccountId";
    const ABOUT: &'static str = "An account: `0x` and 40 hexadecimal digits, in quotes.";
    const PATTERN: &'static str = "^0x[0-9a-fA-F]{40}$";
    const EXAMPLES: &'static [&'static str] = &["0x00112233445566778899aabbccddeeff00112233"];
}

impl TextForm for ReservationId {
    const NAME: &'static str = "ReservationId";
    const ABOUT: &'static str = "A reservation: `rsv_` and 32 hexadecimal digits.";
    const PATTERN: &'static str = "^rsv_[0-9a-fA-F]{32}$";
    const EXAMPLES: &'static [&'static str] = &["rsv_00112233445566778899aabbccddeeff"];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(json: &str) -> String {
        match serde_json::from_str::<Text<Usd>>(json) {
            Ok(Text(usd)) => usd.micros().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn money_is_read_from_its_digits() {
        for (json, expected) in [
            ("2.50", "2500000"),
            ("0.1", "100000"),
            ("0.000001", "1"),
            ("0.29", "290000"),
            ("1e-6", "1"),
            ("1e3", "1000000000"),
            ("40", "40000000"),
            (r#""2.50""#, "2500000"),
            (r#""$2.50""#, "2500000"),
            (
                "0.0000001",
                "`0.0000001` is not an amount in US dollars: write it like 2.50, with at most 6 \
                 decimals at line 1 column 9",
            ),
            (
                "-1",
                "`-1` is not an amount in US dollars: write it like 2.50, with at most 6 decimals \
                 at line 1 column 2",
            ),
            ("1e300", "the amount is larger than $1000000000.00 at line 1 column 5"),
            (
                "true",
                "invalid type: boolean `true`, expected a text like 2.50 or 40 at line 1 column 4",
            ),
        ] {
            assert_eq!(usd(json), expected, "{json}");
        }
        assert_eq!(serde_json::to_string(&Text(Usd::from_micros(2_500_000))).unwrap(), "\"2.50\"");
    }
}
