//! Which GPUs there are: what NVIDIA's library, the PCI bus and Vulkan say, put together.
//!
//! NVIDIA's library knows its own GPUs best. The PCI bus has every card, also one without a usable
//! driver. Vulkan knows names, memory and drivers of all vendors. An entry is one place on the PCI
//! bus, so a GPU that all three know is listed once.
//!
//! Tried with software adapters and with made-up entries. What NVIDIA's library says was never seen
//! on real hardware, and neither were the render nodes of AMD and Intel cards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use serde::{Deserialize, Serialize};

use super::drivers::{self, Source};
use super::vulkan::{VulkanDevice, VulkanKind};
use crate::types::GpuDevice;

/// A graphics processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Names it among those of this machine, over restarts: its place on the PCI bus where it has
    /// one.
    pub id: String,
    /// Its lasting id, where the driver gives one.
    pub uuid: Option<String>,
    /// Its name, or vendor and device numbers.
    pub name: String,
    /// Its memory in bytes, where known.
    pub vram_bytes: Option<u64>,
    /// The driver and its version.
    pub driver: Option<String>,
    /// Its place on the PCI bus, such as `0000:01:00.0`.
    pub pci: Option<String>,
    /// The PCI vendor number, or a larger one of the Khronos registry.
    pub vendor: u32,
    /// The vendor's number of the model.
    pub device: u32,
    /// Whether it is a program on the processor.
    pub is_software: bool,
    /// The device nodes a sandbox needs for it.
    pub nodes: Vec<PathBuf>,
}

/// How GPUs are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuSearch {
    /// The command that runs [`list_gpus`](super::list_gpus) with one more argument, usually this
    /// program again. Empty: drivers are not asked, and only the PCI bus tells.
    pub command: Vec<OsString>,
    /// Whether Vulkan adapters that are programs on the processor count, for trials.
    pub software: bool,
}

impl Gpu {
    /// The device as a sandbox is told.
    #[must_use]
    pub fn device(&self) -> GpuDevice {
        GpuDevice { nodes: self.nodes.clone() }
    }

    /// Whether it can be handed to a sandbox: its memory is known, and there is a way to it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.vram_bytes.is_some() && (self.is_software || !self.nodes.is_empty())
    }

    /// Who made it.
    #[must_use]
    pub fn vendor_name(&self) -> String {
        vendor_name(self.vendor)
    }

    /// Whether it is driven by NVIDIA's own driver.
    #[must_use]
    pub fn is_nvidia(&self) -> bool {
        self.has(Path::new(NVIDIA_CONTROL))
    }

    /// Whether CUDA can start with its nodes.
    #[must_use]
    pub fn has_uvm(&self) -> bool {
        self.has(Path::new(NVIDIA_UVM))
    }

    fn has(&self, node: &Path) -> bool {
        self.nodes.iter().any(|own| own == node)
    }
}

/// Finds the graphics processors.
#[must_use]
pub fn gpus(search: &GpuSearch) -> Vec<Gpu> {
    // Side by side, because each may take seconds.
    let (nvidia, vulkan) = std::thread::scope(|scope| {
        let nvidia = scope.spawn(|| drivers::ask(&search.command, Source::Nvidia));
        let vulkan = drivers::ask(&search.command, Source::Vulkan);
        (nvidia.join().unwrap_or_default(), vulkan)
    });
    merge(nvidia, pci_gpus(Path::new("/sys/bus/pci/devices")), vulkan, search.software)
}

