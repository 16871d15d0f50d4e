//! Builds one sandbox, in a worker: image, mounts, cgroup, confinement, init.

use std::error::Error;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::notify_socket::NotifySocket;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::devices::{self, DeviceNode};
use super::driver::{self, Driver, Mounted};
use super::mounts::{self, Skeletons};
use super::spec::Bundle;
use crate::error::{Failure, FailureCode};
use crate::image::{self, Store};
use crate::init::InitExecutor;
use crate::sys;
use crate::types::{CgroupVersion, Image, ImageConfig, SandboxSpec};

/// The directories of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Dirs {
    /// Everything of this sandbox; removed last.
    pub(super) top: PathBuf,
    /// Scratch space is mounted here.
    pub(super) scratch: PathBuf,
    /// The image is mounted here.
    lower: PathBuf,
    /// The image with its skeleton is mounted here.
    root: PathBuf,
    /// Device nodes are made here, if it has any.
    devices: PathBuf,
    /// The host's driver is mounted here, if it is needed.
    driver: PathBuf,
    bundle: PathBuf,
    state: PathBuf,
}

impl Dirs {
    pub(super) fn new(top: PathBuf) -> Self {
        Self {
            scratch: top.join("scratch"),
            lower: top.join("lower"),
            root: top.join("root"),
            devices: top.join("devices"),
            driver: top.join("driver"),
            bundle: top.join("bundle"),
            state: top.join("state"),
            top,
        }
    }

    /// Makes them; their existence is the journal entry of the sandbox.
    pub(super) fn create(&self) -> std::io::Result<()> {
        mounts::make_dir(&self.top, 0o711)?;
        for dir in [&self.scratch, &self.lower, &self.root] {
            mounts::make_dir(dir, 0o711)?;
        }
        mounts::make_dir(&self.bundle, 0o700)?;
        mounts::make_dir(&self.state, 0o700)
    }
}

/// What a worker needs to build a sandbox.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) name: String,
    pub(super) spec: &'a SandboxSpec,
    pub(super) dirs: &'a Dirs,
    pub(super) skeletons: &'a Skeletons,
    pub(super) store: &'a Store,
    pub(super) driver_root: &'a Path,
    pub(super) cgroup: &'a Cgroup,
    pub(super) cgroup_version: CgroupVersion,
    /// The first user id.
    pub(super) base: u32,
    /// The user whose rights decide which images may be read.
    pub(super) owner: u32,
    /// Init's end of its socket.
    pub(super) control: &'a OwnedFd,
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Created {
    /// Init's process id on the host.
    pub(super) pid: i32,
    pub(super) image: ImageConfig,
    pub(super) idmapped: bool,
}

