//! Which GPUs a host's slots own, and what they are called where people compare them.

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use tracing::warn;
use welkin_lease::Devices;
use welkin_runtime::inventory::Gpu as Device;
use welkin_types::task::{GpuAsk, gpu_model};
use welkin_types::{Class, Feature, Gpu, Resources};

/// The longest model in a class, which has the form and the memory behind it.
const MODEL_LEN_MAX: usize = 20;
/// Words in the names of GPUs that tell nothing.
const NOISE: [&str; 6] = ["graphics", "generation", "gpu", "series", "corporation", "inc"];

/// GPUs that no other host process of this machine has, for as long as this is kept.
///
/// Each is a name of a local socket on which nobody answers: names are taken by one process at a
/// time, and the kernel frees those of a process that ends, however it ends. Processes that do not
/// share the network of this machine are not seen.
#[derive(Debug)]
pub(super) struct Reserved(#[expect(dead_code, reason = "kept open")] Vec<UnixListener>);

impl Reserved {
    /// Reserves what can be had; the rest is left out. Software adapters can be had by all.
    pub(super) fn take(devices: Vec<Device>) -> (Vec<Device>, Self) {
        let mut locks = Vec::new();
        let mut is_ours = |device: &Device| {
            if device.is_software {
                return true;
            }
            match lock(&device.id) {
                Ok(lock) => locks.push(lock),
                Err(error) => {
                    warn!(gpu = device.id, %error, "left to another host on this machine");
                    return false;
                }
            }
            true
        };
        let devices = devices.into_iter().filter(|device| is_ours(device)).collect();
        (devices, Self(locks))
    }
}

fn lock(id: &str) -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("welkin/gpu/{id}"))?)
}

/// GPUs of data centres that have no encoder at all: compute only.
const WITHOUT_ENCODER: [&str; 10] =
    ["h100", "h200", "h800", "h20", "a100", "a800", "a30", "b200", "b300", "gb200"];
/// How models are named whose encoder knows AV1: generations Ada and Blackwell.
const WITH_AV1: [&str; 6] = ["rtx40", "rtx50", "l4", "l40", "rtxpro", "rtx6000ada"];

/// What all of these GPUs can encode in hardware, by NVIDIA's table of encoders (Video Codec SDK,
/// "Video Encode and Decode GPU Support Matrix"). Of other vendors nothing is claimed.
pub(super) fn features_of(gpus: &[Gpu]) -> Vec<Feature> {
    let is_nvidia = |model: &str| {
        let known =
            ["rtx", "gtx", "l4", "t4", "t1000", "a10", "a16", "a2", "a40", "v100", "quadro"];
        known.iter().any(|name| model.starts_with(name))
    };
    let encodes = |gpu: &Gpu| {
        let model = gpu.model.as_str();
        is_nvidia(model) && !WITHOUT_ENCODER.contains(&model)
    };
    if gpus.is_empty() || !gpus.iter().all(encodes) {
        return Vec::new();
    }
    let has_av1 =
        |gpu: &Gpu| WITH_AV1.iter().any(|name| gpu.model.replace('-', "").starts_with(name));
    let mut features = vec![Feature::H264, Feature::Hevc];
    features.extend(gpus.iter().all(has_av1).then_some(Feature::Av1));
    features
}

/// The branch of a GPU's driver where it is NVIDIA's, as 550 of `550.54.15`.
pub(super) fn driver_branch(device: &Device) -> Option<u16> {
    let version = device.driver.as_deref().filter(|_| device.vendor == NVIDIA)?;
    let digits = |word: &str| word.split('.').next()?.parse().ok();
    version.split_whitespace().find_map(digits)
}

/// NVIDIA's number on the PCI bus.
const NVIDIA: u32 = 0x10de;

/// GPUs that no slot owns yet.
#[derive(Debug)]
pub(super) struct Stock<'a> {
    left: Vec<&'a Device>,
}

impl<'a> Stock<'a> {
    /// Those that can be handed out. One whose memory is not known can't be compared or priced.
    pub(super) fn new(devices: &'a [Device]) -> Self {
        Self { left: devices.iter().filter(|device| device.is_usable()).collect() }
    }

