//! The tables of a spec that every kind of task may have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bytes::{ByteRange, ByteSize};
use super::cpu::CpuRange;
use super::gpu::GpuAsk;
use super::share::Reliability;
use super::span::Span;
use super::text::Text;
use crate::{AccountId, Feature, Policy, Region, ReservationId, Tier, Usd};

/// What the command is for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It ends by itself.
    #[default]
    Task,
    /// It answers requests until it is stopped.
    Service,
    /// It is a machine to work on.
    Dev,
    /// It shows a picture and takes input.
    Stream,
    /// It is a phone.
    Phone,
}

/// Files that are sent along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// A file or folder here; relative paths begin at the folder of the spec.
    pub from: String,
    /// Where it is in the sandbox: an absolute path without `..`.
    pub to: String,
    /// A file with patterns of what is left behind, in the syntax of `.gitignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<String>,
}

/// What the task needs of a host. What is left out has a small default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourcesAsk {
    /// GPUs; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Text<GpuAsk>>,
    /// Cores; 1 if left out. A single number is the least that will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Text<CpuRange>>,
    /// Memory; 512MiB if left out. A single size is the least that will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Text<ByteRange>>,
    /// Scratch space, wiped at the end; 256MiB if left out. A single size is the least that will
    /// do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Text<ByteRange>>,
    /// Shared memory at `/dev/shm`, a part of the memory; at least this much has room there. If
    /// left out it shares the room of `disk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm: Option<Text<ByteSize>>,
    /// What else a container has to be able to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// The least branch of the GPU driver, as 550.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<u16>,
}

/// Which hosts may run the task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Where {
    /// Parts of the world; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", inner(regex(pattern = r"^[a-z][a-z0-9.-]{0,31}$")))]
    pub regions: Vec<Region>,
    /// The longest round trip from here, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// How reliable the host has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Text<Reliability>>,
    /// The longest round trip between any two of the task's `nodes`, in milliseconds; if left out,
    /// all of them are in one region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u32>,
    /// Whether each of the task's `nodes` has to be on a host of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub distinct_hosts: bool,
    /// What the match is to be best in; `cheapest` if left out.
    #[serde(skip_serializing_if = "is_default")]
    pub policy: Policy,
    /// Whose hosts.
    #[serde(skip_serializing_if = "Operators::is_empty")]
    pub operators: Operators,
}

/// Whose hosts may run the task, by account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Operators {
    /// Only these; everybody's if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Text<AccountId>>,
    /// Never these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Text<AccountId>>,
}

impl Operators {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the host must not be able to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// How strongly the task is kept apart, at least; `container` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Tier>,
    /// Whether the host has to prove what it runs; `none` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
    /// How the task's data lies on the host; `plain` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataAtRest>,
}

/// Whether a host has to prove what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attestation {
    /// No proof.
    None,
    /// Hosts with a proof first.
    Preferred,
    /// Only hosts with a proof.
    Required,
}

/// How a task's data lies on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataAtRest {
    /// As it is.
    Plain,
    /// Under a key that is gone with the sandbox.
    Encrypted,
}

/// What the task may cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PriceAsk {
    /// Whether containers that may be taken back are wanted.
    #[serde(skip_serializing_if = "Spot::is_default")]
    pub spot: Spot,
    /// The reservation that it runs on, which pays for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Text<ReservationId>>,
    /// The most that one hour of one container may cost, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_hour: Option<Text<Usd>>,
    /// The most that the whole task may cost, in US dollars. It is stopped before it costs more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Text<Usd>>,
    /// The currency of both amounts.
    #[serde(skip_serializing_if = "Currency::is_default")]
    pub currency: Currency,
}

/// Whether containers that may be taken back are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Spot {
    /// Whichever is better.
    #[default]
    Auto,
    /// Only such containers.
    Only,
    /// No such container.
    Never,
}

impl Spot {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Currency {
    /// US dollars.
    #[default]
    Usd,
}

impl Currency {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When the task is started again elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// After what. Faults of the command itself are not in the default.
    pub on: Vec<RetryOn>,
    /// How many times at most.
    pub max: u16,
    /// For how long after the task was given at most.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub within: Option<Text<Span>>,
}

impl Default for Retry {
    fn default() -> Self {
        let on = [RetryOn::NoCapacity, RetryOn::Preempted, RetryOn::HostLost, RetryOn::Unhealthy];
        Self { on: on.to_vec(), max: 3, within: None }
    }
}

/// After what a task is started again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No container fits, or all are busy.
    NoCapacity,
    /// The host took the container back.
    Preempted,
    /// The host or its sandbox is gone.
    HostLost,
    /// The task stopped answering its health check.
    Unhealthy,
    /// The command returned something other than 0.
    Failed,
}

/// How long each part of the task's life may take. What is left out has no limit of the task's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Waiting for a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Text<Span>>,
    /// From the container's yes to the running command, without fetching the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Text<Span>>,
    /// Running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Text<Span>>,
    /// Doing nothing while running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Text<Span>>,
}

/// Whether `section` is as if it had been left out.
pub(super) fn is_default<T: Default + PartialEq>(section: &T) -> bool {
    *section == T::default()
}
