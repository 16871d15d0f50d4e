//! Bytes of messages: postcard, bounded, with nothing left over.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::FRAME_BYTES_MAX;

/// Why bytes are not a message, or a message does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Larger than any frame may be.
    #[error("a message of {bytes} bytes is larger than the {FRAME_BYTES_MAX} allowed")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// Not a message of this kind.
    #[error("malformed message")]
    Malformed,
    /// A message with something behind it.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// Encodes a message.
///
/// # Errors
///
/// [`CodecError::TooLarge`] if it would not fit a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| CodecError::Malformed)?;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes a message; every byte must belong to it.
///
/// # Errors
///
/// Any [`CodecError`]; never panics, whatever the bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| CodecError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(CodecError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_and_truncated_bytes_are_refused() {
        let bytes = encode(&(7_u32, "text".to_owned())).unwrap();
        assert_eq!(decode::<(u32, String)>(&bytes), Ok((7, "text".to_owned())));
        assert_eq!(decode::<(u32, String)>(&bytes[..3]), Err(CodecError::Malformed));
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(decode::<(u32, String)>(&longer), Err(CodecError::Trailing(1)));
    }
}
