//! How a host is set up, and what it leases by default.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use welkin_lease::Devices;
use welkin_proto::{Capability, ContainerOffer, container_id};
use welkin_runtime::inventory::{self, Gpu};
use welkin_types::{Class, Feature, NodeId, Price, Region, Resources, Tier, Usd};

use super::gpus::{self, Stock};
use super::health::HealthConfig;
use super::reserved::ReservedConfig;
use super::spot::SpotConfig;

/// A host's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where its database, logs and keys are. Empty: `host` in the data folder.
    pub dir: PathBuf,
    /// The user, by name or number, that the process becomes when it is started as root. Empty: it
    /// stays who started it.
    pub user: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: String,
    /// The part of the world it stands in.
    pub region: Region,
    /// How many of the region's indexers it announces itself to, from 2 to 16.
    pub announce_to: usize,
    /// Sandboxes kept ready for the next lease.
    pub pool: usize,
    /// The most seconds of work that no voucher covers.
    pub exposure_seconds: u64,
    /// The most bytes kept of each output of a lease.
    pub log_bytes_max: u64,
    /// Days for which ended leases and their logs are kept.
    pub keep_days: u64,
    /// Where the privileged helper keeps its mounts; on a path that everybody may pass through.
    pub sandbox_dir: PathBuf,
    /// Where the helper keeps unpacked images: on a disk. Empty: `images` in `dir`, or where `user` is
    /// set, whose folders root does not work in, `/var/lib/welkin/images`.
    pub image_store: PathBuf,
    /// Folders from which tenants may take images by path.
    pub image_dirs: Vec<PathBuf>,
    /// Whether Vulkan adapters that are programs on the processor count as GPUs, for trials. They
    /// are offered under their own name, such as `llvmpipe`.
    pub software_gpus: bool,
    /// What it leases; empty: one container for each GPU, and without GPUs one for each core.
    pub containers: Vec<ContainerConfig>,
    /// How it watches its own health.
    pub health: HealthConfig,
    /// Whether what is free is leased as spot, too, and for how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<SpotConfig>,
    /// Whether containers are kept for one buyer for a term, and for how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<ReservedConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            user: String::new(),
            listen: "127.0.0.1:0".to_owned(),
            region: Region::local(),
            announce_to: welkin_proto::gossip::HOMES,
            pool: 4,
            exposure_seconds: 10,
            log_bytes_max: 64 << 20,
            keep_days: 7,
            sandbox_dir: PathBuf::from("/run/welkin"),
            image_store: PathBuf::new(),
            image_dirs: Vec::new(),
            software_gpus: false,
            containers: Vec::new(),
            health: HealthConfig::default(),
            spot: None,
            reserved: None,
        }
    }
}

/// One kind of container that a host leases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerConfig {
    /// Thousandths of a core for each lease.
    pub cpu_milli: u32,
    /// Memory for each lease, in MiB.
    pub memory_mib: u64,
    /// Scratch for each lease, in MiB.
    pub disk_mib: u64,
    /// Whole GPUs for each lease, all of one kind. Each slot owns its own: the first ones of the
    /// machine that no slot before has.
    pub gpus: u32,
    /// How many leases at once.
    pub slots: u32,
    /// What an hour costs, in US dollars, for example "0.05".
    pub usd_per_hour: String,
    /// What each lease can do beyond what is known of its GPUs: `fabric`, `direct`, `ipv6`,
    /// `windows`. Checkers look whether it is so.
    pub features: Vec<Feature>,
}

impl Default for ContainerConfig {
    fn default() -> Self {
        Self {
            cpu_milli: 1_000,
            memory_mib: 1_024,
            disk_mib: 512,
            gpus: 0,
            slots: 1,
            usd_per_hour: "0.04".to_owned(),
            features: Vec::new(),
        }
    }
}

/// A container of a host, with what its slots own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostContainer {
    /// What is offered.
    pub offer: ContainerOffer,
    /// The GPUs of each slot, by their ids on this machine.
    pub slots: Vec<Devices>,
}