/// One entry for each GPU, those with a place on the bus first and in its order.
fn merge(
    nvidia: Vec<Gpu>,
    pci: Vec<Gpu>,
    vulkan: Vec<VulkanDevice>,
    has_software: bool,
) -> Vec<Gpu> {
    let mut found: BTreeMap<String, Gpu> = BTreeMap::new();
    for gpu in nvidia.into_iter().chain(pci) {
        match found.get_mut(&gpu.id) {
            Some(known) => {
                known.nodes.extend(gpu.nodes);
                known.nodes.sort();
                known.nodes.dedup();
            }
            None => drop(found.insert(gpu.id.clone(), gpu)),
        }
    }
    let mut elsewhere = Vec::new();
    for device in vulkan {
        match device.kind {
            VulkanKind::Software if has_software => {
                let id = format!("software-{}", elsewhere.len());
                elsewhere.push(of_vulkan(device, id));
            }
            VulkanKind::Software | VulkanKind::Other => (),
            VulkanKind::Discrete | VulkanKind::Integrated | VulkanKind::Virtual => {
                match known(&mut found, &device) {
                    Known::Here(gpu) => complete(gpu, device),
                    Known::Somewhere => (),
                    Known::Nowhere => {
                        let id =
                            device.pci.clone().unwrap_or_else(|| format!("vulkan-{}", found.len()));
                        found.insert(id.clone(), of_vulkan(device, id));
                    }
                }
            }
        }
    }
    found.into_values().chain(elsewhere).collect()
}

/// What is known of a device before Vulkan is asked.
enum Known<'a> {
    /// This entry is it.
    Here(&'a mut Gpu),
    /// One of several entries of its kind is it, and Vulkan does not say which.
    Somewhere,
    Nowhere,
}

fn known<'a>(found: &'a mut BTreeMap<String, Gpu>, device: &VulkanDevice) -> Known<'a> {
    let node = device.render.map(render_node);
    let is_same_kind = |gpu: &Gpu| (gpu.vendor, gpu.device) == (device.vendor, device.device);
    let id = match &device.pci {
        Some(pci) => found.get(pci).map(|gpu| gpu.id.clone()),
        None => {
            let by_node = found.values().find(|gpu| node.as_ref().is_some_and(|n| gpu.has(n)));
            let mut of_kind = found.values().filter(|gpu| is_same_kind(gpu));
            match (by_node, of_kind.next(), of_kind.next()) {
                (Some(gpu), _, _) | (None, Some(gpu), None) => Some(gpu.id.clone()),
                (None, Some(_), Some(_)) => return Known::Somewhere,
                (None, None, _) => None,
            }
        }
    };
    match id.and_then(|id| found.get_mut(&id)) {
        Some(gpu) => Known::Here(gpu),
        None => Known::Nowhere,
    }
}

/// Adds what only Vulkan knows. NVIDIA's library, where it was asked, has the last word.
fn complete(gpu: &mut Gpu, device: VulkanDevice) {
    if gpu.uuid.is_none() {
        gpu.name = device.name;
        gpu.driver = device.driver.or(gpu.driver.take());
    }
    gpu.vram_bytes = gpu.vram_bytes.or((device.vram_bytes > 0).then_some(device.vram_bytes));
    if let Some(node) = device.render.map(render_node).filter(|node| node.exists())
        && !gpu.has(&node)
    {
        gpu.nodes.push(node);
    }
}

fn of_vulkan(device: VulkanDevice, id: String) -> Gpu {
    let node = device.render.map(render_node).filter(|node| node.exists());
    Gpu {
        id,
        uuid: None,
        name: device.name,
        vram_bytes: (device.vram_bytes > 0).then_some(device.vram_bytes),
        driver: device.driver,
        pci: device.pci,
        vendor: device.vendor,
        device: device.device,
        is_software: device.kind == VulkanKind::Software,
        nodes: node.into_iter().collect(),
    }
}

fn render_node(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/dri/renderD{number}"))
}

/// Asks NVIDIA's library in this process.
pub(super) fn nvidia_gpus() -> Vec<Gpu> {
    // The library is loaded at run time; its absence is the usual case.
    let Ok(nvml) = Nvml::init() else { return Vec::new() };
    let driver = nvml.sys_driver_version().ok().map(|version| format!("nvidia {version}"));
    let count = nvml.device_count().unwrap_or(0);
    let gpu = |index: u32| {
        let device = nvml.device_by_index(index).ok()?;
        let info = device.pci_info().ok()?;
        let pci = normal_pci(&info.bus_id);
        let minor = device.minor_number().unwrap_or(index);
        Some(Gpu {
            id: pci.clone(),
            uuid: device.uuid().ok(),
            name: device.name().unwrap_or_else(|_| "NVIDIA".to_owned()),
            vram_bytes: device.memory_info().ok().map(|memory| memory.total),
            driver: driver.clone(),
            pci: Some(pci),
            vendor: VENDOR_NVIDIA,
            device: info.pci_device_id >> 16,
            is_software: false,
            nodes: nvidia_nodes(minor),
        })
    };
    (0..count).filter_map(gpu).collect()
}

