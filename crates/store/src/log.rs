//! What a command printed, in files, for as long as its lease is remembered.
//!
//! A log is a folder with segments `NAME.000000`, `NAME.000001`, … of [`SEGMENT_BYTES`] each and an
//! index `NAME.idx` of 16-byte records (offset, milliseconds since 1970; little-endian), one for
//! each 64 KiB or 100 ms. Bytes go from pipe to file by `splice(2)`, within the kernel: there is no moment at
//! which the process holds bytes that are neither in the pipe nor in the file.
//!
//! A log is bounded: beyond [`LogLimits::bytes_max`] the middle is dropped, its first segment and
//! the newest ones stay, and readers are shown the gap. While a reader is attached nothing that it
//! has not read is dropped: the command waits instead, as it would on a terminal.

mod reader;
mod writer;

pub use reader::{LogPiece, LogReader, LogStart};
pub use writer::{LogWriter, Watch};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes in one segment.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Bytes in one record of the index.
const INDEX_RECORD_BYTES: usize = 16;
/// A record is due after so many bytes…
const INDEX_EVERY_BYTES: u64 = 64 << 10;
/// …or so many milliseconds, whichever comes first. This also bounds the index.
const INDEX_EVERY_MS: u64 = 100;

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// The most bytes on the disk, at least three segments.
    pub bytes_max: u64,
    /// How far an attached reader may be behind before the command waits.
    pub behind_max: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, behind_max: 16 << 20 }
    }
}

/// Why a log can't be written or read.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} the log {path}")]
pub struct LogError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LogError {
    fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self { what, path: path.to_owned(), source }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }
}

/// Whether there is a log of this name in the folder.
pub fn log_exists(folder: &Path, name: &str) -> bool {
    index_path(folder, name).exists()
}

fn segment_path(folder: &Path, name: &str, number: u64) -> PathBuf {
    folder.join(format!("{name}.{number:06}"))
}

fn index_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.idx"))
}

/// The numbers of the segments that exist, in order, and the length of the last.
fn segments(folder: &Path, name: &str) -> io::Result<(Vec<u64>, u64)> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        let number = file
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let last = match numbers.last() {
        Some(number) => fs::metadata(segment_path(folder, name, *number))?.len(),
        None => 0,
    };
    Ok((numbers, last))
}
