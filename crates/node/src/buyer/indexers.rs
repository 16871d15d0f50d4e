//! Which indexer a buyer asks: near ones first, by what it has met with at them.
//!
//! The network's file names a few; they show the cards of the others. What is known is kept in the
//! account's folder, so that the next command begins with it: cards, round trips, and what became
//! of the offers of each. A silent indexer costs [`HEDGE`], not a time-out: another one is asked
//! beside it.

mod compare;
mod known;
mod receipts;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::debug;
use welkin_match::latency::Estimate;
use welkin_match::trust::{Finding, Ledger};
use welkin_net::Endpoint;
use welkin_proto::gossip::{IndexerCard, Reported, Summary};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, Delegation, Domain, NodeAddr, NodeKey, Signed, SignedByAccount};
use welkin_types::{AccountId, NodeId, OfferId, Region};

use super::{BuyerError, Home};
use crate::connect::{CallError, Caller};
use crate::outside;

pub(super) use compare::compare_aside;
pub use known::KnownIndexer;
pub(super) use known::add;
pub(super) use receipts::Answer;

/// How long an indexer may take to answer.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without an answer another indexer is asked, too.
const HEDGE: Duration = Duration::from_millis(400);
/// How long the indexers may take to name the others.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the others are waited for when one has done so.
const LOOK_GRACE: Duration = Duration::from_millis(100);
/// What is known of indexers is asked for again after this.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Indexers are told so often what was met with.
const PUBLISH_EVERY: Duration = Duration::from_secs(60);
/// Indexers that are asked for the others at a time.
const LOOKED_AT_MAX: usize = 3;
/// Regions that one question goes through.
pub(super) const REGIONS_ASKED_MAX: usize = 4;
/// Offers of which it is remembered who made them.
const OFFERS_MAX: usize = 256;
/// The most cards that are kept.
const CARDS_MAX: usize = welkin_match::regions::INDEXERS_MAX;

/// What is kept of indexers from one command to the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KeptIndexers {
    cards: Vec<Signed<IndexerCard>>,
    ledger: Ledger,
    round_trips: Vec<(Region, Estimate)>,
}

/// An indexer's card, checked.
#[derive(Clone, Debug)]
struct Carded {
    signed: Signed<IndexerCard>,
    card: IndexerCard,
    operator: AccountId,
}

#[derive(Debug, Default)]
struct State {
    cards: BTreeMap<NodeId, Carded>,
    summaries: BTreeMap<NodeId, Summary>,
    /// What an indexer says is reported of others.
    reported: BTreeMap<NodeId, Vec<Reported>>,
    /// What this account has met with, of earlier commands too.
    ledger: Ledger,
    /// Of that, what is not written down yet.
    unsaved: Ledger,
    round_trips: BTreeMap<Region, Estimate>,
    looked_at: Option<tokio::time::Instant>,
    published_at: Option<tokio::time::Instant>,
    offers: VecDeque<(OfferId, NodeId)>,
}

/// All that one buyer knows of indexers.
pub(super) struct Indexers {
    endpoint: Endpoint,
    domain: Domain,
    key: NodeKey,
    delegation: SignedByAccount<Delegation>,
    seeds: Vec<NodeAddr>,
    home: Home,
    here: Mutex<Option<Region>>,
    callers: Mutex<BTreeMap<NodeId, Arc<Caller>>>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Indexers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Indexers({} named)", self.seeds.len())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Indexers {
    /// Begins with the network's indexers and what is kept in the account's folder.
    pub(super) fn new(
        endpoint: Endpoint,
        domain: Domain,
        key: NodeKey,
        delegation: SignedByAccount<Delegation>,
        seeds: Vec<NodeAddr>,
        home: Home,
    ) -> Self {
        let kept = home.indexers().unwrap_or_else(|error| {
            debug!(error = %crate::chain(&error), "what was known of indexers can't be read");
            None
        });
        let indexers = Self {
            endpoint,
            domain,
            key,
            delegation,
            seeds,
            home,
            here: Mutex::default(),
            callers: Mutex::default(),
            state: Mutex::default(),
        };
        if let Some(kept) = kept {
            indexers.take_cards(&kept.cards);
            let mut state = locked(&indexers.state);
            state.ledger = kept.ledger;
            state.round_trips = kept.round_trips.into_iter().take(CARDS_MAX).collect();
        }
        indexers
    }

