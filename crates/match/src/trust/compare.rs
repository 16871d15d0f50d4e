//! What two indexers show at the same time.
//!
//! Each gives its list of what fits. What one shows as free and the other does not, though the
//! host must have announced itself there, is a [`Doubt`]: one hides, or the other invents. Only the
//! host can tell, and is asked.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::NodeAddr;
use welkin_proto::index::{LISTED_MAX, Listing};
use welkin_types::evidence::Ppm;
use welkin_types::{AccountId, ContainerId, NodeId, Price};

/// The cheapest free containers of a list that are looked for in the other.
pub const LOOKED_AT_MAX: usize = 16;
/// Doubts of one comparison, of different hosts' operators: an operator may announce its hosts
/// where it likes, and must not make others look like liars by that.
const DOUBTS_MAX: usize = 2;

/// What an indexer shows.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The indexer.
    pub indexer: NodeId,
    /// Its operator.
    pub operator: AccountId,
    /// What fits.
    pub rows: &'a [Listing],
}

/// One shows a container as free that the other does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Who shows it.
    pub shown_by: NodeId,
    /// Who does not.
    pub missed_by: NodeId,
    /// The host, which knows.
    pub host: NodeAddr,
    /// The container.
    pub container: ContainerId,
    /// The price that is shown.
    pub price: Price,
}

/// What came out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How many of the other's containers each shows too.
    pub shown: Vec<(NodeId, u32)>,
    /// What the hosts must be asked.
    pub doubts: Vec<Doubt>,
}

/// Compares two lists. `must_know` says whether a host announces itself to an indexer.
pub fn compare(
    one: Seen<'_>,
    other: Seen<'_>,
    must_know: impl Fn(NodeId, NodeId) -> bool,
) -> Comparison {
    let mut comparison = Comparison::default();
    for (shows, misses) in [(one, other), (other, one)] {
        let free: BTreeSet<_> = free(misses.rows).map(key).collect();
        // A full list ends where it is full: what is dearer may well be known.
        let is_full = misses.rows.len() >= LISTED_MAX;
        let dearest = misses.rows.iter().map(|row| row.container.price).max().filter(|_| is_full);
        let mut cheapest: Vec<_> = self::free(shows.rows)
            .filter(|row| dearest.is_none_or(|dearest| row.container.price < dearest))
            .filter(|row| must_know(row.addr.node, misses.indexer))
            .collect();
        cheapest.sort_by_key(|row| (row.container.price, key(row)));
        cheapest.truncate(LOOKED_AT_MAX);
        let mut shown = 0;
        // By operator of the host; those who run the indexer that shows them prove nothing.
        let mut missed: BTreeMap<AccountId, &Listing> = BTreeMap::new();
        for row in cheapest {
            if free.contains(&key(row)) {
                shown += 1;
            } else if row.operator != shows.operator {
                missed.entry(row.operator).or_insert(row);
            }
        }
        comparison.shown.push((misses.indexer, shown));
        comparison.doubts.extend(missed.into_values().take(DOUBTS_MAX).map(|row| Doubt {
            shown_by: shows.indexer,
            missed_by: misses.indexer,
            host: row.addr.clone(),
            container: row.container.id,
            price: row.container.price,
        }));
    }
    comparison
}

/// The share of an operator's containers among the free ones that cost no more than `dearest`.
pub fn expected_own(rows: &[Listing], operator: AccountId, dearest: Price) -> Ppm {
    let fits = || free(rows).filter(|row| row.container.price <= dearest);
    let own = fits().filter(|row| row.operator == operator).count();
    let all = fits().count();
    Ppm::of(u64::try_from(own).unwrap_or(0), u64::try_from(all).unwrap_or(u64::MAX))
}

fn free(rows: &[Listing]) -> impl Iterator<Item = &Listing> {
    rows.iter().take(LISTED_MAX).filter(|row| row.free > 0)
}

const fn key(row: &Listing) -> (NodeId, ContainerId) {
    (row.addr.node, row.container.id)
}
