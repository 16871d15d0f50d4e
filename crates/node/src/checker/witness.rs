//! What a checker knows of indexers: whether the containers that they list are there, and whether
//! they list those that are.
//!
//! Once a minute two indexers of a region are asked for their lists. Where they differ the host
//! knows; and of each list a few free containers are looked for at their hosts. A host that is
//! silent, or does not have the container, is only remembered: it counts if a minute later the
//! indexer still lists it as free, the host still says the same, and another host has answered
//! meanwhile, so that neither a death that is news nor this checker's own network is held against an
//! indexer. What comes out is signed and told to indexers, as buyers' reports are.

use std::collections::{BTreeMap, btree_map::Entry};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};
use welkin_match::trust::{Finding, Ledger, Seen, compare};
use welkin_proto::check::{Probe, ProbeReply};
use welkin_proto::gossip::{Evidence, HOMES_MIN, Home, day_of, homes};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, Listing};
use welkin_proto::{ALPN_CHECK, ALPN_INDEX, NodeAddr, Signed};
use welkin_types::{AccountId, ContainerId, NodeId, Region};

use super::{ASK_TIMEOUT, Deps};
use crate::connect::Caller;
use crate::outside;

/// How long a host may take to say what it has.
const HOST_TIMEOUT: Duration = Duration::from_secs(3);
/// Containers of a list that are looked for at their hosts in one round.
const LOOKED_FOR: usize = 4;
/// What is remembered to be asked again; beyond it nothing new is.
const SUSPECTS_MAX: usize = 64;
/// Cards that are kept.
const CARDS_MAX: usize = welkin_match::regions::INDEXERS_MAX;
/// Indexers that are told.
const TOLD_MAX: usize = 3;
/// They are told after so many rounds.
const TOLD_EVERY: u32 = 5;

#[derive(Clone, Debug)]
struct Card {
    addr: NodeAddr,
    operator: AccountId,
    region: Region,
}

/// What a host says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Free,
    Busy,
    NoSuch,
    Nothing,
}

/// An indexer lists a container that was not there.
type Suspicion = (NodeId, NodeId, ContainerId);

pub(super) struct Witness {
    deps: Arc<Deps>,
    cards: BTreeMap<NodeId, Card>,
    ledger: Ledger,
    suspects: BTreeMap<Suspicion, (NodeAddr, Instant)>,
    /// When a host last answered.
    heard: Option<Instant>,
}

impl Witness {
    pub(super) fn new(deps: Arc<Deps>) -> Self {
        let (cards, ledger, suspects) = Default::default();
        Self { deps, cards, ledger, suspects, heard: None }
    }

    /// Looks at indexers for ever.
    pub(super) async fn run(mut self) {
        let mut rounds = 0_u32;
        loop {
            tokio::time::sleep(self.deps.look_every).await;
            self.learn().await;
            self.round().await;
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(TOLD_EVERY) {
                self.tell().await;
            }
        }
    }

    /// Learns which indexers there are.
    async fn learn(&mut self) {
        let now = outside::now();
        for addr in &self.deps.indexers {
            let reply = self.ask(addr, IndexRequest::Indexers).await;
            let Some(IndexReply::Indexers(directory)) = reply else { continue };
            for signed in directory.cards.iter().take(CARDS_MAX) {
                let Ok(card) = signed.open(&self.deps.domain) else { continue };
                let node = signed.signer();
                let Ok(operator) = card.check(&self.deps.domain, node, now) else { continue };
                if self.cards.len() < CARDS_MAX || self.cards.contains_key(&node) {
                    let (addr, region) = (card.addr, card.region);
                    self.cards.insert(node, Card { addr, operator, region });
                }
            }
        }
    }

    async fn round(&mut self) {
        let Some((one, other)) = self.two() else { return };
        let second = async {
            match &other {
                Some(other) => self.rows(other).await,
                None => None,
            }
        };
        let (mine, theirs) = tokio::join!(self.rows(&one), second);
        if let (Some(mine), Some(other), Some(theirs)) = (&mine, &other, &theirs) {
            self.compare((&one, mine), (other, theirs)).await;
        }
        for (card, rows) in [(Some(&one), mine), (other.as_ref(), theirs)] {
            if let (Some(card), Some(rows)) = (card, rows) {
                self.look_for(card.addr.node, &rows).await;
            }
        }
        self.ask_again().await;
    }

    /// An indexer drawn at random, and another one of its region if there is one.
    fn two(&self) -> Option<(Card, Option<Card>)> {
        let draw = |count: usize| {
            let random = usize::from(u16::from_le_bytes(outside::random()));
            random.checked_rem(count)
        };
        let one = self.cards.values().nth(draw(self.cards.len())?)?;
        let others = || {
            let of_it = self.cards.values().filter(|card| card.region == one.region);
            of_it.filter(|card| card.addr.node != one.addr.node)
        };
        let other = draw(others().count()).and_then(|place| others().nth(place));
        Some((one.clone(), other.cloned()))
    }

    async fn compare(&mut self, one: (&Card, &[Listing]), other: (&Card, &[Listing])) {
        let of_region = self.cards.values().filter(|card| card.region == one.0.region);
        let among: Vec<_> =
            of_region.map(|card| Home { node: card.addr.node, operator: card.operator }).collect();
        let seen = |(card, rows): (&Card, _)| {
            let Card { addr, operator, .. } = card;
            Seen { indexer: addr.node, operator: *operator, rows }
        };
        let must_know =
            |host: NodeId, indexer: NodeId| homes(host, &among, HOMES_MIN).contains(&indexer);
        let comparison = compare(seen((one.0, one.1)), seen((other.0, other.1)), must_know);
        for (indexer, shown) in comparison.shown.into_iter().filter(|(_, shown)| *shown > 0) {
            self.note(indexer, Finding::Shown(shown));
        }
        for doubt in comparison.doubts {
            match self.ask_host(&doubt.host, doubt.container).await {
                Said::Free => self.note(doubt.missed_by, Finding::Hidden),
                // Taken since, in all likelihood.
                Said::Busy => (),
                Said::NoSuch | Said::Nothing => {
                    self.suspect((doubt.shown_by, doubt.host.node, doubt.container), doubt.host);
                }
            }
        }
    }

