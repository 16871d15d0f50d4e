//! The logs of evidence: a file for each epoch, to which one thread appends.
//!
//! An entry is its length (4 bytes, little-endian) and the statement in postcard. What was appended
//! survives the process; a torn entry at the end, as after a loss of power, is cut off. A statement
//! is kept once for each matter that it is about: whoever signs the same matter again gains nothing
//! by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use sha2::{Digest as _, Sha256};
use tracing::warn;
use welkin_proto::epoch::{PAGE_BYTES_MAX, STATEMENT_BYTES_MAX, Statement};
use welkin_proto::{decode, encode};

/// Statements that wait to be written.
const WAITING_MAX: usize = 8_192;
/// The longest log of an epoch.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// The most statements of an epoch.
const STATEMENTS_MAX: usize = 1 << 21;
/// Logs that are appended to.
const OPEN_MAX: usize = 8;
/// The newest logs are kept, so many …
const KEPT_MIN: usize = 8;
/// … and older ones while there are no more than these, and all are no longer than this.
const KEPT_MAX: usize = 2_048;
const KEPT_BYTES: u64 = 64 << 20;

/// A statement on its way to the disk: its epoch, what it is about, its bytes.
type Entry = (u64, u64, Vec<u8>);

/// The logs.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    entries: Option<SyncSender<Entry>>,
    left_out: Arc<AtomicU64>,
}

impl Store {
    /// Opens a folder and starts the thread that writes there. Where it can't, all is left out.
    pub(super) fn open(dir: PathBuf) -> Self {
        let left_out = Arc::new(AtomicU64::new(0));
        let (sender, queue) = sync_channel(WAITING_MAX);
        let writer =
            Writer { dir: dir.clone(), logs: BTreeMap::new(), left_out: Arc::clone(&left_out) };
        let thread = std::thread::Builder::new().name("evidence".to_owned());
        let started = fs::create_dir_all(&dir).and_then(|()| {
            let run = move || writer.run(&queue);
            thread.spawn(run).map(drop)
        });
        if let Err(error) = &started {
            warn!(%error, dir = %dir.display(), "the evidence of epochs can't be kept");
        }
        Self { dir, entries: started.is_ok().then_some(sender), left_out }
    }

