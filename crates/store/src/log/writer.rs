//! The writing side of a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::pipe::{SpliceFlags, splice};
use tokio::sync::watch;
use welkin_types::UnixMillis;

use super::{
    INDEX_EVERY_BYTES, INDEX_EVERY_MS, INDEX_RECORD_BYTES, LogError, LogLimits, SEGMENT_BYTES,
    index_path, segment_path, segments,
};

/// What readers are told of a log that is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Bytes written since the lease began.
    pub end: u64,
    /// Whether nothing more will come.
    pub closed: bool,
}

/// Appends to a log. One a log.
#[derive(Debug)]
pub struct LogWriter {
    folder: PathBuf,
    name: &'static str,
    limits: LogLimits,
    kept: Vec<u64>,
    segment: File,
    index: File,
    /// The last record of the index: offset and time.
    indexed: Option<(u64, UnixMillis)>,
    state: watch::Sender<Watch>,
}

impl LogWriter {
    /// Opens a log to append to, making it where there is none.
    ///
    /// # Errors
    ///
    /// [`LogError`] where the disk refuses.
    pub fn open(folder: &Path, name: &'static str, limits: LogLimits) -> Result<Self, LogError> {
        let error = |source| LogError::new("open", folder, source);
        fs::create_dir_all(folder).map_err(error)?;
        let (mut kept, last_len) = segments(folder, name).map_err(error)?;
        if kept.is_empty() {
            kept.push(0);
        }
        let last = kept.last().copied().unwrap_or(0);
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        // `splice` takes no file opened to append; the offset is given each time.
        let segment = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(segment_path(folder, name, last))
            .map_err(error)?;
        let index = open(&index_path(folder, name)).map_err(error)?;
        let end = last * SEGMENT_BYTES + last_len;
        let (state, _) = watch::channel(Watch { end, closed: false });
        Ok(Self {
            folder: folder.to_owned(),
            name,
            limits,
            kept,
            segment,
            index,
            indexed: None,
            state,
        })
    }

    /// Bytes written since the lease began.
    pub fn end(&self) -> u64 {
        self.state.borrow().end
    }

    /// For readers.
    pub fn watch(&self) -> watch::Receiver<Watch> {
        self.state.subscribe()
    }

    /// Says that nothing more will come.
    pub fn close(&mut self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// Moves what there is from a non-blocking pipe into the log, at most the rest of a segment.
    /// Returns 0 at the pipe's end; [`io::ErrorKind::WouldBlock`] if the pipe is empty.
    ///
    /// # Errors
    ///
    /// [`LogError`] where pipe or disk refuse.
    pub fn splice_from(&mut self, pipe: impl AsFd, now: UnixMillis) -> io::Result<usize> {
        let (room, mut offset) =
            self.room().map_err(|error| io::Error::new(error.source.kind(), error))?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(pipe, None, &self.segment, Some(&mut offset), room, flags)?;
        if moved > 0 {
            self.grew(moved, now);
        }
        Ok(moved)
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// [`LogError`] where the disk refuses.
    pub fn append(&mut self, mut bytes: &[u8], now: UnixMillis) -> Result<(), LogError> {
        while !bytes.is_empty() {
            let (room, offset) = self.room()?;
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            let error = |source| LogError::new("write", &self.folder, source);
            self.segment.write_all_at(part, offset).map_err(error)?;
            self.grew(part.len(), now);
            bytes = rest;
        }
        Ok(())
    }

    /// Room in the present segment (a new one where it is full) and where to write in it.
    fn room(&mut self) -> Result<(usize, u64), LogError> {
        let end = self.end();
        let last = self.kept.last().copied().unwrap_or(0);
        let number = end / SEGMENT_BYTES;
        if number != last {
            let path = segment_path(&self.folder, self.name, number);
            self.segment = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(&path)
                .map_err(|source| LogError::new("open", &path, source))?;
            self.kept.push(number);
            self.drop_middle();
        }
        let offset = end % SEGMENT_BYTES;
        let room = usize::try_from(SEGMENT_BYTES - offset).unwrap_or(usize::MAX);
        Ok((room, offset))
    }

    /// Keeps the first segment and the newest ones.
    fn drop_middle(&mut self) {
        let kept_max = usize::try_from(self.limits.bytes_max / SEGMENT_BYTES).unwrap_or(3).max(3);
        while self.kept.len() > kept_max {
            let number = self.kept.remove(1);
            let path = segment_path(&self.folder, self.name, number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, "a log segment can't be removed");
            }
        }
    }

    /// The bytes are in the file: they count, whatever becomes of the index.
    fn grew(&mut self, bytes: usize, now: UnixMillis) {
        let offset = self.end();
        let is_due = self.indexed.is_none_or(|(at, time)| {
            offset - at >= INDEX_EVERY_BYTES || now.0.abs_diff(time.0) >= INDEX_EVERY_MS
        });
        if is_due {
            let mut record = [0; INDEX_RECORD_BYTES];
            record[..8].copy_from_slice(&offset.to_le_bytes());
            record[8..].copy_from_slice(&now.0.to_le_bytes());
            match self.index.write_all(&record) {
                Ok(()) => self.indexed = Some((offset, now)),
                Err(error) => tracing::debug!(%error, "a time is not noted"),
            }
        }
        self.state.send_modify(|state| state.end += bytes as u64);
    }
}
