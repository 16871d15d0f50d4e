//! Answers who can run what: finds under the fleet's lock, signs outside of it.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use welkin_match::latency::default_rtt;
use welkin_match::{Candidate, Query};
use welkin_proto::index::{
    CANDIDATES_MAX, Candidates, EXCLUDED_MAX, GANG_MAX, GangAsk, Hold, IndexReply, IndexerToHost,
    MatchRequest, RECEIPT_BYTES_MAX, ROUND_TRIPS_MAX, WhyNot,
};
use welkin_proto::{CodecError, Offer, Signed, encode};
use welkin_types::{AccountId, NodeId, OfferId, Policy, Region, UnixMillis};

use super::{Indexer, OFFER_LASTING};
use crate::outside;

/// The longest list of regions, operators or features in a request or wish.
pub(super) const LISTED_MAX: usize = 64;
/// So many regions are told apart by their distance.
const REGIONS_MAX: usize = 256;
/// An explanation is followed by a pause of so many times its length, so that requests that nothing
/// fits take a bounded share of the lock.
const PAUSE_FACTOR: u32 = 4;

/// What an indexer is asked for, in 32 bytes: what its receipt names.
pub fn query_digest(request: &MatchRequest) -> [u8; 32] {
    let MatchRequest { needs, count, exclude, round_trips_us, from, .. } = request;
    let asked = (needs, count, exclude, round_trips_us, from);
    let bytes = match &request.gang {
        Some(gang) => encode(&(asked, gang)),
        None => encode(&asked),
    };
    // What was decoded from a frame fits into one.
    Sha256::digest(bytes.unwrap_or_default()).into()
}

/// Answers a request of an account that was checked.
pub(super) async fn answer(
    indexer: &Indexer,
    buyer: AccountId,
    request: &MatchRequest,
) -> IndexReply {
    if let Some(why) = out_of_bounds(request) {
        return IndexReply::Refused(why.to_owned());
    }
    // Those who wait come first.
    super::queue::serve(indexer);
    let now = outside::now();
    let round_trips_us = round_trips(indexer, request);
    let query = Query {
        needs: &request.needs,
        exclude: &request.exclude,
        buyer,
        count: request.count.clamp(1, CANDIDATES_MAX),
        tie: u64::from_le_bytes(outside::random()),
        round_trips_us: &round_trips_us,
    };
    let Some(found) = find(indexer, now, &query, request) else {
        let why = why_not(indexer, now, &query, request.gang.as_ref()).await;
        return IndexReply::WhyNot(why);
    };
    found.held.iter().for_each(|(host, hold)| push(indexer, *host, *hold));
    sign(indexer, now, buyer, found)
}

fn out_of_bounds(request: &MatchRequest) -> Option<&'static str> {
    let needs = &request.needs;
    let lists = [
        (request.exclude.len() > EXCLUDED_MAX, "too many excluded hosts: leave the oldest out"),
        (needs.regions.len() > LISTED_MAX, "too many regions: name at most 64"),
        (needs.operators_allow.len() > LISTED_MAX, "too many allowed operators: name at most 64"),
        (needs.operators_deny.len() > LISTED_MAX, "too many denied operators: name at most 64"),
        (needs.features.len() > LISTED_MAX, "a feature is named more than once"),
        (request.round_trips_us.len() > ROUND_TRIPS_MAX, "too many round trips: name at most 128"),
    ];
    let gang = request.gang.is_some_and(|gang| !(1..=GANG_MAX).contains(&gang.members));
    let gang = (gang, "a gang has from 1 to 64 members");
    lists.into_iter().chain([gang]).find(|(is_too_much, _)| *is_too_much).map(|(_, why)| why)
}

struct Found {
    offers: Vec<Offer>,
    held: Vec<(NodeId, Hold)>,
    /// The encoded receipt of the choice, where one was wanted and there is one.
    receipt: Option<Vec<u8>>,
}

