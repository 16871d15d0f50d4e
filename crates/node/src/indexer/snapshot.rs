//! What an indexer knows of hosts, kept on the disk so that a restarted one answers at once.
//!
//! Every minute a snapshot is written aside and put in place by a rename; between, announcements go
//! into a log. Both are a help only: what can't be read is left out with a warning, whoever is read
//! in counts as unconfirmed until it is heard, and all of it comes again by itself.
//!
//! | file | what |
//! | --- | --- |
//! | `fleet.snapshot` | hosts, then their scores |
//! | `fleet.log` | announcements since that snapshot was begun |
//! | `fleet.log.new` | the same, while the next snapshot is being written |

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};
use welkin_match::{Block, BlockError, BlockHead, Fleet, ReadHosts, Restoring};
use welkin_types::{NodeId, UnixMillis};

use crate::{Shutdown, outside};

/// How often a snapshot is written.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// Entries that wait to be written to the log; further ones are left out, and come again with the
/// next snapshot.
const WAITING_MAX: usize = 8_192;
/// The longest log; what does not fit comes again with the next snapshot.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// The pause between two parts of a snapshot, in which others have the fleet.
const PART_PAUSE: Duration = Duration::from_millis(1);
/// So much is written at once.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// Blocks that go from one thread to another at once, and how many times that is read ahead.
const BLOCKS_AT_ONCE: usize = 16;
const BATCHES_AHEAD: usize = 4;

const SNAPSHOT: &str = "fleet.snapshot";
const SNAPSHOT_DRAFT: &str = "fleet.snapshot.new";
const LOG: &str = "fleet.log";
const LOG_NEXT: &str = "fleet.log.new";

/// Where entries of the log go, if anything is kept.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Option<SyncSender<Entry>>,
    left_out: AtomicU64,
}

enum Entry {
    Block(Vec<u8>),
    /// Further ones go into this file.
    Next(File),
}

impl Log {
    /// A host was announced.
    pub(super) fn announced(&self, fleet: &Fleet, now: UnixMillis, node: NodeId) {
        self.append(|out| fleet.dump_host(now, node, out));
    }

    /// A host has left.
    pub(super) fn left(&self, fleet: &Fleet, now: UnixMillis, node: NodeId) {
        self.append(|out| fleet.dump_leave(now, node, out));
    }

    fn append(&self, dump: impl FnOnce(&mut Vec<u8>)) {
        let Some(entries) = &self.entries else { return };
        let mut block = Vec::new();
        dump(&mut block);
        // The disk is slower than what is announced: it is in the next snapshot.
        if let Err(TrySendError::Full(_)) = entries.try_send(Entry::Block(block)) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was read at the start.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) fleet: Fleet,
    /// Blocks of scores, which are taken up when there is time.
    pub(super) scores: Option<Blocks>,
}

/// Reads what was known before: one thread reads and sums up, another takes in.
pub(super) fn read(dir: &Path, now: UnixMillis) -> Before {
    let seed = u64::from_le_bytes(outside::random());
    let mut before = Before { fleet: Fleet::new(seed), scores: None };
    if let Some(blocks) = Blocks::open(&dir.join(SNAPSHOT)) {
        match read_hosts(now, seed, blocks) {
            Ok(read) => before = read,
            Err(error) => {
                warn!(%error, "what was known before is not read: hosts announce themselves again")
            }
        }
    }
    let fleet = &mut before.fleet;
    for name in [LOG, LOG_NEXT] {
        let Some(mut blocks) = Blocks::open(&dir.join(name)) else { continue };
        while let Some(block) = blocks.next() {
            fleet.take_up(now, block);
        }
    }
    if fleet.hosts() > 0 {
        info!(hosts = fleet.hosts(), "hosts of before are taken in, unconfirmed");
    }
    before
}

fn read_hosts(now: UnixMillis, seed: u64, blocks: Blocks) -> io::Result<Before> {
    let mut restoring = Restoring::new(seed, hosts_of(blocks.left));
    let (sender, batches) = sync_channel(BATCHES_AHEAD);
    // What has been taken in goes back, so that one thread frees what it has allocated: else the two
    // would wait for each other in the allocator.
    let (emptied, used) = sync_channel(BATCHES_AHEAD * 2);
    let thread = || std::thread::Builder::new().name("fleet-read".to_owned());
    let (scores, unsound) = std::thread::scope(|scope| {
        let reader = thread().spawn_scoped(scope, move || read_batches(blocks, &sender, &used))?;
        let mut unsound = 0;
        for mut batch in batches {
            for hosts in &mut batch {
                unsound += usize::from(!restoring.take(now, hosts));
            }
            let _ = emptied.try_send(batch);
        }
        let read = reader.join().map_err(|_| io::Error::other("the reader has ended"))?;
        Ok::<_, io::Error>((read.0, read.1 + unsound))
    })?;
    if unsound > 0 {
        warn!(
            unsound,
            "blocks of hosts are left out, for they are not sound: their hosts announce themselves again"
        );
    }
    let fleet = restoring.finish(|names, rows| {
        std::thread::scope(|scope| {
            // What no thread does is done by the fleet itself.
            let _ = thread().spawn_scoped(scope, names);
            rows();
        });
    });
    Ok(Before { fleet, scores: Some(scores) })
}

