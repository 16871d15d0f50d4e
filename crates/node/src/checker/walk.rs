//! The walk over all containers of each indexer's list, a page at a time, each at a pace of its own.
//!
//! A small network is one page, asked again and again. A large one is walked in a fraction of an hour:
//! what was listed stays known for as long (`welkin_check`), and nobody asks for everything at once.
//! No indexer is asked for what is to be visited: it would know whom, and could tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};
use welkin_proto::index::{ContainersAsk, ContainersPage, IndexReply, IndexRequest, Listing};
use welkin_types::NodeId;

use super::LISTING_EVERY;
use super::lists::{Believed, Lists, put};
use crate::connect::Caller;

/// How often a page is asked for until a list has been walked once …
const FIRST_EVERY: Duration = Duration::from_secs(1);
/// … and for how many pages: more than all that a checker can know.
const FIRST_PAGES_MAX: u32 = 512;
/// The most pages of a walk: a list that does not end is begun anew.
const PAGES_MAX: u32 = 4_096;
/// The most hosts that are asked about at once.
const HOSTS_AT_ONCE: usize = 64;
/// How often it is said of an indexer that it makes things up.
const WARN_EVERY: Duration = Duration::from_secs(60);

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

    /// When the next page is asked for after one that came.
    const fn pause(&self) -> Duration {
        if self.is_known || self.pages >= FIRST_PAGES_MAX { LISTING_EVERY } else { FIRST_EVERY }
    }
}

/// One indexer's walk.
#[derive(Debug)]
struct Lane {
    stand: Stand,
    due: Instant,
    is_asked: bool,
    /// Words that it has made up and that were not told of yet, and when that may be done again.
    forged: u64,
    warn_at: Instant,
}

/// What an indexer told: its place, the page without its rows if one came, and what is believed.
type Told = (usize, Option<ContainersPage>, Believed);

/// What is asked of indexers about containers.
#[derive(Debug)]
pub(super) struct Walk {
    indexers: Arc<Vec<Caller>>,
    lists: Lists,
    lanes: Vec<Lane>,
    pages: JoinSet<Told>,
    /// What each indexer said of a host.
    hosts: JoinSet<Vec<Vec<Listing>>>,
}

impl Walk {
    pub(super) fn new(indexers: Arc<Vec<Caller>>, lists: Lists) -> Self {
        let now = Instant::now();
        let lane = |_| Lane {
            stand: Stand::default(),
            due: now,
            is_asked: false,
            forged: 0,
            warn_at: now,
        };
        let lanes = (0..indexers.len()).map(lane).collect();
        let (pages, hosts) = (JoinSet::new(), JoinSet::new());
        Self { indexers, lists, lanes, pages, hosts }
    }

    /// Asks those for the next page whose time it is, beside the probes and each by itself: one that is
    /// silent makes nobody else late.
    pub(super) fn go_on(&mut self) {
        let now = Instant::now();
        for (place, lane) in self.lanes.iter_mut().enumerate() {
            if lane.is_asked || now < lane.due {
                continue;
            }
            lane.is_asked = true;
            lane.due = now + LISTING_EVERY;
            let (indexers, lists, ask) =
                (Arc::clone(&self.indexers), self.lists.clone(), lane.stand.ask);
            self.pages.spawn(async move {
                let Some(indexer) = indexers.get(place) else {
                    return (place, None, Believed::default());
                };
                let Some(mut page) = page(indexer, ask).await else {
                    return (place, None, Believed::default());
                };
                let rows = std::mem::take(&mut page.rows);
                let believed = lists.believe(indexer, rows).await;
                (place, Some(page), believed)
            });
        }
    }

    /// Asks about a host after a pause, in which what has begun there will have been told.
    pub(super) fn ask_about(&mut self, host: NodeId) {
        if self.hosts.len() >= HOSTS_AT_ONCE {
            return;
        }
        let (indexers, lists) = (Arc::clone(&self.indexers), self.lists.clone());
        self.hosts.spawn(async move {
            tokio::time::sleep(LISTING_EVERY).await;
            let mut asked = JoinSet::new();
            for place in 0..indexers.len() {
                let (indexers, lists) = (Arc::clone(&indexers), lists.clone());
                asked.spawn(async move {
                    let Some(indexer) = indexers.get(place) else { return Vec::new() };
                    let rows = of_host(indexer, host).await;
                    lists.believe(indexer, rows).await.rows
                });
            }
            asked.join_all().await
        });
    }

    /// The next rows that are believed, and whether they answer what was asked about one host; pending
    /// while nothing is asked.
    pub(super) async fn next(&mut self) -> (Vec<Listing>, bool) {
        let (rows, is_answer) = tokio::select! {
            Some(Ok(told)) = self.pages.join_next() => (vec![self.took(told)], false),
            Some(Ok(rows)) = self.hosts.join_next() => (rows, true),
            else => std::future::pending().await,
        };
        let still = rows.into_iter().flat_map(|rows| self.lists.still(rows));
        (still.collect(), is_answer)
    }

    fn took(&mut self, (place, page, believed): Told) -> Vec<Listing> {
        let Some(lane) = self.lanes.get_mut(place) else { return Vec::new() };
        let now = Instant::now();
        lane.is_asked = false;
        if let Some(page) = page {
            lane.stand.took(&page);
            lane.due = now + lane.stand.pause();
        }
        lane.forged += believed.forged;
        if lane.forged > 0 && now >= lane.warn_at {
            let forged = std::mem::take(&mut lane.forged);
            lane.warn_at = now + WARN_EVERY;
            warn!(
                indexer = %self.indexers[place].addr().node, forged,
                "an indexer shows what hosts have not signed: none of it is believed"
            );
        }
        believed.rows
    }
}

/// A page of an indexer's list.
async fn page(indexer: &Caller, ask: ContainersAsk) -> Option<ContainersPage> {
    match put(indexer, IndexRequest::Containers(ask)).await? {
        IndexReply::Containers(page) => Some(*page),
        _ => {
            debug!(indexer = %indexer.addr().node, "an indexer gave no list of containers");
            None
        }
    }
}

/// What an indexer lists of one host.
async fn of_host(indexer: &Caller, host: NodeId) -> Vec<Listing> {
    match put(indexer, IndexRequest::Host(host)).await {
        Some(IndexReply::Listing(mut rows)) => {
            rows.retain(|row| row.addr.node == host);
            rows
        }
        _ => Vec::new(),
    }
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

    #[test]
    fn a_list_that_does_not_end_is_soon_walked_slowly() {
        let mut stand = Stand::default();
        for next in 1..FIRST_PAGES_MAX {
            stand.took(&ContainersPage { list: 1, rows: Vec::new(), next: Some(next) });
            assert_eq!(stand.pause(), FIRST_EVERY);
        }
        stand.took(&ContainersPage { list: 1, rows: Vec::new(), next: Some(FIRST_PAGES_MAX) });
        assert_eq!((stand.pause(), stand.is_known), (LISTING_EVERY, false));
    }
}
