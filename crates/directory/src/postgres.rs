//! A directory in PostgreSQL, which the indexers of one operator share.
//!
//! Three connections, so that none waits for another: one that writes what queues, one that keeps
//! the leadership, one that reads a few rows; and one more while all hosts are loaded. Every write names the term of the leadership in which
//! it was made and does nothing in a later one ([`Postgres::keep_writing`]): a process that was
//! stopped and goes on can't overwrite what its successor wrote.
//!
//! Time is the database's alone where it decides something: who leads, and what is too old.

mod dsn;
mod error;
mod leadership;
mod link;
mod load;
mod schema;
mod tls;
mod write;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, watch};
use welkin_types::NodeId;

pub use dsn::{Dsn, DsnError};
pub use error::{OpenError, Trouble};
pub use tls::RootsError;

use crate::queue::{Counts, Queue};
use crate::row::{Change, HolderId, Term};
use link::Link;

/// Who leads, as far as this process is concerned.
type Leading = Option<(Term, HolderId)>;

/// A handle on the database. Clones share it.
#[derive(Clone, Debug)]
pub struct Postgres {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dsn: Dsn,
    /// Whose directory it is: the indexers' one identity.
    owner: NodeId,
    queue: Queue,
    leading: watch::Sender<Leading>,
    /// The connection of the leadership, while there is one.
    leadership: AsyncMutex<Option<Link>>,
    /// The connection of short questions, while there is one.
    reading: AsyncMutex<Option<Link>>,
    /// The last trouble of the writer, for whoever asks how it is.
    trouble: Mutex<Option<String>>,
}

impl Postgres {
    /// Connects, and brings the tables to this version.
    ///
    /// # Errors
    ///
    /// [`OpenError`] saying what to do about it.
    pub async fn open(dsn: Dsn, owner: NodeId) -> Result<Self, OpenError> {
        let mut link = Link::open(&dsn).await.map_err(|source| {
            let place = dsn.to_string();
            OpenError::Connect { place, source }
        })?;
        schema::migrate(&mut link, owner).await?;
        let inner = Inner {
            dsn,
            owner,
            queue: Queue::default(),
            leading: watch::Sender::new(None),
            leadership: AsyncMutex::default(),
            reading: AsyncMutex::default(),
            trouble: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Notes a change. Never waits.
    pub fn put(&self, change: Change) {
        self.inner.queue.put(change);
    }

    /// Waits until all that was put before is written or given up.
    pub async fn flushed(&self) {
        self.inner.queue.flushed().await;
    }

    /// How the queue of changes has fared.
    pub fn counts(&self) -> Counts {
        self.inner.queue.counts()
    }

    /// Does something on a connection, which is kept only if it went well.
    async fn on<T, F>(
        &self,
        kept: &AsyncMutex<Option<Link>>,
        work: impl FnOnce(Link) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<(Link, T), Trouble>>,
    {
        let mut kept = kept.lock().await;
        let link = match kept.take() {
            Some(link) => link,
            None => Link::open(&self.inner.dsn).await?,
        };
        let (link, value) = work(link).await?;
        *kept = Some(link);
        Ok(value)
    }

    /// What kept the last write from being made, if it was not made.
    pub fn trouble(&self) -> Option<String> {
        self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
