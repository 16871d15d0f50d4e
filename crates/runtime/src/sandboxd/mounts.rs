//! Mounts: scratch space, read-only images, and the skeleton around them.
//!
//! The helper mounts in a mount namespace of its own, below its state directory. Nothing shows up on
//! the host, and the kernel drops everything when the last process of that namespace ends, however
//! it ends.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::process::{Signal, WaitOptions};

use crate::sys;

/// How many user ids a sandbox has.
pub(super) const ID_RANGE: u32 = 65_536;

/// Leaves the host's mount namespace; mounts of the host still arrive, ours do not go out.
pub(super) fn enter_private_namespace() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave)?;
    Ok(())
}

/// Mounts scratch space of `bytes` at `dir` for the user `base`, with its three directories.
pub(super) fn mount_scratch(dir: &Path, base: u32, bytes: u64) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let inodes = (bytes / 4096).clamp(4096, 4 << 20);
    let options = format!("size={bytes},nr_inodes={inodes},mode=0700,uid={base},gid={base}");
    mount_tmpfs(dir, flags, &format!("{options},noswap"))
        .or_else(|_| mount_tmpfs(dir, flags, &options))?;
    for (name, mode) in [("work", 0o755), ("tmp", 0o1777), ("shm", 0o1777)] {
        let path = dir.join(name);
        fs::create_dir(&path)?;
        chown(&path, Some(base), Some(base))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Mounts a file system in memory.
pub(super) fn mount_tmpfs(dir: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = c_string(options)?;
    Ok(rustix::mount::mount("scratch", dir, "tmpfs", flags, options.as_c_str())?)
}

/// Changes the size of mounted scratch space.
pub(super) fn resize_scratch(dir: &Path, bytes: u64) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let inodes = (bytes / 4096).clamp(4096, 4 << 20);
    let options = format!("size={bytes},nr_inodes={inodes}");
    // The kernel wants swapping to be stated again as it was.
    rustix::mount::mount_remount(dir, flags, format!("{options},noswap"))
        .or_else(|_| rustix::mount::mount_remount(dir, flags, options))?;
    Ok(())
}

/// Mounts the directory behind `source` at `target`, read-only. With `base` its owners are shifted,
/// where the kernel can; the result says whether they were.
pub(super) fn mount_image(source: &OwnedFd, target: &Path, base: Option<u32>) -> io::Result<bool> {
    let clone = || -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(rustix::mount::open_tree(source, "", flags)?)
    };
    let mut tree = clone()?;
    let mut shifted = false;
    if let Some(base) = base {
        let userns = user_namespace(base)?;
        shifted = sys::mount_setattr(tree.as_fd(), Some(userns.as_fd())).is_ok();
    }
    if !shifted {
        tree = clone()?;
        sys::mount_setattr(tree.as_fd(), None)?;
    }
    rustix::mount::move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(shifted)
}

/// Lays directories over each other at `target`, read-only, the uppermost first.
pub(super) fn mount_overlay(layers: &[&Path], target: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let layers: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = c_string(&format!("lowerdir={}", layers.join(":")))?;
    Ok(rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str())?)
}

/// Unmounts everything at and below `dir`; true when nothing is mounted there any more.
///
/// `lazily` also detaches what is still in use.
pub(super) fn unmount_below(dir: &Path, lazily: bool) -> bool {
    for point in mounts_below(dir).iter().rev() {
        let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        let _ = rustix::mount::unmount(point, flags | UnmountFlags::NOFOLLOW);
    }
    mounts_below(dir).is_empty()
}

/// Every mount point at and below `dir`, outer ones first.
pub(super) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|point| point.starts_with(dir))
        .collect()
}

