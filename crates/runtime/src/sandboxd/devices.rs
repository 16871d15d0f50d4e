//! The device nodes of GPUs, as a sandbox gets them.
//!
//! A sandbox never sees the host's own node: that belongs to the host's users, who may be others than
//! `root` and `render`. It gets one with the same numbers, made for it in a directory of its own and
//! bound to its place, so that access depends on nothing but the sandbox. Where the kernel can filter
//! devices by control group (version 1) only these numbers pass; on version 2 that takes a program in
//! the kernel, which is not loaded, and what holds is that nobody inside can make a node.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::MountFlags;

use super::mounts;
use crate::error::{Failure, FailureCode};
use crate::types::GpuDevice;

/// A device node that a sandbox may use.
#[derive(Clone, Debug)]
pub(super) struct DeviceNode {
    /// Where it is, outside and inside.
    pub(super) path: PathBuf,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// What is bound to its place.
    pub(super) source: PathBuf,
}

impl DeviceNode {
    /// Looks up the nodes of GPUs, each once; anything that is not a GPU's character device is
    /// refused.
    pub(super) fn of_gpus(gpus: &[GpuDevice]) -> Result<Vec<Self>, Failure> {
        let mut nodes = BTreeMap::new();
        for path in gpus.iter().flat_map(|gpu| &gpu.nodes) {
            nodes.insert(path, Self::open(path)?);
        }
        Ok(nodes.into_values().collect())
    }

    fn open(path: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::new(FailureCode::Invalid, format!("device {}: {why}", path.display()))
        };
        let text = path.to_str().ok_or_else(|| refuse("not text"))?;
        let is_plain = !text.contains("..") && !text.contains("//");
        if !is_plain || !GPU_NODES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(refuse("not a GPU node"));
        }
        let metadata = std::fs::symlink_metadata(path).map_err(|_| refuse("not there"))?;
        if !metadata.file_type().is_char_device() {
            return Err(refuse("not a character device"));
        }
        let number = metadata.rdev();
        Ok(Self {
            path: path.to_owned(),
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
            source: path.to_owned(),
        })
    }

    /// Whether it belongs to NVIDIA's driver.
    pub(super) fn is_nvidia(&self) -> bool {
        self.path.as_os_str().as_encoded_bytes().starts_with(NVIDIA.as_bytes())
    }
}

/// Makes nodes with the same numbers in `dir`, for the user `base` and everybody else inside.
pub(super) fn make(dir: &Path, base: u32, nodes: &mut [DeviceNode]) -> io::Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    mounts::make_dir(dir, 0o711)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::mount_tmpfs(dir, flags, "size=64k,mode=0711")?;
    for (index, node) in nodes.iter_mut().enumerate() {
        let own = dir.join(index.to_string());
        let number = rustix::fs::makedev(node.major, node.minor);
        rustix::fs::mknodat(CWD, &own, FileType::CharacterDevice, Mode::from(0o600), number)?;
        chown(&own, Some(base), Some(base))?;
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o666))?;
        node.source = own;
    }
    Ok(())
}

const NVIDIA: &str = "/dev/nvidia";

/// How the paths of GPU nodes begin.
const GPU_NODES: [&str; 3] = [NVIDIA, "/dev/dri/renderD", "/dev/kfd"];
