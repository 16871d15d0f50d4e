//! How a host is set up, and what it leases by default.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_proto::{Capability, ContainerOffer};
use welkin_types::{Class, ContainerId, Gpu, NodeId, Price, Region, Resources, Tier, Usd};

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
    /// What it leases; empty: one container class made from what the machine has.
    pub containers: Vec<ContainerConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            user: String::new(),
            listen: "127.0.0.1:0".to_owned(),
            region: Region::local(),
            pool: 4,
            exposure_seconds: 10,
            log_bytes_max: 64 << 20,
            keep_days: 7,
            sandbox_dir: PathBuf::from("/run/welkin"),
            image_store: PathBuf::new(),
            image_dirs: Vec::new(),
            containers: Vec::new(),
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
    /// Whole GPUs for each lease: the first so many that the machine has.
    pub gpus: u32,
    /// How many leases at once.
    pub slots: u32,
    /// What an hour costs, in US dollars, for example "0.05".
    pub usd_per_hour: String,
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
        }
    }
}

/// The containers that a host with this configuration offers (tier filled in by the caller).
///
/// # Errors
///
/// A sentence saying which container can't be offered and why.
pub fn containers_of(config: &Config, node: NodeId) -> Result<Vec<ContainerOffer>, String> {
    let gpus = machine_gpus();
    let defaults;
    let wanted = if config.containers.is_empty() {
        defaults = default_containers();
        &defaults
    } else {
        &config.containers
    };
    if wanted.len() > Capability::CONTAINERS_MAX {
        return Err(format!("{} are more than {}", wanted.len(), Capability::CONTAINERS_MAX));
    }
    (0_u32..).zip(wanted).map(|(index, wanted)| offer(node, index, wanted, &gpus)).collect()
}

fn offer(
    node: NodeId,
    index: u32,
    wanted: &ContainerConfig,
    gpus: &[Gpu],
) -> Result<ContainerOffer, String> {
    let usd: Usd =
        wanted.usd_per_hour.parse().map_err(|error| format!("container {index}: {error}"))?;
    if wanted.slots == 0 || wanted.slots > Capability::SLOTS_MAX {
        return Err(format!("container {index}: slots must be 1 to {}", Capability::SLOTS_MAX));
    }
    if wanted.cpu_milli == 0 || wanted.memory_mib < 8 {
        return Err(format!("container {index}: needs cpu and at least 8 MiB of memory"));
    }
    if wanted.gpus > 0 {
        // A lease that pays for a GPU must get one; a slot is not tied to a device yet.
        return Err(format!("container {index}: this version can't hand GPUs to leases yet"));
    }
    let count = usize::try_from(wanted.gpus).unwrap_or(usize::MAX);
    let taken = gpus.get(..count).ok_or_else(|| {
        format!("container {index}: wants {count} GPUs, this machine has {}", gpus.len())
    })?;
    let class = match taken.first() {
        Some(gpu) => gpu_class(gpu),
        None => Class::cpu(wanted.cpu_milli),
    };
    Ok(ContainerOffer {
        id: container_id(node, index),
        class,
        resources: Resources {
            cpu_milli: wanted.cpu_milli,
            memory_bytes: wanted.memory_mib << 20,
            disk_bytes: wanted.disk_mib << 20,
            gpus: taken.to_vec(),
        },
        slots: wanted.slots,
        price: Price::per_hour(usd),
        tier: Tier::None,
    })
}

/// The name of a host's container: SHA-256 of the host's key and the container's place in its list.
fn container_id(node: NodeId, index: u32) -> ContainerId {
    let mut hasher = Sha256::new();
    hasher.update(b"welkin/container/1");
    hasher.update(node.as_bytes());
    hasher.update(index.to_be_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize()[..16]);
    ContainerId::from_bytes(id)
}

fn gpu_class(gpu: &Gpu) -> Class {
    let gib = gpu.vram_bytes.div_ceil(1 << 30);
    let form = if gpu.form.is_empty() { String::new() } else { format!("-{}", gpu.form) };
    format!("{}{form}-{gib}", gpu.model).parse().unwrap_or_else(|_| Class::cpu(1_000))
}

fn machine_gpus() -> Vec<Gpu> {
    welkin_runtime::inventory::gpus()
        .into_iter()
        // A GPU whose memory is not known can't be compared or priced, so it is not offered.
        .filter_map(|gpu| gpu.vram_bytes.map(|vram_bytes| (gpu, vram_bytes)))
        .map(|(gpu, vram_bytes)| Gpu {
            model: welkin_types::task::gpu_model(&gpu.name),
            form: String::new(),
            vram_bytes,
            uuid: gpu.uuid.unwrap_or_default(),
        })
        .collect()
}

/// One slot for each core, sharing four fifths of the memory.
fn default_containers() -> Vec<ContainerConfig> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory_mib = welkin_runtime::inventory::inventory().memory_bytes >> 20;
    let slots = cores;
    let share = u64::try_from(slots.max(1)).unwrap_or(1);
    let milli = cores.saturating_mul(1_000) / slots.max(1);
    vec![ContainerConfig {
        cpu_milli: u32::try_from(milli).unwrap_or(1_000),
        memory_mib: (memory_mib * 4 / 5 / share).max(64),
        disk_mib: (memory_mib * 2 / 5 / share).max(32),
        gpus: 0,
        slots: u32::try_from(slots).unwrap_or(1),
        ..ContainerConfig::default()
    }]
}