/// A user namespace that maps 0 to `base`, kept alive by the descriptor alone.
fn user_namespace(base: u32) -> io::Result<OwnedFd> {
    let (ready, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child = sys::fork(|| {
        let made = sys::unshare(libc::CLONE_NEWUSER).is_ok();
        let _ = rustix::io::write(&told, &[u8::from(made)]);
        loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    })?;
    drop(told);
    let mut made = [0];
    let result = rustix::io::read(&ready, &mut made).map_err(io::Error::from).and_then(|_| {
        let proc = PathBuf::from(format!("/proc/{}", child.as_raw_nonzero()));
        let map = format!("0 {base} {ID_RANGE}");
        fs::write(proc.join("uid_map"), &map)?;
        fs::write(proc.join("gid_map"), &map)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(proc.join("ns/user"), flags, Mode::empty())?)
    });
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    result
}

/// Whether the kernel can shift owners of the file system that holds `dir`.
pub(super) fn can_shift_owners(dir: &Path) -> bool {
    let try_it = || -> io::Result<()> {
        let userns = user_namespace(u32::from(u16::MAX) + 1)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, dir, flags)?;
        sys::mount_setattr(tree.as_fd(), Some(userns.as_fd()))
    };
    try_it().is_ok()
}

/// The directories that a sandbox shows around or over its image.
#[derive(Clone, Debug)]
pub(super) struct Skeletons {
    /// The root for [`Image::HostDirs`](crate::Image::HostDirs).
    pub(super) host: PathBuf,
    /// The upper layer over an image.
    pub(super) image: PathBuf,
    /// Directories of the host to bind into the first, read-only.
    pub(super) binds: Vec<PathBuf>,
}

impl Skeletons {
    /// Builds both below `dir`, which must not exist.
    pub(super) fn build(dir: &Path) -> io::Result<Self> {
        make_dir(dir, 0o755)?;
        let (host, image) = (dir.join("host"), dir.join("image"));
        for root in [&host, &image] {
            make_dir(root, 0o755)?;
            for name in ["proc", "dev", "work", "tmp", "etc"] {
                make_dir(&root.join(name), 0o755)?;
            }
            write_etc(root, "hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
            write_etc(root, "resolv.conf", "")?;
        }
        write_etc(&host, "passwd", PASSWD)?;
        write_etc(&host, "group", GROUP)?;
        write_etc(&host, "nsswitch.conf", NSSWITCH)?;
        for name in ETC_COPIED {
            copy_plain(&Path::new("/etc").join(name), &host.join("etc").join(name), 0)?;
        }
        let mut binds = Vec::new();
        for name in ["usr", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let source = Path::new("/").join(name);
            let Ok(metadata) = fs::symlink_metadata(&source) else { continue };
            if metadata.is_symlink() {
                symlink(fs::read_link(&source)?, host.join(name))?;
            } else if metadata.is_dir() {
                make_dir(&host.join(name), 0o755)?;
                binds.push(source);
            }
        }
        Ok(Self { host, image, binds })
    }
}

/// Makes a directory with exactly this mode.
pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).recursive(true).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write_etc(root: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = root.join("etc").join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
}

/// Copies small files that everyone may read, links as they are, and directories of them. What is
/// missing or private is passed over.
fn copy_plain(from: &Path, to: &Path, depth: u32) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if let Some(parent) = to.parent() {
        fs::DirBuilder::new().mode(0o755).recursive(true).create(parent)?;
    }
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)
    } else if metadata.is_dir() && depth < 4 {
        make_dir(to, 0o755)?;
        for entry in fs::read_dir(from)?.take(4096) {
            let entry = entry?;
            copy_plain(&entry.path(), &to.join(entry.file_name()), depth + 1)?;
        }
        Ok(())
    } else if metadata.is_file()
        && metadata.len() < 4 << 20
        && metadata.permissions().mode() & 0o004 != 0
    {
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o644))
    } else {
        Ok(())
    }
}

fn c_string(text: &str) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(io::Error::other)
}

const PASSWD: &str = "root:x:0:0:root:/work:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files\n";

/// What of the host's `/etc` programs in `/usr` need, none of it private.
const ETC_COPIED: [&str; 15] = [
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates.conf",
    "alternatives",
    "localtime",
    "mime.types",
    "protocols",
    "services",
    "OpenCL",
    "glvnd",
    "vulkan",
    "fonts",
];
