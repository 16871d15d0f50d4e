//! A database of small records with group commit.
//!
//! Callers hand over batches; one thread writes whatever has queued in one transaction and one
//! flush to the disk, then tells all of them. Each batch is all or nothing, and batches are applied
//! in the order in which they were handed over.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use redb::{Database, ReadableDatabase as _, TableDefinition, TableError};
use tokio::sync::{mpsc, oneshot};

/// The most batches that wait; one more is refused.
const QUEUE_MAX: usize = 8_192;
/// The most batches of one transaction.
const GROUP_MAX: usize = 256;

/// Why a database can't be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder or the file.
    #[error("failed to open the database {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// Another process has it.
    #[error("the database {path} is in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Its folder could not be made, or its thread not started.
    #[error("failed to prepare {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Why a batch was not written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The disk refused.
    #[error("failed to write the database: {0}")]
    Write(Arc<redb::Error>),
    /// Too much waits to be written.
    #[error("more than {QUEUE_MAX} changes wait for the disk")]
    Overloaded,
    /// The writer is gone.
    #[error("the database is closed")]
    Closed,
}

/// Changes that are written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    table: &'static str,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Batch {
    /// Sets a record.
    pub fn put(&mut self, table: &'static str, key: &[u8], value: Vec<u8>) {
        self.changes.push(Change { table, key: key.to_vec(), value: Some(value) });
    }

    /// Removes a record.
    pub fn remove(&mut self, table: &'static str, key: &[u8]) {
        self.changes.push(Change { table, key: key.to_vec(), value: None });
    }
}

/// A handle on an open database. Clones share it; the file closes with the last.
#[derive(Clone, Debug)]
pub struct Db {
    file: Arc<File>,
    jobs: mpsc::Sender<Job>,
}

/// The open file. After an error of the disk redb does nothing more with a file until it is opened
/// anew; none while that fails.
#[derive(Debug)]
struct File {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl File {
    fn with<T>(
        &self,
        use_it: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        use_it(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    fn reopen(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The lock on the file goes with the old one.
        *database = None;
        *database = Some(Database::create(&self.path)?);
        Ok(())
    }

    /// Writes a group; where the disk refuses, opens the file anew, at once or with the next group.
    fn write(&self, group: &[Job]) -> Result<(), redb::Error> {
        let is_closed = self.database.read().unwrap_or_else(PoisonError::into_inner).is_none();
        if is_closed {
            self.reopen()?;
        }
        let written = self.with(|database| write_group(database, group));
        if let Err(error) = &written {
            tracing::error!(path = %self.path.display(), %error, "not written");
            if let Err(error) = self.reopen() {
                tracing::error!(path = %self.path.display(), %error, "not opened again");
            }
        }
        written
    }
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    done: oneshot::Sender<Result<(), CommitError>>,
}

fn definition(table: &'static str) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}

impl Db {
    /// Opens the file, making it and its folder where there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`] where the file can't be had; [`OpenError::InUse`] if another process has it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let database = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
            other => OpenError::Open {
                path: path.to_owned(),
                source: Box::new(redb::Error::from(other)),
            },
        })?;
        let database = RwLock::new(Some(database));
        let file = Arc::new(File { path: path.to_owned(), database });
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Arc::clone(&file);
        thread::Builder::new()
            .name("welkin-db".to_owned())
            .spawn(move || write_jobs(&writer, queue))
            .map_err(io)?;
        Ok(Self { file, jobs })
    }

    /// Reads all records of a table, by key.
    ///
    /// # Errors
    ///
    /// [`CommitError::Write`] where the disk refuses.
    #[expect(clippy::type_complexity, reason = "keys and values, and nothing else")]
    pub fn load(&self, table: &'static str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, CommitError> {
        let read = self.file.with(|database| {
            read(database, table, (Bound::Unbounded, Bound::Unbounded), usize::MAX)
        });
        read.map_err(|error| CommitError::Write(Arc::new(error)))
    }

    /// Reads up to `count` records of a table from a key on, by key: a large table in pieces.
    ///
    /// # Errors
    ///
    /// [`CommitError::Write`] where the disk refuses.
    #[expect(clippy::type_complexity, reason = "keys and values, and nothing else")]
    pub fn scan(
        &self,
        table: &'static str,
        from: &[u8],
        count: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, CommitError> {
        let read = self.file.with(|database| {
            read(database, table, (Bound::Included(from), Bound::Unbounded), count)
        });
        read.map_err(|error| CommitError::Write(Arc::new(error)))
    }

    /// Reads the records of a table with keys from `first` to `last`, both included, by key.
    ///
    /// # Errors
    ///
    /// [`CommitError::Write`] where the disk refuses.
    #[expect(clippy::type_complexity, reason = "keys and values, and nothing else")]
    pub fn range(
        &self,
        table: &'static str,
        first: &[u8],
        last: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, CommitError> {
        if first > last {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(first), Bound::Included(last));
        let read = self.file.with(|database| read(database, table, range, usize::MAX));
        read.map_err(|error| CommitError::Write(Arc::new(error)))
    }

    /// Writes a batch; returns once it is on the disk.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; then nothing of the batch is written.
    pub async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.queue(batch).await
    }

    /// Queues a batch at once, behind those queued before; the future completes once it is on the
    /// disk. Dropping the future does not take the batch back.
    ///
    /// The queue is bounded by its callers: each has at most a few batches on the way and the
    /// number of leases and connections of a role is bounded. Beyond 8,192 the batch is
    /// refused.
    pub fn queue(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + use<> {
        let (done, written) = oneshot::channel();
        let queued = self.jobs.try_send(Job { batch, done });
        async move {
            queued.map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => CommitError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => CommitError::Closed,
            })?;
            written.await.map_err(|_| CommitError::Closed)?
        }
    }
}

#[expect(clippy::type_complexity, reason = "keys and values, and nothing else")]
fn read(
    database: &Database,
    table: &'static str,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    count: usize,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(definition(table)) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut rows = Vec::new();
    for row in table.range::<&[u8]>(range)?.take(count) {
        let (key, value) = row?;
        rows.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(rows)
}

fn write_jobs(file: &File, mut queue: mpsc::Receiver<Job>) {
    let mut group = Vec::new();
    while let Some(job) = queue.blocking_recv() {
        group.push(job);
        while group.len() < GROUP_MAX {
            let Ok(job) = queue.try_recv() else { break };
            group.push(job);
        }
        let result = file.write(&group).map_err(|error| CommitError::Write(Arc::new(error)));
        for job in group.drain(..) {
            // A caller that no longer waits does not need the answer.
            let _ = job.done.send(result.clone());
        }
    }
}

fn write_group(database: &Database, group: &[Job]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for change in group.iter().flat_map(|job| &job.batch.changes) {
        let mut table = transaction.open_table(definition(change.table))?;
        match &change.value {
            Some(value) => drop(table.insert(change.key.as_slice(), value.as_slice())?),
            None => drop(table.remove(change.key.as_slice())?),
        }
    }
    transaction.commit()?;
    Ok(())
}
