//! What matching and hosts look at: the numbers of a spec.

use serde::{Deserialize, Serialize};

use super::{Attestation, GpuAsk, TaskSpec, Text};
use crate::{AccountId, AppId, CapacityType, Feature, Policy, Region, Tier, Usd};

/// What a container has to be for a task. Goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Thousandths of a core, at least.
    pub cpu_milli_min: u32,
    /// Memory in bytes, at least.
    pub memory_bytes_min: u64,
    /// Scratch space in bytes, at least.
    pub disk_bytes_min: u64,
    /// Shared memory in bytes, a part of the memory; 0 for the runtime's default.
    pub shm_bytes: u64,
    /// GPUs; `None` for a task that uses none.
    pub gpu: Option<GpuAsk>,
    /// How strongly the task is kept apart, at least.
    pub isolation_min: Tier,
    /// Parts of the world of which any will do; empty if all will do.
    pub regions: Vec<Region>,
    /// The least share of promised time that the host has kept, in hundredths of a percent.
    pub reliability_min_bp: u16,
    /// Whose hosts only; empty for everybody's.
    pub operators_allow: Vec<AccountId>,
    /// Whose hosts never.
    pub operators_deny: Vec<AccountId>,
    /// The most that one hour of one container may cost.
    pub max_per_hour: Option<Usd>,
    /// On what terms.
    pub capacity: CapacityType,
    /// What else a container can do, each of them once.
    pub features: Vec<Feature>,
    /// The least branch of the GPU driver, as 550.
    pub driver_min: Option<u16>,
    /// The longest round trip to the buyer, in microseconds.
    pub rtt_us_max: Option<u32>,
    /// What is to run, if it may be ready somewhere.
    pub app: Option<AppId>,
    /// Whether only a container will do on which it is ready.
    pub is_app_required: bool,
    /// What the match is to be best in.
    pub policy: Policy,
}

impl Needs {
    /// Thousandths of a core for a task that does not say: one core.
    pub const CPU_MILLI_DEFAULT: u32 = 1_000;
    /// Memory in bytes for a task that does not say: 512 MiB.
    pub const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;
    /// Scratch space in bytes for a task that does not say: 256 MiB.
    pub const DISK_BYTES_DEFAULT: u64 = 256 << 20;
}

impl Default for Needs {
    /// The needs of a task that says nothing.
    fn default() -> Self {
        TaskSpec::default().needs()
    }
}

impl TaskSpec {
    /// What a container has to be for this task.
    pub fn needs(&self) -> Needs {
        let (asked, place) = (&self.resources, &self.place);
        let accounts = |list: &[Text<AccountId>]| list.iter().map(|Text(id)| *id).collect();
        Needs {
            cpu_milli_min: asked.cpu.unwrap_or_default().0.min_or(Needs::CPU_MILLI_DEFAULT),
            memory_bytes_min: asked
                .memory
                .unwrap_or_default()
                .0
                .min_or(Needs::MEMORY_BYTES_DEFAULT),
            disk_bytes_min: asked.disk.unwrap_or_default().0.min_or(Needs::DISK_BYTES_DEFAULT),
            shm_bytes: asked.shm.unwrap_or_default().0.bytes(),
            gpu: asked.gpu.as_ref().map(|Text(gpu)| gpu.clone()),
            isolation_min: self.trust.isolation.unwrap_or_default(),
            regions: place.regions.clone(),
            reliability_min_bp: place.reliability.unwrap_or_default().0.min_bp(),
            operators_allow: accounts(&place.operators.allow),
            operators_deny: accounts(&place.operators.deny),
            max_per_hour: self.price.max_per_hour.map(|Text(usd)| usd),
            capacity: self.capacity(),
            features: self.features(),
            driver_min: asked.driver,
            rtt_us_max: place.rtt_ms.map(|ms| ms.saturating_mul(1_000)),
            app: None,
            is_app_required: false,
            policy: place.policy,
        }
    }

    /// Each once, in order.
    fn features(&self) -> Vec<Feature> {
        let is_attested = self.trust.attestation == Some(Attestation::Required);
        let mut features = self.resources.features.clone();
        features.extend(is_attested.then_some(Feature::Attested));
        features.sort_unstable();
        features.dedup();
        features
    }
}
