//! What one operator's indexers keep durably: hosts, operators' standing, prices, and who leads.
//!
//! An indexer decides by what it has in memory, and hosts tell that anew every few seconds. This is
//! the slow copy beside it, from which another indexer of the same operator goes on. [`Queue`]
//! stands between the two: it takes changes without ever waiting and keeps only the last of each
//! key, so that a slow database never slows a match. With the feature `postgres` there is
//! `Postgres`, which several processes share; the embedded kind is the role's own, on its file.

#![forbid(unsafe_code)]

mod queue;
mod row;

#[cfg(feature = "postgres")]
mod postgres;

#[cfg(feature = "postgres")]
pub use postgres::{Dsn, DsnError, OpenError, Postgres, RootsError, Trouble};
pub use queue::{Counts, QUEUE_BYTES_MAX, QUEUE_MAX, Queue};
pub use row::{
    Change, Claim, HolderId, HostRow, Key, PriceRow, Prices, SESSIONS_MAX, SessionRow, Span,
    StandingRow, Term, pack_sessions, unpack_sessions,
};
