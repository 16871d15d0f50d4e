//! What is common to YAML, TOML and JSON: a tree of tables, lists and plain values, in bounds.
//!
//! The reader of each format fills one tree, so that everything behind it is the same for all
//! three. Each node costs from a budget that is about as large as the text may be: aliases that
//! repeat one another use it up long before they use up memory.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use super::quantity::quote;

/// A node of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// Nothing: `null`, or a key of YAML without a value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number of at least 0.
    Unsigned(u64),
    /// A whole number below 0.
    Negative(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// A text; also a date of TOML.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A table.
    Map(BTreeMap<String, Self>),
}

impl Tree {
    /// The deepest nesting.
    pub(super) const DEPTH_MAX: usize = 16;
    /// The most that all nodes may cost: 1 each, and 1 for each byte of text.
    const COST_MAX: usize = 1 << 20;

    /// Reads a whole document.
    pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut budget = Self::COST_MAX;
        Reader { budget: &mut budget, depth: 0 }.deserialize(deserializer)
    }

    /// The node in words, for errors.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Unsigned(number) => format!("the number {number}"),
            Self::Negative(number) => format!("the number {number}"),
            Self::Float(number) => format!("the number {number}"),
            Self::Text(text) => format!("the text `{}`", quote(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a table".to_owned(),
        }
    }
}

/// The key by which the reader of TOML hands over a date.
const TOML_DATE: &str = "$__toml_private_datetime";

struct Reader<'b> {
    budget: &'b mut usize,
    depth: usize,
}

impl Reader<'_> {
    /// The reader of a node inside of this one.
    fn inner<E: Error>(&mut self) -> Result<Reader<'_>, E> {
        if self.depth == Tree::DEPTH_MAX {
            let max = Tree::DEPTH_MAX;
            return Err(E::custom(format_args!("it is nested deeper than {max} levels")));
        }
        Ok(Reader { budget: self.budget, depth: self.depth + 1 })
    }

    fn pay<E: Error>(&mut self, cost: usize) -> Result<(), E> {
        let rest = self.budget.checked_sub(cost);
        *self.budget = rest.ok_or_else(|| E::custom("its aliases make it too large"))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Tree, D::Error> {
        self.pay(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, a list, a text, a number, true or false")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    /// The reader of YAML hands over an empty document in this way.
    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    /// The reader of YAML hands over what has a tag in this way.
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Tree, A::Error> {
        Err(A::Error::custom("a tag like `!name` means nothing here"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Tree, E> {
        Ok(u64::try_from(number).map_or(Tree::Negative(number), Tree::Unsigned))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Float(number))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Tree, E> {
        Err(E::custom("a number is too large: if it is a name, write it in quotes"))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Tree, E> {
        Err(E::custom("a number is too large: if it is a name, write it in quotes"))
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Tree, E> {
        self.pay(text.len())?;
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Tree, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self.inner()?)? {
            nodes.push(node);
        }
        Ok(Tree::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Tree, A::Error> {
        let mut nodes = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            self.pay(key.len())?;
            let node = map.next_value_seed(self.inner()?)?;
            if key == TOML_DATE {
                return Ok(node);
            }
            if nodes.contains_key(&key) {
                let key = quote(&key);
                return Err(A::Error::custom(format_args!("the key `{key}` stands there twice")));
            }
            nodes.insert(key, node);
        }
        Ok(Tree::Map(nodes))
    }
}
