//! The list of all containers, page by page: checkers are to know those that are dear, too. A row is the
//! indexer's word; what the host itself has signed of it is shown to who asks.

use tokio::sync::Semaphore;
use welkin_proto::encode;
use welkin_proto::index::{
    CONTAINERS_BYTES_MAX, ContainersAsk, ContainersPage, IndexReply, Listing, WORDS_HOSTS_MAX,
};
use welkin_types::NodeId;

use super::Indexer;
use crate::outside;

/// Pages that are made at once: others want the fleet, too.
const PAGES_AT_ONCE: usize = 2;
/// Numbers of hosts that are looked at without letting others at the fleet …
const AT_ONCE: u32 = 16;
/// Of so few hosts what they have signed is shown at once.
const FEW_HOSTS: usize = 16;
/// … and for one page: many may be vacant.
const LOOKED_AT_MAX: u32 = 1 << 17;

/// How the list is shown.
#[derive(Debug)]
pub(super) struct Containers {
    /// Whose numbers a page's are: another process numbers hosts anew.
    list: u64,
    turns: Semaphore,
}

impl Default for Containers {
    fn default() -> Self {
        let list = u64::from_le_bytes(outside::random());
        Self { list, turns: Semaphore::new(PAGES_AT_ONCE) }
    }
}

/// Shows a page.
pub(super) async fn page(indexer: &Indexer, ask: ContainersAsk) -> IndexReply {
    let Ok(_turn) = indexer.containers.turns.acquire().await else {
        return IndexReply::Refused("the indexer stops".to_owned());
    };
    let list = indexer.containers.list;
    let from = if ask.list == list { ask.from } else { 0 };
    let mut page = Page::default();
    let (mut next, last) = (Some(from), from.saturating_add(LOOKED_AT_MAX));
    while let Some(number) = next.filter(|number| !page.is_full && *number < last) {
        next = page.fill(indexer, number);
        tokio::task::yield_now().await;
    }
    IndexReply::Containers(Box::new(ContainersPage { list, rows: page.rows, next }))
}

/// Shows what hosts have signed, as much as fits.
pub(super) async fn words(indexer: &Indexer, hosts: Vec<NodeId>) -> IndexReply {
    if hosts.len() > WORDS_HOSTS_MAX {
        return IndexReply::Refused(format!(
            "what {} hosts have signed is asked at once, which may be of {WORDS_HOSTS_MAX}: ask \
             of fewer",
            hosts.len()
        ));
    }
    // Of a few it costs less than to wait, and who asks for them waits for a probe.
    let mut turn = None;
    if hosts.len() > FEW_HOSTS {
        let Ok(taken) = indexer.containers.turns.acquire().await else {
            return IndexReply::Refused("the indexer stops".to_owned());
        };
        turn = Some(taken);
    }
    let (mut words, mut bytes) = (Vec::new(), 0);
    for some in hosts.chunks(AT_ONCE as usize) {
        let now = outside::now();
        let signed: Vec<_> = {
            let fleet = indexer.fleet();
            some.iter().filter_map(|host| fleet.signed_of(now, *host)).collect()
        };
        for signed in signed {
            bytes += encode(&signed).map_or(CONTAINERS_BYTES_MAX, |encoded| encoded.len());
            if !words.is_empty() && bytes > CONTAINERS_BYTES_MAX {
                return IndexReply::Words(words);
            }
            words.push(signed);
        }
        tokio::task::yield_now().await;
    }
    drop(turn);
    IndexReply::Words(words)
}

#[derive(Debug, Default)]
struct Page {
    rows: Vec<Listing>,
    bytes: usize,
    is_full: bool,
}

impl Page {
    /// Adds the next few hosts, as far as there is room; returns where to go on.
    fn fill(&mut self, indexer: &Indexer, from: u32) -> Option<u32> {
        let now = outside::now();
        let fleet = indexer.fleet();
        let (to, end) = (from.saturating_add(AT_ONCE), fleet.hosts_end());
        for number in from..to.min(end) {
            let rows = fleet.listed_at(now, number);
            let lengths = rows.iter().filter_map(|row| encode(row).ok());
            let bytes: usize = lengths.map(|bytes| bytes.len()).sum();
            if !self.rows.is_empty() && self.bytes + bytes > CONTAINERS_BYTES_MAX {
                self.is_full = true;
                return Some(number);
            }
            self.bytes += bytes;
            self.rows.extend(rows);
        }
        (to < end).then_some(to)
    }
}
