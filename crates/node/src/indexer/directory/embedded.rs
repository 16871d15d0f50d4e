//! A directory in one file of this indexer's own. Whoever has the file leads: nobody else can open
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;
use welkin_directory::{
    Change, Claim, Counts, HolderId, HostRow, PriceRow, Queue, SessionRow, Span, StandingRow, Term,
};
use welkin_proto::{decode, encode};
use welkin_store::{Batch, CommitError, Db};
use welkin_types::{NodeId, UnixMillis};

use super::{Directory, DirectoryError};
use crate::outside;
use crate::settlement::BoxFuture;

const HOSTS: &str = "directory-host";
const STANDINGS: &str = "directory-standing";
const PRICES: &str = "directory-price";

/// The most changes of one batch, and rows that are read together.
const BATCH_MAX: usize = 1_024;
/// Changes that come within so long of each other go together.
const GATHER: Duration = Duration::from_millis(50);
/// The pause after a batch that the disk refused.
const PAUSE: Duration = Duration::from_secs(2);
/// What is too old is removed so often.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// A directory in a file.
#[derive(Debug)]
pub struct Embedded {
    db: Db,
    queue: Queue,
}

impl Embedded {
    /// Opens the file, making it where there is none.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Open`]
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let db = Db::open(path).map_err(DirectoryError::Open)?;
        Ok(Self { db, queue: Queue::default() })
    }

    async fn write_for_ever(&self) {
        let mut clean = tokio::time::interval(CLEAN_EVERY);
        loop {
            tokio::select! {
                _ = clean.tick() => {
                    if let Err(error) = self.clean(outside::now()).await {
                        warn!(%error, "old rows of the directory are not removed");
                    }
                }
                () = self.queue.ready() => {
                    tokio::time::sleep(GATHER).await;
                    let changes = self.queue.take(BATCH_MAX);
                    self.write(&changes).await;
                }
            }
        }
    }

    async fn write(&self, changes: &[Change]) {
        let batch = batch(changes);
        loop {
            match self.db.commit(batch.clone()).await {
                Ok(()) => return self.queue.written(changes.len()),
                Err(CommitError::Closed) => return self.queue.given_up(changes.len()),
                Err(error) => warn!(%error, "the directory takes no changes: they wait"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes what has expired.
    async fn clean(&self, now: UnixMillis) -> Result<(), CommitError> {
        let mut from = Vec::new();
        loop {
            let (db, start) = (self.db.clone(), from);
            let rows = blocking(move || db.scan(HOSTS, &start, BATCH_MAX)).await?;
            let old = rows
                .iter()
                .filter(|(_, value)| decode::<HostRow>(value).is_ok_and(|row| row.expires < now));
            let mut batch = Batch::default();
            old.for_each(|(key, _)| batch.remove(HOSTS, key));
            self.db.commit(batch).await?;
            let Some((last, _)) = rows.last() else { break };
            from = after(last);
        }
        for span in Span::ALL {
            let kept = u64::try_from(span.kept().as_millis()).unwrap_or(u64::MAX);
            self.clean_prices(span, UnixMillis(now.0.saturating_sub(kept))).await?;
        }
        Ok(())
    }

    async fn clean_prices(&self, span: Span, before: UnixMillis) -> Result<(), CommitError> {
        let mut from = span.code().to_be_bytes().to_vec();
        loop {
            let (db, start) = (self.db.clone(), from);
            let rows = blocking(move || db.scan(PRICES, &start, BATCH_MAX)).await?;
            let is_spans = |key: &[u8]| key.starts_with(&span.code().to_be_bytes());
            let mut batch = Batch::default();
            for (key, _) in rows.iter().filter(|(key, _)| is_spans(key)) {
                let at = key.last_chunk().map(|at| u64::from_be_bytes(*at));
                if at.is_none_or(|at| at < before.0) {
                    batch.remove(PRICES, key);
                }
            }
            self.db.commit(batch).await?;
            match rows.last() {
                Some((last, _)) if is_spans(last) => from = after(last),
                _ => return Ok(()),
            }
        }
    }

    async fn read_hosts(
        &self,
        now: UnixMillis,
        into: mpsc::Sender<Vec<HostRow>>,
    ) -> Result<u64, CommitError> {
        let (mut from, mut count) = (Vec::new(), 0);
        loop {
            let (db, start) = (self.db.clone(), from);
            let rows = blocking(move || db.scan(HOSTS, &start, BATCH_MAX)).await?;
            let Some((last, _)) = rows.last() else { return Ok(count) };
            from = after(last);
            let hosts: Vec<HostRow> =
                rows.iter().filter_map(|(_, value)| decode(value).ok()).collect();
            let live: Vec<_> = hosts.into_iter().filter(|row| row.expires >= now).collect();
            count += live.len() as u64;
            if into.send(live).await.is_err() {
                return Ok(count);
            }
        }
    }

    async fn read_prices(
        &self,
        (class, region): (&str, &str),
        span: Span,
        since: UnixMillis,
        count: usize,
    ) -> Result<Vec<PriceRow>, CommitError> {
        let from = price_key(class, region, span, since);
        let series = from[..from.len() - 8].to_vec();
        let db = self.db.clone();
        let rows = blocking(move || db.scan(PRICES, &from, count)).await?;
        let own = rows.into_iter().take_while(|(key, _)| key.starts_with(&series));
        Ok(own.filter_map(|(_, value)| decode(&value).ok()).collect())
    }

    async fn read_places(&self, count: usize) -> Result<Vec<(String, String)>, CommitError> {
        let span = Span::Day.code().to_be_bytes();
        let mut newest: BTreeMap<(String, String), UnixMillis> = BTreeMap::new();
        let mut from = span.to_vec();
        loop {
            let (db, start) = (self.db.clone(), from);
            let rows = blocking(move || db.scan(PRICES, &start, BATCH_MAX)).await?;
            for (key, _) in rows.iter().filter(|(key, _)| key.starts_with(&span)) {
                let Some((class, region, at)) = place_of(key) else { continue };
                // The last row of a place is its newest.
                if newest.len() < count || newest.contains_key(&(class.clone(), region.clone())) {
                    newest.insert((class, region), at);
                }
            }
            match rows.last() {
                Some((last, _)) if last.starts_with(&span) => from = after(last),
                _ => break,
            }
        }
        let last = newest.values().max().copied().unwrap_or_default();
        let is_late = |at: UnixMillis| last.since(at) <= Duration::from_secs(86_400);
        Ok(newest.into_iter().filter(|(_, at)| is_late(*at)).map(|(place, _)| place).collect())
    }
}

impl Directory for Embedded {
    fn is_shared(&self) -> bool {
        false
    }

    fn put(&self, change: Change) {
        self.queue.put(change);
    }

    fn keep_writing(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.write_for_ever())
    }

    fn flushed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.queue.flushed())
    }

    fn counts(&self) -> Counts {
        self.queue.counts()
    }

    fn load_hosts(
        &self,
        now: UnixMillis,
        into: mpsc::Sender<Vec<HostRow>>,
    ) -> BoxFuture<'_, Result<u64, DirectoryError>> {
        Box::pin(async move { self.read_hosts(now, into).await.map_err(DirectoryError::File) })
    }

    fn load_sessions(
        &self,
        now: UnixMillis,
    ) -> BoxFuture<'_, Result<Vec<(NodeId, Vec<SessionRow>)>, DirectoryError>> {
        Box::pin(async move {
            let (into, mut from) = mpsc::channel(1);
            let taking = async {
                let mut sessions = Vec::new();
                while let Some(rows) = from.recv().await {
                    let rows: Vec<HostRow> = rows;
                    sessions.extend(rows.into_iter().map(|row| (row.node, row.sessions)));
                }
                sessions
            };
            let (read, sessions) = tokio::join!(self.read_hosts(now, into), taking);
            read.map(|_| sessions).map_err(DirectoryError::File)
        })
    }

    fn load_standings(
        &self,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<StandingRow>, DirectoryError>> {
        Box::pin(async move {
            let db = self.db.clone();
            let rows = blocking(move || db.load(STANDINGS)).await.map_err(DirectoryError::File)?;
            let mut rows: Vec<StandingRow> =
                rows.iter().filter_map(|(_, value)| decode(value).ok()).collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.last));
            rows.truncate(count);
            Ok(rows)
        })
    }

    fn load_prices<'a>(
        &'a self,
        place: (&'a str, &'a str),
        span: Span,
        since: UnixMillis,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<PriceRow>, DirectoryError>> {
        Box::pin(async move {
            self.read_prices(place, span, since, count).await.map_err(DirectoryError::File)
        })
    }

    fn load_price_places(
        &self,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, String)>, DirectoryError>> {
        Box::pin(async move { self.read_places(count).await.map_err(DirectoryError::File) })
    }

    fn claim(&self, _: HolderId, _: Duration) -> BoxFuture<'_, Result<Claim, DirectoryError>> {
        Box::pin(std::future::ready(Ok(Claim::Leads(Term(1)))))
    }

    fn look(&self) -> BoxFuture<'_, Result<Duration, DirectoryError>> {
        Box::pin(std::future::ready(Ok(Duration::ZERO)))
    }

    fn renew(
        &self,
        _: Term,
        _: HolderId,
        _: Duration,
    ) -> BoxFuture<'_, Result<bool, DirectoryError>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn stand_down(&self) {
        self.queue.clear();
    }

    fn release(&self, _: Term, _: HolderId) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Reads beside the tasks of the network.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, CommitError> + Send + 'static,
) -> Result<T, CommitError> {
    // It fails only where the runtime ends.
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(CommitError::Closed))
}

