//! Asks two indexers the same at the same time, and a host where they differ: the host knows.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};
use welkin_match::trust::{Finding, LOOKED_AT_MAX, Seen, compare, expected_own};
use welkin_proto::check::{Probe, ProbeReply};
use welkin_proto::gossip::{Evidence, HOMES_MIN, Home, day_of, homes};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, Listing, MatchRequest};
use welkin_proto::{ALPN_CHECK, NodeAddr, Signed};
use welkin_types::task::Needs;
use welkin_types::{AccountId, ContainerId, NodeId, Region};

use super::{Indexers, locked};
use crate::connect::Caller;
use crate::outside;

/// How long an indexer may take to list what fits.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a host may take to say what it has.
const HOST_TIMEOUT: Duration = Duration::from_secs(3);
/// Offers that are looked at for whose they are.
const OFFERS_LOOKED_AT: u8 = 8;
/// Indexers that are told what was met with.
const TOLD_MAX: usize = 3;

/// An indexer with its card's facts.
struct One {
    addr: NodeAddr,
    operator: AccountId,
    region: Region,
}

/// What a host says of a container.
enum Said {
    Free,
    Busy,
    NoSuch,
}

impl Indexers {
    /// Compares two indexers of one region, one drawn by weight and one of the others; counts what
    /// comes out, and tells the region's indexers. Says whether there were two.
    pub(in crate::buyer) async fn compare(&self, needs: &Needs) -> bool {
        let Some((one, other)) = self.two(needs) else { return false };
        let (mine, theirs) = tokio::join!(self.rows(&one, needs), self.rows(&other, needs));
        let (Some(mine), Some(theirs)) = (mine, theirs) else { return true };
        let seen = |of: &One, rows| Seen { indexer: of.addr.node, operator: of.operator, rows };
        let must_know = |host: NodeId, indexer: NodeId| {
            homes(host, &self.homes_of(&one.region), HOMES_MIN).contains(&indexer)
        };
        let comparison = compare(seen(&one, &mine), seen(&other, &theirs), must_know);
        for (indexer, shown) in comparison.shown {
            if shown > 0 {
                locked(&self.state).note(indexer, Finding::Shown(shown));
            }
        }
        for doubt in comparison.doubts {
            match self.ask_host(&doubt.host, doubt.container).await {
                Some(Said::Free) => {
                    info!(indexer = %doubt.missed_by, host = %doubt.host.node, "it hides a container");
                    // Those that it was asked about and shows were counted one by one, too.
                    locked(&self.state).note(doubt.missed_by, Finding::Hidden);
                }
                // Taken since, in all likelihood.
                Some(Said::Busy) => (),
                Some(Said::NoSuch) => locked(&self.state).note(doubt.shown_by, Finding::Wrong),
                None => locked(&self.state).note(doubt.shown_by, Finding::Dead),
            }
        }
        self.look_for_favour(&one, needs, &mine, &theirs).await;
        self.save();
        true
    }

    /// Two indexers of the first region that has two.
    fn two(&self, needs: &Needs) -> Option<(One, One)> {
        let group = self.order(&needs.regions).into_iter().find(|group| group.len() >= 2)?;
        let skip = usize::from(u16::from_le_bytes(outside::random())) % (group.len() - 1);
        let state = locked(&self.state);
        let one = |addr: &NodeAddr| {
            let carded = state.cards.get(&addr.node)?;
            let (operator, region) = (carded.operator, carded.card.region.clone());
            Some(One { addr: addr.clone(), operator, region })
        };
        Some((one(group.first()?)?, one(group.get(1 + skip)?)?))
    }

    /// The indexers among which the hosts of a region choose.
    fn homes_of(&self, region: &Region) -> Vec<Home> {
        let state = locked(&self.state);
        let of_it = state.cards.iter().filter(|(_, carded)| carded.card.region == *region);
        of_it.map(|(node, carded)| Home { node: *node, operator: carded.operator }).collect()
    }

