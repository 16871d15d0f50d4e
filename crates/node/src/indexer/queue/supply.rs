//! What the fleet has for those who wait.

use welkin_match::latency::default_rtt;
use welkin_match::queue::{Supply, Wish};
use welkin_match::{Candidate, Fleet, Query};
use welkin_proto::index::{CANDIDATES_MAX, EXCLUDED_MAX, GangAsk, Hold, IndexerToHost, WhyNot};
use welkin_proto::{Offer, encode};
use welkin_types::task::Needs;
use welkin_types::{AccountId, NodeId, OfferId, Region, UnixMillis};

use super::super::{Indexer, OFFER_LASTING};
use super::digest_of;
use crate::outside;

/// The most regions that are tried for a gang.
const REGIONS_MAX: usize = 4;

/// Nobody, in whose name is searched: what is kept for a buyer already is not found again for
/// another of its wishes.
const NOBODY: AccountId = AccountId::from_bytes([0; 20]);

/// A slot that the fleet keeps.
pub(super) struct Kept {
    hold: Hold,
    host: NodeId,
    candidate: Candidate,
    /// The encoded receipt of the whole choice, at its first slot.
    receipt: Option<Vec<u8>>,
}

impl Kept {
    /// The encoded receipt of the choice that begins with this slot.
    pub(super) fn receipt(&self) -> Option<Vec<u8>> {
        self.receipt.clone()
    }

    /// The offer of this slot.
    pub(super) fn offer(&self, buyer: AccountId) -> Offer {
        let candidate = Candidate { buyer, ..self.candidate.clone() };
        candidate.offer(self.hold.offer, self.hold.expires)
    }

    /// Asks the host to keep it. A courtesy: a host whose queue is full decides without it.
    pub(super) fn push(&self, indexer: &Indexer) {
        if let Some((_, push)) = indexer.hosts().get(&self.host) {
            let _ = push.try_send(IndexerToHost::Hold(self.hold));
        }
    }
}

/// The search for what a wish needs, in nobody's name.
fn query<'a>(wish: &'a Wish, needs: &'a Needs, exclude: &'a [NodeId], count: u8) -> Query<'a> {
    let tie = u64::from_le_bytes(outside::random());
    let round_trips_us = &wish.round_trips_us;
    Query { needs, exclude, buyer: NOBODY, count, tie, round_trips_us }
}

/// A fleet at one moment.
pub(super) struct Slots<'a> {
    fleet: &'a mut Fleet,
    now: UnixMillis,
}

impl<'a> Slots<'a> {
    pub(super) const fn new(fleet: &'a mut Fleet, now: UnixMillis) -> Self {
        Self { fleet, now }
    }

    /// Slots are not kept any more.
    pub(super) fn free(&mut self, slots: Vec<Kept>) {
        for Kept { hold, host, .. } in slots {
            self.fleet.release_hold(self.now, host, hold.container, hold.offer);
        }
    }

    /// Why a wish can't be met now; `None` where it can.
    pub(super) fn why_not(&mut self, wish: &Wish) -> Option<WhyNot> {
        if let Some(gang) = &wish.gang {
            let query = query(wish, &wish.needs, &wish.exclude, 1);
            return match self.fleet.find_gang(self.now, &query, gang, &default_rtt) {
                Some(_) => None,
                None => Some(self.fleet.why_not_gang(self.now, &query, gang)),
            };
        }
        if self.find(wish, (&wish.needs, &wish.exclude), 1, None).is_some() {
            return None;
        }
        Some(self.fleet.why_not(self.now, &query(wish, &wish.needs, &wish.exclude, 1)))
    }

    fn find(
        &mut self,
        wish: &Wish,
        (needs, exclude): (&Needs, &[NodeId]),
        count: u8,
        digest: Option<[u8; 32]>,
    ) -> Option<(Vec<Candidate>, Option<Vec<u8>>)> {
        let query = query(wish, needs, exclude, count);
        let (found, receipt) = self.fleet.candidates(self.now, &query, digest)?;
        Some((found, receipt.and_then(|receipt| encode(&receipt).ok())))
    }

