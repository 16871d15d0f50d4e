//! What a spec may ask for and this version of the program does not carry out.
//!
//! Such keys are read, so that a spec is a contract from the first day, and never passed over in
//! silence: the caller refuses a spec whose list is not empty.

use std::fmt;

use super::{Attestation, DataAtRest, Kind, TaskSpec, Text};
use crate::Tier;

/// The most containers that are leased together.
const GANG_MAX: u16 = 64;

/// A key that is set to something that is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The key's path, like `timeouts.idle`.
    pub key: &'static str,
    /// What is not carried out.
    pub why: &'static str,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.why)
    }
}

impl TaskSpec {
    /// The keys that are set to something that this version does not carry out, in the order of
    /// the spec.
    pub fn unsupported(&self) -> Vec<Unsupported> {
        let mut list = Vec::new();
        for (is_set, key, why) in self.base_gaps().into_iter().chain(self.service_gaps()) {
            if is_set {
                list.push(Unsupported { key, why });
            }
        }
        list
    }

    fn base_gaps(&self) -> [(bool, &'static str, &'static str); 14] {
        const AT_LEAST: &str = "an upper bound is not looked at yet; leave it out";
        let (asked, trust) = (&self.resources, &self.trust);
        let is_strong = trust.isolation.is_some_and(|tier| tier > Tier::Container);
        let attests = trust.attestation.is_some_and(|asked| asked != Attestation::None);
        let is_gang = self.nodes > 1;
        let ignores = self.files.iter().any(|files| files.ignore.is_some());
        [
            (self.kind != Kind::Task, "kind", "only tasks that end by themselves can run yet"),
            (self.rootfs.is_some(), "rootfs", "a folder can't be the image yet; use `image`"),
            (self.preset.is_some(), "preset", "there are no prepared images yet; use `image`"),
            (
                ignores,
                "files.ignore",
                "files can't be left behind yet; all of `from` would be sent",
            ),
            (asked.cpu.is_some_and(|Text(cpu)| cpu.is_capped()), "resources.cpu", AT_LEAST),
            (asked.memory.is_some_and(|Text(size)| size.is_capped()), "resources.memory", AT_LEAST),
            (asked.disk.is_some_and(|Text(size)| size.is_capped()), "resources.disk", AT_LEAST),
            (self.nodes > GANG_MAX, "nodes", "at most 64 containers work on one task yet"),
            (
                is_gang && self.price.reserve.is_some(),
                "price.reserve",
                "a reservation is one container: a task of several `nodes` can't run on it",
            ),
            (
                is_gang && self.checkpoint.is_some(),
                "checkpoint",
                "the progress of a task of several `nodes` is not kept yet",
            ),
            (is_strong, "trust.isolation", "nothing stronger than `container` is offered yet"),
            (attests, "trust.attestation", "hosts can't prove what they run yet"),
            (
                trust.data == Some(DataAtRest::Encrypted),
                "trust.data",
                "scratch space is not encrypted yet",
            ),
            (self.timeouts.idle.is_some(), "timeouts.idle", "idle tasks are not noticed yet"),
        ]
    }

    fn service_gaps(&self) -> [(bool, &'static str, &'static str); 9] {
        let is_periodic = self.checkpoint.as_ref().is_some_and(|kept| kept.every.is_some());
        [
            (!self.volumes.is_empty(), "volumes", "there is no storage that outlives a task yet"),
            (is_periodic, "checkpoint.every", "progress is kept only when a host takes it back"),
            (!self.ports.is_empty(), "ports", "ports of a task can't be reached yet"),
            (self.network.is_some(), "network", "a task has no network yet"),
            (self.health.is_some(), "health", "health is not checked yet"),
            (self.scale.is_some(), "scale", "a task has one copy yet"),
            (self.model.is_some(), "model", "models are not served yet"),
            (self.stream.is_some(), "stream", "pictures are not streamed yet"),
            (!self.notify.is_empty(), "notify", "nobody is told yet"),
        ]
    }
}
