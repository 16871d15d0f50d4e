//! What the machine has. Plain functions that need no privileges; what cannot be found is absent.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::types::CgroupVersion;

mod drivers;
mod gpus;
mod sensors;
mod vulkan;

pub use drivers::list_gpus;
pub use gpus::{Gpu, GpuSearch, gpus};
pub use sensors::{GpuReading, gpu_readings};
pub(crate) use vulkan::{VulkanDevice, VulkanKind};

/// What the machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The processors.
    pub cpu: Cpu,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The control group hierarchy.
    pub cgroup: CgroupVersion,
    /// The graphics processors.
    pub gpus: Vec<Gpu>,
}

/// The processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// The model, as the kernel names it.
    pub model: String,
    /// Physical cores; threads when the kernel does not tell.
    pub cores: u32,
    /// Hardware threads.
    pub threads: u32,
}

/// Takes stock of everything but disks.
#[must_use]
pub fn inventory(search: &GpuSearch) -> Inventory {
    Inventory {
        cpu: parse_cpu(&read("/proc/cpuinfo")),
        memory_bytes: memory_bytes(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cgroup: crate::sandboxd::cgroup_version(),
        gpus: gpus(search),
    }
}

/// The machine's memory in bytes.
#[must_use]
pub fn memory_bytes() -> u64 {
    parse_memory(&read("/proc/meminfo"))
}

/// Bytes that a user may still write below `dir`.
///
/// # Errors
///
/// When the directory is not there.
pub fn disk_free_bytes(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn parse_cpu(text: &str) -> Cpu {
    let mut cpu = Cpu::default();
    let mut cores = BTreeSet::new();
    let mut package = String::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "processor" => cpu.threads += 1,
            "model name" | "Model" if cpu.model.is_empty() => value.clone_into(&mut cpu.model),
            "physical id" => value.clone_into(&mut package),
            "core id" => drop(cores.insert((package.clone(), value.to_owned()))),
            _ => {}
        }
    }
    cpu.cores = u32::try_from(cores.len()).ok().filter(|n| *n > 0).unwrap_or(cpu.threads);
    cpu
}

fn parse_memory(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let found = inventory(&GpuSearch::default());
        assert!(found.cpu.threads > 0 && found.cpu.cores > 0);
        assert!(found.memory_bytes > 0);
        assert!(!found.kernel.is_empty());
        assert!(disk_free_bytes(Path::new("/")).unwrap() > 0);
        assert!(disk_free_bytes(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn cores_are_counted_once() {
        let text = "processor : 0\nmodel name : X\nphysical id : 0\ncore id : 0\n\n\
                    processor : 1\nmodel name : X\nphysical id : 0\ncore id : 0\n";
        let cpu = parse_cpu(text);
        assert_eq!(cpu, Cpu { model: "X".to_owned(), cores: 1, threads: 2 });
        assert_eq!(parse_memory("MemTotal:       2048 kB\n"), 2 << 20);
        assert_eq!(parse_memory(""), 0);
    }
}
