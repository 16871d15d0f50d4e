//! What an operator's indexers keep beyond their memory, and the two places where they do.
//!
//! [`Directory`] is the face: [`Embedded`] keeps it in a file of this indexer's own, and
//! `welkin_directory::Postgres` (feature `postgres`) in a database that several share, of which one
//! leads. [`Records`] is what the indexer's role tells it. An indexer never waits for a directory
//! to answer anybody.

mod embedded;
mod records;
#[cfg(feature = "postgres")]
mod shared;

use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use welkin_directory::{
    Change, Claim, Counts, HolderId, HostRow, PriceRow, SessionRow, Span, StandingRow, Term,
};
use welkin_store::{CommitError, OpenError};
use welkin_types::{NodeId, UnixMillis};

pub use embedded::Embedded;
pub use records::{KnownHost, Records, load};

use crate::settlement::BoxFuture;

/// Why a directory did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The file can't be opened.
    #[error("failed to open the directory's file")]
    Open(#[source] OpenError),
    /// The file can't be read or written.
    #[error("failed to use the directory's file")]
    File(#[source] CommitError),
    /// The database does not do it.
    #[cfg(feature = "postgres")]
    #[error("the directory's database does not do it")]
    Database(#[source] welkin_directory::Trouble),
}

/// A host's sessions of heartbeats.
pub type HostSessions = (NodeId, Vec<SessionRow>);

/// What one operator's indexers keep durably.
pub trait Directory: Send + Sync + fmt::Debug {
    /// Whether other processes may use it too, so that who leads must be known.
    fn is_shared(&self) -> bool;

    /// Notes a change; never waits. It is written soon, unless a later one of its key comes first.
    fn put(&self, change: Change);

    /// Writes what was noted, for ever; to be run by one task.
    fn keep_writing(&self) -> BoxFuture<'_, ()>;

    /// Completes when all that was noted before is written or given up.
    fn flushed(&self) -> BoxFuture<'_, ()>;

    /// How many changes wait, were written, replaced, dropped.
    fn counts(&self) -> Counts;

    /// Sends all hosts that have not expired by `now` into the channel; returns how many.
    fn load_hosts(
        &self,
        now: UnixMillis,
        into: mpsc::Sender<Vec<HostRow>>,
    ) -> BoxFuture<'_, Result<u64, DirectoryError>>;

    /// The sessions of heartbeats of all hosts that have not expired by `now`.
    fn load_sessions(
        &self,
        now: UnixMillis,
    ) -> BoxFuture<'_, Result<Vec<HostSessions>, DirectoryError>>;

    /// The standing of up to `count` operators.
    fn load_standings(
        &self,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<StandingRow>, DirectoryError>>;

    /// Up to `count` rows of prices of a class in a region from `since` on, by time.
    fn load_prices<'a>(
        &'a self,
        place: (&'a str, &'a str),
        span: Span,
        since: UnixMillis,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<PriceRow>, DirectoryError>>;

    /// Up to `count` classes and regions of which there is a row for the newest day of all, or the
    /// day before.
    fn load_price_places(
        &self,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, String)>, DirectoryError>>;

    /// Asks to lead for so long.
    fn claim(
        &self,
        holder: HolderId,
        lasting: Duration,
    ) -> BoxFuture<'_, Result<Claim, DirectoryError>>;

    /// How long the present leader's time lasts; nothing if nobody leads.
    fn look(&self) -> BoxFuture<'_, Result<Duration, DirectoryError>>;

    /// Goes on leading for so long from now; whether that is granted.
    fn renew(
        &self,
        term: Term,
        holder: HolderId,
        lasting: Duration,
    ) -> BoxFuture<'_, Result<bool, DirectoryError>>;

    /// Writes nothing more before the next claim, and drops what waits.
    fn stand_down(&self);

    /// Lets the next one lead at once.
    fn release(&self, term: Term, holder: HolderId) -> BoxFuture<'_, Result<(), DirectoryError>>;
}