/// The containers that a host with this configuration and these GPUs offers (tier filled in by the
/// caller). No GPU is given to two slots.
///
/// # Errors
///
/// A sentence saying which container can't be offered and why.
pub fn containers_of(
    config: &Config,
    node: NodeId,
    gpus: &[Gpu],
) -> Result<Vec<HostContainer>, String> {
    let mut stock = Stock::new(gpus);
    let defaults;
    let wanted = if config.containers.is_empty() {
        defaults = default_containers(gpus);
        &defaults
    } else {
        &config.containers
    };
    if wanted.len() > Capability::CONTAINERS_MAX {
        return Err(format!("{} are more than {}", wanted.len(), Capability::CONTAINERS_MAX));
    }
    (0_u32..)
        .zip(wanted)
        .map(|(index, wanted)| {
            let mut container = container(node, index, wanted, (gpus, &mut stock))?;
            let price = container.offer.price;
            let spot = config.spot.as_ref().map(|spot| spot.terms(price)).transpose();
            container.offer.spot = spot.map_err(|why| format!("container {index}: {why}"))?;
            let reserved = config.reserved.as_ref().map(|reserved| reserved.terms(price));
            container.offer.reserved =
                reserved.transpose().map_err(|why| format!("container {index}: {why}"))?;
            Ok(container)
        })
        .collect()
}

fn container(
    node: NodeId,
    index: u32,
    wanted: &ContainerConfig,
    (all, stock): (&[Gpu], &mut Stock<'_>),
) -> Result<HostContainer, String> {
    let usd: Usd =
        wanted.usd_per_hour.parse().map_err(|error| format!("container {index}: {error}"))?;
    if wanted.slots == 0 || wanted.slots > Capability::SLOTS_MAX {
        return Err(format!("container {index}: slots must be 1 to {}", Capability::SLOTS_MAX));
    }
    if wanted.cpu_milli == 0 || wanted.memory_mib < 8 {
        return Err(format!("container {index}: needs cpu and at least 8 MiB of memory"));
    }
    let taken = stock.take(wanted.gpus, wanted.slots);
    let (gpus, slots) = taken.map_err(|why| format!("container {index}: {why}"))?;
    let mut features = wanted.features.clone();
    features.extend(gpus::features_of(&gpus));
    features.sort_unstable();
    features.dedup();
    let class = gpus.first().map_or_else(|| Some(Class::cpu(wanted.cpu_milli)), gpus::class_of);
    let class = class.ok_or_else(|| format!("container {index}: its GPU has no usable name"))?;
    let offer = ContainerOffer {
        id: container_id(node, index),
        class,
        resources: Resources {
            cpu_milli: wanted.cpu_milli,
            memory_bytes: wanted.memory_mib << 20,
            disk_bytes: wanted.disk_mib << 20,
            gpus,
        },
        slots: wanted.slots,
        price: Price::per_hour(usd),
        tier: Tier::None,
        features,
        driver: driver(&slots, all),
        apps: Vec::new(),
        spot: None,
        reserved: None,
    };
    Ok(HostContainer { offer, slots })
}

/// The oldest driver among the devices of a container's slots.
fn driver(slots: &[Devices], gpus: &[Gpu]) -> Option<u16> {
    let used = slots.iter().flatten().filter_map(|id| gpus.iter().find(|gpu| gpu.id == *id));
    used.map(gpus::driver_branch).min().flatten()
}

/// One container for each GPU where there are any; else one slot for each core. Four fifths of the
/// memory are shared out.
fn default_containers(gpus: &[Gpu]) -> Vec<ContainerConfig> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u32::try_from(cores).unwrap_or(1);
    let memory_mib = (inventory::memory_bytes() >> 20) * 4 / 5;
    let with_gpus = gpu_containers(gpus, cores.saturating_mul(1_000), memory_mib);
    if !with_gpus.is_empty() {
        return with_gpus;
    }
    let memory_mib = memory_mib / u64::from(cores);
    vec![ContainerConfig {
        cpu_milli: 1_000,
        memory_mib: memory_mib.max(64),
        disk_mib: (memory_mib / 2).max(32),
        gpus: 0,
        slots: cores,
        ..ContainerConfig::default()
    }]
}