    /// Appends a statement; never waits.
    pub(super) fn append(&self, epoch: u64, statement: &Statement) {
        let bytes = encode(statement).ok().filter(|bytes| bytes.len() <= STATEMENT_BYTES_MAX);
        let entry = bytes.and_then(|bytes| Some((epoch, matter(statement)?, bytes)));
        let sent = match (&self.entries, entry) {
            (Some(entries), Some(entry)) => match entries.try_send(entry) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            },
            _ => false,
        };
        if !sent {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many statements were left out since the start.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Where an epoch's log is.
    pub(super) fn path(&self, epoch: u64) -> PathBuf {
        log_path(&self.dir, epoch)
    }
}

fn log_path(dir: &Path, epoch: u64) -> PathBuf {
    dir.join(format!("{epoch:020}.log"))
}

/// What a statement is about, in 8 bytes of a hash.
fn matter(statement: &Statement) -> Option<u64> {
    let hash = match statement {
        Statement::Roll(roll) => hash(0, &[roll.signer().as_bytes()]),
        Statement::Probe(signed) => {
            let report = signed.read_unverified().ok()?;
            let (checker, minute) = (report.checker, report.minute.to_be_bytes());
            hash(1, &[checker.as_bytes(), report.container.as_bytes(), &minute])
        }
        Statement::Exam(signed) => {
            let report = signed.read_unverified().ok()?;
            let (checker, minute) = (report.checker, report.minute.to_be_bytes());
            hash(2, &[checker.as_bytes(), report.container.as_bytes(), &minute])
        }
        Statement::Lease(file) => {
            let order = &file.order.message;
            let is_acked = [u8::from(file.ack.is_some())];
            let (lease, buyer) = (order.lease.as_bytes(), order.buyer.as_bytes());
            // A buyer that sends a promise of nothing first keeps no better one out.
            let promised = file.voucher.as_ref().map_or(0, |voucher| voucher.message.seconds);
            let promised = promised.to_be_bytes();
            hash(3, &[lease, buyer, order.host.as_bytes(), &is_acked, &promised])
        }
    };
    let (first, _) = hash.split_first_chunk()?;
    Some(u64::from_be_bytes(*first))
}

fn hash(kind: u8, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update([kind]);
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The thread that writes.
struct Writer {
    dir: PathBuf,
    logs: BTreeMap<u64, Log>,
    left_out: Arc<AtomicU64>,
}

/// One epoch's log.
struct Log {
    file: File,
    bytes: u64,
    matters: BTreeSet<u64>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Entry>) {
        while let Ok((epoch, matter, bytes)) = queue.recv() {
            match self.write(epoch, matter, &bytes) {
                Ok(true) => (),
                Ok(false) => drop(self.left_out.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    warn!(%error, epoch, "a statement of an epoch's evidence is not kept");
                    self.left_out.fetch_add(1, Ordering::Relaxed);
                    // It is opened anew, and cut where the failed entry begins.
                    self.logs.remove(&epoch);
                }
            }
        }
    }

    /// Whether there was room.
    fn write(&mut self, epoch: u64, matter: u64, bytes: &[u8]) -> io::Result<bool> {
        if !self.logs.contains_key(&epoch) {
            self.prune();
            let log = Log::open(&log_path(&self.dir, epoch))?;
            self.logs.insert(epoch, log);
            while self.logs.len() > OPEN_MAX {
                self.logs.pop_first();
            }
        }
        // None where the epoch is older than all that are open.
        self.logs.get_mut(&epoch).map_or(Ok(false), |log| log.append(matter, bytes))
    }

    /// Removes the oldest logs where there are too many.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut logs: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let epoch: u64 = name.strip_suffix(".log")?.parse().ok()?;
                Some((epoch, entry.metadata().ok()?.len(), entry.path()))
            })
            .collect();
        logs.sort();
        let mut bytes = 0_u64;
        for (place, (_, length, path)) in logs.into_iter().rev().enumerate() {
            bytes = bytes.saturating_add(length);
            if place >= KEPT_MIN && (place >= KEPT_MAX || bytes > KEPT_BYTES) {
                // One that stays is found again the next time.
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut matters = BTreeSet::new();
        let mut reader = BufReader::new(&mut file);
        let mut bytes = 0_u64;
        while let Some(entry) = next_entry(&mut reader)? {
            if let Ok(statement) = decode::<Statement>(&entry) {
                matters.extend(matter(&statement));
            }
            bytes += 4 + entry.len() as u64;
        }
        file.set_len(bytes)?;
        Ok(Self { file, bytes, matters })
    }

    fn append(&mut self, matter: u64, bytes: &[u8]) -> io::Result<bool> {
        if self.matters.contains(&matter) {
            return Ok(true);
        }
        let length = 4 + bytes.len() as u64;
        if self.bytes + length > LOG_BYTES_MAX || self.matters.len() >= STATEMENTS_MAX {
            return Ok(false);
        }
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // One write, so that what is there is whole.
        self.file.write_all(&[&count.to_le_bytes(), bytes].concat())?;
        self.bytes += length;
        self.matters.insert(matter);
        Ok(true)
    }
}

/// The next whole entry; none at the end, or where the rest is torn.
fn next_entry(reader: &mut impl io::Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > STATEMENT_BYTES_MAX as u64 {
        return Ok(None);
    }
    let mut entry = Vec::new();
    reader.take(length).read_to_end(&mut entry)?;
    Ok((entry.len() as u64 == length).then_some(entry))
}

/// Why a page can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// The log can't be read.
    #[error("the evidence can't be read: {0}")]
    Read(#[from] io::Error),
    /// No entry begins there.
    #[error("no statement begins at {0}: begin again at 0")]
    Place(u64),
}

