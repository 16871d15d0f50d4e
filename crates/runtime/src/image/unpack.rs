//! Unpacks layers over each other into one directory.
//!
//! The kernel resolves every path below the root (`RESOLVE_IN_ROOT`), so no order of links and files
//! leads outside. Names with `..` or a leading `/` are refused all the same: an honest image has none.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tar::{Entry, EntryType};

use super::{Digest, bad};
use crate::error::Failure;

/// Unpacks into one root directory.
#[derive(Debug)]
pub(super) struct Unpacker {
    root: OwnedFd,
    bytes_left: u64,
    entries_left: u64,
    /// What the current layer has written, which its own opaque marks leave alone.
    written: BTreeSet<PathBuf>,
}

impl Unpacker {
    /// Opens the directory.
    pub(super) fn new(root: &Path) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|error| Failure::host("open the image directory", error))?;
        // An image may not take more than half of what is left for everyone.
        let disk = rustix::fs::fstatvfs(&root)
            .map_err(|error| Failure::host("look at the image directory", error))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(Self {
            root,
            bytes_left: BYTES_MAX.min(free / 2),
            entries_left: ENTRIES_MAX,
            written: BTreeSet::new(),
        })
    }

    /// Unpacks one layer and checks both its digests: of the tar stream, and of the bytes as stored.
    pub(super) fn layer(
        &mut self,
        stored: Box<dyn Read>,
        diff_id: &Digest,
        digest: Option<&Digest>,
    ) -> Result<(), Failure> {
        self.written.clear();
        let mut stored = BufReader::with_capacity(BUFFER, Hashed::new(stored));
        let is_gzip = io::BufRead::fill_buf(&mut stored)
            .map_err(|error| bad(format!("cannot read a layer: {error}")))?
            .starts_with(&[0x1f, 0x8b]);
        let unpacked = if is_gzip {
            self.stream(MultiGzDecoder::new(&mut stored))?
        } else {
            self.stream(&mut stored)?
        };
        if unpacked != *diff_id {
            return Err(bad("the digest of a layer does not match"));
        }
        io::copy(&mut stored, &mut io::sink())
            .map_err(|error| bad(format!("cannot read a layer: {error}")))?;
        let as_stored = Digest::from_hash(stored.into_inner().hash);
        if digest.is_some_and(|digest| *digest != as_stored) {
            return Err(bad("the digest of a stored layer does not match"));
        }
        Ok(())
    }

    /// Unpacks a tar stream and returns its digest.
    fn stream(&mut self, plain: impl Read) -> Result<Digest, Failure> {
        let mut plain = Hashed::new(plain);
        self.entries(&mut plain)?;
        // The digest covers what follows the end mark, too.
        io::copy(&mut (&mut plain).take(BYTES_MAX), &mut io::sink())
            .map_err(|error| bad(format!("cannot read a layer: {error}")))?;
        Ok(Digest::from_hash(plain.hash))
    }

    fn entries(&mut self, plain: impl Read) -> Result<(), Failure> {
        let mut archive = tar::Archive::new(plain);
        let entries = archive.entries().map_err(|error| bad(error.to_string()))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| bad(format!("a layer is malformed: {error}")))?;
            self.entries_left =
                self.entries_left.checked_sub(1).ok_or_else(|| bad("too many files"))?;
            let path = entry.path().map_err(|error| bad(error.to_string()))?.into_owned();
            let Some(path) = checked(&path)? else { continue };
            self.entry(&mut entry, &path)
                .map_err(|error| bad(format!("cannot unpack {}: {error}", path.display())))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?;
        let parent_fd = self.make_dirs(parent)?;
        if name == OPAQUE {
            return self.clear(&parent_fd, parent);
        }
        if let Some(hidden) = name.as_encoded_bytes().strip_prefix(WHITEOUT) {
            let hidden: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(hidden);
            // `.wh...` would name the parent directory.
            return match Path::new(hidden).components().next() {
                Some(Component::Normal(_)) => remove_tree(&parent_fd, hidden),
                _ => Err(io::Error::other("the mark leads outside")),
            };
        }
        self.written.insert(path.to_owned());
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => make_dir(&parent_fd, name)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.write_file(entry, &parent_fd, name)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                remove_tree(&parent_fd, name)?;
                rustix::fs::symlinkat(target.as_ref(), &parent_fd, name)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                self.hard_link(&target, &parent_fd, name)?;
                return Ok(());
            }
            // Devices, pipes and what else there is: sandboxes get none from images.
            _ => return Ok(()),
        }
        set_owner_and_mode(entry, &parent_fd, name, kind)
    }

    fn write_file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> io::Result<()> {
        remove_tree(parent, name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(file);
        let written = io::copy(&mut entry.take(self.bytes_left.saturating_add(1)), &mut file)?;
        self.bytes_left = self
            .bytes_left
            .checked_sub(written)
            .ok_or_else(|| io::Error::other("the image is too large"))?;
        Ok(())
    }

    fn hard_link(&self, target: &Path, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = checked(target)
            .ok()
            .flatten()
            .ok_or_else(|| io::Error::other("the link leads outside"))?;
        let from = self.open_dir(target.parent().unwrap_or(Path::new("")))?;
        let from_name = target.file_name().ok_or(io::ErrorKind::InvalidData)?;
        remove_tree(parent, name)?;
        Ok(rustix::fs::linkat(&from, from_name, parent, name, AtFlags::empty())?)
    }

    /// Opens a directory below the root; links on the way lead nowhere else.
    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, flags, Mode::empty(), how)?)
    }

    /// Opens a directory and makes what is missing of it.
    fn make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_dir(path) {
            Ok(dir) => Ok(dir),
            Err(_) => {
                let mut done = PathBuf::new();
                for part in path.components() {
                    let parent = self.open_dir(&done)?;
                    done.push(part);
                    if self.open_dir(&done).is_err() {
                        remove_tree(&parent, part.as_os_str())?;
                        make_dir(&parent, part.as_os_str())?;
                    }
                }
                self.open_dir(path)
            }
        }
    }

    /// Removes what lower layers put into a directory.
    fn clear(&self, dir: &OwnedFd, path: &Path) -> io::Result<()> {
        for name in names(dir)? {
            let child = path.join(&name);
            if !self.written.range(child.clone()..).next().is_some_and(|w| w.starts_with(&child)) {
                remove_tree(dir, &name)?;
            }
        }
        Ok(())
    }
}

