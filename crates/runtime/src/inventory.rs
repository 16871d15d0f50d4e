//! What the machine has. Plain functions that need no privileges; what cannot be found is absent.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use serde::{Deserialize, Serialize};

use crate::types::{CgroupVersion, GpuDevice};

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

/// A graphics processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its lasting id, where the driver gives one.
    pub uuid: Option<String>,
    /// Its name, or vendor and device numbers.
    pub name: String,
    /// Its memory in bytes, where known.
    pub vram_bytes: Option<u64>,
    /// The driver and its version.
    pub driver: Option<String>,
    /// Its place on the PCI bus, such as `0000:01:00.0`.
    pub pci: String,
    /// The PCI vendor number.
    pub vendor: u16,
    /// The device nodes a sandbox needs for it.
    pub nodes: Vec<PathBuf>,
}

impl Gpu {
    /// The device as a sandbox is told.
    #[must_use]
    pub fn device(&self) -> GpuDevice {
        GpuDevice { nodes: self.nodes.clone() }
    }
}

/// Takes stock of everything but disks.
#[must_use]
pub fn inventory() -> Inventory {
    Inventory {
        cpu: parse_cpu(&read("/proc/cpuinfo")),
        memory_bytes: parse_memory(&read("/proc/meminfo")),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cgroup: crate::sandboxd::cgroup_version(),
        gpus: gpus(),
    }
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

/// Finds the graphics processors: through NVIDIA's library where it is, else on the PCI bus.
#[must_use]
pub fn gpus() -> Vec<Gpu> {
    let mut gpus = nvidia_gpus();
    let known: BTreeSet<String> = gpus.iter().map(|gpu| gpu.pci.clone()).collect();
    gpus.extend(
        pci_gpus(Path::new("/sys/bus/pci/devices"))
            .into_iter()
            .filter(|gpu| !known.contains(&gpu.pci)),
    );
    gpus
}

fn nvidia_gpus() -> Vec<Gpu> {
    // The library is loaded at run time; its absence is the usual case.
    let Ok(nvml) = Nvml::init() else { return Vec::new() };
    let driver = nvml.sys_driver_version().ok().map(|version| format!("nvidia {version}"));
    let count = nvml.device_count().unwrap_or(0);
    let gpu = |index: u32| {
        let device = nvml.device_by_index(index).ok()?;
        let pci = normal_pci(&device.pci_info().ok()?.bus_id);
        let minor = device.minor_number().unwrap_or(index);
        Some(Gpu {
            uuid: device.uuid().ok(),
            name: device.name().unwrap_or_else(|_| "NVIDIA".to_owned()),
            vram_bytes: device.memory_info().ok().map(|memory| memory.total),
            driver: driver.clone(),
            pci,
            vendor: VENDOR_NVIDIA,
            nodes: nvidia_nodes(minor),
        })
    };
    (0..count).filter_map(gpu).collect()
}

fn nvidia_nodes(minor: u32) -> Vec<PathBuf> {
    let own = format!("/dev/nvidia{minor}");
    [own.as_str(), "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect()
}

/// NVIDIA writes `00000000:01:00.0`, the kernel `0000:01:00.0`.
fn normal_pci(bus: &str) -> String {
    let lower = bus.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => {
            format!("{}:{rest}", domain.get(4..).unwrap_or(domain))
        }
        _ => lower,
    }
}

fn pci_gpus(dir: &Path) -> Vec<Gpu> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut gpus: Vec<Gpu> =
        entries.filter_map(Result::ok).filter_map(|entry| pci_gpu(&entry.path())).collect();
    gpus.sort_by(|a, b| a.pci.cmp(&b.pci));
    gpus
}

fn pci_gpu(path: &Path) -> Option<Gpu> {
    let number = |name: &str| {
        let text = fs::read_to_string(path.join(name)).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let class = number("class")? >> 8;
    // Display controllers are class 03, and 1200 is a processing accelerator.
    if class >> 8 != 0x03 && class != 0x1200 {
        return None;
    }
    let vendor = u16::try_from(number("vendor")?).ok()?;
    let device = number("device")?;
    let is_emulated = EMULATED.contains(&vendor);
    if is_emulated {
        return None;
    }
    let driver = fs::read_link(path.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into());
    Some(Gpu {
        uuid: None,
        name: format!("{} {device:04x}", vendor_name(vendor)),
        vram_bytes: fs::read_to_string(path.join("mem_info_vram_total"))
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        driver,
        pci: path.file_name()?.to_string_lossy().into_owned(),
        vendor,
        nodes: render_nodes(path, vendor),
    })
}

fn render_nodes(path: &Path, vendor: u16) -> Vec<PathBuf> {
    let mut nodes: Vec<PathBuf> = fs::read_dir(path.join("drm"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("renderD"))
        .map(|name| PathBuf::from(format!("/dev/dri/{name}")))
        .collect();
    if vendor == VENDOR_AMD && Path::new("/dev/kfd").exists() {
        nodes.push(PathBuf::from("/dev/kfd"));
    }
    nodes
}

fn vendor_name(vendor: u16) -> String {
    match vendor {
        VENDOR_NVIDIA => "NVIDIA".to_owned(),
        VENDOR_AMD => "AMD".to_owned(),
        0x8086 => "Intel".to_owned(),
        other => format!("{other:04x}"),
    }
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

const VENDOR_NVIDIA: u16 = 0x10de;
const VENDOR_AMD: u16 = 0x1002;

/// Display adapters of virtual machines, which compute nothing: QEMU, virtio, `VMware`, Cirrus,
/// Hyper-V, ASPEED.
const EMULATED: [u16; 6] = [0x1234, 0x1af4, 0x15ad, 0x1013, 0x1414, 0x1a03];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let found = inventory();
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

    #[test]
    fn only_real_display_adapters_count() {
        let dir = tempfile::tempdir().unwrap();
        for (name, class, vendor) in [
            ("0000:01:00.0", "0x030000", "0x10de"),
            ("0000:02:00.0", "0x030000", "0x1234"),
            ("0000:03:00.0", "0x020000", "0x8086"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("class"), class).unwrap();
            fs::write(path.join("vendor"), vendor).unwrap();
            fs::write(path.join("device"), "0x2684\n").unwrap();
        }
        let gpus = pci_gpus(dir.path());
        assert_eq!(gpus.len(), 1);
        assert_eq!(gpus[0].name, "NVIDIA 2684");
        assert_eq!(gpus[0].pci, "0000:01:00.0");
        assert_eq!(normal_pci("00000000:01:00.0"), "0000:01:00.0");
    }
}