    /// Says where this buyer stands.
    pub(super) fn stand_in(&self, region: Option<Region>) {
        *locked(&self.here) = region;
    }

    /// Where this buyer stands, if it was said.
    pub(super) fn here(&self) -> Option<Region> {
        locked(&self.here).clone()
    }

    /// Whether statements of this node count: it is named by the network, or shows a card.
    pub(super) fn is_indexer(&self, node: NodeId) -> bool {
        self.seeds.iter().any(|seed| seed.node == node)
            || locked(&self.state).cards.contains_key(&node)
    }

    /// Counts what became of an offer.
    pub(super) fn found(&self, offer: OfferId, finding: Finding) {
        let mut state = locked(&self.state);
        let by = state.offers.iter().find(|(id, _)| *id == offer).map(|(_, by)| *by);
        if let Some(by) = by {
            state.note(by, finding);
        }
    }

    /// Whether indexers should be told what was met with; not more often than once a minute.
    pub(super) fn is_time_to_publish(&self) -> bool {
        let mut state = locked(&self.state);
        let is_time = state.published_at.is_none_or(|at| at.elapsed() >= PUBLISH_EVERY);
        if is_time {
            state.published_at = Some(tokio::time::Instant::now());
        }
        is_time
    }

    /// Remembers who made an offer.
    pub(super) fn offered(&self, offer: OfferId, by: NodeId) {
        let mut state = locked(&self.state);
        while state.offers.len() >= OFFERS_MAX {
            state.offers.pop_front();
        }
        state.offers.push_back((offer, by));
    }

    /// Asks the first of these; the next one, too, where that one is silent or gone. Returns who
    /// answered.
    pub(super) async fn ask(
        &self,
        order: Vec<NodeAddr>,
        request: IndexRequest,
    ) -> Result<(NodeId, IndexReply), BuyerError> {
        let hello = Arc::new(IndexHello::Ask(Box::new(request)));
        let mut rest = order.into_iter();
        let mut asking: JoinSet<(NodeId, Result<IndexReply, CallError>)> = JoinSet::new();
        let mut last = None;
        let start = |asking: &mut JoinSet<_>, addr: NodeAddr| {
            let (caller, hello) = (self.caller(&addr), Arc::clone(&hello));
            asking.spawn(async move { (addr.node, caller.ask(&*hello, ASK_TIMEOUT).await) });
        };
        if let Some(first) = rest.next() {
            start(&mut asking, first);
        }
        let mut next = rest.next();
        loop {
            let answered = tokio::select! {
                answered = asking.join_next() => answered,
                () = tokio::time::sleep(HEDGE), if next.is_some() => {
                    debug!("an indexer is slow: another one is asked, too");
                    next.take().into_iter().for_each(|addr| start(&mut asking, addr));
                    next = rest.next();
                    continue;
                }
            };
            match answered {
                Some(Ok((node, Ok(reply)))) => {
                    self.measure(node);
                    return Ok((node, reply));
                }
                Some(Ok((node, Err(error)))) => {
                    debug!(indexer = %node, error = %crate::chain(&error), "no answer");
                    last = Some(error);
                }
                Some(Err(_)) => (),
                None => return Err(last.map_or(BuyerError::NoIndexerNamed, BuyerError::NoIndexer)),
            }
            // One that is gone is replaced at once.
            next.take().into_iter().for_each(|addr| start(&mut asking, addr));
            next = rest.next();
        }
    }

    fn caller(&self, addr: &NodeAddr) -> Arc<Caller> {
        let mut callers = locked(&self.callers);
        if let Some(caller) = callers.get(&addr.node).filter(|caller| caller.addr() == addr) {
            return Arc::clone(caller);
        }
        if callers.len() >= CARDS_MAX {
            callers.pop_first();
        }
        let caller = Caller::new(self.endpoint.clone(), addr.clone(), ALPN_INDEX);
        let caller = Arc::new(caller);
        callers.insert(addr.node, Arc::clone(&caller));
        caller
    }

    /// Those to ask, in the order of [`Self::order`].
    pub(super) fn callers(&self, wanted: &[Region]) -> Vec<Arc<Caller>> {
        self.order(wanted).iter().flatten().map(|addr| self.caller(addr)).collect()
    }

