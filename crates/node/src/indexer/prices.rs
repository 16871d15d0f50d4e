//! The price history: the market is sampled, folded by `welkin-match`'s [`Prices`], and kept by a
//! [`History`].
//!
//! A history that can't be written costs the indexer nothing but the history: it says so in the log
//! and answers with what there is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};
use welkin_match::prices::{Market, Prices, Record, Rings, Sampler, Series, chosen, slot};
use welkin_proto::index::IndexReply;
use welkin_proto::prices::{PricePoint, PricesAsked, Span};
use welkin_proto::{decode, encode};
use welkin_store::{Batch, CommitError, Db, OpenError};
use welkin_types::UnixMillis;

mod shared;

use super::Indexer;
use super::directory::{Directory, DirectoryError};
use crate::outside;

/// The first sample, once hosts have announced themselves after a start.
const FIRST_AFTER: Duration = Duration::from_secs(2);
/// How often the market is sampled; the last sample of a minute counts.
const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// Containers that are counted without letting others at the fleet.
const AT_ONCE: u32 = 64;
/// The pause between two pieces, in which others have the fleet.
const PIECE_PAUSE: Duration = Duration::from_millis(1);
/// A sample is followed by a pause of at least so many times its length.
const PAUSE_FACTOR: u32 = 50;
/// Changes of one batch.
const BATCH_MAX: usize = 4_096;

/// Points, by series, span and place.
const POINTS: &str = "price_points";
/// The series that there are.
const SERIES: &str = "price_series";

