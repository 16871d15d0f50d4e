//! Reading the tables: hosts in pieces, so that a million take no second copy in memory.

use std::time::Duration;

use futures_util::{StreamExt as _, pin_mut};
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tracing::warn;
use welkin_types::{AccountId, NodeId, UnixMillis, Usd};

use super::Postgres;
use super::error::Trouble;
use super::link::{Link, ask, drive};
use crate::row::{HostRow, PriceRow, Prices, SessionRow, Span, StandingRow, unpack_sessions};

const HOSTS: &str = "SELECT node, operator, revision, issued, expires, capability, sessions
    FROM welkin_host WHERE expires >= $1";
const SESSIONS: &str = "SELECT node, sessions FROM welkin_host
    WHERE expires >= $1 AND length(sessions) > 0";
const STANDINGS: &str = "SELECT operator, announced, refused, why, first, last
    FROM welkin_standing ORDER BY last DESC LIMIT $1";
const PRICES: &str = "SELECT at, demand_min, demand_median, demand_max,
        spot_min, spot_median, spot_max, free, total
    FROM welkin_price WHERE class = $1 AND region = $2 AND span = $3 AND at >= $4
    ORDER BY at LIMIT $5";

const PLACES: &str = "SELECT DISTINCT class, region FROM welkin_price
    WHERE span = 2 AND at >= (SELECT max(at) FROM welkin_price WHERE span = 2) - 86400000
    LIMIT $1";

/// Hosts that go on together.
const PIECE: usize = 1_024;
/// How long a question about few rows may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Postgres {
    /// Sends all hosts that have not expired by `now` into the channel, and returns how many.
    /// A row that is no host is left out, counted and told in the log.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; what was sent before is right.
    pub async fn load_hosts(
        &self,
        now: UnixMillis,
        into: mpsc::Sender<Vec<HostRow>>,
    ) -> Result<u64, Trouble> {
        let mut link = Link::open(&self.inner.dsn).await?;
        let (client, wire) = link.parts();
        let reading = async {
            let now = i64::try_from(now.0).unwrap_or(i64::MAX);
            // A million rows may take longer than a statement otherwise may.
            client.batch_execute("SET statement_timeout = 0").await?;
            let rows = client.query_raw(HOSTS, [&now as &(dyn ToSql + Sync)]).await?;
            pin_mut!(rows);
            let (mut count, mut malformed) = (0_u64, 0_u64);
            let mut piece = Vec::with_capacity(PIECE);
            while let Some(row) = rows.next().await {
                match host(&row?) {
                    Some(host) => piece.push(host),
                    None => malformed += 1,
                }
                if piece.len() == PIECE {
                    count += PIECE as u64;
                    let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE));
                    if into.send(full).await.is_err() {
                        return Ok(count);
                    }
                }
            }
            count += piece.len() as u64;
            // Whoever does not take the rest has stopped.
            let _ = into.send(piece).await;
            if malformed > 0 {
                warn!(malformed, "rows of the directory are no hosts and are left out");
            }
            Ok(count)
        };
        drive(wire, reading).await?
    }

    /// The sessions of heartbeats of all hosts that have not expired by `now`. Rows that are none
    /// are left out: their hosts enrol again.
    ///
    /// # Errors
    ///
    /// [`Trouble`]
    pub async fn load_sessions(
        &self,
        now: UnixMillis,
    ) -> Result<Vec<(NodeId, Vec<SessionRow>)>, Trouble> {
        let mut link = Link::open(&self.inner.dsn).await?;
        let (client, wire) = link.parts();
        let reading = async {
            let now = i64::try_from(now.0).unwrap_or(i64::MAX);
            client.batch_execute("SET statement_timeout = 0").await?;
            let rows = client.query_raw(SESSIONS, [&now as &(dyn ToSql + Sync)]).await?;
            pin_mut!(rows);
            let mut sessions = Vec::new();
            while let Some(row) = rows.next().await {
                let row = row?;
                let node = bytes(&row, 0).map(NodeId::from_bytes);
                let own = row.try_get(1).ok().and_then(unpack_sessions);
                sessions.extend(node.zip(own));
            }
            Ok(sessions)
        };
        drive(wire, reading).await?
    }

    /// The standing of up to `count` operators, those seen last first.
    ///
    /// # Errors
    ///
    /// [`Trouble`]
    pub async fn load_standings(&self, count: usize) -> Result<Vec<StandingRow>, Trouble> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let rows = self.read(STANDINGS, &[&count]).await?;
        Ok(rows.iter().filter_map(standing).collect())
    }

    /// Up to `count` rows of prices from `since` on, by time.
    ///
    /// # Errors
    ///
    /// [`Trouble`]
    pub async fn load_prices(
        &self,
        (class, region): (&str, &str),
        span: Span,
        since: UnixMillis,
        count: usize,
    ) -> Result<Vec<PriceRow>, Trouble> {
        let since = i64::try_from(since.0).unwrap_or(i64::MAX);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let code = span.code();
        let rows = self.read(PRICES, &[&class, &region, &code, &since, &count]).await?;
        Ok(rows.iter().filter_map(|row| price(row, class, region, span)).collect())
    }

    /// Up to `count` classes and regions of which there is a row for the newest day of all, or the
    /// day before.
    ///
    /// # Errors
    ///
    /// [`Trouble`]
    pub async fn load_price_places(&self, count: usize) -> Result<Vec<(String, String)>, Trouble> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let rows = self.read(PLACES, &[&count]).await?;
        let place = |row: &Row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?));
        Ok(rows.iter().filter_map(place).collect())
    }

    async fn read(
        &self,
        statement: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Trouble> {
        let reading = async |mut link: Link| {
            let (client, wire) = link.parts();
            let rows = ask(wire, ANSWER_TIMEOUT, client.query(statement, params)).await?;
            Ok((link, rows))
        };
        match self.on(&self.inner.reading, reading).await {
            // A kept connection may have ended since; a new one has not.
            Err(trouble) if trouble.is_retryable() => self.on(&self.inner.reading, reading).await,
            done => done,
        }
    }
}

