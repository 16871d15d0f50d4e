//! Changes on their way into the tables: in batches, each kind one statement over arrays.
//!
//! Each statement locks the row of the leadership for reading and does nothing unless it is still
//! of the writer's term. A claim waits for that lock, so either the write is before the next term,
//! or it is not at all. Writing something twice changes nothing, so a batch of which the answer
//! was lost is written again.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Statement, ToStatement};
use tracing::{info, warn};

use super::error::Trouble;
use super::link::{Link, ask};
use super::{Leading, Postgres};
use crate::row::{Change, HolderId, HostRow, PriceRow, Span, StandingRow, Term, pack_sessions};

/// The most changes of one batch.
const BATCH_MAX: usize = 2_000;
/// Changes that come within so long of each other go together.
const GATHER: Duration = Duration::from_millis(50);
/// How long a batch may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pauses between tries.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What is too old is removed so often.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// How long a host is kept after it has expired.
const HOST_KEPT: Duration = Duration::from_secs(86_400);

macro_rules! fenced {
    ($rest:literal) => {
        concat!(
            "WITH fence AS (SELECT 1 FROM welkin_leader WHERE id = 1 AND term = $1 AND \
             holder = $2 FOR SHARE), ",
            $rest,
            " SELECT count(*) FROM fence"
        )
    };
}

const HOSTS: &str = fenced!(
    "written AS (INSERT INTO welkin_host
        SELECT * FROM unnest($3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[],
                             $8::bytea[], $9::bytea[])
        WHERE EXISTS (SELECT 1 FROM fence)
        ON CONFLICT (node) DO UPDATE SET (operator, revision, issued, expires, capability, sessions)
            = ROW (excluded.operator, excluded.revision, excluded.issued, excluded.expires,
                   excluded.capability, excluded.sessions))"
);
const GONE: &str = fenced!(
    "written AS (DELETE FROM welkin_host
        WHERE node = ANY ($3::bytea[]) AND EXISTS (SELECT 1 FROM fence))"
);
const STANDINGS: &str = fenced!(
    "written AS (INSERT INTO welkin_standing
        SELECT * FROM unnest($3::bytea[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
                             $8::bigint[])
        WHERE EXISTS (SELECT 1 FROM fence)
        ON CONFLICT (operator) DO UPDATE SET (announced, refused, why, first, last)
            = ROW (excluded.announced, excluded.refused, excluded.why, excluded.first,
                   excluded.last))"
);
const PRICES: &str = fenced!(
    "written AS (INSERT INTO welkin_price
        SELECT * FROM unnest($3::text[], $4::text[], $5::smallint[], $6::bigint[],
                             $7::bigint[], $8::bigint[], $9::bigint[],
                             $10::bigint[], $11::bigint[], $12::bigint[],
                             $13::bigint[], $14::bigint[])
        WHERE EXISTS (SELECT 1 FROM fence)
        ON CONFLICT (class, region, span, at) DO UPDATE SET
            (demand_min, demand_median, demand_max, spot_min, spot_median, spot_max, free, total)
            = ROW (excluded.demand_min, excluded.demand_median, excluded.demand_max,
                   excluded.spot_min, excluded.spot_median, excluded.spot_max,
                   excluded.free, excluded.total))"
);
/// By the database's clock; a bounded number at once.
const CLEAN_HOSTS: &str = fenced!(
    "written AS (DELETE FROM welkin_host WHERE node IN (
        SELECT node FROM welkin_host
        WHERE expires < (extract(epoch FROM now()) * 1000)::bigint - $3 LIMIT 10000)
        AND EXISTS (SELECT 1 FROM fence))"
);
const CLEAN_PRICES: &str = fenced!(
    "written AS (DELETE FROM welkin_price WHERE (class, region, span, at) IN (
        SELECT class, region, span, at FROM welkin_price
        WHERE span = $4 AND at < (extract(epoch FROM now()) * 1000)::bigint - $3 LIMIT 10000)
        AND EXISTS (SELECT 1 FROM fence))"
);

type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// A link with its statements prepared.
struct Writer {
    link: Link,
    hosts: Statement,
    gone: Statement,
    standings: Statement,
    prices: Statement,
}

impl Postgres {
    /// Writes what queues, for ever, while this process leads. To be run by one task.
    pub async fn keep_writing(&self) {
        let mut writer = None;
        let mut leading = self.inner.leading.subscribe();
        let mut clean = tokio::time::interval(CLEAN_EVERY);
        loop {
            // The sender lives as long as `self`.
            let _ = leading.wait_for(Option::is_some).await;
            let is_to_clean = tokio::select! {
                _ = clean.tick() => true,
                () = self.inner.queue.ready() => false,
            };
            if is_to_clean {
                self.clean(&mut writer).await;
                continue;
            }
            tokio::time::sleep(GATHER).await;
            let batch = self.inner.queue.take(BATCH_MAX);
            self.write_batch(&mut writer, &batch).await;
        }
    }

