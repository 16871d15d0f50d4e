//! The parameters of a request.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;

/// Parameters by place.
#[derive(Clone, Debug)]
pub(crate) struct Params(Vec<Value>);

impl Params {
    pub(super) fn new(params: Option<&Value>) -> Result<Self, Failure> {
        match params {
            None | Some(Value::Null) => Ok(Self(Vec::new())),
            Some(Value::Array(params)) => Ok(Self(params.clone())),
            Some(_) => Err(Failure::params("parameters are given by place, in an array")),
        }
    }

    /// A parameter that may be absent.
    pub(super) fn maybe<T: DeserializeOwned>(&self, place: usize) -> Result<Option<T>, Failure> {
        match self.0.get(place) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|error| Failure::params(format!("invalid argument {place}: {error}"))),
        }
    }

    /// A parameter that must be there.
    pub(super) fn value<T: DeserializeOwned>(&self, place: usize) -> Result<T, Failure> {
        self.maybe(place)?
            .ok_or_else(|| Failure::params(format!("missing value for required argument {place}")))
    }

    pub(super) fn bytes(&self, place: usize) -> Result<Bytes, Failure> {
        self.value(place)
    }

    /// A block, the newest where none is named.
    pub(super) fn block(&self, place: usize) -> Result<BlockId, Failure> {
        Ok(self.maybe(place)?.unwrap_or(BlockId::Number(BlockNumberOrTag::Latest)))
    }

    /// A number: a quantity, or as some tools have it a plain one.
    pub(super) fn number(&self, place: usize) -> Result<Option<u64>, Failure> {
        let invalid = || Failure::params(format!("invalid argument {place}: not a number"));
        match self.0.get(place) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => number.as_u64().map(Some).ok_or_else(invalid),
            Some(Value::String(text)) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).map(Some).map_err(|_| invalid()),
                None => text.parse().map(Some).map_err(|_| invalid()),
            },
            Some(_) => Err(invalid()),
        }
    }
}
