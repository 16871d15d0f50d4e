//! The logs of evidence: a file for each epoch, to which one thread appends.
//!
//! A statement is kept once for each matter that it is about (a sheet for what it says): whoever signs the
//! same matter again gains nothing by it. Who sends one is told what became of it ([`Kept`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::warn;
use welkin_proto::encode;
use welkin_proto::epoch::{STATEMENT_BYTES_MAX, Statement};

use super::budget::{self, Subject};
use super::log::Log;

/// Statements that wait to be written.
const WAITING_MAX: usize = 8_192;
/// How long the disk may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Logs that are appended to.
const OPEN_MAX: usize = 8;
/// The newest logs are kept whatever their length, so many, and those that are appended to …
const KEPT_MIN: usize = 8;
/// … and older ones while there are no more than these, and all are no longer than this.
const KEPT_MAX: usize = 2_048;
const KEPT_BYTES: u64 = 64 << 20;

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is in the log, now or before.
    Written,
    /// Its epoch has no more room for it.
    NoRoom,
    /// These visits are of containers that are not listed here and were not in the epoch.
    Strangers(Vec<u16>),
    /// Not now: too many wait, or the disk fails.
    Later,
}

/// A statement on its way to the disk.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) bytes: Vec<u8>,
    /// The containers that it enrols.
    pub(super) enrolled: Vec<u64>,
    /// Those that are to be known already.
    pub(super) unlisted: Vec<Unlisted>,
}

/// A visit of a container that this indexer does not list: it is to have been there in the epoch, or on a
/// roll, and to be found silent. Who is to earn by being found is to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unlisted {
    /// Its number on the sheet, from 0.
    pub(super) place: u16,
    /// Where it is found in the log; none if it is not to be.
    pub(super) enrolled: Option<u64>,
}

impl Entry {
    /// Of a statement about this, where it can be one.
    fn of(statement: &Statement, subject: Subject, unlisted: Vec<Unlisted>) -> Option<Self> {
        let bytes = encode(statement).ok().filter(|bytes| bytes.len() <= STATEMENT_BYTES_MAX)?;
        Some(Self { subject, bytes, enrolled: budget::enrolled(statement), unlisted })
    }
}

/// With its epoch, and who waits.
type Waiting = (u64, Entry, oneshot::Sender<Kept>);

/// The logs.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    entries: Option<SyncSender<Waiting>>,
    left_out: Arc<AtomicU64>,
}

impl Store {
    /// Opens a folder and starts the thread that writes there. Where it can't, all is left out.
    pub(super) fn open(dir: PathBuf) -> Self {
        let left_out = Arc::new(AtomicU64::new(0));
        let (sender, queue) = sync_channel(WAITING_MAX);
        let writer = Writer { dir: dir.clone(), logs: BTreeMap::new() };
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

    /// Appends a statement; what became of it, after at most [`WRITE_TIMEOUT`]. One that can't be read has
    /// no room.
    pub(super) async fn append(
        &self,
        epoch: u64,
        statement: &Statement,
        subject: Option<Subject>,
        unlisted: Vec<Unlisted>,
    ) -> Kept {
        let entry = subject.and_then(|subject| Entry::of(statement, subject, unlisted));
        let kept = self.write(epoch, entry).await;
        if !matches!(kept, Kept::Written | Kept::Strangers(_)) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }

    async fn write(&self, epoch: u64, entry: Option<Entry>) -> Kept {
        let Some(entry) = entry else { return Kept::NoRoom };
        let Some(entries) = &self.entries else { return Kept::Later };
        let (told, kept) = oneshot::channel();
        if entries.try_send((epoch, entry, told)).is_err() {
            return Kept::Later;
        }
        // What is written after that is found there when it is sent again.
        match tokio::time::timeout(WRITE_TIMEOUT, kept).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) | Err(_) => Kept::Later,
        }
    }

    /// How often a statement was not kept since the start.
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