    fn leading(&self) -> Leading {
        *self.inner.leading.borrow()
    }

    async fn write_batch(&self, writer: &mut Option<Writer>, batch: &[Change]) {
        let queue = &self.inner.queue;
        let mut pause = PAUSE_MIN;
        loop {
            let Some(leading) = self.leading() else { return queue.given_up(batch.len()) };
            let Err(trouble) = self.try_batch(writer, leading, batch).await else {
                self.note(None);
                return queue.written(batch.len());
            };
            *writer = None;
            if trouble.is_fenced() {
                warn!("another indexer leads: what waits to be written is dropped");
                queue.given_up(batch.len());
                return self.stand_down();
            }
            if !trouble.is_retryable() {
                warn!(error = %trouble, changes = batch.len(), "the directory refuses changes");
                return queue.given_up(batch.len());
            }
            self.note(Some(&trouble));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tells of trouble when it begins and when it ends, not with each try.
    fn note(&self, trouble: Option<&Trouble>) {
        let text = trouble.map(ToString::to_string);
        let mut noted =
            self.inner.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let counts = self.inner.queue.counts();
        match (&*noted, &text) {
            (None, Some(error)) => {
                warn!(error, waiting = counts.waiting, "the directory takes no changes: they wait");
            }
            (Some(_), None) => {
                let (replaced, dropped) = (counts.replaced, counts.dropped);
                info!(waiting = counts.waiting, replaced, dropped, "the directory takes changes");
            }
            _ => (),
        }
        *noted = text;
    }

    async fn try_batch(
        &self,
        writer: &mut Option<Writer>,
        leading: (Term, HolderId),
        batch: &[Change],
    ) -> Result<(), Trouble> {
        let writer = self.writer(writer).await?;
        let (hosts, gone) = (rows_of(batch, host), rows_of(batch, gone));
        let (standings, prices) = (rows_of(batch, standing), rows_of(batch, price));
        if !hosts.is_empty() {
            writer.write_hosts(leading, &hosts).await?;
        }
        if !gone.is_empty() {
            let statement = writer.gone.clone();
            writer.execute(&statement, leading, vec![&gone]).await?;
        }
        if !standings.is_empty() {
            writer.write_standings(leading, &standings).await?;
        }
        if !prices.is_empty() {
            writer.write_prices(leading, &prices).await?;
        }
        Ok(())
    }

    async fn writer<'a>(&self, kept: &'a mut Option<Writer>) -> Result<&'a mut Writer, Trouble> {
        if kept.is_none() {
            *kept = Some(Writer::open(Link::open(&self.inner.dsn).await?).await?);
        }
        kept.as_mut().ok_or(Trouble::ENDED)
    }

    /// Removes what is too old. Trouble is left to the next time.
    async fn clean(&self, kept: &mut Option<Writer>) {
        let Some(leading) = self.leading() else { return };
        if let Err(error) = self.try_clean(kept, leading).await {
            tracing::debug!(%error, "old rows are not removed");
            *kept = None;
        }
    }

    async fn try_clean(
        &self,
        kept: &mut Option<Writer>,
        leading: (Term, HolderId),
    ) -> Result<(), Trouble> {
        let writer = self.writer(kept).await?;
        let host_kept = millis(HOST_KEPT);
        writer.execute(CLEAN_HOSTS, leading, vec![&host_kept]).await?;
        for span in Span::ALL {
            let (kept, code) = (millis(span.kept()), span.code());
            writer.execute(CLEAN_PRICES, leading, vec![&kept, &code]).await?;
        }
        Ok(())
    }
}

impl Writer {
    async fn open(mut link: Link) -> Result<Self, Trouble> {
        let (client, wire) = link.parts();
        let preparing = async {
            tokio::try_join!(
                client.prepare(HOSTS),
                client.prepare(GONE),
                client.prepare(STANDINGS),
                client.prepare(PRICES)
            )
        };
        let (hosts, gone, standings, prices) = ask(wire, WRITE_TIMEOUT, preparing).await?;
        Ok(Self { link, hosts, gone, standings, prices })
    }

    async fn execute<S>(
        &mut self,
        statement: &S,
        (term, holder): (Term, HolderId),
        values: Params<'_>,
    ) -> Result<(), Trouble>
    where
        S: ?Sized + ToStatement + Sync + fmt::Debug,
    {
        let (term, holder) = (big(term.0), holder.as_bytes().as_slice());
        let mut params: Params<'_> = vec![&term, &holder];
        params.extend(values);
        let (client, wire) = self.link.parts();
        let fence = client.query_one_scalar::<i64, _>(statement, &params);
        match ask(wire, WRITE_TIMEOUT, fence).await? {
            0 => Err(Trouble::FENCED),
            _ => Ok(()),
        }
    }

