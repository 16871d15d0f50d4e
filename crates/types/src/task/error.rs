//! What can be wrong with a spec.

use std::fmt;

use super::quantity::quote;

/// Why a text is not a task spec. Each names the file, and the key where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The name of the file does not say its format.
    #[error("{file}: can't tell the format: name the file *.yaml (or .yml), *.toml or *.json")]
    Format {
        /// The file's name.
        file: String,
    },
    /// The text is too long.
    #[error("{file}: has {bytes} bytes, more than the {max} that a task spec may have")]
    TooLong {
        /// The file's name.
        file: String,
        /// How long the text is, in bytes.
        bytes: usize,
        /// How long it may be, in bytes.
        max: usize,
    },
    /// The text is not of the format.
    #[error("{file}: can't be read as {format}")]
    Syntax {
        /// The file's name.
        file: String,
        /// The format that its name says.
        format: &'static str,
        /// What the format's reader says, with line and column.
        source: SyntaxError,
    },
    /// A key or its value is wrong.
    #[error("{file}: {error}")]
    Key {
        /// The file's name.
        file: String,
        /// The key and what is wrong with it.
        error: KeyError,
    },
}

/// What the reader of a format says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxError {
    /// The reader of YAML.
    #[error(transparent)]
    Yaml(#[from] serde_yaml_ng::Error),
    /// The reader of TOML.
    #[error(transparent)]
    Toml(#[from] Box<toml::de::Error>),
    /// The reader of JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The text has so many brackets that the reader of YAML would take long.
    #[error("has more than {0} opening brackets; put a long script into a file of its own")]
    Brackets(usize),
}

/// A key of a spec and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    path: String,
    reason: String,
}

impl KeyError {
    /// The most bytes of a reason.
    const REASON_LEN_MAX: usize = 1_000;

    /// Says that what stands at `path` is wrong, and why.
    pub(super) fn new(path: impl Into<String>, reason: impl fmt::Display) -> Self {
        let mut clean = String::new();
        for c in reason.to_string().chars() {
            if clean.len() >= Self::REASON_LEN_MAX {
                break;
            }
            // Parts of the file are repeated in reasons and end on somebody's terminal.
            if c.is_control() { clean.extend(c.escape_default()) } else { clean.push(c) }
        }
        Self { path: path.into(), reason: clean }
    }

    /// Where: keys and places in lists, like `files[0].to`; empty for the whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for KeyError {}

/// Adds `key` behind `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    let key = quote(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
