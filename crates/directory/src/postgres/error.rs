//! What can go wrong with a database, told once and without secrets.

use std::fmt;

use tokio_postgres::error::SqlState;

/// What the database or the way to it says.
#[derive(Debug)]
pub struct Trouble(Kind);

#[derive(Debug)]
enum Kind {
    Postgres(tokio_postgres::Error),
    Late,
    Ended,
    Fenced,
}

impl Trouble {
    pub(super) const LATE: Self = Self(Kind::Late);
    pub(super) const ENDED: Self = Self(Kind::Ended);
    pub(super) const FENCED: Self = Self(Kind::Fenced);

    /// Whether the same may well succeed later, over a new connection.
    pub fn is_retryable(&self) -> bool {
        match &self.0 {
            Kind::Late | Kind::Ended => true,
            Kind::Fenced => false,
            Kind::Postgres(error) => error.code().is_none_or(is_passing),
        }
    }

    /// Whether another process leads by now.
    pub const fn is_fenced(&self) -> bool {
        matches!(self.0, Kind::Fenced)
    }
}

/// Connections, resources, an operator's intervention, conflicts: all but what is wrong with the
/// data or the statement.
fn is_passing(state: &SqlState) -> bool {
    let class = state.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "25" | "28" | "40" | "53" | "55" | "57" | "58" | "XX")
}

/// An error with its causes, as far as its own text does not name them.
fn with_causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // A database's own message names no password.
            Kind::Postgres(error) => match error.as_db_error() {
                Some(error) => write!(f, "{} (code {})", error.message(), error.code().code()),
                None => f.write_str(&with_causes(error)),
            },
            Kind::Late => f.write_str("the database did not answer in time"),
            Kind::Ended => f.write_str("the connection to the database ended"),
            Kind::Fenced => f.write_str("another indexer leads by now"),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(Kind::Postgres(error))
    }
}

/// Why a directory can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No connection.
    #[error(
        "failed to connect to the directory's database ({place}): is it running, and may this user log in?"
    )]
    Connect {
        /// Where, without secrets.
        place: String,
        /// Why.
        #[source]
        source: Trouble,
    },
    /// The tables could not be made or brought up to date.
    #[error(
        "failed to bring the directory's tables to version {version}: the user needs CREATE on the schema"
    )]
    Migrate {
        /// To which version.
        version: i32,
        /// Why.
        #[source]
        source: Trouble,
    },
    /// A later program has been here.
    #[error(
        "the directory's tables are of version {found} and this program knows {known}: use the later program"
    )]
    Newer {
        /// The tables'.
        found: i32,
        /// This program's.
        known: i32,
    },
    /// The database belongs to an indexer with another key.
    #[error(
        "the directory belongs to {owner}: name another database, or give this indexer that one's key"
    )]
    Owner {
        /// Whose it is.
        owner: welkin_types::NodeId,
    },
    /// The tables could not be read.
    #[error("failed to read the directory")]
    Read(#[source] Trouble),
}
