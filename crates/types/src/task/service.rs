//! The tables of a spec for long-lived tasks: storage, network, health, scale, picture, notices.
//!
//! This version reads and checks them, and says in [`super::TaskSpec::unsupported`] which of them
//! it does not carry out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bytes::ByteSize;
use super::span::Span;
use super::text::Text;

/// Storage that outlives the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The volume's name.
    pub name: String,
    /// Where it is in the sandbox: an absolute path without `..`.
    pub path: String,
    /// How large it is made if it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Text<ByteSize>>,
    /// How long it is kept after its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Text<Span>>,
}

/// How the task's progress is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The folder in the sandbox that is kept: an absolute path without `..`.
    pub path: String,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Text<Span>>,
    /// A script for `/bin/sh -c` that writes to `path`: run beside the command when a spot
    /// container is taken back, before the command is asked to end. If left out, `path` is fetched as
    /// it stands then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How long the command has at least to write before it is taken off: spot containers with a
    /// shorter notice are not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_preempt: Option<Text<Span>>,
}

/// A port on which the task listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port in the sandbox, at least 1.
    pub port: u16,
    /// A name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether everybody may reach it, or the buyer only.
    #[serde(default)]
    pub public: bool,
}

/// What the task may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Each `host:port` that it may call.
    pub egress: Vec<String>,
}

/// How to see that the task is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The path that answers with 2xx when all is well, like `/health`.
    pub http: String,
    /// The port in the sandbox, at least 1.
    pub port: u16,
    /// How often; 15s if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Text<Span>>,
    /// How many failures in a row mean unwell; 3 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u16>,
}

/// How many copies of a service run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scale {
    /// The least.
    pub min: u16,
    /// The most, at least 1.
    pub max: u16,
    /// By what measure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<ScaleOn>,
    /// What each copy should have of it, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u32>,
    /// How long to wait before there are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Text<Span>>,
    /// How many are kept ready beyond what is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<u16>,
}

/// By what measure copies are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleOn {
    /// Requests that wait.
    Queue,
    /// Requests in a second.
    Rps,
    /// Requests at the same time.
    Concurrency,
}

/// A model that the service answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The model's name in requests.
    pub name: String,
    /// How it is spoken to.
    pub api: ModelApi,
}

/// How a model is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelApi {
    /// As OpenAI does.
    Openai,
}

/// The picture of a streamed task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// How it is coded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    /// Pictures in a second, from 1 to 240.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<u16>,
    /// Width in pixels, from 16 to 8192.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    /// Height in pixels, from 16 to 8192.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
    /// What is sent back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<Input>,
}

/// How a picture is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// H.264, also called AVC.
    H264,
    /// H.265, also called HEVC.
    H265,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
}

/// A device of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// A game controller.
    Gamepad,
    /// A keyboard.
    Keyboard,
    /// A mouse.
    Mouse,
    /// A touch screen.
    Touch,
}

/// Whom to tell what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// What is told.
    pub on: Vec<NotifyOn>,
    /// Where to: a URL that begins with `https://` or `http://`.
    pub webhook: String,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifyOn {
    /// The command runs.
    Running,
    /// The command returned 0.
    Succeeded,
    /// The command returned something else.
    Failed,
    /// The buyer stopped it.
    Stopped,
    /// The host took the container back.
    Preempted,
    /// The host is gone.
    Lost,
    /// A limit of time or money was reached.
    Expired,
    /// Half of the budget is spent.
    Budget50,
    /// Four fifths of the budget are spent.
    Budget80,
    /// All of the budget is spent.
    Budget100,
}
