//! The environment of a task's command.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::limits::ENV_NAME_LEN_MAX;
use super::quantity::quote;

/// The environment of a task's command: a map `NAME: value`, or a list of `NAME=value` and `NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(pub BTreeMap<String, EnvValue>);

/// Where the value of a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// From the spec.
    Set(String),
    /// From the variable of the same name where the program is called.
    FromCaller,
}

impl Env {
    /// Whether no variable is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of variables whose values come from the caller's environment.
    pub fn from_caller(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| **value == EnvValue::FromCaller).map(|(n, _)| n.as_str())
    }
}

/// Whether `name` can name a variable: `[A-Za-z_][A-Za-z0-9_]*`, and not too long.
pub(super) fn is_env_name(name: &str) -> bool {
    name.len() <= ENV_NAME_LEN_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Serialize for Env {
    /// Writes a map if all values are known, and a list otherwise.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.from_caller().next().is_none() {
            let set = self.0.iter().filter_map(|(name, value)| match value {
                EnvValue::Set(text) => Some((name, text)),
                EnvValue::FromCaller => None,
            });
            return serializer.collect_map(set);
        }
        serializer.collect_seq(self.0.iter().map(|(name, value)| match value {
            EnvValue::Set(text) => format!("{name}={text}"),
            EnvValue::FromCaller => name.clone(),
        }))
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvVisitor)
    }
}

struct EnvVisitor;

impl<'de> de::Visitor<'de> for EnvVisitor {
    type Value = Env;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of NAME and value, or a list of NAME=value")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Env, A::Error> {
        let mut env = BTreeMap::new();
        while let Some((name, EnvText(text))) = map.next_entry::<String, EnvText>()? {
            if env.insert(name.clone(), EnvValue::Set(text)).is_some() {
                return Err(de::Error::custom(twice(&name)));
            }
        }
        Ok(Env(env))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Env, A::Error> {
        let mut env = BTreeMap::new();
        while let Some(entry) = list.next_element::<String>()? {
            let (name, value) = match entry.split_once('=') {
                Some((name, text)) => (name, EnvValue::Set(text.to_owned())),
                None => (entry.as_str(), EnvValue::FromCaller),
            };
            if env.insert(name.to_owned(), value).is_some() {
                return Err(de::Error::custom(twice(name)));
            }
        }
        Ok(Env(env))
    }
}

fn twice(name: &str) -> String {
    format!("`{}` is set twice", quote(name))
}

/// The value of one variable in a map: a text, or a whole number.
struct EnvText(String);

impl<'de> Deserialize<'de> for EnvText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvTextVisitor)
    }
}

struct EnvTextVisitor;

impl de::Visitor<'_> for EnvTextVisitor {
    type Value = EnvText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<EnvText, E> {
        Ok(EnvText(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<EnvText, E> {
        Ok(EnvText(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<EnvText, E> {
        Ok(EnvText(number.to_string()))
    }

    // A number like 1.10 and a `True` have lost how they were written when they arrive here.
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<EnvText, E> {
        Err(E::custom("a number with a point must stand in quotes, to be kept as it is written"))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<EnvText, E> {
        Err(E::custom("true and false must stand in quotes, to be kept as they are written"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<EnvText, E> {
        Err(E::custom(
            "has no value: write \"\" for an empty one; to take the caller's, write `env` as a \
             list with the bare name",
        ))
    }
}

impl JsonSchema for Env {
    fn schema_name() -> Cow<'static, str> {
        "Env".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Env").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A table of NAME and value, or a list of NAME=value and NAME. A bare \
                            NAME takes the value from where the program is called.",
            "anyOf": [
                {
                    "type": "object",
                    "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                    "additionalProperties": { "type": ["string", "integer"] }
                },
                {
                    "type": "array",
                    "items": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*(=[\\s\\S]*)?$" }
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(json: &str) -> String {
        match serde_json::from_str::<Env>(json) {
            Ok(env) => serde_json::to_string(&env).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn forms() {
        for (json, expected) in [
            (r#"{"B":"x","A":8080,"C":-1}"#, r#"{"A":"8080","B":"x","C":"-1"}"#),
            (r#"["A=1=2","B="]"#, r#"{"A":"1=2","B":""}"#),
            (r#"["B","A=1"]"#, r#"["A=1","B"]"#),
            ("{}", "{}"),
            (r#"["A","A=1"]"#, "`A` is set twice at line 1 column 11"),
            (r#"{"A":1,"A":2}"#, "`A` is set twice at line 1 column 13"),
        ] {
            assert_eq!(run(json), expected, "{json}");
        }
        for (json, part) in [
            (r#"{"A":1.10}"#, "in quotes"),
            (r#"{"A":true}"#, "in quotes"),
            (r#"{"A":null}"#, "has no value"),
            ("5", "expected a table of NAME and value"),
        ] {
            assert!(run(json).contains(part), "{json}: {}", run(json));
        }
    }

    #[test]
    fn names() {
        for good in ["A", "_", "a_1", "PATH"] {
            assert!(is_env_name(good), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "É", "A\n", &"A".repeat(ENV_NAME_LEN_MAX + 1)] {
            assert!(!is_env_name(bad), "{bad}");
        }
    }
}
