//! Files to and from a lease, as tar streams in temporary files.

use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::path::{Component, Path, PathBuf};

/// The most files and folders that are unpacked.
const ENTRIES_MAX: usize = 1_000_000;

/// Why files could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} {path}")]
pub struct TarError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl TarError {
    fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self { what, path: path.to_owned(), source }
    }
}

fn temporary(folder: &Path) -> Result<File, TarError> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::open(folder, flags, mode)
        .map(File::from)
        .map_err(|error| TarError::new("make a temporary file in", folder, error.into()))
}

/// Packs files: each local path with its place inside (`to` is a folder if it ends in `/` or is one
/// by nature of what is sent: a folder's contents go into `to`, a file goes to `to/NAME`, or to `to`
/// itself if `exact`).
///
/// # Errors
///
/// [`TarError`] naming the file.
pub fn pack(entries: &[(PathBuf, String, bool)]) -> Result<File, TarError> {
    let mut builder = tar::Builder::new(temporary(&std::env::temp_dir())?);
    builder.follow_symlinks(false);
    for (from, to, exact) in entries {
        let error = |source| TarError::new("read", from, source);
        let meta = fs::metadata(from).map_err(error)?;
        let to = to.trim_start_matches('/').trim_end_matches('/');
        if meta.is_dir() {
            let inside = if to.is_empty() { "." } else { to };
            builder.append_dir_all(inside, from).map_err(error)?;
            continue;
        }
        let name = from.file_name().unwrap_or_default();
        let inside = match (*exact, to.is_empty()) {
            (true, _) => PathBuf::from(to),
            (false, true) => PathBuf::from(name),
            (false, false) => Path::new(to).join(name),
        };
        let mut file = File::open(from).map_err(error)?;
        builder.append_file(inside, &mut file).map_err(error)?;
    }
    let path = Path::new("the files");
    let mut file = builder.into_inner().map_err(|source| TarError::new("pack", path, source))?;
    file.rewind().map_err(|source| TarError::new("pack", path, source))?;
    Ok(file)
}

/// Unpacks what a lease sent. A single file goes to `to` itself (into it, if it is a folder); a
/// folder's contents go into `to`. Nothing is written outside of `to`.
///
/// # Errors
///
/// [`TarError`] naming the file.
pub fn unpack(stream: File, to: &Path) -> Result<u64, TarError> {
    let error = |source| TarError::new("unpack into", to, source);
    let mut archive = tar::Archive::new(stream);
    archive.set_preserve_permissions(true);
    archive.set_unpack_xattrs(false);
    let mut count = 0;
    for (index, entry) in archive.entries().map_err(error)?.enumerate() {
        let mut entry = entry.map_err(error)?;
        // Bytes are bounded by the stream's own: what a header announces beyond them is not there.
        if index >= ENTRIES_MAX {
            let text = format!("more than {ENTRIES_MAX} files and folders");
            return Err(error(io::Error::other(text)));
        }
        let path = entry.path().map_err(error)?.into_owned();
        let is_plain =
            entry.header().entry_type().is_file() || entry.header().entry_type().is_dir();
        let is_link = entry.header().entry_type().is_symlink();
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(error(io::Error::other(format!("`{}` leads outside", path.display()))));
        }
        if !is_plain && !is_link {
            continue;
        }
        count += 1;
        let is_single = entry.header().entry_type().is_file() && path.components().count() == 1;
        if is_single && count == 1 && !to.is_dir() {
            entry.unpack(to).map_err(error)?;
        } else {
            fs::create_dir_all(to).map_err(error)?;
            entry.unpack_in(to).map_err(error)?;
        }
    }
    Ok(count)
}

/// Bytes that may still be written in a folder's file system.
///
/// # Errors
///
/// [`TarError`] where that can't be told.
pub fn free_bytes(folder: &Path) -> Result<u64, TarError> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|error| TarError::new("find the free space of", folder, error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// An empty temporary file to receive a stream in.
///
/// # Errors
///
/// [`TarError`] if none can be made.
pub fn scratch() -> Result<File, TarError> {
    temporary(&scratch_dir())
}

/// Where [`scratch`] makes its files.
pub fn scratch_dir() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A few bytes may announce a file of any size that is mostly holes.
    #[test]
    fn a_small_stream_does_not_become_a_large_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_path("sparse").unwrap();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 40);
        header.set_cksum();
        let mut plain = tar::Header::new_gnu();
        plain.set_path("plain").unwrap();
        plain.set_size(1 << 40);
        plain.set_cksum();
        for header in [header, plain] {
            let mut stream = temporary(dir.path()).unwrap();
            stream.write_all(header.as_bytes()).unwrap();
            stream.write_all(&[7; 1_024]).unwrap();
            stream.rewind().unwrap();
            let to = dir.path().join("to");
            // Refused or cut short: what matters is what is on the disk.
            let _ = unpack(stream, &to);
            for name in ["to", "to/sparse", "to/plain"] {
                let len = fs::metadata(dir.path().join(name)).map_or(0, |meta| meta.len());
                assert!(len <= 8_192, "{name}: {len} bytes");
            }
        }
    }
}
