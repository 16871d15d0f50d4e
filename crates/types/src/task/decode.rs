//! From a tree to a spec, with the path of whatever is wrong and the nearest known key.
//!
//! Serde's derived code does the reading. This is its source of data: it knows the keys of each
//! table when it enters one, so it finds unknown keys itself and says what was probably meant.

use std::collections::btree_map;
use std::fmt;
use std::slice;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::{KeyError, join};
use super::nearest::nearest;
use super::quantity::quote;
use super::tree::Tree;

/// Reads a value from a document.
pub(super) fn decode<'de, T: Deserialize<'de>>(tree: &'de Tree) -> Result<T, KeyError> {
    T::deserialize(Node(tree)).map_err(Fault::into_error)
}

/// Something wrong, and the way to it from the inside out.
#[derive(Debug)]
struct Fault {
    steps: Vec<Step>,
    reason: String,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Fault {
    fn new(reason: impl fmt::Display) -> Self {
        Self { steps: Vec::new(), reason: reason.to_string() }
    }

    fn under(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn into_error(self) -> KeyError {
        let path = self.steps.iter().rev().fold(String::new(), |path, step| match step {
            Step::Key(key) => join(&path, key),
            Step::Index(index) => format!("{path}[{index}]"),
        });
        KeyError::new(path, self.reason)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(reason)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a table".to_owned(),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            other => other.to_string(),
        };
        Self::new(format_args!("is {found}, expected {expected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("is missing").under(Step::Key(field.to_owned()))
    }
}

/// Says which of `known` was probably meant.
fn suggest(given: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(given, known) {
        return format!("did you mean `{near}`?");
    }
    format!("known are {}", known.join(", "))
}

/// One node as a source of data.
#[derive(Clone, Copy)]
struct Node<'de>(&'de Tree);

impl Node<'_> {
    fn expected(self, what: impl fmt::Display) -> Fault {
        Fault::new(format_args!("is {}, expected {what}", self.0.describe()))
    }

    fn unsigned(self, max: u64) -> Result<u64, Fault> {
        match self.0 {
            Tree::Unsigned(number) if *number <= max => Ok(*number),
            _ => Err(self.expected(format_args!("a whole number from 0 to {max}"))),
        }
    }
}

macro_rules! unsigned {
    ($($method:ident $visit:ident $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.unsigned(u64::from(<$type>::MAX))?)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Unsigned(number) => visitor.visit_u64(*number),
            Tree::Negative(number) => visitor.visit_i64(*number),
            Tree::Float(number) => visitor.visit_f64(*number),
            Tree::Text(text) => visitor.visit_borrowed_str(text),
            Tree::List(nodes) => visitor.visit_seq(List { nodes: nodes.iter(), index: 0 }),
            Tree::Map(nodes) => visitor.visit_map(Map::new(nodes, false)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Tree::Map(nodes) = self.0 else {
            return Err(self.expected(format_args!("a table with {}", keys.join(", "))));
        };
        if let Some(key) = nodes.keys().find(|key| !keys.contains(&key.as_str())) {
            let reason = format!("unknown key: {}", suggest(key, keys));
            return Err(Fault::new(reason).under(Step::Key(key.clone())));
        }
        visitor.visit_map(Map::new(nodes, true))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Text(text) if variants.contains(&text.as_str()) => {
                let text: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            Tree::Text(text) => {
                let (quoted, suggestion) = (quote(text), suggest(text, variants));
                Err(Fault::new(format_args!("`{quoted}` is not known here: {suggestion}")))
            }
            _ => Err(self.expected(format_args!("one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Text(text) => visitor.visit_borrowed_str(text),
            Tree::Null | Tree::List(_) | Tree::Map(_) => Err(self.expected("a text")),
            _ => Err(self.expected("a text: write it in quotes")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::List(nodes) => visitor.visit_seq(List { nodes: nodes.iter(), index: 0 }),
            _ => Err(self.expected("a list")),
        }
    }

    unsigned! {
        deserialize_u8 visit_u64 u8,
        deserialize_u16 visit_u64 u16,
        deserialize_u32 visit_u64 u32,
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

struct List<'de> {
    nodes: slice::Iter<'de, Tree>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for List<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some(node) = self.nodes.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Node(node)).map(Some).map_err(|fault| fault.under(Step::Index(index)))
    }
}

struct Map<'de> {
    nodes: btree_map::Iter<'de, String, Tree>,
    /// Whether a key without a value counts as absent.
    skips_null: bool,
    entry: Option<(&'de str, &'de Tree)>,
}

impl<'de> Map<'de> {
    fn new(nodes: &'de std::collections::BTreeMap<String, Tree>, skips_null: bool) -> Self {
        Self { nodes: nodes.iter(), skips_null, entry: None }
    }
}

impl<'de> de::MapAccess<'de> for Map<'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let skips_null = self.skips_null;
        let Some((key, node)) = self.nodes.find(|(_, node)| !skips_null || **node != Tree::Null)
        else {
            return Ok(None);
        };
        self.entry = Some((key, node));
        let key: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((key, node)) = self.entry.take() else {
            return Err(Fault::new("a value was asked for before its key"));
        };
        let step = |fault: Fault| fault.under(Step::Key(key.to_owned()));
        seed.deserialize(Node(node)).map_err(step)
    }
}