    /// What is left, by kind, in the machine's order.
    pub(super) fn kinds(&self) -> Vec<(Gpu, usize)> {
        let mut kinds: Vec<(Gpu, usize)> = Vec::new();
        for kind in self.left.iter().map(|device| kind_of(device)) {
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind, 1)),
            }
        }
        kinds
    }

    /// Takes `each` GPUs for each of `slots`, all of one kind, because a container promises one.
    /// Returns what one slot has and the devices of every slot.
    pub(super) fn take(
        &mut self,
        each: u32,
        slots: u32,
    ) -> Result<(Vec<Gpu>, Vec<Devices>), String> {
        let [each, slots] = [each, slots].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        if each == 0 {
            return Ok((Vec::new(), vec![Devices::new(); slots]));
        }
        if each > Resources::GPUS_MAX {
            return Err(format!("has more than {} GPUs", Resources::GPUS_MAX));
        }
        let kinds = self.kinds();
        let wanted = each.saturating_mul(slots);
        let Some((kind, _)) = kinds.iter().find(|(_, count)| *count >= wanted) else {
            let left: Vec<String> =
                kinds.iter().map(|(kind, count)| format!("{count} x {}", kind.model)).collect();
            let left = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
            return Err(format!(
                "wants {wanted} GPUs of one kind ({slots} slots with {each} each); usable and not \
                 taken by another container: {left}"
            ));
        };
        let taken: Vec<&Device> =
            self.left.iter().copied().filter(|d| kind_of(d) == *kind).take(wanted).collect();
        let ids: BTreeSet<&str> = taken.iter().map(|device| device.id.as_str()).collect();
        self.left.retain(|device| !ids.contains(device.id.as_str()));
        let devices =
            taken.chunks(each).map(|slot| slot.iter().map(|d| d.id.clone()).collect()).collect();
        // An identity is told only where every lease gets the same devices.
        let uuid = |device: &Device| device.uuid.clone().filter(|_| slots == 1).unwrap_or_default();
        let shown = taken.iter().take(each).map(|d| Gpu { uuid: uuid(d), ..kind.clone() });
        Ok((shown.collect(), devices))
    }
}

/// The kind by which a GPU is compared; its identity is left out.
pub(super) fn kind_of(device: &Device) -> Gpu {
    let (model, form) = model_and_form(&device.name);
    Gpu { model, form, vram_bytes: device.vram_bytes.unwrap_or_default(), uuid: String::new() }
}

/// The class of containers with such GPUs: model, form and memory, `h100-sxm-80`.
pub(super) fn class_of(gpu: &Gpu) -> Option<Class> {
    let gib = gib_of(gpu);
    let form = if gpu.form.is_empty() { String::new() } else { format!("-{}", gpu.form) };
    format!("{}{form}-{gib}", gpu.model).parse().ok()
}

/// Memory in whole GiB, as it is sold.
pub(super) fn gib_of(gpu: &Gpu) -> u64 {
    gpu.vram_bytes.div_ceil(1 << 30)
}

