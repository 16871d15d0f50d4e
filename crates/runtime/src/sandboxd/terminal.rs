//! Terminals of a sandbox, made in its own `/dev/pts`.
//!
//! A terminal of the host's `/dev/pts` would have no name inside. So the helper keeps the sandbox's
//! instance from the time before anything of the tenant ran, and opens both sides there by itself:
//! no path is looked up in the tenant's tree, and the master never is in a process inside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;

use crate::sys;

/// The `/dev/pts` of one sandbox.
#[derive(Debug)]
pub(super) struct Terminals {
    dir: OwnedFd,
    /// The first user id of the sandbox, to whom its terminals belong.
    base: u32,
}

impl Terminals {
    /// Opens the instance of the sandbox whose init is `pid`, and which runs nothing else yet.
    pub(super) fn open(pid: i32, base: u32) -> io::Result<Self> {
        let path = Path::new("/proc").join(pid.to_string()).join("root/dev/pts");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        if rustix::fs::fstatfs(&dir)?.f_type != DEVPTS_MAGIC {
            return Err(io::Error::other("/dev/pts of the sandbox holds no terminals"));
        }
        Ok(Self { dir, base })
    }

    /// Opens a new terminal: master, and the side for the program.
    pub(super) fn create(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        // The kernel gives it to whoever opens it.
        sys::set_fs_ids(self.base, self.base);
        let opened = self.open_both();
        sys::set_fs_ids(0, 0);
        Ok(opened?)
    }

    fn open_both(&self) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(self.dir.as_fd(), "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        Ok((master, slave))
    }
}

/// The file system of terminals, as `statfs` calls it.
const DEVPTS_MAGIC: rustix::fs::FsWord = 0x1cd1;
