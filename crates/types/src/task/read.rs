//! From a file's text to a checked spec.

use super::TaskSpec;
use super::decode::decode;
use super::error::{KeyError, SpecError, SyntaxError};
use super::quantity::quote;
use super::tree::Tree;

/// The longest text of a spec, in bytes: 256 KiB.
pub const TEXT_BYTES_MAX: usize = 256 << 10;

/// A format of text.
#[derive(Clone, Copy)]
enum Format {
    Yaml,
    Toml,
    Json,
}

impl Format {
    fn of(file_name: &str) -> Option<Self> {
        let (_, extension) = file_name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
            Self::Json => "JSON",
        }
    }

    fn read(self, text: &str) -> Result<Tree, SyntaxError> {
        match self {
            Self::Yaml => {
                check_brackets(text)?;
                Ok(Tree::read(serde_yaml_ng::Deserializer::from_str(text))?)
            }
            Self::Toml => {
                let reader = toml::de::Deserializer::parse(text).map_err(Box::new)?;
                Ok(Tree::read(reader).map_err(Box::new)?)
            }
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_str(text);
                let tree = Tree::read(&mut reader)?;
                reader.end()?;
                Ok(tree)
            }
        }
    }
}

/// The most opening brackets of a text in YAML, wherever they stand.
///
/// The time that the reader of YAML takes grows with the length of the text times the depth of its
/// brackets. Without this bound 256 KiB of `{a: ` would keep it busy for seconds.
const YAML_BRACKETS_MAX: usize = 2_048;

fn check_brackets(text: &str) -> Result<(), SyntaxError> {
    let opening = text.bytes().filter(|b| matches!(b, b'[' | b'{'));
    if opening.count() > YAML_BRACKETS_MAX {
        return Err(SyntaxError::Brackets(YAML_BRACKETS_MAX));
    }
    Ok(())
}

/// Reads and checks a spec. The format is that of `file_name`: `.yaml`, `.yml`, `.toml` or
/// `.json`.
///
/// Keys that this version does not carry out are read too: see [`TaskSpec::unsupported`].
///
/// # Errors
///
/// The first thing that is wrong, with the file's name and the key's path.
pub fn parse(file_name: &str, text: &str) -> Result<TaskSpec, SpecError> {
    let file = || quote(file_name);
    let format = Format::of(file_name).ok_or_else(|| SpecError::Format { file: file() })?;
    if text.len() > TEXT_BYTES_MAX {
        let (bytes, max) = (text.len(), TEXT_BYTES_MAX);
        return Err(SpecError::TooLong { file: file(), bytes, max });
    }
    let syntax = |source| SpecError::Syntax { file: file(), format: format.name(), source };
    let tree = format.read(text).map_err(syntax)?;
    from_tree(&tree).map_err(|error| SpecError::Key { file: file(), error })
}

fn from_tree(tree: &Tree) -> Result<TaskSpec, KeyError> {
    let spec: TaskSpec = decode(tree)?;
    spec.validate()?;
    Ok(spec)
}