/// Takes a driver's name apart: `NVIDIA A100-SXM4-80GB` is an `a100` of the form `sxm`.
fn model_and_form(name: &str) -> (String, String) {
    let lower = without_brackets(name).to_lowercase();
    let (mut words, mut form, mut has_hbm3) = (Vec::new(), String::new(), false);
    for word in lower.split(|c: char| c.is_whitespace() || matches!(c, '-' | '_' | '/')) {
        let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_size = |unit| word.strip_suffix(unit).is_some_and(is_number);
        if GpuAsk::FORMS.contains(&stem) {
            stem.clone_into(&mut form);
        } else if word.starts_with("hbm") {
            has_hbm3 |= word == "hbm3";
        } else if !is_size("gb") && !is_size("gib") && !NOISE.contains(&word) {
            words.push(word);
        }
    }
    let mut model = gpu_model(&words.join(" "));
    model.retain(|c| c.is_ascii_alphanumeric());
    if !model.starts_with(|c: char| c.is_ascii_lowercase()) {
        model.insert_str(0, "gpu");
    }
    model.truncate(MODEL_LEN_MAX);
    // The driver's name of the SXM card; those for slots are called PCIe and NVL.
    if model == "h100" && form.is_empty() && has_hbm3 {
        "sxm".clone_into(&mut form);
    }
    (model, form)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// What stands in brackets are trademarks, chips and versions of compilers.
fn without_brackets(name: &str) -> String {
    let mut depth = 0_u32;
    let is_outside = |c: &char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => {
                depth = depth.saturating_sub(1);
                return false;
            }
            _ => (),
        }
        depth == 0
    };
    name.chars().filter(is_outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, name: &str, gib: u64) -> Device {
        Device {
            id: id.to_owned(),
            uuid: Some(format!("GPU-{id}")),
            name: name.to_owned(),
            vram_bytes: (gib > 0).then_some(gib << 30),
            driver: None,
            pci: Some(id.to_owned()),
            vendor: 0x10de,
            device: 1,
            is_software: false,
            nodes: vec![format!("/dev/nvidia{id}").into()],
        }
    }

    #[test]
    fn encoders_and_drivers_are_known_of_nvidia_only() {
        use Feature::{Av1, H264, Hevc};
        for (model, features) in [
            ("rtx4090", vec![H264, Hevc, Av1]),
            ("rtx6000ada", vec![H264, Hevc, Av1]),
            ("l40s", vec![H264, Hevc, Av1]),
            ("rtx3090", vec![H264, Hevc]),
            ("t4", vec![H264, Hevc]),
            ("h100", vec![]),
            ("a100", vec![]),
            ("mi300x", vec![]),
            ("llvmpipe", vec![]),
        ] {
            let form = String::new();
            let gpu = Gpu { model: model.to_owned(), form, vram_bytes: 1, uuid: String::new() };
            assert_eq!(features_of(&[gpu]), features, "{model}");
        }
        assert_eq!(features_of(&[]), []);
        let with = |driver: &str, vendor| Device {
            driver: Some(driver.to_owned()),
            vendor,
            ..device("0", "NVIDIA L4", 24)
        };
        assert_eq!(driver_branch(&with("NVIDIA 550.54.15", NVIDIA)), Some(550));
        assert_eq!(driver_branch(&with("550.54.15", NVIDIA)), Some(550));
        assert_eq!(driver_branch(&with("radv 22.3.6", 0x1002)), None);
        assert_eq!(driver_branch(&with("none", NVIDIA)), None);
    }

    #[test]
    fn names_are_taken_apart() {
        for (name, model, form) in [
            ("NVIDIA GeForce RTX 4090", "rtx4090", ""),
            ("NVIDIA H100 80GB HBM3", "h100", "sxm"),
            ("NVIDIA H100 PCIe", "h100", "pcie"),
            ("NVIDIA H100 NVL", "h100", "nvl"),
            ("NVIDIA A100-SXM4-80GB", "a100", "sxm"),
            ("NVIDIA A100-PCIE-40GB", "a100", "pcie"),
            ("Tesla V100-SXM2-16GB", "v100", "sxm"),
            ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada", ""),
            ("NVIDIA L40S", "l40s", ""),
            ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "rx7900xtx", ""),
            ("AMD Instinct MI300X", "mi300x", ""),
            ("Intel(R) Arc(tm) A770 Graphics (DG2)", "arca770", ""),
            ("llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe", ""),
            ("AMD 744c", "gpu744c", ""),
            ("", "gpu", ""),
        ] {
            let found = model_and_form(name);
            assert_eq!((found.0.as_str(), found.1.as_str()), (model, form), "{name}");
            let gpu = Gpu { model: found.0, form: found.1, vram_bytes: 1, uuid: String::new() };
            assert!(class_of(&gpu).is_some(), "{name}");
            // What a host says can be asked for.
            assert!(gpu.model.parse::<GpuAsk>().unwrap().accepts(&gpu), "{name}");
        }
    }

    #[test]
    fn slots_own_different_gpus() {
        let devices =
            [("0", "NVIDIA L4"), ("1", "NVIDIA A10G"), ("2", "NVIDIA L4"), ("3", "NVIDIA L4")]
                .map(|(id, name)| device(id, name, 24));
        let mut stock = Stock::new(&devices);
        let (shown, slots) = stock.take(1, 2).unwrap();
        assert_eq!((shown[0].model.as_str(), shown[0].uuid.as_str()), ("l4", ""));
        assert_eq!(slots, [Devices::from(["0".to_owned()]), Devices::from(["2".to_owned()])]);
        let (shown, slots) = stock.take(1, 1).unwrap();
        assert_eq!(shown[0].uuid, "GPU-1");
        assert_eq!(slots, [Devices::from(["1".to_owned()])]);
        let why = stock.take(1, 2).unwrap_err();
        assert!(why.contains("wants 2 GPUs") && why.ends_with("container: 1 x l4"), "{why}");
        assert_eq!(stock.take(0, 3).unwrap().1.len(), 3);
        assert!(stock.take(17, 1).is_err());
    }

    #[test]
    fn a_gpu_belongs_to_one_host_of_the_machine() {
        let id = format!("test-{}", std::process::id());
        let card = || device(&id, "NVIDIA L4", 24);
        let soft = || Device { is_software: true, ..device("software-0", "llvmpipe", 2) };
        let (had, first) = Reserved::take(vec![card(), soft()]);
        assert_eq!(had.len(), 2);
        let (had, _second) = Reserved::take(vec![card(), soft()]);
        assert_eq!(had, [soft()]);
        drop(first);
        let (had, _third) = Reserved::take(vec![card()]);
        assert_eq!(had.len(), 1);
    }

    #[test]
    fn a_gpu_that_can_not_be_handed_out_is_not_offered() {
        let without_node = Device { nodes: Vec::new(), ..device("1", "NVIDIA L4", 24) };
        let devices = [device("0", "NVIDIA L4", 0), without_node];
        let why = Stock::new(&devices).take(1, 1).unwrap_err();
        assert!(why.ends_with("container: none"), "{why}");
    }
}
