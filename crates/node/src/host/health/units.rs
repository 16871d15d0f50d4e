//! Which part of a machine an event is about.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use welkin_check::health::{Event, Symptom};
use welkin_lease::Unit;
use welkin_runtime::inventory::Gpu;

/// How many disks below a disk are followed: a file system on a mapper on a partition on a disk.
const DEPTH_MAX: usize = 4;

/// The unit that an event is about; nothing where it is about a part that this host does not lease.
pub(super) fn unit_of(event: &Event, gpus: &[Gpu], disks: &BTreeSet<String>) -> Option<Unit> {
    let gpu = event.device.as_deref().and_then(|device| gpu_at(device, gpus));
    let gpu = gpu.map(|gpu| Unit::Device(gpu.id.clone()));
    match event.symptom {
        Symptom::Xid(_) | Symptom::AmdReset | Symptom::AmdTimeout | Symptom::AmdUncorrected => gpu,
        Symptom::PcieCorrected | Symptom::PcieUncorrected => {
            let is_others = event.device.as_deref().is_some_and(is_display);
            gpu.or((!is_others).then_some(Unit::Host))
        }
        Symptom::DiskError
        | Symptom::NvmeDown
        | Symptom::NvmeReset
        | Symptom::FileSystem
        | Symptom::FileSystemReadOnly => {
            let is_known = |device: &String| disks.is_empty() || disks.contains(device);
            event.device.as_ref().is_none_or(is_known).then_some(Unit::Host)
        }
        _ => Some(Unit::Host),
    }
}

/// Whether a PCI device draws or computes: a GPU that this host does not lease. The reader of lines lets
/// only addresses through.
fn is_display(address: &str) -> bool {
    let class = std::fs::read_to_string(format!("/sys/bus/pci/devices/{address}/class"));
    class.is_ok_and(|class| class.starts_with("0x03"))
}

/// Drivers name a card with or without its function: `0000:3b:00` and `0000:3b:00.0`.
fn gpu_at<'a>(device: &str, gpus: &'a [Gpu]) -> Option<&'a Gpu> {
    gpus.iter().find(|gpu| {
        let own = gpu.pci.as_deref().unwrap_or(&gpu.id);
        own == device || own.strip_prefix(device).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The names of the disks that these folders are on, as the kernel's log has them: partitions, disks
/// and controllers. Empty where that can't be told.
pub(super) fn disks_of<'a>(folders: impl IntoIterator<Item = &'a Path>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in folders {
        let there = folder.ancestors().find_map(|path| std::fs::metadata(path).ok());
        let Some(meta) = there else { continue };
        let device = meta.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let entry = format!("/sys/dev/block/{major}:{minor}");
        add_disk(Path::new(&entry), DEPTH_MAX, &mut names);
    }
    names
}

fn add_disk(entry: &Path, depth: usize, names: &mut BTreeSet<String>) {
    let Ok(real) = entry.canonicalize() else { return };
    // …/nvme/nvme0/nvme0n1/nvme0n1p1: all of these are named in messages.
    let parts = real.iter().rev().map(|part| part.to_string_lossy());
    let is_named = |part: &str| part.bytes().any(|b| b.is_ascii_digit()) || part.starts_with("sd");
    let of_disk = parts.take_while(|part| *part != "block" && !part.contains(':')).take(DEPTH_MAX);
    names.extend(of_disk.filter(|part| is_named(part)).map(|part| part.into_owned()));
    if depth > 0
        && let Ok(below) = std::fs::read_dir(real.join("slaves"))
    {
        below.filter_map(Result::ok).for_each(|entry| add_disk(&entry.path(), depth - 1, names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(id: &str, pci: Option<&str>) -> Gpu {
        Gpu {
            id: id.to_owned(),
            uuid: None,
            name: "NVIDIA L4".to_owned(),
            vram_bytes: Some(24 << 30),
            driver: None,
            pci: pci.map(str::to_owned),
            vendor: 0x10de,
            device: 1,
            is_software: false,
            nodes: Vec::new(),
        }
    }

    #[test]
    fn an_event_is_of_the_part_that_it_names() {
        let gpus = [gpu("a", Some("0000:3b:00.0")), gpu("software-0", None)];
        let disks = BTreeSet::from(["sda".to_owned(), "sda1".to_owned()]);
        let unit = |symptom, device: &str| {
            let device = (!device.is_empty()).then(|| device.to_owned());
            unit_of(&Event { at_us: None, symptom, device, pid: None }, &gpus, &disks)
        };
        let card = Some(Unit::Device("a".to_owned()));
        assert_eq!(unit(Symptom::Xid(79), "0000:3b:00"), card);
        assert_eq!(unit(Symptom::Xid(79), "0000:3b:00.0"), card);
        assert_eq!(unit(Symptom::Xid(79), "0000:3b:0"), None);
        assert_eq!(unit(Symptom::Xid(79), "0000:65:00"), None);
        assert_eq!(unit(Symptom::Xid(79), "software-0"), Some(Unit::Device("software-0".into())));
        assert_eq!(unit(Symptom::PcieUncorrected, "0000:3b:00.0"), card);
        assert_eq!(unit(Symptom::PcieUncorrected, "0000:01:00.0"), Some(Unit::Host));
        assert_eq!(unit(Symptom::DiskError, "sda"), Some(Unit::Host));
        assert_eq!(unit(Symptom::DiskError, "sdb"), None);
        assert_eq!(unit(Symptom::MachineCheck, "CPU 3"), Some(Unit::Host));
    }

    #[test]
    fn disks_of_folders_are_found_or_not_told() {
        let names = disks_of([Path::new("/proc"), Path::new("/nonexistent/folder")]);
        assert!(names.iter().all(|name| !name.contains('/') && !name.contains(':')), "{names:?}");
    }
}