fn find(
    indexer: &Indexer,
    now: UnixMillis,
    query: &Query<'_>,
    request: &MatchRequest,
) -> Option<Found> {
    let expires = now.after(OFFER_LASTING);
    let digest = request.receipt.then(|| query_digest(request));
    let mut fleet = indexer.fleet();
    let (candidates, receipt) = match &request.gang {
        Some(gang) => {
            let found = fleet.find_gang_shown(now, query, (gang, digest), &default_rtt)?;
            (found.0, found.1.and_then(|receipt| encode(&receipt).ok()))
        }
        None => {
            let (found, receipt) = fleet.candidates(now, query, digest)?;
            (found, receipt.and_then(|receipt| encode(&receipt).ok()))
        }
    };
    let offer_of =
        |candidate: &Candidate| candidate.offer(OfferId::from_bytes(outside::random()), expires);
    let offers: Vec<Offer> = candidates.iter().map(offer_of).collect();
    let hold_of = |offer: &Offer| {
        let hold =
            Hold { offer: offer.id, container: offer.container, buyer: query.buyer, expires };
        (offer.addr.node, hold)
    };
    let wanted = if request.gang.is_some() { offers.len() } else { 1 };
    let wanted = if request.hold { wanted } else { 0 };
    let held: Vec<_> = offers.iter().take(wanted).map(hold_of).collect();
    let is_held = fleet.hold_all(now, &held).is_ok();
    drop(fleet);
    // A gang whose slots can't all be kept is no gang.
    if !is_held && request.gang.is_some() {
        return None;
    }
    let held = if is_held { held } else { Vec::new() };
    Some(Found { offers, held, receipt })
}

/// Round trips as the buyer measured them, and others as the table has them from where it is.
fn round_trips(indexer: &Indexer, request: &MatchRequest) -> Vec<(Region, u32)> {
    let mut known = request.round_trips_us.clone();
    let is_wanted = request.needs.rtt_us_max.is_some() || request.needs.policy != Policy::Cheapest;
    let Some(from) = request.from.as_ref().filter(|_| is_wanted) else { return known };
    let regions: Vec<_> = indexer.fleet().regions().take(REGIONS_MAX).cloned().collect();
    for region in regions {
        if !known.iter().any(|(measured, _)| *measured == region) {
            known.extend(default_rtt(from, &region).map(|us| (region, us)));
        }
    }
    known
}

pub(super) async fn why_not(
    indexer: &Indexer,
    now: UnixMillis,
    query: &Query<'_>,
    gang: Option<&GangAsk>,
) -> WhyNot {
    let permit = indexer.explaining.acquire().await;
    let begun = Instant::now();
    let why = match gang {
        Some(gang) => indexer.fleet().why_not_gang(now, query, gang),
        None => indexer.fleet().why_not(now, query),
    };
    let pause = begun.elapsed() * PAUSE_FACTOR;
    tokio::time::sleep(pause).await;
    drop(permit);
    why
}

/// A hold is a courtesy: a host whose queue is full decides without it.
fn push(indexer: &Indexer, host: NodeId, hold: Hold) {
    if let Some((_, push)) = indexer.hosts().get(&host) {
        let _ = push.try_send(IndexerToHost::Hold(hold));
    }
}

fn sign(indexer: &Indexer, now: UnixMillis, buyer: AccountId, found: Found) -> IndexReply {
    let Found { offers, receipt, .. } = found;
    match signed(indexer, Candidates { at: now, buyer, offers, receipt }) {
        Ok(signed) => IndexReply::Candidates(signed),
        Err(error) => IndexReply::Refused(error.to_string()),
    }
}

/// Signs what was found, in this indexer's name.
pub(super) fn signed(
    indexer: &Indexer,
    mut found: Candidates,
) -> Result<Box<Signed<Candidates>>, CodecError> {
    found.receipt = found.receipt.filter(|receipt| receipt.len() <= RECEIPT_BYTES_MAX);
    found.offers.iter_mut().for_each(|offer| offer.matched = indexer.matched);
    Signed::sign(&indexer.domain, &indexer.key, &found).map(Box::new)
}
