//! Writes the OCI bundle of one sandbox.
//!
//! The bundle never holds a word of the tenant: the command, its environment and its directory come
//! later, over the socket to init, and no hook is ever named. So there is nothing that a tenant or an
//! image could inject into what runs as root on the host.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::devices::DeviceNode;
use super::driver;
use super::mounts::ID_RANGE;
use super::seccomp;

/// What a bundle is made from.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    /// The root directory, with every mount point in place.
    pub(super) root: &'a Path,
    /// Directories of the host to bind, read-only, at the same path.
    pub(super) binds: &'a [PathBuf],
    /// The scratch space.
    pub(super) scratch: &'a Path,
    /// The first user id.
    pub(super) base: u32,
    /// The cgroup.
    pub(super) cgroup: PathBuf,
    /// Whether device rules can be set (version 1 only).
    pub(super) has_device_rules: bool,
    /// The host name inside.
    pub(super) hostname: &'a str,
    /// Open files per process.
    pub(super) nofile: u64,
    /// Bytes of a core file.
    pub(super) core: u64,
    /// GPU nodes.
    pub(super) devices: &'a [DeviceNode],
    /// The host's driver, where it is shown.
    pub(super) driver: Option<&'a Path>,
}

impl Bundle<'_> {
    /// Writes `config.json` into `dir`.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(&self.config())?;
        std::fs::write(dir.join("config.json"), text)
    }

    fn config(&self) -> Value {
        let none: [&str; 0] = [];
        let mapping = json!([{ "containerID": 0, "hostID": self.base, "size": ID_RANGE }]);
        let mut linux = json!({
            "uidMappings": mapping,
            "gidMappings": mapping,
            "namespaces": NAMESPACES.map(|name| json!({ "type": name })),
            "cgroupsPath": self.cgroup,
            "seccomp": seccomp::filter(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        });
        if self.has_device_rules {
            let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
            rules.extend(self.devices.iter().map(|device| {
                json!({ "allow": true, "type": "c", "major": device.major, "minor": device.minor,
                    "access": "rw" })
            }));
            linux["resources"] = json!({ "devices": rules });
        }
        json!({
            "ociVersion": "1.0.2",
            "root": { "path": self.root, "readonly": true },
            "hostname": self.hostname,
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["init"],
                "env": [],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": none, "effective": none, "permitted": none,
                    "inheritable": none, "ambient": none,
                },
                "rlimits": [
                    { "type": "RLIMIT_NOFILE", "hard": self.nofile, "soft": self.nofile },
                    { "type": "RLIMIT_CORE", "hard": self.core, "soft": self.core },
                ],
            },
            "mounts": self.mounts(),
            "linux": linux,
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc",
                "options": ["nosuid", "noexec", "nodev"] }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "noexec", "mode=755", "size=64k"] }),
            json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
                    TERMINALS_MAX] }),
        ];
        for source in self.binds {
            mounts.push(json!({ "destination": source, "type": "bind", "source": source,
                "options": ["rbind", "ro", "nosuid", "nodev", "rro"] }));
        }
        for (name, target) in [("work", "/work"), ("tmp", "/tmp"), ("shm", "/dev/shm")] {
            mounts.push(json!({ "destination": target, "type": "bind",
                "source": self.scratch.join(name), "options": ["bind", "rw", "nosuid", "nodev"] }));
        }
        if let Some(driver) = self.driver {
            mounts.push(json!({ "destination": driver::INSIDE, "type": "bind", "source": driver,
                "options": ["rbind", "ro", "nosuid", "nodev", "rro"] }));
        }
        // Their directory has no `nodev`, unlike everything else.
        for device in self.devices {
            mounts.push(json!({ "destination": device.path, "type": "bind",
                "source": device.source, "options": ["bind", "rw", "nosuid", "noexec"] }));
        }
        mounts
    }
}

/// Terminals of one sandbox: the kernel has some thousand for all.
const TERMINALS_MAX: &str = "max=64";

const NAMESPACES: [&str; 7] = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"];

const MASKED: [&str; 15] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