    /// Learns the round trip to an indexer's region from the connection to it.
    fn measure(&self, node: NodeId) {
        let Some(caller) = locked(&self.callers).get(&node).cloned() else { return };
        let Some(rtt) = caller.round_trip() else { return };
        let mut state = locked(&self.state);
        let Some(region) = state.cards.get(&node).map(|carded| carded.card.region.clone()) else {
            return;
        };
        let (now, rtt_us) = (outside::now(), u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
        let first = || Estimate::first(now, rtt_us);
        let known = state.round_trips.contains_key(&region);
        let estimate = state.round_trips.entry(region).or_insert_with(first);
        if known {
            estimate.learn(now, rtt_us);
        }
    }

    /// Asks some indexers for all of them, unless that was done a moment ago. Says whether anything
    /// is known now.
    pub(super) async fn look(&self) -> bool {
        let is_fresh = |at: tokio::time::Instant| at.elapsed() < LOOK_EVERY;
        if locked(&self.state).looked_at.is_some_and(is_fresh) {
            return true;
        }
        let mut asking = JoinSet::new();
        for addr in self.order(&[]).into_iter().flatten().take(LOOKED_AT_MAX) {
            let caller = self.caller(&addr);
            asking.spawn(async move {
                let hello = IndexHello::Ask(Box::new(IndexRequest::Indexers));
                (addr.node, caller.ask::<_, IndexReply>(&hello, LOOK_TIMEOUT).await)
            });
        }
        let (mut any, mut patience) = (false, LOOK_TIMEOUT);
        while let Ok(Some(answer)) = tokio::time::timeout(patience, asking.join_next()).await {
            let Ok((from, Ok(IndexReply::Indexers(directory)))) = answer else { continue };
            // One answer suffices to go on; those that come at once are heard, too.
            (any, patience) = (true, LOOK_GRACE);
            self.take_cards(&directory.cards);
            let now = outside::now();
            let mut state = locked(&self.state);
            for signed in directory.summaries.iter().take(CARDS_MAX) {
                let of = state.cards.get(&signed.signer()).map(|carded| carded.card.region.clone());
                let Ok(summary) = signed.open(&self.domain) else { continue };
                if of.as_ref() == Some(&summary.region) && summary.check(now).is_ok() {
                    state.summaries.insert(signed.signer(), summary);
                }
            }
            let possible = directory.reported.into_iter().filter(|said| said.tally.is_possible());
            state.reported.insert(from, possible.take(CARDS_MAX).collect());
            while state.reported.len() > LOOKED_AT_MAX {
                state.reported.pop_first();
            }
            drop(state);
            self.measure(from);
        }
        if any {
            locked(&self.state).looked_at = Some(tokio::time::Instant::now());
        }
        any
    }

    fn take_cards(&self, cards: &[Signed<IndexerCard>]) {
        let now = outside::now();
        let mut state = locked(&self.state);
        state.cards.retain(|_, carded| carded.card.expires >= now);
        for signed in cards.iter().take(CARDS_MAX) {
            let Ok(card) = signed.open(&self.domain) else { continue };
            let Ok(operator) = card.check(&self.domain, signed.signer(), now) else { continue };
            let known = state.cards.get(&signed.signer());
            let is_news = known.is_none_or(|known| known.card.issued < card.issued);
            if is_news && (known.is_some() || state.cards.len() < CARDS_MAX) {
                let signed = signed.clone();
                state.cards.insert(signed.signer(), Carded { signed, card, operator });
            }
        }
    }

    /// Writes down what is known. Other commands of this account may have met with something, too.
    pub(super) fn save(&self) {
        let unsaved = std::mem::take(&mut locked(&self.state).unsaved);
        let mut kept = self.home.indexers().ok().flatten().unwrap_or_default();
        kept.ledger.add(&unsaved);
        {
            let mut state = locked(&self.state);
            state.ledger = kept.ledger.clone();
            kept.cards = state.cards.values().map(|carded| carded.signed.clone()).collect();
            kept.round_trips = state.round_trips.clone().into_iter().collect();
        }
        if let Err(error) = self.home.save_indexers(&kept) {
            debug!(error = %crate::chain(&error), "what is known of indexers is not kept");
        }
    }
}

impl State {
    fn note(&mut self, indexer: NodeId, finding: Finding) {
        let now = outside::now();
        self.ledger.note(now, indexer, finding);
        self.unsaved.note(now, indexer, finding);
    }
}