/// Reads all blocks of hosts. Returns the rest, and how many blocks were not sound.
fn read_batches(
    mut blocks: Blocks,
    sender: &SyncSender<Vec<ReadHosts>>,
    used: &Receiver<Vec<ReadHosts>>,
) -> (Blocks, usize) {
    let (mut batch, mut unsound) = (Vec::new(), 0);
    while let Some(block) = blocks.next() {
        if !block.has_hosts() {
            blocks.is_read_again = true;
            break;
        }
        match ReadHosts::of(block) {
            Some(hosts) => batch.push(hosts),
            None => unsound += 1,
        }
        if batch.len() >= BLOCKS_AT_ONCE {
            used.try_iter().for_each(drop);
            if sender.send(std::mem::take(&mut batch)).is_err() {
                break;
            }
        }
    }
    let _ = sender.send(batch);
    (blocks, unsound)
}

/// About how many hosts a snapshot of this length has, so that nothing grows while it is read.
fn hosts_of(bytes: u64) -> usize {
    usize::try_from(bytes / 256).unwrap_or(usize::MAX)
}

/// The whole blocks of a file.
#[derive(Debug)]
pub(super) struct Blocks {
    file: BufReader<File>,
    path: PathBuf,
    /// Bytes that have not been read.
    left: u64,
    /// The last block, whose memory the next one has.
    head: Option<BlockHead>,
    body: Vec<u8>,
    /// Whether the last block is the next one, too.
    is_read_again: bool,
}

impl Blocks {
    /// Opens a file that may be missing.
    fn open(path: &Path) -> Option<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((left, file)) => {
                let (file, path) = (BufReader::new(file), path.to_owned());
                Some(Self { file, path, left, head: None, body: Vec::new(), is_read_again: false })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(%error, path = %path.display(), "what was known before can't be read: hosts announce themselves again");
                None
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let invalid = |error: BlockError| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut head = [0; BlockHead::BYTES];
        self.file.read_exact(&mut head)?;
        self.left = self.left.saturating_sub(head.len() as u64);
        let head = BlockHead::parse(&head).map_err(invalid)?;
        // No more room is made than the file can fill.
        let length = head.body_bytes() as u64;
        if length > self.left {
            return Err(invalid(BlockError::Torn));
        }
        self.body.clear();
        self.file.by_ref().take(length).read_to_end(&mut self.body)?;
        self.left -= length;
        self.head = Some(head);
        Ok(())
    }

    /// The next whole block.
    fn next(&mut self) -> Option<Block<'_>> {
        if !std::mem::take(&mut self.is_read_again) {
            self.head = None;
            if self.left == 0 {
                return None;
            }
            if let Err(error) = self.read() {
                left_out(&error, &self.path, &mut self.left);
                return None;
            }
        }
        let Self { head, body, path, left, .. } = self;
        (*head)?.with(body).map_err(|error| left_out(&error, path, left)).ok()
    }
}

fn left_out(error: &dyn std::error::Error, path: &Path, left: &mut u64) {
    warn!(%error, left, path = %path.display(), "the rest of the file is left out");
    *left = 0;
}

