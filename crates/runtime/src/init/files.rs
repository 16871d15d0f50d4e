//! Reads and writes files as tar streams, from inside the sandbox.
//!
//! This runs with the tenant's root directory and rights, so a symbolic link or `..` leads nowhere
//! that the tenant could not go by itself.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

/// Unpacks the stream of the only descriptor under `dir`.
pub(super) fn put(dir: &str, fds: Vec<OwnedFd>) -> Result<(), String> {
    let input = only(fds)?;
    let dir = absolute(dir);
    fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(BUFFER, input));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    archive.set_overwrite(true);
    archive
        .unpack(&dir)
        .map_err(|error| format!("cannot unpack into {}: {}", dir.display(), deepest(&error)))?;
    // What follows the end mark is read too, so that the writer never sees a broken pipe.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop).map_err(|e| e.to_string())
}

/// Writes `path`, a file or a directory with all below it, to the only descriptor.
pub(super) fn get(path: &str, fds: Vec<OwnedFd>) -> Result<(), String> {
    let output = only(fds)?;
    let path = absolute(path);
    let real = fs::canonicalize(&path)
        .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    let name = path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(BUFFER, output));
    append(&mut tar, &real, &name, 0)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut output = tar.into_inner().map_err(|error| error.to_string())?;
    output.flush().map_err(|error| error.to_string())
}

/// Adds one file, link or directory; sockets, pipes and devices are passed over.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    depth: usize,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(metadata.permissions().mode() & 0o777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        tar.append_link(&mut header, name, fs::read_link(path)?)
    } else if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        tar.append_data(&mut header, name, io::empty())?;
        if depth >= DEPTH_MAX {
            return Err(io::Error::other("directories nest too deep"));
        }
        let mut children: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            append(tar, &child.path(), &name.join(child.file_name()), depth + 1)?;
        }
        Ok(())
    } else if kind.is_file() {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        // A file that shrinks meanwhile is filled up with zeroes, one that grows is cut.
        tar.append_data(&mut header, name, file.chain(io::repeat(0)).take(size))
    } else {
        debug_assert!(kind.is_fifo() || kind.is_socket() || !kind.is_file());
        Ok(())
    }
}

/// The tar crate's errors name only the step; their cause says what happened.
fn deepest(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/work").join(path)
}

fn only(fds: Vec<OwnedFd>) -> Result<File, String> {
    fds.into_iter().next().map(File::from).ok_or_else(|| "missing stream".to_owned())
}

const BUFFER: usize = 64 << 10;
const DEPTH_MAX: usize = 256;
