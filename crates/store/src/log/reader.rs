//! The reading side of a log.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use tokio::sync::watch;
use welkin_types::UnixMillis;

use super::{
    INDEX_RECORD_BYTES, LogError, SEGMENT_BYTES, Watch, index_path, segment_path, segments,
};

/// The most bytes that `tail` looks through for line ends.
const TAIL_BYTES_MAX: u64 = 8 << 20;
/// How many of them at a time.
const TAIL_STEP_BYTES: u64 = 64 << 10;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// At this byte.
    Offset(u64),
    /// At the last so many lines.
    Tail(u32),
    /// At what was printed since then.
    Since(UnixMillis),
}

/// A piece of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// The buffer holds the bytes from here on.
    Data {
        /// The offset of the first.
        offset: u64,
    },
    /// These bytes were not kept.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The first that is there again.
        to: u64,
    },
    /// Nothing more will come.
    End {
        /// Bytes in all.
        total: u64,
    },
    /// Nothing more for now.
    Later,
    /// Whoever wrote is gone and did not close the log: another may go on with it.
    Abandoned,
}

/// Follows a log.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    name: &'static str,
    position: u64,
    segment: Option<(u64, File)>,
    state: watch::Receiver<Watch>,
    index: Index,
}

impl LogReader {
    /// Opens a log that is being written.
    ///
    /// # Errors
    ///
    /// [`LogError`] where the disk refuses.
    pub fn follow(
        folder: &Path,
        name: &'static str,
        start: LogStart,
        state: watch::Receiver<Watch>,
    ) -> Result<Self, LogError> {
        let error = |source| LogError::new("read", folder, source);
        let index = Index::load(folder, name).map_err(error)?;
        let mut reader =
            Self { folder: folder.to_owned(), name, position: 0, segment: None, state, index };
        let end = reader.state.borrow().end;
        reader.position = match start {
            LogStart::Offset(offset) => offset.min(end),
            LogStart::Since(at) => reader.index.offset_since(at).unwrap_or(end).min(end),
            LogStart::Tail(lines) => reader.tail(lines, end)?,
        };
        Ok(reader)
    }

    /// Opens a log that nobody writes any more.
    ///
    /// # Errors
    ///
    /// [`LogError`] where the disk refuses.
    pub fn finished(folder: &Path, name: &'static str, start: LogStart) -> Result<Self, LogError> {
        let error = |source| LogError::new("read", folder, source);
        let (numbers, last_len) = segments(folder, name).map_err(error)?;
        let end = numbers.last().map_or(0, |last| last * SEGMENT_BYTES + last_len);
        let (_, state) = watch::channel(Watch { end, closed: true });
        Self::follow(folder, name, start, state)
    }

    /// Where the next piece begins.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// When the byte at this offset had been printed at the latest.
    pub fn time_of(&self, offset: u64) -> UnixMillis {
        self.index.time_of(offset)
    }

    /// Completes once there is more to read, the log is closed or its writer is gone.
    pub async fn ready(&mut self) {
        let position = self.position;
        // `next` says of a writer that is gone.
        let _ = self.state.wait_for(|state| state.end > position || state.closed).await;
    }