/// Why a history can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The disk, or the database.
    #[error("the price history can't be kept")]
    Store(#[source] CommitError),
    /// The directory that several indexers share.
    #[error("the price history can't be read from the directory")]
    Directory(#[source] DirectoryError),
}

/// Where the price history is kept: fixed places for each series and span, each point in place of
/// an older one. Called from a thread that may wait.
pub trait History: fmt::Debug + Send + Sync {
    /// Keeps points.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] where they may be lost.
    fn append(&self, records: &[Record]) -> Result<(), HistoryError>;

    /// The points of a series from a moment on that are still kept, the oldest first, at most
    /// [`welkin_proto::prices::POINTS_MAX`].
    ///
    /// # Errors
    ///
    /// [`HistoryError`] where it can't be read.
    fn read(
        &self,
        now: UnixMillis,
        series: &Series,
        span: Span,
        since: UnixMillis,
    ) -> Result<Vec<PricePoint>, HistoryError>;

    /// The series that there are.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] where it can't be read.
    fn series(&self) -> Result<Vec<Series>, HistoryError>;
}

/// A history that ends with the process.
pub fn in_memory() -> Arc<dyn History> {
    Arc::new(InMemory::default())
}

/// The history in an indexer's folder; in memory where that can't be.
pub(super) fn open(dir: &Path) -> Arc<dyn History> {
    on_disk(&dir.join("prices.redb")).unwrap_or_else(|error| {
        warn!(error = %crate::chain(&error), "prices are kept in memory only");
        in_memory()
    })
}

/// Opens the history in a file.
///
/// # Errors
///
/// [`OpenError`] where the file can't be had.
pub fn on_disk(path: &Path) -> Result<Arc<dyn History>, OpenError> {
    Ok(Arc::new(OnDisk { db: Db::open(path)? }))
}

/// The history in a directory that several indexers share. To be called where a thread may wait.
pub fn in_directory(directory: Arc<dyn Directory>) -> Arc<dyn History> {
    Arc::new(shared::InDirectory(directory))
}

#[derive(Debug, Default)]
struct InMemory(Mutex<(Rings, BTreeMap<Series, ()>)>);

impl InMemory {
    fn lock(&self) -> MutexGuard<'_, (Rings, BTreeMap<Series, ()>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History for InMemory {
    fn append(&self, records: &[Record]) -> Result<(), HistoryError> {
        let mut kept = self.lock();
        kept.0.append(records);
        for record in records {
            if kept.1.len() < welkin_match::prices::SERIES_MAX {
                kept.1.insert(record.series.clone(), ());
            }
        }
        Ok(())
    }

    fn read(
        &self,
        now: UnixMillis,
        series: &Series,
        span: Span,
        since: UnixMillis,
    ) -> Result<Vec<PricePoint>, HistoryError> {
        Ok(self.lock().0.read(now, series, span, since))
    }

    fn series(&self) -> Result<Vec<Series>, HistoryError> {
        Ok(self.lock().1.keys().cloned().collect())
    }
}

/// The history in redb.
#[derive(Debug)]
struct OnDisk {
    db: Db,
}

/// `class NUL region`; names have no NUL in them.
fn key_of(series: &Series) -> Vec<u8> {
    let region = series.region.as_ref().map_or("", |region| region.as_str());
    format!("{}\0{region}", series.class).into_bytes()
}

fn series_of(key: &[u8]) -> Option<Series> {
    let (class, region) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    let region = match region {
        "" => None,
        region => Some(region.parse().ok()?),
    };
    Some(Series { class: class.parse().ok()?, region })
}

/// The key of a point: equal for points that take each other's place.
fn point_key(series: &Series, span: Span, slot: u64) -> Vec<u8> {
    let mut key = key_of(series);
    key.push(0);
    key.push(match span {
        Span::Minute => 0,
        Span::Hour => 1,
        Span::Day => 2,
    });
    key.extend(slot.to_be_bytes());
    key
}

impl History for OnDisk {
    fn append(&self, records: &[Record]) -> Result<(), HistoryError> {
        let mut written = Vec::new();
        for part in records.chunks(BATCH_MAX) {
            let mut batch = Batch::default();
            for Record { series, span, point } in part {
                let Ok(value) = encode(point) else { continue };
                batch.put(POINTS, &point_key(series, *span, slot(*span, point.at)), value);
                if *span == Span::Day {
                    batch.put(SERIES, &key_of(series), Vec::new());
                }
            }
            written.push(self.db.queue(batch));
        }
        // The caller is a thread that may wait; the writer is one of its own.
        let waiting = async {
            for written in written {
                written.await?;
            }
            Ok(())
        };
        block_on(waiting).map_err(HistoryError::Store)
    }

    fn read(
        &self,
        now: UnixMillis,
        series: &Series,
        span: Span,
        since: UnixMillis,
    ) -> Result<Vec<PricePoint>, HistoryError> {
        let (first, last) = (point_key(series, span, 0), point_key(series, span, u64::MAX));
        let rows = self.db.range(POINTS, &first, &last).map_err(HistoryError::Store)?;
        // A damaged point is left out.
        let points = rows.iter().filter_map(|(_, value)| decode(value).ok()).collect();
        Ok(chosen(points, now, span, since))
    }

    fn series(&self) -> Result<Vec<Series>, HistoryError> {
        let rows = self.db.load(SERIES).map_err(HistoryError::Store)?;
        Ok(rows.iter().filter_map(|(key, _)| series_of(key)).collect())
    }
}

/// Waits on this thread, which tokio has set aside for that.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}

/// Samples the market for ever.
pub(super) async fn keep(indexer: Arc<Indexer>) {
    let mut prices = restored(&indexer).await;
    let mut has_failed = false;
    let mut sampler = Sampler::default();
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        let (market, busy) = sample(&indexer, outside::now(), &mut sampler).await;
        let now = outside::now();
        // The same count is what other indexers hear of this region.
        indexer.neighbours.counted(&market);
        let records = prices.record(now, &market);
        let history = Arc::clone(&indexer.history);
        let kept = tokio::task::spawn_blocking(move || history.append(&records)).await;
        match kept {
            Ok(Ok(())) => has_failed = false,
            // Once, and not every few seconds.
            Ok(Err(error)) if !has_failed => {
                has_failed = true;
                warn!(error = %crate::chain(&error), "prices are not kept");
            }
            Ok(Err(_)) | Err(_) => (),
        }
        tokio::time::sleep(SAMPLE_EVERY.max(busy * PAUSE_FACTOR)).await;
    }
}