fn host(row: &Row) -> Option<HostRow> {
    Some(HostRow {
        node: NodeId::from_bytes(bytes(row, 0)?),
        operator: AccountId::from_bytes(bytes(row, 1)?),
        revision: number(row, 2)?,
        issued: UnixMillis(number(row, 3)?),
        expires: UnixMillis(number(row, 4)?),
        capability: row.try_get::<_, &[u8]>(5).ok()?.to_vec(),
        sessions: unpack_sessions(row.try_get(6).ok()?)?,
    })
}

fn standing(row: &Row) -> Option<StandingRow> {
    Some(StandingRow {
        operator: AccountId::from_bytes(bytes(row, 0)?),
        announced: number(row, 1)?,
        refused: number(row, 2)?,
        why: row.try_get(3).ok()?,
        first: UnixMillis(number(row, 4)?),
        last: UnixMillis(number(row, 5)?),
    })
}

fn price(row: &Row, class: &str, region: &str, span: Span) -> Option<PriceRow> {
    Some(PriceRow {
        class: class.to_owned(),
        region: region.to_owned(),
        span,
        at: UnixMillis(number(row, 0)?),
        on_demand: prices(row, 1),
        spot: prices(row, 4),
        free: u32::try_from(number(row, 7)?).ok()?,
        total: u32::try_from(number(row, 8)?).ok()?,
    })
}

fn prices(row: &Row, first: usize) -> Option<Prices> {
    let usd = |index| number(row, index).map(Usd::from_micros);
    Some(Prices { min: usd(first)?, median: usd(first + 1)?, max: usd(first + 2)? })
}

fn number(row: &Row, index: usize) -> Option<u64> {
    u64::try_from(row.try_get::<_, Option<i64>>(index).ok()??).ok()
}

fn bytes<const N: usize>(row: &Row, index: usize) -> Option<[u8; N]> {
    row.try_get::<_, &[u8]>(index).ok()?.try_into().ok()
}