    /// Looks for some containers that an indexer says are free.
    async fn look_for(&mut self, indexer: NodeId, rows: &[Listing]) {
        let free: Vec<_> = rows.iter().filter(|row| is_offered(row)).collect();
        for _ in 0..LOOKED_FOR.min(free.len()) {
            let place = usize::from(u16::from_le_bytes(outside::random())) % free.len();
            let row = free[place];
            match self.ask_host(&row.addr, row.container.id).await {
                Said::Free => self.note(indexer, Finding::Good),
                Said::Busy => self.note(indexer, Finding::Stale),
                Said::NoSuch | Said::Nothing => {
                    let about = (indexer, row.addr.node, row.container.id);
                    self.suspect(about, row.addr.clone());
                }
            }
        }
    }

    fn suspect(&mut self, about: Suspicion, host: NodeAddr) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.entry(about).or_insert_with(|| (host, Instant::now()));
        }
    }

    /// Asks once more for what was not there a round ago or longer.
    async fn ask_again(&mut self) {
        let is_due = |since: Instant| since.elapsed() >= self.deps.look_every;
        let due = self.suspects.iter().filter(|(_, (_, since))| is_due(*since));
        let due: Vec<_> =
            due.map(|(about, (host, since))| (*about, host.clone(), *since)).collect();
        let mut lists: BTreeMap<NodeId, Option<Vec<Listing>>> = BTreeMap::new();
        for (about, host, since) in due {
            self.suspects.remove(&about);
            let (indexer, node, container) = about;
            let Some(card) = self.cards.get(&indexer).cloned() else { continue };
            let rows = match lists.entry(indexer) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.rows(&card).await),
            };
            let is_it = |row: &Listing| row.addr.node == node && row.container.id == container;
            let is_listed = rows.iter().flatten().any(|row| is_it(row) && is_offered(row));
            if !is_listed {
                continue;
            }
            let said = self.ask_host(&host, container).await;
            let others_answer = self.heard.is_some_and(|heard| heard > since);
            let finding = match said {
                Said::NoSuch => Finding::Wrong,
                Said::Nothing if others_answer => Finding::Dead,
                Said::Free | Said::Busy | Said::Nothing => continue,
            };
            info!(%indexer, host = %node, ?finding, "it goes on listing what is not there");
            self.note(indexer, finding);
        }
    }

    fn note(&mut self, indexer: NodeId, finding: Finding) {
        self.ledger.note(outside::now(), indexer, finding);
    }

    async fn ask_host(&mut self, host: &NodeAddr, container: ContainerId) -> Said {
        let nonce = outside::random();
        let probe = Probe { nonce, minute: welkin_check::minute_of(outside::now()) };
        let caller = Caller::new(self.deps.endpoint.clone(), host.clone(), ALPN_CHECK);
        let reply: Option<Signed<ProbeReply>> = caller.ask(&probe, HOST_TIMEOUT).await.ok();
        let reply = reply.and_then(|reply| reply.open_by(&self.deps.domain, host.node).ok());
        let Some(reply) = reply.filter(|reply| reply.nonce == nonce) else { return Said::Nothing };
        self.heard = Some(Instant::now());
        match reply.free.iter().find(|(id, _)| *id == container) {
            Some((_, 0)) => Said::Busy,
            Some(_) => Said::Free,
            None => Said::NoSuch,
        }
    }

    /// What an indexer shows of its own region.
    async fn rows(&self, of: &Card) -> Option<Vec<Listing>> {
        match self.ask(&of.addr, IndexRequest::Offers { needs: None }).await? {
            IndexReply::Listing(mut rows) => {
                rows.retain(|row| row.region == of.region);
                Some(rows)
            }
            _ => None,
        }
    }

    async fn ask(&self, addr: &NodeAddr, request: IndexRequest) -> Option<IndexReply> {
        let caller = Caller::new(self.deps.endpoint.clone(), addr.clone(), ALPN_INDEX);
        match caller.ask(&IndexHello::Ask(Box::new(request)), ASK_TIMEOUT).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                debug!(indexer = %addr.node, error = %crate::chain(&error), "no answer");
                None
            }
        }
    }

    /// Tells some indexers what this checker has met with today.
    async fn tell(&self) {
        let issued = outside::now();
        let about = self.ledger.about(issued);
        if about.is_empty() {
            return;
        }
        let (reporter, day) = (self.deps.delegation.clone(), day_of(issued));
        let evidence = Evidence { reporter, day, issued, about };
        let Ok(signed) = Signed::sign(&self.deps.domain, &self.deps.key, &evidence) else { return };
        for addr in self.deps.indexers.iter().take(TOLD_MAX) {
            match self.ask(addr, IndexRequest::Evidence(Box::new(signed.clone()))).await {
                Some(IndexReply::Reported) => (),
                _ => debug!(indexer = %addr.node, "evidence is not taken"),
            }
        }
    }
}

fn is_offered(row: &Listing) -> bool {
    row.free > 0 && row.is_confirmed
}