/// Begins to keep what is known; scores of before are taken up besides.
pub(super) fn keep(
    dir: PathBuf,
    scores: Option<Blocks>,
    fleet: &Arc<Mutex<Fleet>>,
    shutdown: &Shutdown,
) -> Log {
    let log = match begin_log(&dir) {
        Ok(log) => log,
        Err(error) => {
            warn!(%error, dir = %dir.display(), "nothing is kept for a restart: see `indexer.dir`");
            return Log::default();
        }
    };
    let (entries, queue) = sync_channel(WAITING_MAX);
    let writer = std::thread::Builder::new().name("fleet-log".to_owned());
    if let Err(error) = writer.spawn(move || write_log(log, &queue)) {
        warn!(%error, "nothing is kept for a restart");
        return Log::default();
    }
    let (fleet, entries_of_task) = (Arc::clone(fleet), entries.clone());
    shutdown.spawn_until_asked("snapshot", async move {
        take_scores(&fleet, scores).await;
        loop {
            tokio::time::sleep(SNAPSHOT_EVERY).await;
            let (dir, fleet, entries) = (dir.clone(), Arc::clone(&fleet), entries_of_task.clone());
            let written =
                tokio::task::spawn_blocking(move || write(&dir, &fleet, &entries, PART_PAUSE))
                    .await;
            match written {
                Ok(Ok(bytes)) => debug!(bytes, "a snapshot is written"),
                Ok(Err(error)) => warn!(%error, "a snapshot can't be written"),
                Err(error) => warn!(%error, "a snapshot was not written"),
            }
        }
    });
    Log { entries: Some(entries), left_out: AtomicU64::new(0) }
}

/// A block at a time, between which others have the fleet.
async fn take_scores(fleet: &Arc<Mutex<Fleet>>, scores: Option<Blocks>) {
    let (Some(mut scores), fleet) = (scores, Arc::clone(fleet)) else { return };
    let taking = tokio::task::spawn_blocking(move || {
        while let Some(block) = scores.next() {
            lock(&fleet).take_up(outside::now(), block);
            // Whoever waits has the fleet first.
            std::thread::sleep(PART_PAUSE);
        }
    });
    let _ = taking.await;
}

fn lock(fleet: &Mutex<Fleet>) -> std::sync::MutexGuard<'_, Fleet> {
    fleet.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Opens the log for more; what stands in the next one, after a crash, is appended to it.
fn begin_log(dir: &Path) -> io::Result<File> {
    let (path, next) = (dir.join(LOG), dir.join(LOG_NEXT));
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    match fs::read(&next) {
        Ok(bytes) => {
            file.write_all(&bytes)?;
            fs::remove_file(next)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    Ok(file)
}

fn write_log(mut file: File, queue: &Receiver<Entry>) {
    let mut length = file.metadata().map_or(0, |metadata| metadata.len());
    while let Ok(entry) = queue.recv() {
        match entry {
            Entry::Next(next) => (file, length) = (next, 0),
            Entry::Block(block) if length < LOG_BYTES_MAX => match file.write_all(&block) {
                Ok(()) => length += block.len() as u64,
                Err(error) => {
                    // Behind half an entry nothing can be read.
                    warn!(%error, "the log ends here until the next snapshot");
                    length = LOG_BYTES_MAX;
                }
            },
            Entry::Block(_) => (),
        }
    }
}

/// Writes a snapshot in small parts, between which others have the fleet; returns its length.
fn write(
    dir: &Path,
    fleet: &Mutex<Fleet>,
    entries: &SyncSender<Entry>,
    pause: Duration,
) -> io::Result<usize> {
    // Whatever is announced from now on stands in the new log.
    let next = create(&dir.join(LOG_NEXT))?;
    entries.send(Entry::Next(next)).map_err(|_| io::Error::other("the log's writer has ended"))?;
    let draft = dir.join(SNAPSHOT_DRAFT);
    let mut file = create(&draft)?;
    let length = write_parts(&mut file, pause, |from, out| {
        lock(fleet).dump_hosts(outside::now(), from, out)
    })? + write_parts(&mut file, pause, |from, out| {
        lock(fleet).dump_scores(outside::now(), from, out)
    })?;
    file.sync_all()?;
    fs::rename(draft, dir.join(SNAPSHOT))?;
    fs::rename(dir.join(LOG_NEXT), dir.join(LOG))?;
    Ok(length)
}

fn write_parts(
    file: &mut File,
    pause: Duration,
    dump: impl Fn(u32, &mut Vec<u8>) -> Option<u32>,
) -> io::Result<usize> {
    let (mut out, mut next, mut length) = (Vec::new(), Some(0), 0);
    while let Some(from) = next {
        next = dump(from, &mut out);
        if next.is_some() && !pause.is_zero() {
            std::thread::sleep(pause);
        }
        if out.len() >= WRITTEN_AT_ONCE || next.is_none() {
            file.write_all(&out)?;
            length += out.len();
            out.clear();
        }
    }
    Ok(length)
}

/// Writes a snapshot of a fleet that nobody else has, for tests and measurements.
///
/// # Errors
///
/// Whatever the file system says.
pub fn write_snapshot(dir: &Path, fleet: Fleet) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    let (entries, _queue) = sync_channel(1);
    write(dir, &Mutex::new(fleet), &entries, Duration::ZERO)
}