    async fn write_hosts(
        &mut self,
        leading: (Term, HolderId),
        rows: &[&HostRow],
    ) -> Result<(), Trouble> {
        let nodes: Vec<_> = rows.iter().map(|row| row.node.as_bytes().as_slice()).collect();
        let operators: Vec<_> = rows.iter().map(|row| row.operator.as_bytes().as_slice()).collect();
        let revisions: Vec<_> = rows.iter().map(|row| big(row.revision)).collect();
        let issued: Vec<_> = rows.iter().map(|row| big(row.issued.0)).collect();
        let expires: Vec<_> = rows.iter().map(|row| big(row.expires.0)).collect();
        let capabilities: Vec<_> = rows.iter().map(|row| row.capability.as_slice()).collect();
        let sessions: Vec<_> = rows.iter().map(|row| pack_sessions(&row.sessions)).collect();
        let statement = self.hosts.clone();
        let values: Params<'_> =
            vec![&nodes, &operators, &revisions, &issued, &expires, &capabilities, &sessions];
        self.execute(&statement, leading, values).await
    }

    async fn write_standings(
        &mut self,
        leading: (Term, HolderId),
        rows: &[&StandingRow],
    ) -> Result<(), Trouble> {
        let operators: Vec<_> = rows.iter().map(|row| row.operator.as_bytes().as_slice()).collect();
        let announced: Vec<_> = rows.iter().map(|row| big(row.announced)).collect();
        let refused: Vec<_> = rows.iter().map(|row| big(row.refused)).collect();
        let why: Vec<_> = rows.iter().map(|row| text(&row.why)).collect();
        let first: Vec<_> = rows.iter().map(|row| big(row.first.0)).collect();
        let last: Vec<_> = rows.iter().map(|row| big(row.last.0)).collect();
        let statement = self.standings.clone();
        let values: Params<'_> = vec![&operators, &announced, &refused, &why, &first, &last];
        self.execute(&statement, leading, values).await
    }

    async fn write_prices(
        &mut self,
        leading: (Term, HolderId),
        rows: &[&PriceRow],
    ) -> Result<(), Trouble> {
        let classes: Vec<_> = rows.iter().map(|row| text(&row.class)).collect();
        let regions: Vec<_> = rows.iter().map(|row| text(&row.region)).collect();
        let spans: Vec<_> = rows.iter().map(|row| row.span.code()).collect();
        let at: Vec<_> = rows.iter().map(|row| big(row.at.0)).collect();
        let demand: [Vec<Option<i64>>; 3] = columns(rows, |row| row.on_demand);
        let spot: [Vec<Option<i64>>; 3] = columns(rows, |row| row.spot);
        let free: Vec<_> = rows.iter().map(|row| i64::from(row.free)).collect();
        let total: Vec<_> = rows.iter().map(|row| i64::from(row.total)).collect();
        let statement = self.prices.clone();
        let mut values: Params<'_> = vec![&classes, &regions, &spans, &at];
        for column in demand.iter().chain(&spot) {
            values.push(column);
        }
        values.extend([&free as &(dyn ToSql + Sync), &total]);
        self.execute(&statement, leading, values).await
    }
}

fn columns(
    rows: &[&PriceRow],
    of: impl Fn(&PriceRow) -> Option<crate::row::Prices>,
) -> [Vec<Option<i64>>; 3] {
    let column = |pick: fn(crate::row::Prices) -> welkin_types::Usd| {
        rows.iter().map(|row| of(row).map(|prices| big(pick(prices).micros()))).collect()
    };
    [column(|prices| prices.min), column(|prices| prices.median), column(|prices| prices.max)]
}

/// The rows of one kind among others.
fn rows_of<'a, T: ?Sized>(
    batch: &'a [Change],
    pick: impl Fn(&'a Change) -> Option<&'a T>,
) -> Vec<&'a T> {
    batch.iter().filter_map(pick).collect()
}

const fn host(change: &Change) -> Option<&HostRow> {
    if let Change::Host(row) = change { Some(row) } else { None }
}

const fn gone(change: &Change) -> Option<&[u8]> {
    if let Change::HostGone(node) = change { Some(node.as_bytes().as_slice()) } else { None }
}

const fn standing(change: &Change) -> Option<&StandingRow> {
    if let Change::Standing(row) = change { Some(row) } else { None }
}

const fn price(change: &Change) -> Option<&PriceRow> {
    if let Change::Price(row) = change { Some(row) } else { None }
}

/// Bits beyond 63 have no place in a table; no count or time of ours has them.
fn big(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A table's text holds every character but one.
fn text(value: &str) -> String {
    value.replace('\0', " ")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