/// The nodes that CUDA opens: the GPU's own, and those that all GPUs of the driver share. Shared
/// ones give access to no other GPU: that takes the other's own node.
fn nvidia_nodes(minor: u32) -> Vec<PathBuf> {
    let own = format!("/dev/nvidia{minor}");
    [own.as_str(), NVIDIA_CONTROL, NVIDIA_UVM, "/dev/nvidia-uvm-tools"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect()
}

/// NVIDIA writes `00000000:01:00.0`, the kernel `0000:01:00.0`.
pub(super) fn normal_pci(bus: &str) -> String {
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
    entries.filter_map(Result::ok).filter_map(|entry| pci_gpu(&entry.path())).collect()
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
    let vendor = number("vendor")?;
    let device = number("device")?;
    if EMULATED.contains(&vendor) {
        return None;
    }
    let driver = fs::read_link(path.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into());
    let pci = path.file_name()?.to_string_lossy().into_owned();
    let mut nodes = render_nodes(path, vendor);
    nodes.extend(nvidia_minor(&pci).map(nvidia_nodes).unwrap_or_default());
    Some(Gpu {
        id: pci.clone(),
        uuid: None,
        name: format!("{} {device:04x}", vendor_name(vendor)),
        vram_bytes: fs::read_to_string(path.join("mem_info_vram_total"))
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        driver,
        pci: Some(pci),
        vendor,
        device,
        is_software: false,
        nodes,
    })
}

/// The N of `/dev/nvidiaN`, where NVIDIA's driver has this device.
fn nvidia_minor(pci: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/driver/nvidia/gpus/{pci}/information")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse().ok())
}

fn render_nodes(path: &Path, vendor: u32) -> Vec<PathBuf> {
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

fn vendor_name(vendor: u32) -> String {
    match vendor {
        VENDOR_NVIDIA => "NVIDIA".to_owned(),
        VENDOR_AMD => "AMD".to_owned(),
        0x8086 => "Intel".to_owned(),
        0x1_0005 => "Mesa".to_owned(),
        other => format!("{other:04x}"),
    }
}

const NVIDIA_CONTROL: &str = "/dev/nvidiactl";
/// The node without which CUDA does not start. The driver makes it when something privileged asks
/// first, for example `nvidia-modprobe -u -c=0`.
const NVIDIA_UVM: &str = "/dev/nvidia-uvm";

const VENDOR_NVIDIA: u32 = 0x10de;
const VENDOR_AMD: u32 = 0x1002;

/// Display adapters of virtual machines, which compute nothing: QEMU, virtio, `VMware`, Cirrus,
/// Hyper-V, ASPEED.
const EMULATED: [u32; 6] = [0x1234, 0x1af4, 0x15ad, 0x1013, 0x1414, 0x1a03];

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(pci: &str, vendor: u32, nodes: &[&str]) -> Gpu {
        Gpu {
            id: pci.to_owned(),
            uuid: None,
            name: format!("{} 2684", vendor_name(vendor)),
            vram_bytes: None,
            driver: Some("kernel".to_owned()),
            pci: Some(pci.to_owned()),
            vendor,
            device: 0x2684,
            is_software: false,
            nodes: nodes.iter().map(PathBuf::from).collect(),
        }
    }

    fn vulkan(kind: VulkanKind, pci: Option<&str>, vendor: u32) -> VulkanDevice {
        VulkanDevice {
            name: "As Vulkan says".to_owned(),
            vendor,
            device: 0x2684,
            kind,
            vram_bytes: 8 << 30,
            driver: Some("driver 1.2".to_owned()),
            pci: pci.map(str::to_owned),
            render: None,
        }
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
            fs::create_dir_all(path.join("drm/renderD129")).unwrap();
            fs::write(path.join("class"), class).unwrap();
            fs::write(path.join("vendor"), vendor).unwrap();
            fs::write(path.join("device"), "0x2684\n").unwrap();
        }
        let gpus = pci_gpus(dir.path());
        assert_eq!(gpus.len(), 1);
        assert_eq!(gpus[0].name, "NVIDIA 2684");
        assert_eq!(gpus[0].pci.as_deref(), Some("0000:01:00.0"));
        assert_eq!(gpus[0].nodes, [PathBuf::from("/dev/dri/renderD129")]);
        assert!(!gpus[0].is_usable(), "its memory is not known");
        assert_eq!(normal_pci("00000000:01:00.0"), "0000:01:00.0");
    }

    #[test]
    fn a_gpu_that_all_know_is_listed_once() {
        let (first, second) = ("0000:01:00.0", "0000:02:00.0");
        let nvidia = Gpu {
            uuid: Some("GPU-1".to_owned()),
            name: "NVIDIA H100".to_owned(),
            vram_bytes: Some(80 << 30),
            ..gpu(second, VENDOR_NVIDIA, &["/dev/nvidia0", NVIDIA_CONTROL])
        };
        let pci = vec![
            gpu(second, VENDOR_NVIDIA, &["/dev/dri/renderD129", "/dev/nvidia0"]),
            gpu(first, VENDOR_AMD, &["/dev/dri/renderD128"]),
        ];
        let said = vec![
            vulkan(VulkanKind::Discrete, Some(first), VENDOR_AMD),
            // A second driver of the same card.
            vulkan(VulkanKind::Discrete, Some(first), VENDOR_AMD),
            vulkan(VulkanKind::Discrete, Some(second), VENDOR_NVIDIA),
        ];
        let found = merge(vec![nvidia], pci, said, false);
        let [amd, nvidia] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((amd.name.as_str(), amd.vram_bytes), ("As Vulkan says", Some(8 << 30)));
        assert_eq!(amd.driver.as_deref(), Some("driver 1.2"));
        assert!(amd.is_usable() && !amd.is_nvidia());
        assert_eq!((nvidia.name.as_str(), nvidia.vram_bytes), ("NVIDIA H100", Some(80 << 30)));
        assert_eq!(nvidia.nodes.len(), 3, "{:?}", nvidia.nodes);
        assert!(nvidia.is_usable() && nvidia.is_nvidia());
    }

    #[test]
    fn a_device_without_a_place_on_the_bus_is_found_by_its_kind() {
        let one = || gpu("0000:01:00.0", VENDOR_AMD, &["/dev/dri/renderD128"]);
        let two = || gpu("0000:02:00.0", VENDOR_AMD, &["/dev/dri/renderD129"]);
        let said =
            |render| VulkanDevice { render, ..vulkan(VulkanKind::Discrete, None, VENDOR_AMD) };
        let found = merge(Vec::new(), vec![one()], vec![said(None)], false);
        assert_eq!((found.len(), found[0].vram_bytes), (1, Some(8 << 30)));
        // Which of two is not told, so neither is completed, and none is added.
        let found = merge(Vec::new(), vec![one(), two()], vec![said(None)], false);
        assert_eq!(found, [one(), two()]);
        let found = merge(Vec::new(), vec![one(), two()], vec![said(Some(129))], false);
        assert_eq!((found[0].vram_bytes, found[1].vram_bytes), (None, Some(8 << 30)));
        let found = merge(Vec::new(), Vec::new(), vec![said(None)], false);
        assert_eq!(found[0].id, "vulkan-0");
        assert!(!found[0].is_usable(), "there is no node to hand out");
    }

    #[test]
    fn software_counts_only_where_it_is_wanted() {
        let soft = || vulkan(VulkanKind::Software, None, 0x1_0005);
        assert_eq!(merge(Vec::new(), Vec::new(), vec![soft(), soft()], false), []);
        let found = merge(Vec::new(), Vec::new(), vec![soft(), soft()], true);
        let ids: Vec<&str> = found.iter().map(|gpu| gpu.id.as_str()).collect();
        assert_eq!(ids, ["software-0", "software-1"]);
        assert!(found.iter().all(|gpu| gpu.is_usable() && gpu.is_software));
        assert_eq!(found[0].vendor_name(), "Mesa");
    }
}
