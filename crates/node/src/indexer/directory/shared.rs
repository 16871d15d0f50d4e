//! A database that several indexers share.

use std::time::Duration;

use tokio::sync::mpsc;
use welkin_directory::{
    Change, Claim, Counts, HolderId, HostRow, Postgres, PriceRow, SessionRow, Span, StandingRow,
    Term,
};
use welkin_types::{NodeId, UnixMillis};

use super::{Directory, DirectoryError};
use crate::settlement::BoxFuture;

impl Directory for Postgres {
    fn is_shared(&self) -> bool {
        true
    }

    fn put(&self, change: Change) {
        self.put(change);
    }

    fn keep_writing(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.keep_writing())
    }

    fn flushed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.flushed())
    }

    fn counts(&self) -> Counts {
        self.counts()
    }

    fn load_hosts(
        &self,
        now: UnixMillis,
        into: mpsc::Sender<Vec<HostRow>>,
    ) -> BoxFuture<'_, Result<u64, DirectoryError>> {
        Box::pin(async move { self.load_hosts(now, into).await.map_err(DirectoryError::Database) })
    }

    fn load_sessions(
        &self,
        now: UnixMillis,
    ) -> BoxFuture<'_, Result<Vec<(NodeId, Vec<SessionRow>)>, DirectoryError>> {
        Box::pin(async move { self.load_sessions(now).await.map_err(DirectoryError::Database) })
    }

    fn load_standings(
        &self,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<StandingRow>, DirectoryError>> {
        Box::pin(async move { self.load_standings(count).await.map_err(DirectoryError::Database) })
    }

    fn load_prices<'a>(
        &'a self,
        place: (&'a str, &'a str),
        span: Span,
        since: UnixMillis,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<PriceRow>, DirectoryError>> {
        Box::pin(async move {
            let rows = self.load_prices(place, span, since, count).await;
            rows.map_err(DirectoryError::Database)
        })
    }

    fn load_price_places(
        &self,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, String)>, DirectoryError>> {
        Box::pin(
            async move { self.load_price_places(count).await.map_err(DirectoryError::Database) },
        )
    }

    fn claim(
        &self,
        holder: HolderId,
        lasting: Duration,
    ) -> BoxFuture<'_, Result<Claim, DirectoryError>> {
        Box::pin(async move { self.claim(holder, lasting).await.map_err(DirectoryError::Database) })
    }

    fn look(&self) -> BoxFuture<'_, Result<Duration, DirectoryError>> {
        Box::pin(async move { self.look().await.map_err(DirectoryError::Database) })
    }

    fn renew(
        &self,
        term: Term,
        holder: HolderId,
        lasting: Duration,
    ) -> BoxFuture<'_, Result<bool, DirectoryError>> {
        Box::pin(async move {
            self.renew(term, holder, lasting).await.map_err(DirectoryError::Database)
        })
    }

    fn stand_down(&self) {
        self.stand_down();
    }

    fn release(&self, term: Term, holder: HolderId) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(async move { self.release(term, holder).await.map_err(DirectoryError::Database) })
    }
}