/// Statements from a place in a log, and the place to go on at.
type Page = (Vec<Statement>, Option<u64>);

/// Reads a page; none where there is no log.
pub(super) fn read_page(path: &Path, from: u64) -> Result<Option<Page>, PageError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let end = file.metadata()?.len();
    if from > end {
        return Err(PageError::Place(from));
    }
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let (mut statements, mut at) = (Vec::new(), from);
    while at.saturating_sub(from) < PAGE_BYTES_MAX as u64 {
        let Some(entry) = next_entry(&mut reader)? else {
            let is_misplaced = statements.is_empty() && from > 0 && at < end;
            return if is_misplaced {
                Err(PageError::Place(from))
            } else {
                Ok(Some((statements, None)))
            };
        };
        at += 4 + entry.len() as u64;
        match decode(&entry) {
            Ok(statement) => statements.push(statement),
            Err(_) if statements.is_empty() && from > 0 => return Err(PageError::Place(from)),
            // Of another edition.
            Err(_) => (),
        }
    }
    Ok(Some((statements, (at < end).then_some(at))))
}

#[cfg(test)]
mod tests {
    use welkin_proto::check::{Finding, Report};
    use welkin_proto::{Domain, NodeKey, Signed};
    use welkin_types::{ContainerId, NodeId};

    use super::*;

    fn probe(minute: u64) -> Statement {
        let key = NodeKey::from_secret(&[1; 32]);
        let (checker, host) = (key.id(), NodeId::from_bytes([9; 32]));
        let (container, finding) = (ContainerId::from_bytes([2; 16]), Finding::Unreachable);
        let report = Report { checker, host, container, minute, finding };
        Statement::Probe(Box::new(Signed::sign(&Domain::LOCAL, &key, &report).unwrap()))
    }

    fn writer(dir: &Path) -> Writer {
        Writer { dir: dir.to_owned(), logs: BTreeMap::new(), left_out: Arc::default() }
    }

    fn write(writer: &mut Writer, epoch: u64, statement: &Statement) -> bool {
        let bytes = encode(statement).unwrap();
        writer.write(epoch, matter(statement).unwrap(), &bytes).unwrap()
    }

    fn all(path: &Path) -> Vec<Statement> {
        let (mut statements, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (page, next) = read_page(path, at).unwrap().unwrap();
            statements.extend(page);
            from = next;
        }
        statements
    }

    #[test]
    fn what_was_appended_is_read_again_once_and_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = log_path(dir.path(), 7);
        assert!(read_page(&path, 0).unwrap().is_none());
        let statements: Vec<_> = (0..3_000).map(probe).collect();
        let mut first = writer(dir.path());
        for statement in statements.iter().chain(&statements[..10]) {
            assert!(write(&mut first, 7, statement));
        }
        assert_eq!(all(&path), statements);
        // Torn, as after a loss of power; then by another process.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[200, 0, 0, 0, 1, 2, 3]).unwrap();
        assert_eq!(all(&path), statements);
        let mut second = writer(dir.path());
        assert!(write(&mut second, 7, &statements[5]));
        assert!(write(&mut second, 7, &probe(9_999)));
        assert_eq!(all(&path).len(), 3_001);
        assert!(matches!(read_page(&path, 1), Err(PageError::Place(1))));
        assert!(matches!(read_page(&path, 1 << 40), Err(PageError::Place(_))));
    }

    #[test]
    fn old_logs_go_where_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        for epoch in 0..12 {
            let file = File::create(log_path(dir.path(), epoch)).unwrap();
            file.set_len(KEPT_BYTES / 10 + 1).unwrap();
        }
        writer(dir.path()).prune();
        let kept: Vec<_> = (0..12).filter(|e| log_path(dir.path(), *e).exists()).collect();
        assert_eq!(kept, (3..12).collect::<Vec<_>>());
    }
}
