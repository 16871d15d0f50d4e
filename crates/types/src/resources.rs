//! What a container has and what a task needs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One GPU of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Normalised model, lower case without the vendor: `h100`, `rtx4090`, `l40s`.
    pub model: String,
    /// Form factor, lower case: `sxm`, `pcie`; empty if unknown.
    pub form: String,
    /// Memory in bytes.
    pub vram_bytes: u64,
    /// The vendor's identity of the device; empty if it gives none.
    pub uuid: String,
}

/// What one container of a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Memory in bytes, including what is written to scratch in memory.
    pub memory_bytes: u64,
    /// Scratch space in bytes.
    pub disk_bytes: u64,
    /// Whole GPUs.
    pub gpus: Vec<Gpu>,
}

impl Resources {
    /// The most GPUs that a container may list.
    pub const GPUS_MAX: usize = 16;
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gpu) = self.gpus.first() {
            write!(f, "{}x {} {} ", self.gpus.len(), gpu.model, bytes(gpu.vram_bytes))?;
        }
        write!(
            f,
            "{} cpu, {} memory, {} disk",
            f64::from(self.cpu_milli) / 1_000.0,
            bytes(self.memory_bytes),
            bytes(self.disk_bytes)
        )
    }
}

/// Writes a number of bytes with a binary unit and at most one decimal.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[unit]),
        tenth => format!("{}.{tenth} {}", tenths / 10, UNITS[unit]),
    }
}

/// How strongly a lease is kept apart from its host and its neighbours. Ordered, weakest first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// No isolation: never offered to others.
    None,
    /// A plain process with limits: for the owner's own work only.
    Process,
    /// User namespace, system call filter, no capabilities, control groups.
    #[default]
    Container,
    /// A kernel in user space between the task and the host's kernel.
    Sandbox,
    /// A virtual machine.
    Vm,
    /// A virtual machine whose memory the host can't read, attested.
    Confidential,
}

impl Tier {
    /// The tier's name in specs and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
            Self::Container => "container",
            Self::Sandbox => "sandbox",
            Self::Vm => "vm",
            Self::Confidential => "confidential",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_read_well() {
        let resources = Resources {
            cpu_milli: 500,
            memory_bytes: 1 << 30,
            disk_bytes: 1_610_612_736,
            gpus: Vec::new(),
        };
        assert_eq!(resources.to_string(), "0.5 cpu, 1 GiB memory, 1.5 GiB disk");
    }
}
