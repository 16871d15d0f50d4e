//! The tables, by version. What a version did is never edited; another one is added.

use tokio_postgres::Client;
use welkin_types::NodeId;

use super::error::OpenError;
use super::link::{Link, drive};

/// What each version does to the one before it.
const VERSIONS: [&str; 1] = ["
    CREATE TABLE welkin_leader (
        id smallint PRIMARY KEY CHECK (id = 1),
        owner bytea NOT NULL CHECK (length(owner) = 32),
        term bigint NOT NULL,
        holder bytea NOT NULL,
        expires timestamptz NOT NULL
    );
    CREATE TABLE welkin_host (
        node bytea PRIMARY KEY CHECK (length(node) = 32),
        operator bytea NOT NULL CHECK (length(operator) = 20),
        revision bigint NOT NULL,
        issued bigint NOT NULL,
        expires bigint NOT NULL,
        capability bytea NOT NULL,
        sessions bytea NOT NULL
    );
    CREATE INDEX welkin_host_expires ON welkin_host (expires);
    CREATE TABLE welkin_standing (
        operator bytea PRIMARY KEY CHECK (length(operator) = 20),
        announced bigint NOT NULL,
        refused bigint NOT NULL,
        why text NOT NULL,
        first bigint NOT NULL,
        last bigint NOT NULL
    );
    CREATE TABLE welkin_price (
        class text NOT NULL,
        region text NOT NULL,
        span smallint NOT NULL,
        at bigint NOT NULL,
        demand_min bigint, demand_median bigint, demand_max bigint,
        spot_min bigint, spot_median bigint, spot_max bigint,
        free bigint NOT NULL,
        total bigint NOT NULL,
        PRIMARY KEY (class, region, span, at)
    );
    CREATE INDEX welkin_price_age ON welkin_price (span, at);
    COMMENT ON TABLE welkin_host IS 'one row a host; times in ms since 1970, sessions packed';
    COMMENT ON TABLE welkin_price IS 'micro-dollars an hour; span 0 minute, 1 hour, 2 day';
"];

/// The version that this program knows: the last of [`VERSIONS`].
const KNOWN: i32 = 1;
/// Makes two programs that start at once wait for each other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8315161905422327150)";
const MAKE: &str = "CREATE TABLE IF NOT EXISTS welkin_version (
    version int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())";
const FOUND: &str = "SELECT coalesce(max(version), 0) FROM welkin_version";
const NOTE: &str = "INSERT INTO welkin_version (version) VALUES ($1)";
/// Who comes first owns the directory; the row says that nobody leads.
const OWN: &str = "INSERT INTO welkin_leader VALUES (1, $1, 0, '', '-infinity')
    ON CONFLICT (id) DO NOTHING";
const OWNER: &str = "SELECT owner FROM welkin_leader WHERE id = 1";

/// Brings the tables to the version that this program knows, and takes the directory for `owner`
/// where it is nobody's.
pub(super) async fn migrate(link: &mut Link, owner: NodeId) -> Result<(), OpenError> {
    let (client, wire) = link.parts();
    drive(wire, in_transaction(client, owner)).await.map_err(OpenError::Read)?
}

async fn in_transaction(client: &mut Client, owner: NodeId) -> Result<(), OpenError> {
    let read = |error: tokio_postgres::Error| OpenError::Read(error.into());
    let migrated = |version: i32| {
        move |error: tokio_postgres::Error| OpenError::Migrate { version, source: error.into() }
    };
    let transaction = client.transaction().await.map_err(read)?;
    transaction.batch_execute(LOCK).await.map_err(read)?;
    transaction.batch_execute(MAKE).await.map_err(migrated(0))?;
    let found = transaction.query_one(FOUND, &[]).await.map_err(read)?;
    let found: i32 = found.try_get(0).map_err(read)?;
    if found > KNOWN {
        return Err(OpenError::Newer { found, known: KNOWN });
    }
    for (version, change) in (1..).zip(VERSIONS).filter(|(version, _)| *version > found) {
        transaction.batch_execute(change).await.map_err(migrated(version))?;
        transaction.execute(NOTE, &[&version]).await.map_err(migrated(version))?;
    }
    transaction.execute(OWN, &[&owner.as_bytes().as_slice()]).await.map_err(read)?;
    let owned = transaction.query_one(OWNER, &[]).await.map_err(read)?;
    let owned: Vec<u8> = owned.try_get(0).map_err(read)?;
    if owned != owner.as_bytes() {
        let owner = NodeId::from_bytes(owned.try_into().unwrap_or([0; 32]));
        return Err(OpenError::Owner { owner });
    }
    transaction.commit().await.map_err(migrated(KNOWN))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_version_is_the_known_one() {
        assert_eq!(usize::try_from(super::KNOWN).ok(), Some(super::VERSIONS.len()));
    }
}