/// A path of plain names only; nothing for the root itself.
fn checked(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(bad(format!("the path {} leads outside", path.display())));
            }
        }
    }
    if plain.as_os_str().len() > PATH_MAX {
        return Err(bad("a path is too long"));
    }
    Ok((!plain.as_os_str().is_empty()).then_some(plain))
}

fn make_dir(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                return Ok(());
            }
            remove_tree(parent, name)?;
            Ok(rustix::fs::mkdirat(parent, name, mode)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a file or a whole directory, never following a link.
fn remove_tree(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for child in names(&dir)? {
        remove_tree(&dir, &child)?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn names(dir: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Keeps the owner if a sandbox has that id, and the mode without set-id bits.
fn set_owner_and_mode(
    entry: &Entry<'_, impl Read>,
    parent: &OwnedFd,
    name: &OsStr,
    kind: EntryType,
) -> io::Result<()> {
    let id = |value: io::Result<u64>| {
        value.ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < 65_534).unwrap_or(0)
    };
    let header = entry.header();
    let (uid, gid) = (Uid::from_raw(id(header.uid())), Gid::from_raw(id(header.gid())));
    rustix::fs::chownat(parent.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind == EntryType::Symlink {
        return Ok(());
    }
    let sticky = if kind == EntryType::Directory { 0o1000 } else { 0 };
    let mode = Mode::from_raw_mode(header.mode()? & (0o777 | sticky));
    rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    if kind != EntryType::Directory {
        let time = Timespec {
            tv_sec: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
            tv_nsec: 0,
        };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const BUFFER: usize = 128 << 10;
const PATH_MAX: usize = 4000;
const BYTES_MAX: u64 = 64 << 30;
const ENTRIES_MAX: u64 = 2 << 20;