/// Counts the fleet a piece at a time, so that nobody waits for long. Returns how long it worked, too.
async fn sample(indexer: &Indexer, now: UnixMillis, sampler: &mut Sampler) -> (Market, Duration) {
    let mut busy = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let has_more = sampler.look(&indexer.fleet(), now, AT_ONCE);
        sampler.add_up();
        busy += begun.elapsed();
        if !has_more {
            return (sampler.finish(), busy);
        }
        tokio::time::sleep(PIECE_PAUSE).await;
    }
}

/// The open hours and days as they were before a restart.
async fn restored(indexer: &Indexer) -> Prices {
    let history = Arc::clone(&indexer.history);
    let reading = move || {
        let now = outside::now();
        let mut prices = Prices::default();
        for series in history.series()? {
            let minutes = history.read(now, &series, Span::Minute, Span::Hour.begin(now))?;
            let hours = history.read(now, &series, Span::Hour, Span::Day.begin(now))?;
            prices.restore(now, series, &minutes, &hours);
        }
        Ok::<_, HistoryError>(prices)
    };
    match tokio::task::spawn_blocking(reading).await {
        Ok(Ok(prices)) => {
            if !prices.is_empty() {
                info!(series = prices.len(), "the price history goes on");
            }
            prices
        }
        Ok(Err(error)) => {
            warn!(error = %crate::chain(&error), "the price history can't be read");
            Prices::default()
        }
        Err(_) => Prices::default(),
    }
}

/// Answers what a class has cost.
pub(super) async fn answer(indexer: &Indexer, asked: PricesAsked) -> IndexReply {
    let history = Arc::clone(&indexer.history);
    let PricesAsked { class, region, span, since } = asked;
    let read = move || history.read(outside::now(), &Series { class, region }, span, since);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(points)) => IndexReply::Prices(points),
        Ok(Err(error)) => IndexReply::Refused(crate::chain(&error)),
        Err(_) => IndexReply::Refused("the price history can't be read now".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use welkin_types::Usd;

    fn market(price: u64) -> Market {
        let mut market = Market::default();
        let (class, region) = ("rtx4090".parse().unwrap(), "eu".parse().unwrap());
        market.add(&class, &region, (Some(Usd::from_micros(price)), None), (1, 2));
        market
    }

    /// The same laws for each place in which a history is kept.
    fn keeps_a_history(history: &dyn History) {
        let mut prices = Prices::default();
        let series = |region: Option<&str>| Series {
            class: "rtx4090".parse().unwrap(),
            region: region.map(|name| name.parse().unwrap()),
        };
        let day = Span::Day.ms();
        for part in 0..10 {
            let mut records = Vec::new();
            for minute in part * 200..(part + 1) * 200 {
                let now = UnixMillis(day + minute * Span::Minute.ms());
                records.extend(prices.record(now, &market(minute + 1)));
            }
            history.append(&records).unwrap();
        }
        let now = UnixMillis(day + 1_999 * Span::Minute.ms());
        let read = |region, span| history.read(now, &series(region), span, UnixMillis(0)).unwrap();
        assert_eq!(read(Some("eu"), Span::Minute).len(), 1_440);
        assert_eq!(read(Some("eu"), Span::Hour).len(), 34);
        assert_eq!(read(None, Span::Day).len(), 2);
        assert_eq!(read(Some("us"), Span::Day), []);
        let last = read(None, Span::Minute).pop().unwrap();
        assert_eq!(last.on_demand.unwrap().median, Usd::from_micros(2_000));
        assert_eq!(history.series().unwrap(), [series(None), series(Some("eu"))]);
    }

    #[tokio::test]
    async fn histories_in_memory_and_on_disk_are_alike() {
        keeps_a_history(&*in_memory());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prices.redb");
        let history = on_disk(&path).unwrap();
        tokio::task::spawn_blocking(move || keeps_a_history(&*history)).await.unwrap();
    }
}