/// The thread that writes.
struct Writer {
    dir: PathBuf,
    logs: BTreeMap<u64, Log>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Waiting>) {
        while let Ok((epoch, entry, told)) = queue.recv() {
            let kept = self.write(epoch, &entry).unwrap_or_else(|error| {
                warn!(%error, epoch, "a statement of an epoch's evidence is not kept");
                // It is opened anew, and cut where the failed entry begins.
                self.logs.remove(&epoch);
                Kept::Later
            });
            // Whoever sent it may be gone.
            let _ = told.send(kept);
        }
    }

    fn write(&mut self, epoch: u64, entry: &Entry) -> io::Result<Kept> {
        if !self.logs.contains_key(&epoch) {
            let is_full = self.logs.len() >= OPEN_MAX;
            if is_full && self.logs.keys().next().is_some_and(|oldest| epoch < *oldest) {
                return Ok(Kept::NoRoom);
            }
            let log = Log::open(&log_path(&self.dir, epoch))?;
            self.logs.insert(epoch, log);
            while self.logs.len() > OPEN_MAX {
                self.logs.pop_first();
            }
            self.prune();
        }
        let Some(log) = self.logs.get_mut(&epoch) else { return Ok(Kept::NoRoom) };
        log.append(entry)
    }

    /// Removes the oldest logs where there are too many; none that is appended to.
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
        for (place, (epoch, length, path)) in logs.into_iter().rev().enumerate() {
            if place < KEPT_MIN || self.logs.contains_key(&epoch) {
                continue;
            }
            bytes = bytes.saturating_add(length);
            if place >= KEPT_MAX || bytes > KEPT_BYTES {
                // One that stays is found again the next time.
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use welkin_proto::check::{Finding, Sheet, Visit};
    use welkin_proto::epoch::Roll;
    use welkin_proto::{
        AccountKey, Delegation, Domain, NodeKey, Signed, SignedByAccount, container_id,
    };
    use welkin_types::{Class, NodeId, UnixMillis};

    use super::super::log::read_page;
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;

    fn probe(minute: u64) -> Statement {
        let key = NodeKey::from_secret(&[1; 32]);
        let (checker, host) = (key.id(), NodeId::from_bytes([9; 32]));
        let visits = vec![Visit { host, place: 0, finding: Finding::Unreachable }];
        let sheet = Sheet { checker, minute, turn: None, visits };
        Statement::Sheet(Box::new(Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap()))
    }

    fn writer(dir: &Path) -> Writer {
        Writer { dir: dir.to_owned(), logs: BTreeMap::new() }
    }

    fn write(writer: &mut Writer, epoch: u64, statement: &Statement) -> bool {
        writer.write(epoch, &entry(statement, Vec::new())).unwrap() == Kept::Written
    }

    fn entry(statement: &Statement, unlisted: Vec<Unlisted>) -> Entry {
        Entry::of(statement, Subject::of(statement).unwrap(), unlisted).unwrap()
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
        assert!(matches!(read_page(&path, 1), Err(super::super::log::PageError::Place(1))));
        assert!(matches!(read_page(&path, 1 << 40), Err(super::super::log::PageError::Place(_))));
    }

    #[test]
    fn old_logs_go_and_the_newest_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        for epoch in 0..12 {
            let file = File::create(log_path(dir.path(), epoch)).unwrap();
            file.set_len(KEPT_BYTES / 3 + 1).unwrap();
        }
        let mut writer = writer(dir.path());
        let kept = || (0..13).filter(|e| log_path(dir.path(), *e).exists()).collect::<Vec<_>>();
        writer.prune();
        // The newest eight whatever their length, and of the others what is not too long.
        assert_eq!(kept(), (2..12).collect::<Vec<_>>());
        // A new epoch moves on; who writes to an older one has not lost it.
        assert!(write(&mut writer, 3, &probe(1)));
        assert!(write(&mut writer, 12, &probe(1)));
        assert!(kept().contains(&3) && kept().contains(&12), "{:?}", kept());
        assert_eq!(all(&log_path(dir.path(), 3)), [probe(1)]);
    }

    /// Of a container that is listed no more: where the epoch knows it, also after a restart.
    #[test]
    fn who_is_listed_no_more_is_found_silent_where_the_epoch_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let (key, host) = (NodeKey::from_secret(&[1; 32]), NodeKey::from_secret(&[9; 32]));
        let found = |minute, places: &[u8], finding| {
            let (checker, host) = (key.id(), host.id());
            let visits =
                places.iter().map(|place| Visit { host, place: *place, finding }).collect();
            let sheet = Sheet { checker, minute, turn: None, visits };
            Statement::Sheet(Box::new(Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap()))
        };
        let silent = |minute, places: &[u8]| {
            let unlisted = (0..).zip(places).map(|(number, place)| {
                let enrolled = Some(budget::place(container_id(host.id(), (*place).into())));
                Unlisted { place: number, enrolled }
            });
            entry(&found(minute, places, Finding::Unreachable), unlisted.collect())
        };
        let (here, other) = (5, 6);
        let mut first = writer(dir.path());
        assert_eq!(first.write(7, &silent(1, &[here])).unwrap(), Kept::Strangers(vec![0]));
        let message = Delegation { node: host.id(), expires: UnixMillis(u64::MAX) };
        let account = AccountKey::from_secret(&[9; 32]).unwrap();
        let account = SignedByAccount::sign(&Domain::LOCAL, &account, message).unwrap();
        let containers = vec![(container_id(host.id(), here.into()), Class::cpu(1_000))];
        let roll = Roll { epoch: 7, issued: UnixMillis(1), account, containers, region: None };
        let roll = Signed::sign(&Domain::LOCAL, &host, &roll).unwrap();
        assert!(write(&mut first, 7, &Statement::Roll(Box::new(roll))));
        assert_eq!(first.write(7, &silent(1, &[here])).unwrap(), Kept::Written);
        let mut second = writer(dir.path());
        assert_eq!(second.write(7, &silent(2, &[here])).unwrap(), Kept::Written);
        // It says which are strangers, and keeps nothing of the sheet.
        let with_stranger = silent(3, &[here, other]);
        assert_eq!(second.write(7, &with_stranger).unwrap(), Kept::Strangers(vec![1]));
        // Who is not listed is not found online, whether the epoch knows it or not.
        let online = found(3, &[here], Finding::Online { rtt_us: 900 });
        let online = entry(&online, vec![Unlisted { place: 0, enrolled: None }]);
        assert_eq!(second.write(7, &online).unwrap(), Kept::Strangers(vec![0]));
        // Who puts its roll off until it is listed again has been seen all the same.
        assert!(write(&mut second, 7, &found(1, &[other], Finding::Online { rtt_us: 900 })));
        assert_eq!(second.write(7, &with_stranger).unwrap(), Kept::Written);
        assert_eq!(second.write(8, &silent(2, &[here])).unwrap(), Kept::Strangers(vec![0]));
        assert_eq!(all(&log_path(dir.path(), 7)).len(), 5);
    }

    /// Who sends a statement is told the truth.
    #[tokio::test]
    async fn what_is_not_kept_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("evidence"));
        assert_eq!(
            store.append(7, &probe(1), Subject::of(&probe(1)), Vec::new()).await,
            Kept::Written
        );
        assert_eq!(
            store.append(7, &probe(1), Subject::of(&probe(1)), Vec::new()).await,
            Kept::Written
        );
        assert_eq!(all(&store.path(7)), [probe(1)]);
        // Older than all that are appended to.
        for epoch in 8..16 {
            assert_eq!(
                store.append(epoch, &probe(1), Subject::of(&probe(1)), Vec::new()).await,
                Kept::Written
            );
        }
        assert_eq!(
            store.append(3, &probe(1), Subject::of(&probe(1)), Vec::new()).await,
            Kept::NoRoom
        );
        assert_eq!(store.left_out(), 1);
        // The disk fails.
        fs::create_dir(store.path(99)).unwrap();
        assert_eq!(
            store.append(99, &probe(1), Subject::of(&probe(1)), Vec::new()).await,
            Kept::Later
        );
        let file = dir.path().join("file");
        fs::write(&file, b"no folder").unwrap();
        let broken = Store::open(file.join("evidence"));
        assert_eq!(
            broken.append(7, &probe(1), Subject::of(&probe(1)), Vec::new()).await,
            Kept::Later
        );
        assert_eq!(broken.left_out(), 1);
    }
}