    /// Reads the next piece, at most `max` bytes, in place of what the buffer held. Does not wait.
    ///
    /// # Errors
    ///
    /// [`LogError`] where the disk refuses.
    pub fn next(&mut self, buffer: &mut Vec<u8>, max: usize) -> Result<LogPiece, LogError> {
        buffer.clear();
        let writer_is_gone = self.state.has_changed().is_err();
        let Watch { end, closed } = *self.state.borrow();
        if self.position >= end {
            // Only what was closed has ended: a writer is also gone where its process stops, and the
            // next one goes on with the same log.
            return Ok(match (closed, writer_is_gone) {
                (true, _) => LogPiece::End { total: end },
                (false, true) => LogPiece::Abandoned,
                (false, false) => LogPiece::Later,
            });
        }
        let number = self.position / SEGMENT_BYTES;
        if self.segment.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = segment_path(&self.folder, self.name, number);
            match File::open(&path) {
                Ok(file) => self.segment = Some((number, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.gap(number),
                Err(error) => return Err(LogError::new("read", &path, error)),
            }
        }
        let Some((_, file)) = &self.segment else { return Ok(LogPiece::Later) };
        let in_segment = self.position % SEGMENT_BYTES;
        let left = (end - self.position).min(SEGMENT_BYTES - in_segment);
        let len = max.min(usize::try_from(left).unwrap_or(usize::MAX));
        buffer.reserve_exact(len);
        rustix::io::pread(file, spare_capacity(buffer), in_segment)
            .map_err(|source| LogError::new("read", &self.folder, source.into()))?;
        // There may be room for more, and more may be there already.
        buffer.truncate(len);
        if buffer.is_empty() {
            // The file is shorter than was said, as after a power cut: the rest is gone.
            let (from, to) = (self.position, self.position + left);
            self.position = to;
            return Ok(LogPiece::Gap { from, to });
        }
        let offset = self.position;
        self.position += buffer.len() as u64;
        self.index.refresh(offset);
        Ok(LogPiece::Data { offset })
    }

    fn gap(&mut self, number: u64) -> Result<LogPiece, LogError> {
        let (numbers, _) = segments(&self.folder, self.name)
            .map_err(|source| LogError::new("read", &self.folder, source))?;
        let end = self.state.borrow().end;
        let next = numbers.into_iter().find(|kept| *kept > number);
        let (from, to) = (self.position, next.map_or(end, |next| next * SEGMENT_BYTES));
        self.position = to;
        Ok(LogPiece::Gap { from, to })
    }

    /// The offset at which the last `lines` lines begin.
    fn tail(&mut self, lines: u32, end: u64) -> Result<u64, LogError> {
        if lines == 0 {
            return Ok(end);
        }
        let floor = end.saturating_sub(TAIL_BYTES_MAX);
        let mut seen = 0;
        let mut at = end;
        let mut buffer = Vec::new();
        while at > floor {
            let size = TAIL_STEP_BYTES.min(at - floor).min(((at - 1) % SEGMENT_BYTES) + 1);
            self.position = at - size;
            let wanted = usize::try_from(size).unwrap_or(0);
            let LogPiece::Data { .. } = self.next(&mut buffer, wanted)? else {
                return Ok(at);
            };
            for (index, byte) in buffer.iter().enumerate().rev() {
                let offset = at - size + index as u64;
                // The last byte ends the last line; it does not begin another.
                if *byte == b'\n' && offset + 1 < end {
                    seen += 1;
                    if seen == lines {
                        return Ok(offset + 1);
                    }
                }
            }
            at -= size;
        }
        Ok(floor)
    }
}

fn records(bytes: &[u8]) -> Vec<(u64, UnixMillis)> {
    let number = |part: &[u8]| part.try_into().map(u64::from_le_bytes).unwrap_or(0);
    bytes
        .chunks_exact(INDEX_RECORD_BYTES)
        .map(|record| (number(&record[..8]), UnixMillis(number(&record[8..]))))
        .collect()
}

/// When what was printed.
#[derive(Debug)]
struct Index {
    path: PathBuf,
    records: Vec<(u64, UnixMillis)>,
}

impl Index {
    fn load(folder: &Path, name: &str) -> io::Result<Self> {
        let path = index_path(folder, name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, records: records(&bytes) })
    }

    /// Reads what was added since, if this offset is beyond what is known.
    fn refresh(&mut self, offset: u64) {
        if self.records.last().is_some_and(|(last, _)| *last > offset) {
            return;
        }
        let Ok(file) = File::open(&self.path) else { return };
        let mut bytes = vec![0; 256 * INDEX_RECORD_BYTES];
        let known = (self.records.len() * INDEX_RECORD_BYTES) as u64;
        if let Ok(len) = file.read_at(&mut bytes, known) {
            self.records.extend(records(&bytes[..len]));
        }
    }

    fn offset_since(&self, at: UnixMillis) -> Option<u64> {
        let first = self.records.partition_point(|(_, time)| *time < at);
        self.records.get(first).map(|(offset, _)| *offset)
    }

    fn time_of(&self, offset: u64) -> UnixMillis {
        let after = self.records.partition_point(|(begin, _)| *begin <= offset);
        after
            .checked_sub(1)
            .and_then(|index| self.records.get(index))
            .map_or(UnixMillis::default(), |(_, time)| *time)
    }
}
