//! The kernel's log, record by record: from `/dev/kmsg`, or from a file or pipe in its place that
//! has records of the same form.
//!
//! Nothing here waits. A pass takes what is there, at most [`PASS_BYTES_MAX`]; what a flood pushes out
//! of the kernel's ring meanwhile is counted as missed, and reading goes on with the oldest record
//! that is left. A file that was cut or replaced is read from its beginning.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use welkin_check::health::{Event, LINE_BYTES_MAX, read_line};

/// Where the kernel's log is.
pub const KERNEL_LOG: &str = "/dev/kmsg";
/// The most that one pass reads.
const PASS_BYTES_MAX: usize = 1 << 20;
/// The kernel gives one record at a time and refuses a buffer that is too small for it.
const BUFFER_BYTES: usize = 64 << 10;
/// Where the kernel tells one start of the machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A log that can't be opened is tried again so often.
const RETRY: Duration = Duration::from_secs(60);

/// What has become of lines; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogCounters {
    /// Records that were read.
    pub lines: u64,
    /// Refused: they are no records, or too long.
    pub malformed: u64,
    /// Left out because they had been read before.
    pub repeated: u64,
    /// Pushed out of the log before they were read.
    pub missed: u64,
    /// How often the log was cut or replaced.
    pub rotated: u64,
    /// Records that tell of a fault, or of an error of work.
    pub events: u64,
}

/// How far a log has been read, over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Which log.
    source: String,
    /// The last record's number.
    sequence: Option<u64>,
    /// Bytes before what was not read, where it is a file.
    offset: u64,
}

/// A kernel log that is being read.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    is_file: bool,
    cursor: Cursor,
    /// Where the last run stopped, until the log is open.
    before: Option<Cursor>,
    partial: Vec<u8>,
    is_skipping: bool,
    buffer: Vec<u8>,
    counters: LogCounters,
    trouble: Option<String>,
    try_at: Duration,
}

impl Log {
    /// A log that goes on where the last run stopped. `ahead` is the kernel's, opened while this
    /// process still might.
    pub(super) fn new(
        path: PathBuf,
        ahead: Option<File>,
        (before, counters): (Cursor, LogCounters),
    ) -> Self {
        let mut log = Self {
            path,
            file: None,
            is_file: false,
            cursor: Cursor::default(),
            before: Some(before),
            partial: Vec::new(),
            is_skipping: false,
            buffer: vec![0; BUFFER_BYTES],
            counters,
            trouble: None,
            try_at: Duration::ZERO,
        };
        if let Some(file) = ahead
            && let Err(error) = log.take(file)
        {
            log.fail(&error);
        }
        log
    }

    pub(super) const fn counters(&self) -> LogCounters {
        self.counters
    }