/// The least key after this one.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Rows of one series are beside each other, by time. Names hold no zero byte.
fn price_key(class: &str, region: &str, span: Span, at: UnixMillis) -> Vec<u8> {
    let span = span.code().to_be_bytes();
    [&span, class.as_bytes(), &[0], region.as_bytes(), &[0], &at.0.to_be_bytes()].concat()
}

/// Class, region and time of a key that [`price_key`] made.
fn place_of(key: &[u8]) -> Option<(String, String, UnixMillis)> {
    let (names, at) = key.get(2..)?.split_last_chunk::<8>()?;
    let (class, region) = std::str::from_utf8(names).ok()?.strip_suffix('\0')?.split_once('\0')?;
    Some((class.to_owned(), region.to_owned(), UnixMillis(u64::from_be_bytes(*at))))
}

fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::default();
    for change in changes {
        match change {
            Change::Host(row) => put(&mut batch, HOSTS, row.node.as_bytes(), row),
            Change::HostGone(node) => batch.remove(HOSTS, node.as_bytes()),
            Change::Standing(row) => put(&mut batch, STANDINGS, row.operator.as_bytes(), row),
            Change::Price(row) => {
                put(&mut batch, PRICES, &price_key(&row.class, &row.region, row.span, row.at), row);
            }
        }
    }
    batch
}

fn put<T: serde::Serialize>(batch: &mut Batch, table: &'static str, key: &[u8], row: &T) {
    match encode(row) {
        Ok(value) => batch.put(table, key, value),
        Err(error) => warn!(%error, "a row is too large for the directory"),
    }
}
