//! What a buyer asks for: the task spec, its text forms, and what a host has to have for it.
//!
//! A spec is one file in YAML, TOML or JSON, told apart by the file's name; the three are equal.
//! [`parse`] reads it, [`TaskSpec::validate`] checks it again after flags were merged in,
//! [`TaskSpec::unsupported`] lists what is asked for and not carried out, and [`TaskSpec::needs`]
//! gives the numbers by which containers are chosen.
//!
//! Two sets of types: those of the spec hold quantities as [`Text`] and are for files; [`Needs`]
//! and what is in it serialise as plain numbers and go over the wire.
//!
//! Nothing here reads a file, a clock or the environment, and no input makes it panic.

mod bytes;
mod capacity;
mod cpu;
mod decode;
mod env;
mod error;
mod gpu;
pub mod limits;
mod nearest;
mod needs;
mod quantity;
mod read;
mod sections;
mod service;
mod share;
mod span;
mod text;
mod tree;
mod unsupported;
mod validate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bytes::{ByteRange, ByteSize};
pub use cpu::CpuRange;
pub use env::{Env, EnvValue};
pub use error::{KeyError, SpecError, SyntaxError};
pub use gpu::{CountRange, GpuAsk, GpuError, gpu_model};
pub use needs::Needs;
pub use quantity::QuantityError;
pub use read::{TEXT_BYTES_MAX, parse};
use sections::is_default;
pub use sections::{
    Attestation, Currency, DataAtRest, Files, Kind, Operators, PriceAsk, ResourcesAsk, Retry,
    RetryOn, Spot, Timeouts, Trust, Where,
};
pub use service::{
    Checkpoint, Codec, Health, Input, Model, ModelApi, Network, Notify, NotifyOn, Port, Scale,
    ScaleOn, Stream, Volume,
};
pub use share::Reliability;
pub use span::Span;
pub use text::{Text, TextForm};
pub use unsupported::Unsupported;

/// A task, as its buyer asks for it.
///
/// ```
/// use welkin_types::task;
/// let spec = task::parse("task.yaml", "image: alpine\nrun: echo hello\n").unwrap();
/// assert_eq!(spec.argv().unwrap(), ["/bin/sh", "-c", "echo hello"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskSpec {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u16,
    /// What the command is for.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// A name for the task: 1 to 63 of a-z, 0-9 and `-`, with `-` at neither end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image that the sandbox starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A local folder that the sandbox starts from, instead of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// A prepared image by name, instead of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Files that are sent along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Files>,
    /// A script for `/bin/sh -c`. Not together with `command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The command and its arguments. Not together with `run`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The environment of the command.
    #[serde(skip_serializing_if = "Env::is_empty")]
    pub env: Env,
    /// Names of secrets that the command gets as variables. Values never stand in a spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// What the task needs of each host.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: ResourcesAsk,
    /// How many containers work on it together: all of them are leased at once, or none. The
    /// command starts on each when all are there.
    #[schemars(range(min = 1, max = 1024))]
    pub nodes: u16,
    /// Which hosts may run it.
    #[serde(rename = "where", skip_serializing_if = "is_default")]
    pub place: Where,
    /// What the host must not be able to do.
    #[serde(skip_serializing_if = "is_default")]
    pub trust: Trust,
    /// What it may cost.
    #[serde(skip_serializing_if = "is_default")]
    pub price: PriceAsk,
    /// Storage that outlives the task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// How the task's progress is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// When it is started again elsewhere; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long each part of its life may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// Ports on which it listens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// What it may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// How to see that it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How many copies of a service run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// A model that the service answers for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// The picture of a streamed task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// Whom to tell what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notify>,
}

impl Default for TaskSpec {
    /// A task that asks for nothing.
    fn default() -> Self {
        Self {
            version: 1,
            kind: Kind::Task,
            name: None,
            image: None,
            rootfs: None,
            preset: None,
            files: Vec::new(),
            run: None,
            command: Vec::new(),
            env: Env::default(),
            secrets: Vec::new(),
            resources: ResourcesAsk::default(),
            nodes: 1,
            place: Where::default(),
            trust: Trust::default(),
            price: PriceAsk::default(),
            volumes: Vec::new(),
            checkpoint: None,
            retry: None,
            timeouts: Timeouts::default(),
            ports: Vec::new(),
            network: None,
            health: None,
            scale: None,
            model: None,
            stream: None,
            notify: Vec::new(),
        }
    }
}

impl TaskSpec {
    /// The command and its arguments: those of `command`, or a shell with `run`; `None` if the
    /// spec has neither.
    pub fn argv(&self) -> Option<Vec<String>> {
        if !self.command.is_empty() {
            return Some(self.command.clone());
        }
        let script = self.run.as_ref()?;
        Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()])
    }

    /// The spec in normal form: JSON without what is at its default.
    pub fn to_json(&self) -> serde_json::Value {
        // Every key of a spec is a text, so the conversion to JSON can't fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The JSON Schema (draft 2020-12) of a spec.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

#[cfg(test)]
mod tests;