    /// What an indexer shows of its own region.
    async fn rows(&self, of: &One, needs: &Needs) -> Option<Vec<Listing>> {
        let request = IndexRequest::Offers { needs: Some(Box::new(needs.clone())) };
        let hello = IndexHello::Ask(Box::new(request));
        match self.caller(&of.addr).ask(&hello, LIST_TIMEOUT).await {
            Ok(IndexReply::Listing(mut rows)) => {
                rows.retain(|row| row.region == of.region);
                Some(rows)
            }
            Ok(_) => None,
            Err(error) => {
                debug!(indexer = %of.addr.node, error = %crate::chain(&error), "no list");
                None
            }
        }
    }

    async fn ask_host(&self, host: &NodeAddr, container: ContainerId) -> Option<Said> {
        let nonce = outside::random();
        let probe = Probe { nonce, minute: welkin_check::minute_of(outside::now()) };
        let caller = Caller::new(self.endpoint.clone(), host.clone(), ALPN_CHECK);
        let reply: Signed<ProbeReply> = caller.ask(&probe, HOST_TIMEOUT).await.ok()?;
        let reply = reply.open_by(&self.domain, host.node).ok()?;
        if reply.nonce != nonce {
            return None;
        }
        let free = reply.free.iter().find(|(id, _)| *id == container).map(|(_, free)| *free);
        Some(free.map_or(Said::NoSuch, |free| if free > 0 { Said::Free } else { Said::Busy }))
    }

    /// Whether an indexer offers more of its own operator's containers than there are.
    async fn look_for_favour(&self, of: &One, needs: &Needs, mine: &[Listing], theirs: &[Listing]) {
        let request = MatchRequest {
            buyer: self.delegation.clone(),
            needs: needs.clone(),
            count: OFFERS_LOOKED_AT,
            hold: false,
            exclude: Vec::new(),
            from: self.here(),
            round_trips_us: Vec::new(),
            gang: None,
            receipt: false,
        };
        let hello = IndexHello::Ask(Box::new(IndexRequest::Match(Box::new(request))));
        let asked = self.caller(&of.addr).ask(&hello, LIST_TIMEOUT).await;
        let Ok(IndexReply::Candidates(found)) = asked else { return };
        let Ok(mut found) = found.open_by(&self.domain, of.addr.node) else { return };
        found.offers.truncate(LOOKED_AT_MAX);
        let offers = found.offers;
        let Some(dearest) = offers.iter().map(|offer| offer.price).max() else { return };
        let key = |row: &Listing| (row.addr.node, row.container.id);
        let known: std::collections::BTreeSet<_> = mine.iter().map(key).collect();
        let more = theirs.iter().filter(|row| !known.contains(&key(row)));
        let rows: Vec<_> = mine.iter().chain(more).cloned().collect();
        let expected = expected_own(&rows, of.operator, dearest);
        for offer in offers {
            let is_own = offer.operator == of.operator;
            let finding = Finding::Compared { is_own, expected };
            locked(&self.state).note(of.addr.node, finding);
        }
    }

    /// Tells some indexers what this account has met with today.
    pub(in crate::buyer) async fn publish(&self) {
        let now = outside::now();
        let day = day_of(now);
        let about = locked(&self.state).ledger.about(now);
        if about.is_empty() {
            return;
        }
        let evidence = Evidence { reporter: self.delegation.clone(), day, issued: now, about };
        let Ok(signed) = Signed::sign(&self.domain, &self.key, &evidence) else { return };
        let hello = IndexHello::Ask(Box::new(IndexRequest::Evidence(Box::new(signed))));
        for addr in self.order(&[]).into_iter().flatten().take(TOLD_MAX) {
            match self.caller(&addr).ask(&hello, LIST_TIMEOUT).await {
                Ok(IndexReply::Reported) => (),
                Ok(_) => debug!(indexer = %addr.node, "evidence is refused"),
                Err(error) => debug!(error = %crate::chain(&error), "evidence is not delivered"),
            }
        }
    }
}

/// Runs a comparison aside, at times: what buyers see is what keeps indexers honest.
pub(in crate::buyer) async fn compare_aside(indexers: Arc<Indexers>, needs: Needs) {
    if indexers.look().await && indexers.compare(&needs).await {
        indexers.publish().await;
    }
}
