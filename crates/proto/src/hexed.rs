//! Bytes as hexadecimal text where people read them, as bytes on the wire.

use std::fmt;

use serde::de::{self, Error as _};
use serde::{Deserialize as _, Deserializer, Serializer};

/// Serializes bytes.
pub(crate) fn serialize<T: AsRef<[u8]>, S: Serializer>(bytes: &T, s: S) -> Result<S::Ok, S::Error> {
    if s.is_human_readable() {
        s.serialize_str(&to_hex(bytes.as_ref()))
    } else {
        s.serialize_bytes(bytes.as_ref())
    }
}

/// Deserializes bytes into anything that can be made from them.
pub(crate) fn deserialize<'de, T: TryFrom<Vec<u8>>, D: Deserializer<'de>>(
    d: D,
) -> Result<T, D::Error> {
    let bytes = if d.is_human_readable() {
        let text = String::deserialize(d)?;
        from_hex(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))?
    } else {
        d.deserialize_bytes(BytesVisitor)?
    };
    T::try_from(bytes).map_err(|_| D::Error::custom("wrong number of bytes"))
}

struct BytesVisitor;

impl de::Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}