    /// How far it has been read: what is left of a record that has not ended yet is read again.
    pub(super) fn cursor(&self) -> Cursor {
        let partial = self.partial.len() as u64;
        Cursor { offset: self.cursor.offset.saturating_sub(partial), ..self.cursor.clone() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why it can't be read, if it can't.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Reads what is there; says whether more may be.
    pub(super) fn read(&mut self, now: Duration, mut sink: impl FnMut(Event)) -> bool {
        if self.file.is_none() && !self.open(now) {
            return false;
        }
        let mut taken = 0;
        while taken < PASS_BYTES_MAX {
            let Some(file) = &mut self.file else { return false };
            match file.read(&mut self.buffer) {
                Ok(0) if self.is_file && self.has_turned() => (),
                Ok(0) => return false,
                Ok(len) => {
                    taken += len;
                    self.cursor.offset += len as u64;
                    let bytes = std::mem::take(&mut self.buffer);
                    self.split(&bytes[..len], &mut sink);
                    self.buffer = bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // Overrun, or interrupted: it goes on with the oldest record that there is.
                Err(error)
                    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.file = None;
                    self.before = Some(self.cursor());
                    self.try_at = now.saturating_add(RETRY);
                    self.fail(&error);
                    return false;
                }
            }
        }
        true
    }

    fn open(&mut self, now: Duration) -> bool {
        if now < self.try_at {
            return false;
        }
        self.try_at = now.saturating_add(RETRY);
        match open(&self.path).and_then(|file| self.take(file)) {
            Ok(()) => true,
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Says it once, not with every try.
    fn fail(&mut self, error: &std::io::Error) {
        let why = error.to_string();
        if self.trouble.as_ref() != Some(&why) {
            let path = self.path.display();
            warn!(%path, why, "the kernel's log can't be read: faults are not seen early");
            self.trouble = Some(why);
        }
    }

    fn take(&mut self, mut file: File) -> std::io::Result<()> {
        let meta = file.metadata()?;
        self.is_file = meta.file_type().is_file();
        let is_kernel = meta.file_type().is_char_device();
        let source = if is_kernel {
            let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
            format!("boot {}", boot.trim())
        } else {
            format!("file {}:{}", meta.dev(), meta.ino())
        };
        let before = self.before.take().filter(|before| {
            before.source == source && (!self.is_file || before.offset <= meta.len())
        });
        self.cursor = before.unwrap_or(Cursor { source, ..Cursor::default() });
        if self.is_file {
            file.seek(SeekFrom::Start(self.cursor.offset))?;
        } else if is_kernel && self.cursor.sequence.is_none() {
            // What was said before this host looked is over: sensors tell what still is.
            file.seek(SeekFrom::End(0))?;
        }
        (self.partial, self.is_skipping) = (Vec::new(), false);
        if self.trouble.take().is_some() {
            info!(path = %self.path.display(), "the kernel's log is read again");
        }
        self.file = Some(file);
        Ok(())
    }

    /// Whether a file that has ended was cut or replaced; then it is read from its beginning.
    fn has_turned(&mut self) -> bool {
        let Some(file) = &mut self.file else { return false };
        let (Ok(opened), Ok(named)) = (file.metadata(), std::fs::metadata(&self.path)) else {
            return false;
        };
        let is_other = (opened.dev(), opened.ino()) != (named.dev(), named.ino());
        if !is_other && opened.len() >= self.cursor.offset {
            return false;
        }
        self.counters.rotated += 1;
        self.before = None;
        let again = if is_other { None } else { self.file.take() };
        let file = again.map_or_else(|| open(&self.path), Ok);
        file.and_then(|file| self.take(file)).is_ok()
    }

    fn split(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, is_whole) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            if !self.is_skipping {
                self.partial.extend_from_slice(line);
                if self.partial.len() > LINE_BYTES_MAX {
                    self.counters.malformed += 1;
                    self.is_skipping = true;
                    self.partial = Vec::new();
                }
            }
            if is_whole && !std::mem::take(&mut self.is_skipping) {
                let line = std::mem::take(&mut self.partial);
                self.record(&line, sink);
            }
        }
    }

    fn record(&mut self, line: &[u8], sink: &mut impl FnMut(Event)) {
        // What follows a record and begins with a space are its properties.
        if line.is_empty() || line.starts_with(b" ") {
            return;
        }
        let text = String::from_utf8_lossy(line);
        let Some(sequence) = sequence(&text) else {
            self.counters.malformed += 1;
            return;
        };
        if let Some(last) = self.cursor.sequence {
            if sequence <= last {
                self.counters.repeated += 1;
                return;
            }
            self.counters.missed = self.counters.missed.saturating_add(sequence - last - 1);
        }
        self.cursor.sequence = Some(sequence);
        self.counters.lines += 1;
        if let Some(event) = read_line(&text) {
            self.counters.events += 1;
            sink(event);
        }
    }
}

/// The number of a record: `priority,sequence,microseconds,flags;message`.
fn sequence(line: &str) -> Option<u64> {
    let (head, _) = line.split_once(';')?;
    let mut fields = head.split(',');
    fields.next()?.parse::<u64>().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    fields.next()?.parse::<u64>().ok()?;
    fields.next().map(|_| sequence)
}

/// Opens a log without waiting for anybody, as a pipe without a writer would.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests;