    /// Keeps a slot of a candidate.
    fn hold(&mut self, buyer: AccountId, candidate: Candidate) -> Option<Kept> {
        let (host, container) = (candidate.listing.addr.node, candidate.listing.container.id);
        let (offer, expires) =
            (OfferId::from_bytes(outside::random()), self.now.after(OFFER_LASTING));
        let hold = Hold { offer, container, buyer, expires };
        self.fleet.hold(self.now, host, hold).ok()?;
        Some(Kept { hold, host, candidate, receipt: None })
    }

    /// Keeps slots for a whole gang, or none.
    fn whole(&mut self, buyer: AccountId, wish: &Wish, gang: &GangAsk) -> Option<Vec<Kept>> {
        let query = query(wish, &wish.needs, &wish.exclude, 1);
        let shown = (gang, Some(digest_of(wish)));
        let (members, receipt) =
            self.fleet.find_gang_shown(self.now, &query, shown, &default_rtt)?;
        let mut kept: Vec<Kept> = Vec::with_capacity(members.len());
        for member in members {
            let Some(slot) = self.hold(buyer, member) else {
                self.free(kept);
                return None;
            };
            kept.push(slot);
        }
        if let (Some(first), Some(receipt)) = (kept.first_mut(), receipt) {
            first.receipt = encode(&receipt).ok();
        }
        Some(kept)
    }

    /// Keeps up to `count` slots.
    fn take(&mut self, buyer: AccountId, wish: &Wish, needs: &Needs, count: usize) -> Vec<Kept> {
        let is_spread = wish.gang.is_some_and(|gang| gang.is_spread);
        let mut exclude = wish.exclude.clone();
        // What is gathered for a gang is no choice yet.
        let digest = wish.gang.is_none().then(|| digest_of(wish));
        let mut kept: Vec<Kept> = Vec::new();
        while kept.len() < count {
            let missing = u8::try_from(count - kept.len()).unwrap_or(u8::MAX).min(CANDIDATES_MAX);
            let found = self.find(wish, (needs, &exclude), missing, digest);
            let Some((found, mut receipt)) = found else { break };
            let before = kept.len();
            for candidate in found {
                let host = candidate.listing.addr.node;
                if kept.len() >= count || is_spread && kept.iter().any(|kept| kept.host == host) {
                    continue;
                }
                let Some(mut slot) = self.hold(buyer, candidate) else { continue };
                slot.receipt = receipt.take();
                if is_spread && exclude.len() < EXCLUDED_MAX {
                    exclude.push(host);
                }
                kept.push(slot);
            }
            if kept.len() == before {
                break;
            }
        }
        kept
    }

    /// Regions in which a gang might be, by what is free there.
    fn regions(&mut self, wish: &Wish) -> Vec<Region> {
        let found = self.find(wish, (&wish.needs, &wish.exclude), CANDIDATES_MAX, None);
        let Some((found, _)) = found else { return Vec::new() };
        let mut regions: Vec<Region> = Vec::new();
        for candidate in found {
            if regions.len() < REGIONS_MAX && !regions.contains(&candidate.listing.region) {
                regions.push(candidate.listing.region);
            }
        }
        regions
    }
}

impl Supply for Slots<'_> {
    type Slot = Kept;

    /// What is kept for a gang that lacks others is in one region, the one with most of what it
    /// needs.
    fn keep(&mut self, buyer: AccountId, wish: &Wish) -> Vec<Kept> {
        let count = wish.slots();
        let Some(gang) = &wish.gang else {
            return self.take(buyer, wish, &wish.needs, count);
        };
        if let Some(whole) = self.whole(buyer, wish, gang) {
            return whole;
        }
        let mut most = Vec::new();
        for region in self.regions(wish) {
            let needs = Needs { regions: vec![region], ..wish.needs.clone() };
            let kept = self.take(buyer, wish, &needs, count);
            let fewer =
                if kept.len() > most.len() { std::mem::replace(&mut most, kept) } else { kept };
            self.free(fewer);
        }
        // As many as it needs, and yet not together as it needs them.
        if most.len() >= count {
            self.free(most.split_off(count - 1));
        }
        most
    }

    fn give_back(&mut self, slots: Vec<Kept>) {
        self.free(slots);
    }
}
