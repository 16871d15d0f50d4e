//! The walk over all containers of each indexer's list, a page at a time.
//!
//! A small network is one page, asked again and again. A large one is walked in a fraction of an hour:
//! what was listed stays known for as long (`welkin_check`), and nobody asks for everything at once.
//! No indexer is asked for what is to be visited: it would know whom, and could tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;
use welkin_proto::container_ids;
use welkin_proto::index::{
    ContainersAsk, ContainersPage, IndexHello, IndexReply, IndexRequest, Listing,
};
use welkin_types::NodeId;

use super::{ASK_TIMEOUT, LISTING_EVERY};
use crate::connect::Caller;

/// How often a page is asked for until each list has been walked once.
const FIRST_EVERY: Duration = Duration::from_secs(1);
/// The most pages of a walk: a list that does not end is begun anew.
const PAGES_MAX: u32 = 4_096;
/// The most hosts that are asked about at once.
const HOSTS_AT_ONCE: usize = 64;

/// Where it is in one indexer's list.
#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    ask: ContainersAsk,
    pages: u32,
    /// Whether it has been at the end.
    is_known: bool,
}

impl Stand {
    /// Goes on behind a page.
    fn took(&mut self, page: &ContainersPage) {
        self.pages += 1;
        // Another list was begun at its beginning.
        let is_on = |next: &u32| page.list != self.ask.list || *next > self.ask.from;
        match page.next.filter(is_on).filter(|_| self.pages < PAGES_MAX) {
            Some(from) => self.ask = ContainersAsk { list: page.list, from },
            None => *self = Self { is_known: true, ..Self::default() },
        }
    }
}

/// What was told: by place of the indexer; none of a host that was asked about.
type Told = Vec<(usize, ContainersPage)>;

/// What is asked of indexers about containers.
#[derive(Debug)]
pub(super) struct Walk {
    indexers: Arc<Vec<Caller>>,
    stands: Vec<Stand>,
    pages: JoinSet<Told>,
    hosts: JoinSet<Vec<Listing>>,
    due: Instant,
}

impl Walk {
    pub(super) fn new(indexers: Arc<Vec<Caller>>) -> Self {
        let stands = vec![Stand::default(); indexers.len()];
        let (pages, hosts) = (JoinSet::new(), JoinSet::new());
        Self { indexers, stands, pages, hosts, due: Instant::now() }
    }

    /// Asks for the next pages, if it is time. They are asked at once and beside the probes: an indexer
    /// that is silent would make every answer of a host a late one.
    pub(super) fn go_on(&mut self) {
        if Instant::now() < self.due || !self.pages.is_empty() {
            return;
        }
        self.due = Instant::now() + LISTING_EVERY;
        let (indexers, stands) = (Arc::clone(&self.indexers), self.stands.clone());
        self.pages.spawn(async move {
            let asks = stands.into_iter().map(|stand| IndexRequest::Containers(stand.ask));
            let mut told = Vec::new();
            for (place, reply) in ask(&indexers, asks.collect()).await {
                match reply {
                    IndexReply::Containers(mut page) => {
                        page.rows = sound(page.rows);
                        told.push((place, *page));
                    }
                    _ => debug!("an indexer gave no list of containers"),
                }
            }
            told
        });
    }

    /// Asks about a host after a pause, in which what has begun there will have been told.
    pub(super) fn ask_about(&mut self, host: NodeId) {
        if self.hosts.len() >= HOSTS_AT_ONCE {
            return;
        }
        let indexers = Arc::clone(&self.indexers);
        self.hosts.spawn(async move {
            tokio::time::sleep(LISTING_EVERY).await;
            let asks = vec![IndexRequest::Host(host); indexers.len()];
            let mut rows = Vec::new();
            for (_, reply) in ask(&indexers, asks).await {
                if let IndexReply::Listing(listed) = reply {
                    rows.extend(sound(listed).into_iter().filter(|row| row.addr.node == host));
                }
            }
            rows
        });
    }

    /// The next rows of all indexers together, and whether they answer what was asked about one host;
    /// pending while nothing is asked.
    pub(super) async fn next(&mut self) -> (Vec<Listing>, bool) {
        tokio::select! {
            Some(Ok(told)) = self.pages.join_next() => (self.took(told), false),
            Some(Ok(rows)) = self.hosts.join_next() => (rows, true),
            else => std::future::pending().await,
        }
    }

    fn took(&mut self, told: Told) -> Vec<Listing> {
        let mut rows = Vec::new();
        for (place, page) in told {
            let Some(stand) = self.stands.get_mut(place) else { continue };
            stand.took(&page);
            if !stand.is_known {
                self.due = self.due.min(Instant::now() + FIRST_EVERY);
            }
            rows.extend(page.rows);
        }
        rows
    }
}

/// Rows that can be true: of a container that its host can have, with a few addresses. An indexer that
/// lists a container at another host would have a checker say two things of it.
fn sound(mut rows: Vec<Listing>) -> Vec<Listing> {
    let mut names = BTreeMap::new();
    rows.retain(|row| {
        let host = row.addr.node;
        let own = names.entry(host).or_insert_with(|| container_ids(host));
        row.addr.is_bounded() && own.contains(&row.container.id)
    });
    rows
}

/// Asks each indexer its question, all at once; what those said that answered.
async fn ask(indexers: &Arc<Vec<Caller>>, asks: Vec<IndexRequest>) -> Vec<(usize, IndexReply)> {
    let mut asked = JoinSet::new();
    for (place, request) in asks.into_iter().enumerate() {
        let indexers = Arc::clone(indexers);
        asked.spawn(async move {
            let hello = IndexHello::Ask(Box::new(request));
            match indexers.get(place)?.ask(&hello, ASK_TIMEOUT).await {
                Ok(reply) => return Some((place, reply)),
                Err(error) => debug!(error = %crate::chain(&error), "an indexer was not reached"),
            }
            None
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_on_begins_anew_and_ends() {
        let page = |list, next| ContainersPage { list, rows: Vec::new(), next };
        let mut stand = Stand::default();
        stand.took(&page(7, Some(30)));
        stand.took(&page(7, Some(60)));
        assert_eq!((stand.ask, stand.is_known), (ContainersAsk { list: 7, from: 60 }, false));
        // Another process: it has begun at 0 by itself.
        stand.took(&page(8, Some(20)));
        assert_eq!(stand.ask, ContainersAsk { list: 8, from: 20 });
        stand.took(&page(8, None));
        assert_eq!((stand.ask, stand.is_known), (ContainersAsk::default(), true));
        // One that sends in a circle, and one that never ends.
        stand.took(&page(8, Some(20)));
        stand.took(&page(8, Some(20)));
        assert_eq!(stand.ask, ContainersAsk::default());
        for next in 1..PAGES_MAX {
            stand.took(&page(8, Some(next)));
            assert_eq!(stand.ask.from, next);
        }
        stand.took(&page(8, Some(PAGES_MAX)));
        assert_eq!(stand.ask, ContainersAsk::default());
    }
}