impl Job<'_> {
    /// Builds the sandbox and lets its init run.
    pub(super) fn run(&self) -> Result<Created, Failure> {
        let mut devices = DeviceNode::of_gpus(&self.spec.gpus)?;
        // Directory and cgroup are the journal, so they come before anything else is made.
        self.dirs.create().map_err(|error| Failure::host("make the directories", error))?;
        self.cgroup.create().map_err(|error| Failure::host("make the cgroup", error))?;
        // From here on whatever this worker starts can be found, and killed, through the cgroup.
        let own = rustix::process::getpid().as_raw_nonzero().get();
        self.cgroup.adopt(own).map_err(|error| Failure::host("enter the cgroup", error))?;
        let driver = self.mount_driver(&devices)?;
        let (mut image, idmapped) = self.mount_root(driver.as_ref())?;
        if driver.is_some() {
            driver::add_to_env(&mut image.env);
        }
        mounts::mount_scratch(&self.dirs.scratch, self.base, self.spec.limits.scratch_bytes)
            .map_err(|error| Failure::host("mount scratch", error))?;
        devices::make(&self.dirs.devices, self.base, &mut devices)
            .map_err(|error| Failure::host("make the device nodes", error))?;
        self.cgroup
            .set_limits(&self.spec.limits)
            .map_err(|error| Failure::host("set the limits", error))?;
        let is_host = self.spec.image == Image::HostDirs;
        Bundle {
            root: if is_host { &self.skeletons.host } else { &self.dirs.root },
            binds: if is_host { &self.skeletons.binds } else { &[] },
            scratch: &self.dirs.scratch,
            base: self.base,
            cgroup: self.cgroup.oci_path(),
            has_device_rules: self.cgroup_version != CgroupVersion::V2,
            hostname: &self.spec.hostname,
            nofile: clamp(Resource::Nofile, self.spec.limits.nofile),
            core: clamp(Resource::Core, CORE_BYTES),
            devices: &devices,
            driver: driver.as_ref().map(|driver| driver.files.as_path()),
        }
        .write(&self.dirs.bundle)
        .map_err(|error| Failure::host("write the bundle", error))?;
        let pid = self.build()?;
        Ok(Created { pid, image, idmapped })
    }

    /// Mounts what an image of its own needs of the host's driver. The host's directories have it.
    fn mount_driver(&self, devices: &[DeviceNode]) -> Result<Option<Mounted>, Failure> {
        if self.spec.image == Image::HostDirs {
            return Ok(None);
        }
        let driver = Driver::find(self.driver_root, devices);
        let mounted = driver.map(|driver| driver.mount(&self.dirs.driver)).transpose();
        mounted.map_err(|error| Failure::host("mount the driver", error))
    }

    /// Mounts the image and its skeleton, if it has one of its own.
    fn mount_root(&self, driver: Option<&Mounted>) -> Result<(ImageConfig, bool), Failure> {
        let (source, config, may_shift) = match &self.spec.image {
            Image::HostDirs => return Ok((ImageConfig::default(), false)),
            Image::Rootfs(path) => {
                let source = image::open_as(self.owner, path, OFlags::DIRECTORY)?;
                // Shifting owners would show files that their owner keeps private, so it needs the
                // owner's consent.
                let owned = self.owner == 0 || owner_of(&source) == Some(self.owner);
                (source, ImageConfig::default(), owned)
            }
            image @ (Image::OciLayout(_) | Image::DockerTar(_)) => {
                let imported = self.store.import(image, self.owner)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let source = rustix::fs::open(&imported.root, flags, Mode::empty())
                    .map_err(|error| Failure::host("open the image", error))?;
                (source, imported.config, true)
            }
        };
        let base = may_shift.then_some(self.base);
        let shifted = mounts::mount_image(&source, &self.dirs.lower, base)
            .map_err(|error| Failure::host("mount the image", error))?;
        let layers = driver.map(|driver| driver.layer.as_path()).into_iter();
        let layers: Vec<&Path> =
            layers.chain([self.skeletons.image.as_path(), &self.dirs.lower]).collect();
        mounts::mount_overlay(&layers, &self.dirs.root)
            .map_err(|error| Failure::host("mount the root", error))?;
        Ok((config, shifted))
    }

    /// Lets libcontainer confine a process, and our init take it over.
    fn build(&self) -> Result<i32, Failure> {
        let failed = |error: &dyn Error| Failure::host("build the sandbox", chain(error));
        let executor = InitExecutor { control: self.control.as_raw_fd() };
        let container = ContainerBuilder::new(self.name.clone(), SyscallType::default())
            .with_root_path(&self.dirs.state)
            .map_err(|error| failed(&error))?
            .with_executor(executor)
            .as_init(&self.dirs.bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .map_err(|error| failed(&error))?;
        let pid = container
            .pid()
            .ok_or_else(|| Failure::new(FailureCode::Host, "build the sandbox: no process"))?
            .as_raw();
        NotifySocket::new(self.dirs.state.join(&self.name).join("notify.sock"))
            .notify_container_start()
            .map_err(|error| failed(&error))?;
        loopback_up(pid).map_err(|error| Failure::host("set the loopback interface up", error))?;
        Ok(pid)
    }
}

/// Enters the network namespace of `pid`, for good: the worker ends soon.
fn loopback_up(pid: i32) -> std::io::Result<()> {
    let netns = open_netns(pid)?;
    sys::setns(netns.as_fd(), libc::CLONE_NEWNET)?;
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sys::loopback_up(socket.as_fd())
}

/// Opens the network namespace of a process.
pub(super) fn open_netns(pid: i32) -> std::io::Result<OwnedFd> {
    let path = Path::new("/proc").join(pid.to_string()).join("ns/net");
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Raises the hard limit on core files, which `sudo` and login sessions set to 0, so that
/// [`CORE_BYTES`] can be set inside, where nobody may raise one. A helper that may not either leaves
/// it as it is.
pub(super) fn allow_core_limit() {
    if rustix::process::getrlimit(Resource::Core).maximum == Some(0) {
        let limit = Rlimit { current: Some(0), maximum: Some(CORE_BYTES) };
        let _ = rustix::process::setrlimit(Resource::Core, limit);
    }
}

/// The helper may lack the right to raise a hard limit.
fn clamp(resource: Resource, asked: u64) -> u64 {
    rustix::process::getrlimit(resource).maximum.map_or(asked, |hard| asked.min(hard))
}

/// The largest core file. With 0 the kernel would still start a core handler of the host.
const CORE_BYTES: u64 = 1;

fn owner_of(dir: &OwnedFd) -> Option<u32> {
    fs::metadata(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok().map(|found| found.uid())
}

/// An error with its causes; libcontainer keeps the telling part at the end.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
