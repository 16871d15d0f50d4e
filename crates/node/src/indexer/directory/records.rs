//! What an indexer tells its directory, and what it takes from it at a start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tracing::{debug, warn};
use welkin_directory::{Change, HostRow, SessionRow, StandingRow};
use welkin_match::Seal;
use welkin_proto::{Capability, Signed, decode, encode};
use welkin_types::{AccountId, UnixMillis};

use super::{Directory, DirectoryError};

/// The most operators whose standing is kept; of others none is.
const STANDINGS_MAX: usize = 1 << 16;
/// Pieces of hosts that wait to be taken while the next ones are read.
const PIECES_MAX: usize = 8;

/// The indexer's side of its directory.
#[derive(Debug)]
pub struct Records {
    directory: Arc<dyn Directory>,
    standings: Mutex<BTreeMap<AccountId, StandingRow>>,
}

impl Records {
    /// Takes up what is known of operators.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] where it can't be read.
    pub async fn open(directory: Arc<dyn Directory>) -> Result<Self, DirectoryError> {
        let rows = directory.load_standings(STANDINGS_MAX).await?;
        let standings = rows.into_iter().map(|row| (row.operator, row)).collect();
        Ok(Self { directory, standings: Mutex::new(standings) })
    }

    /// The directory.
    pub fn directory(&self) -> &dyn Directory {
        &*self.directory
    }

    /// The directory, if several indexers share it.
    pub fn shared(&self) -> Option<Arc<dyn Directory>> {
        self.directory.is_shared().then(|| Arc::clone(&self.directory))
    }

    /// How an operator has behaved.
    pub fn standing(&self, operator: AccountId) -> Option<StandingRow> {
        self.standings().get(&operator).cloned()
    }

    /// An announcement was taken: a host's row, whose document is the signed capability as it came.
    pub fn announced(&self, now: UnixMillis, row: HostRow, signed: &Signed<Capability>) {
        self.count(now, row.operator, |standing| standing.announced += 1);
        // A file of this indexer's own would only repeat what its snapshots hold.
        if !self.directory.is_shared() {
            return;
        }
        if let Ok(capability) = encode(signed) {
            self.directory.put(Change::Host(HostRow { capability, ..row }));
        }
    }

    /// An announcement of this operator was refused.
    pub fn refused(&self, now: UnixMillis, operator: AccountId, why: &str) {
        let end = why.floor_char_boundary(StandingRow::WHY_BYTES_MAX);
        let why = &why[..end];
        self.count(now, operator, |row| {
            row.refused += 1;
            why.clone_into(&mut row.why);
        });
    }

    fn count(&self, now: UnixMillis, operator: AccountId, change: impl FnOnce(&mut StandingRow)) {
        let mut standings = self.standings();
        if standings.len() >= STANDINGS_MAX && !standings.contains_key(&operator) {
            return debug!("no room for another operator's standing");
        }
        let row = standings.entry(operator).or_insert_with(|| StandingRow {
            operator,
            announced: 0,
            refused: 0,
            why: String::new(),
            first: now,
            last: now,
        });
        row.last = row.last.max(now);
        change(row);
        let row = row.clone();
        drop(standings);
        self.directory.put(Change::Standing(row));
    }

    fn standings(&self) -> std::sync::MutexGuard<'_, BTreeMap<AccountId, StandingRow>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host of the directory.
#[derive(Clone, Debug)]
pub struct KnownHost {
    /// Who is paid.
    pub operator: AccountId,
    /// What it said last.
    pub capability: Capability,
    /// With which signatures.
    pub seal: Seal,
    /// Its sessions of heartbeats.
    pub sessions: Vec<SessionRow>,
}

/// Hands over all hosts of a directory, in pieces, and returns how many.
///
/// Their signatures were checked by the indexer that wrote them, and the directory is the
/// operator's own: a million signatures would take longer than hosts take to announce themselves.
///
/// # Errors
///
/// [`DirectoryError`]; what was handed over before is right.
pub async fn load(
    directory: &dyn Directory,
    now: UnixMillis,
    mut take: impl FnMut(Vec<KnownHost>) + Send,
) -> Result<u64, DirectoryError> {
    let (into, mut from) = mpsc::channel(PIECES_MAX);
    let taking = async {
        let (mut count, mut malformed) = (0, 0);
        while let Some(rows) = from.recv().await {
            let rows: Vec<HostRow> = rows;
            let all = rows.len();
            let hosts: Vec<_> = rows.into_iter().filter_map(known).collect();
            malformed += all - hosts.len();
            count += hosts.len() as u64;
            take(hosts);
            // A piece takes milliseconds; others get their turn in between.
            tokio::task::yield_now().await;
        }
        if malformed > 0 {
            warn!(malformed, "hosts of the directory can't be read: they must announce themselves");
        }
        count
    };
    let (read, count) = tokio::join!(directory.load_hosts(now, into), taking);
    read.map(|_| count)
}

fn known(row: HostRow) -> Option<KnownHost> {
    let signed: Signed<Capability> = decode(&row.capability).ok()?;
    let capability = signed.read_unverified().ok()?;
    let seal = Seal::of(&signed, &capability);
    (capability.addr.node == row.node && capability.containers.len() <= Capability::CONTAINERS_MAX)
        .then_some(KnownHost { operator: row.operator, capability, seal, sessions: row.sessions })
}