/// One container for each usable GPU with an equal share of `cpu_milli` and `memory_mib`; those of
/// one kind are slots of one entry. A third of a share is scratch, because scratch is memory.
/// The price is a cent for each GiB of the GPU, and at least four: to be set by the owner.
pub fn gpu_containers(gpus: &[Gpu], cpu_milli: u32, memory_mib: u64) -> Vec<ContainerConfig> {
    let kinds = Stock::new(gpus).kinds();
    let all: usize = kinds.iter().map(|(_, count)| count).sum();
    let all = u32::try_from(all).unwrap_or(u32::MAX).max(1);
    let memory_mib = memory_mib / u64::from(all);
    let one = |(kind, count): (welkin_types::Gpu, usize)| {
        let cents = gpus::gib_of(&kind).max(4);
        ContainerConfig {
            cpu_milli: (cpu_milli / all).max(10),
            memory_mib: (memory_mib * 2 / 3).max(64),
            disk_mib: (memory_mib / 3).max(32),
            gpus: 1,
            slots: u32::try_from(count).unwrap_or(u32::MAX),
            usd_per_hour: format!("{}.{:02}", cents / 100, cents % 100),
            features: Vec::new(),
        }
    };
    kinds.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(id: &str, name: &str, gib: u64) -> Gpu {
        Gpu {
            id: id.to_owned(),
            uuid: None,
            name: name.to_owned(),
            vram_bytes: Some(gib << 30),
            driver: None,
            pci: None,
            vendor: 0x10de,
            device: 1,
            is_software: false,
            nodes: vec!["/dev/nvidia0".into()],
        }
    }

    fn offered(config: &Config, gpus: &[Gpu]) -> Result<Vec<HostContainer>, String> {
        containers_of(config, NodeId::from_bytes([0; 32]), gpus)
    }

    #[test]
    fn by_default_each_gpu_is_a_container() {
        let gpus = [gpu("a", "NVIDIA L4", 23), gpu("b", "NVIDIA L4", 23), gpu("c", "H100", 80)];
        let found = offered(&Config::default(), &gpus).unwrap();
        let [small, large] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((small.offer.class.as_str(), small.offer.slots), ("l4-23", 2));
        assert_eq!((large.offer.class.as_str(), large.offer.slots), ("h100-80", 1));
        assert_eq!(large.offer.price, Price::per_hour("0.80".parse().unwrap()));
        let own: Vec<_> = found.iter().flat_map(|c| c.slots.iter().flatten()).collect();
        assert_eq!(own, ["a", "b", "c"]);
        let shares: u64 = found
            .iter()
            .map(|c| (c.offer.resources.memory_bytes + c.offer.resources.disk_bytes, c.offer.slots))
            .map(|(bytes, slots)| bytes * u64::from(slots))
            .sum();
        assert!(shares <= inventory::memory_bytes() * 4 / 5, "{shares}");
        let none = offered(&Config::default(), &[]).unwrap();
        assert!(none[0].offer.class.as_str().starts_with("cpu-"));
    }

    #[test]
    fn more_than_there_is_can_not_be_offered() {
        let one = ContainerConfig { gpus: 1, ..ContainerConfig::default() };
        let gpus = [gpu("a", "NVIDIA L4", 23)];
        let config = |slots| Config {
            containers: vec![ContainerConfig { slots, ..one.clone() }],
            ..Config::default()
        };
        assert_eq!(offered(&config(1), &gpus).unwrap()[0].slots, [Devices::from(["a".to_owned()])]);
        let why = offered(&config(2), &gpus).unwrap_err();
        assert!(why.starts_with("container 0: wants 2 GPUs of one kind"), "{why}");
        let twice = Config { containers: vec![one.clone(), one], ..Config::default() };
        let why = offered(&twice, &gpus).unwrap_err();
        assert!(why.starts_with("container 1: ") && why.ends_with("container: none"), "{why}");
    }
}
