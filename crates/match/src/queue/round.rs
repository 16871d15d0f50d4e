//! One round: what is free goes to those whose turn it is.

use std::collections::{BTreeMap, BTreeSet};

use welkin_types::{AccountId, TicketId, UnixMillis};

use super::{ANSWER_MS_MAX, PATIENCE_MS, Place, Queue, State, Wish};

/// The most grants of one round; more follow in the next one.
const GRANTS_MAX: usize = 64;
/// The most gangs for which something is kept at the same time.
const RESERVED_MAX: usize = 16;

/// What a round distributes.
pub trait Supply {
    /// A kept slot.
    type Slot;

    /// Keeps up to `wish.slots()` free slots that meet a wish; fewer where there are no more.
    fn keep(&mut self, buyer: AccountId, wish: &Wish) -> Vec<Self::Slot>;

    /// Slots that were kept are free again.
    fn give_back(&mut self, slots: Vec<Self::Slot>);
}

/// A turn: everything that a place waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<S> {
    /// Whose turn.
    pub ticket: TicketId,
    /// The buyer.
    pub buyer: AccountId,
    /// What is kept for it.
    pub slots: Vec<S>,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round<S> {
    /// Whose turn it is.
    pub grants: Vec<Grant<S>>,
    /// Slots that are kept for gangs that lack others. To be given back before the next round,
    /// which keeps them again.
    pub reserved: Vec<S>,
    /// Whether another round may grant more at once.
    pub has_more: bool,
}

/// The next place of a buyer, in the order of turns.
type Head = (u64, (UnixMillis, u64), AccountId, TicketId);

impl Queue {
    /// Distributes what is free. Each place that is granted is offered until it is answered.
    pub fn round<S: Supply>(&mut self, now: UnixMillis, supply: &mut S) -> Round<S::Slot> {
        let mut heads: BTreeSet<Head> = BTreeSet::new();
        let ids: Vec<_> = self.buyers.keys().copied().collect();
        let waiting = u64::try_from(ids.len()).unwrap_or(u64::MAX).max(1);
        heads.extend(ids.into_iter().filter_map(|buyer| self.head(now, buyer, None)));
        // How many slots there are, of wishes that could not be met.
        let mut short: BTreeMap<u64, usize> = BTreeMap::new();
        let mut round = Round { grants: Vec::new(), reserved: Vec::new(), has_more: false };
        let mut keeping = 0;
        while let Some((_, rank, buyer, ticket)) = heads.pop_first() {
            if round.grants.len() >= GRANTS_MAX {
                round.has_more = true;
                break;
            }
            let Some(place) = self.places.get_mut(&ticket) else { continue };
            place.is_reserved = false;
            let slots = place.wish.slots();
            if short.get(&place.kind).is_none_or(|left| *left >= slots) {
                let kept = supply.keep(buyer, &place.wish);
                if kept.len() >= slots {
                    round.grants.push(Grant { ticket, buyer, slots: kept });
                    self.charge(now, ticket, waiting);
                } else if is_overdue(now, place) && !kept.is_empty() && keeping < RESERVED_MAX {
                    place.is_reserved = true;
                    short.insert(place.kind, 0);
                    keeping += 1;
                    round.reserved.extend(kept);
                } else {
                    short.insert(place.kind, kept.len());
                    supply.give_back(kept);
                }
            }
            heads.extend(self.head(now, buyer, Some(rank)));
        }
        round
    }

    /// A buyer's next place behind another one that may be served.
    fn head(
        &self,
        now: UnixMillis,
        id: AccountId,
        behind: Option<(UnixMillis, u64)>,
    ) -> Option<Head> {
        let buyer = self.buyers.get(&id)?;
        let from = behind.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut places = buyer.places.range((from, std::ops::Bound::Unbounded));
        places.find_map(|(rank, ticket)| {
            let place = self.places.get(ticket)?;
            let State::Waiting { from } = place.state else { return None };
            let is_there = from <= now && place.deadline > now;
            is_there.then_some((buyer.time, *rank, id, *ticket))
        })
    }

    /// A place is offered what it waits for.
    fn charge(&mut self, now: UnixMillis, ticket: TicketId, waiting: u64) {
        let Some(place) = self.places.get_mut(&ticket) else { return };
        place.state = State::Offered { until: UnixMillis(now.0.saturating_add(ANSWER_MS_MAX)) };
        let capacity = place.wish.capacity();
        if let Some(buyer) = self.buyers.get_mut(&place.buyer) {
            self.clock = self.clock.saturating_add(capacity.div_ceil(waiting)).max(buyer.time);
            buyer.time = buyer.time.saturating_add(capacity);
        }
        self.paces.entry(place.group).or_default().granted(now);
    }
}

fn is_overdue(now: UnixMillis, place: &Place) -> bool {
    place.wish.gang.is_some_and(|gang| gang.members > 1)
        && now.0.saturating_sub(place.since.0) >= PATIENCE_MS
}
