//! Who gets what becomes free, of those who wait: in order, with a fair share for each buyer.
//!
//! **Share.** Start-time fair queueing. Each buyer has a virtual time, which grows by the capacity
//! of what it is given; who is behind comes first. A buyer that joins begins at the clock of the
//! whole queue, which grows with what all are given, shared among those that wait: so nobody
//! saves up turns by being away, and no stream of newcomers holds up one who is there.
//!
//! **Order.** Within a buyer first come, first served; a later wish passes an earlier one only where
//! that can't use what is free.
//!
//! **Gangs.** Who needs several containers at once would wait for ever behind those who take
//! single ones. Once a gang has waited for [`PATIENCE_MS`], what becomes free is kept for it from
//! round to round, in its turn, until it has everything; meanwhile others get only what it can't
//! use.
//!
//! Everything is bounded: places in all and by buyer, what is remembered of placed ones, of buyers
//! and of releases. A round asks the [`Supply`] once for each wish that it can't meet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use welkin_proto::index::{GANG_MAX, GangAsk};
use welkin_proto::queue::WAIT_MS_MAX;
use welkin_types::task::Needs;
use welkin_types::{AccountId, NodeId, Region, TicketId, UnixMillis};

mod pace;
mod round;

pub use round::{Grant, Round, Supply};

use pace::Pace;

/// The most places.
pub const PLACES_MAX: usize = 1 << 14;
/// The most places of one buyer.
pub const PLACES_PER_BUYER_MAX: usize = 256;
/// From then on a gang is kept what becomes free, in milliseconds.
pub const PATIENCE_MS: u64 = 30_000;
/// So long the place of a buyer is kept whose connection is lost, in milliseconds.
pub const AWAY_MS_MAX: u64 = 20_000;
/// A buyer that says nothing of its offers for so long counts as away, in milliseconds.
pub const ANSWER_MS_MAX: u64 = 20_000;
/// The most different wishes.
pub const WISHES_MAX: usize = 1_024;
/// The most different wishes of one buyer.
pub const WISHES_PER_BUYER_MAX: usize = 32;
/// The most tickets that are remembered as used.
pub const SPENT_MAX: usize = 1 << 14;
/// The longest pause after offers that came to nothing, in milliseconds.
const PAUSE_MS_MAX: u64 = 16_000;
/// Hosts that have refused are asked again after so many milliseconds.
const REFUSAL_MS: u64 = 30_000;
/// The most buyers whose virtual times are known.
const BUYERS_MAX: usize = 2 * PLACES_MAX;

/// What a place waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wish {
    /// What each container must have.
    pub needs: Needs,
    /// Several at once, all or none.
    pub gang: Option<GangAsk>,
    /// Hosts not wanted.
    pub exclude: Vec<NodeId>,
    /// Where the buyer is, as far as it says so.
    pub from: Option<Region>,
    /// Round trips that the buyer measured, in microseconds.
    pub round_trips_us: Vec<(Region, u32)>,
}

impl Wish {
    /// How many containers it is for.
    pub fn slots(&self) -> usize {
        self.gang.map_or(1, |gang| usize::from(gang.members))
    }

    /// The capacity that it takes: sixteenths of a GPU, or cores where there are more of these.
    pub fn capacity(&self) -> u64 {
        let gpus = self.needs.gpu.as_ref().map_or(0, |ask| u64::from(ask.count.min.max(1)));
        let cores = u64::from(self.needs.cpu_milli_min).div_ceil(1_000);
        (16 * gpus).max(cores).clamp(1, 4_096) * (self.slots().max(1) as u64)
    }
}

/// A wish to join the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The name of the place.
    pub ticket: TicketId,
    /// Who waits.
    pub buyer: AccountId,
    /// Since when; the present, unless it is the place of an earlier life of the queue.
    pub since: UnixMillis,
    /// Until when.
    pub deadline: UnixMillis,
    /// For what.
    pub wish: Wish,
}

/// How a buyer has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// At a place of its own.
    Newly,
    /// At the place that it had.
    Again,
}

/// Why a buyer may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefusal {
    /// There are as many places as there may be.
    #[error("{PLACES_MAX} wait here already: ask another indexer, or try again later")]
    Full,
    /// The buyer has as many places as one may.
    #[error("{PLACES_PER_BUYER_MAX} tasks of this account wait here already: let some end first")]
    Buyer,
    /// There are as many different wishes as there may be.
    #[error("the queue has {WISHES_MAX} different wishes: try again later, or ask another indexer")]
    Wishes,
    /// The buyer has as many different wishes as one may.
    #[error("this account waits for {WISHES_PER_BUYER_MAX} different things: let some end first")]
    BuyersWishes,
    /// The ticket is somebody else's.
    #[error("the ticket is of another account: wait without it")]
    Stranger,
    /// The ticket was used up.
    #[error("the ticket has been used: wait without it")]
    Spent,
    /// The time is over, or too far away.
    #[error("a wait lasts from 1 to {WAIT_MS_MAX} ms")]
    Time,
    /// Nothing, or too much at once.
    #[error("a wish is for 1 to {GANG_MAX} containers")]
    Slots,
    /// The wish is too large to be kept.
    #[error("the wish is too large")]
    Size,
}

/// Why a place is given up by the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its time is over.
    TimedOut,
    /// Its buyer did not come back.
    Away,
}

/// What a place is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be given offers from this moment on.
    Waiting { from: UnixMillis },
    /// Has offers, and answers until then.
    Offered { until: UnixMillis },
    /// Is not there, and comes back until then.
    Away { until: UnixMillis },
}

#[derive(Clone, Debug)]
struct Place {
    buyer: AccountId,
    since: UnixMillis,
    arrival: u64,
    deadline: UnixMillis,
    wish: Wish,
    /// The number of the wish, hosts not wanted included.
    kind: u64,
    /// The number of the GPUs that it asks for.
    group: u64,
    state: State,
    /// How often its offers came to nothing.
    returns: u32,
    /// Until when hosts that refused are not wanted.
    refused_until: UnixMillis,
    is_reserved: bool,
}

impl Place {
    const fn rank(&self) -> (UnixMillis, u64) {
        (self.since, self.arrival)
    }
}

#[derive(Clone, Debug, Default)]
struct Buyer {
    /// Its virtual time.
    time: u64,
    places: BTreeMap<(UnixMillis, u64), TicketId>,
}

/// Where a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// From 1, among those who ask for the same GPUs.
    pub position: u32,
    /// How many those are.
    pub of: u32,
    /// Whether what becomes free is kept for it.
    pub is_reserved: bool,
    /// An estimate of the wait in milliseconds.
    pub estimate_ms: Option<u64>,
    /// Until when it waits.
    pub deadline: UnixMillis,
}

/// The queue of an indexer.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// The virtual time of the whole.
    clock: u64,
    places: BTreeMap<TicketId, Place>,
    buyers: BTreeMap<AccountId, Buyer>,
    /// Equal wishes have one number.
    kinds: Names,
    groups: Names,
    paces: BTreeMap<u64, Pace>,
    spent: BTreeSet<TicketId>,
    spent_order: VecDeque<TicketId>,
    arrivals: u64,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What a place waits for.
    pub fn wish(&self, ticket: TicketId) -> Option<&Wish> {
        self.places.get(&ticket).map(|place| &place.wish)
    }

    /// Takes a place, or finds again the one that the ticket names.
    ///
    /// # Errors
    ///
    /// [`JoinRefusal`] saying why not.
    pub fn join(&mut self, now: UnixMillis, join: Join) -> Result<Joined, JoinRefusal> {
        if let Some(place) = self.places.get(&join.ticket) {
            if place.buyer != join.buyer {
                return Err(JoinRefusal::Stranger);
            }
            self.back(now, join.ticket);
            return Ok(Joined::Again);
        }
        if self.spent.contains(&join.ticket) {
            return Err(JoinRefusal::Spent);
        }
        if join.deadline <= now || join.deadline.0 - now.0 > WAIT_MS_MAX {
            return Err(JoinRefusal::Time);
        }
        if join.wish.slots() == 0 || join.wish.slots() > usize::from(GANG_MAX) {
            return Err(JoinRefusal::Slots);
        }
        if self.places.len() >= PLACES_MAX {
            return Err(JoinRefusal::Full);
        }
        let own = self.buyers.get(&join.buyer).map_or(0, |buyer| buyer.places.len());
        if own >= PLACES_PER_BUYER_MAX {
            return Err(JoinRefusal::Buyer);
        }
        let wish = welkin_proto::encode(&join.wish).map_err(|_| JoinRefusal::Size)?;
        let group = welkin_proto::encode(&join.wish.needs.gpu).map_err(|_| JoinRefusal::Size)?;
        self.check_wishes(join.buyer, &wish)?;
        let kind = self.kinds.take(wish);
        let group = self.groups.take(group);
        if own == 0 {
            self.admit(join.buyer);
        }
        self.arrivals += 1;
        let place = Place {
            buyer: join.buyer,
            since: join.since.min(now),
            arrival: self.arrivals,
            deadline: join.deadline,
            wish: join.wish,
            kind,
            group,
            state: State::Waiting { from: now },
            returns: 0,
            refused_until: now.after(std::time::Duration::from_millis(REFUSAL_MS)),
            is_reserved: false,
        };
        let buyer = self.buyers.entry(join.buyer).or_default();
        buyer.places.insert(place.rank(), join.ticket);
        self.places.insert(join.ticket, place);
        Ok(Joined::Newly)
    }

    fn check_wishes(&self, buyer: AccountId, wish: &Vec<u8>) -> Result<(), JoinRefusal> {
        let known = self.kinds.known.get(wish).map(|(number, _)| *number);
        if known.is_none() && self.kinds.known.len() >= WISHES_MAX {
            return Err(JoinRefusal::Wishes);
        }
        let own = self.buyers.get(&buyer).map(|buyer| &buyer.places);
        let Some(own) = own.filter(|own| own.len() >= WISHES_PER_BUYER_MAX) else { return Ok(()) };
        let places = own.values();
        let kinds = places.filter_map(|ticket| self.places.get(ticket)).map(|place| place.kind);
        let own: BTreeSet<_> = kinds.collect();
        let is_own = known.is_some_and(|known| own.contains(&known));
        if !is_own && own.len() >= WISHES_PER_BUYER_MAX {
            return Err(JoinRefusal::BuyersWishes);
        }
        Ok(())
    }

    /// Sets the clock of a buyer that had no place.
    fn admit(&mut self, buyer: AccountId) {
        let clock = self.clock;
        if !self.buyers.contains_key(&buyer) && self.buyers.len() >= BUYERS_MAX {
            self.forget_buyers();
            // Those who wait are fewer, so there is one that does not.
            let idle = self.buyers.iter().filter(|(_, buyer)| buyer.places.is_empty());
            let least = idle.min_by_key(|(_, buyer)| buyer.time).map(|(id, _)| *id);
            least.map(|least| self.buyers.remove(&least));
        }
        let known = self.buyers.entry(buyer).or_default();
        known.time = known.time.max(clock);
    }

    /// Gives a place up: its buyer was placed, or does not want to wait any more.
    pub fn leave(&mut self, ticket: TicketId) {
        if self.remove(ticket).is_none() || !self.spent.insert(ticket) {
            return;
        }
        self.spent_order.push_back(ticket);
        if self.spent_order.len() > SPENT_MAX {
            self.spent_order.pop_front().map(|oldest| self.spent.remove(&oldest));
        }
    }

    /// Offers came to nothing, as hosts did not want it: the place is kept, and what its buyer was
    /// charged comes back. The hosts are not wanted for a while.
    pub fn returned(&mut self, now: UnixMillis, ticket: TicketId, refusing: &[NodeId]) {
        let Some(place) = self.places.get_mut(&ticket) else { return };
        let State::Offered { .. } = place.state else { return };
        let mut wish = place.wish.clone();
        for host in refusing {
            if wish.exclude.len() < welkin_proto::index::EXCLUDED_MAX
                && !wish.exclude.contains(host)
            {
                wish.exclude.push(*host);
            }
        }
        place.refused_until = UnixMillis(now.0.saturating_add(REFUSAL_MS));
        // At once the first time: another host may be free. Then ever more slowly.
        let pause = (500_u64 << place.returns.min(6)).min(PAUSE_MS_MAX);
        let pause = if place.returns == 0 { 0 } else { pause };
        place.returns = place.returns.saturating_add(1);
        self.refund(ticket);
        self.state(ticket, State::Waiting { from: UnixMillis(now.0.saturating_add(pause)) });
        self.rewish(ticket, wish);
    }

    /// The connection of a place's buyer is lost.
    pub fn away(&mut self, now: UnixMillis, ticket: TicketId) {
        let is_away = self.places.get(&ticket).map(|place| place.state);
        if let Some(State::Waiting { .. } | State::Offered { .. }) = is_away {
            self.refund(ticket);
            let until = UnixMillis(now.0.saturating_add(AWAY_MS_MAX));
            self.state(ticket, State::Away { until });
        }
    }

    fn back(&mut self, now: UnixMillis, ticket: TicketId) {
        self.refund(ticket);
        self.state(ticket, State::Waiting { from: now });
    }

    fn state(&mut self, ticket: TicketId, state: State) {
        if let Some(place) = self.places.get_mut(&ticket) {
            place.state = state;
        }
    }

    /// What the offers of a place were charged comes back.
    fn refund(&mut self, ticket: TicketId) {
        let Some(place) = self.places.get(&ticket) else { return };
        if let State::Offered { .. } = place.state
            && let Some(buyer) = self.buyers.get_mut(&place.buyer)
        {
            buyer.time = buyer.time.saturating_sub(place.wish.capacity());
        }
    }

    fn rewish(&mut self, ticket: TicketId, wish: Wish) {
        let Some(place) = self.places.get_mut(&ticket) else { return };
        if place.wish == wish {
            return;
        }
        let Ok(key) = welkin_proto::encode(&wish) else { return };
        if self.kinds.known.len() >= 2 * WISHES_MAX {
            // A host that has refused may be tried again a little early.
            return;
        }
        let before = place.kind;
        place.kind = self.kinds.take(key);
        place.wish = wish;
        self.kinds.give_back(before);
    }

    fn remove(&mut self, ticket: TicketId) -> Option<Place> {
        let place = self.places.remove(&ticket)?;
        if let Some(buyer) = self.buyers.get_mut(&place.buyer) {
            buyer.places.remove(&place.rank());
        }
        self.kinds.give_back(place.kind);
        self.groups.give_back(place.group);
        if self.places.is_empty() {
            // A queue that nobody is in owes nobody anything.
            self.clock = 0;
            self.buyers.clear();
        }
        Some(place)
    }

    /// Gives up what has ended. To be called at [`Self::next_due`].
    pub fn tick(&mut self, now: UnixMillis) -> Vec<(TicketId, Dropped)> {
        let silent = self
            .places
            .iter()
            .filter(|(_, place)| matches!(place.state, State::Offered { until } if until <= now));
        let silent: Vec<_> = silent.map(|(ticket, _)| *ticket).collect();
        silent.into_iter().for_each(|ticket| self.away(now, ticket));
        let mut dropped = Vec::new();
        let mut forgiven = Vec::new();
        for (ticket, place) in &self.places {
            match place.state {
                State::Away { until } if until <= now => dropped.push((*ticket, Dropped::Away)),
                // Who has an offer in hand may take it up.
                State::Offered { .. } => (),
                State::Away { .. } | State::Waiting { .. } if place.deadline <= now => {
                    dropped.push((*ticket, Dropped::TimedOut));
                }
                State::Away { .. } | State::Waiting { .. } => (),
            }
            if place.refused_until <= now && !place.wish.exclude.is_empty() {
                forgiven.push(*ticket);
            }
        }
        dropped.iter().for_each(|(ticket, _)| self.leave(*ticket));
        for ticket in forgiven {
            let wish = self.places.get(&ticket).map(|place| place.wish.clone());
            if let Some(wish) = wish {
                self.rewish(ticket, Wish { exclude: Vec::new(), ..wish });
            }
        }
        self.forget_buyers();
        let (paces, groups) = (&mut self.paces, &self.groups);
        paces.retain(|group, pace| groups.has(*group) || pace.is_recent(now));
        dropped
    }

    /// When [`Self::tick`] has something to do next, if ever.
    pub fn next_due(&self) -> Option<UnixMillis> {
        let due = |place: &Place| match place.state {
            State::Waiting { .. } => place.deadline,
            State::Offered { until } => until,
            State::Away { until } => until.min(place.deadline),
        };
        self.places.values().map(due).min()
    }

    fn forget_buyers(&mut self) {
        let clock = self.clock;
        self.buyers.retain(|_, buyer| !buyer.places.is_empty() || buyer.time > clock);
    }

    /// Where every place stands, as things are: the order in which they would be served if each
    /// could be.
    pub fn standings(&self, now: UnixMillis) -> Vec<(TicketId, Stand)> {
        let mut order = Vec::with_capacity(self.places.len());
        for buyer in self.buyers.values() {
            let mut time = buyer.time;
            for ticket in buyer.places.values() {
                let Some(place) = self.places.get(ticket) else { continue };
                order.push((time, place.rank(), *ticket));
                time = time.saturating_add(place.wish.capacity());
            }
        }
        order.sort_unstable();
        let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
        let mut stands = Vec::with_capacity(order.len());
        for (_, _, ticket) in order {
            let Some(place) = self.places.get(&ticket) else { continue };
            let position = counts.entry(place.group).or_default();
            *position += 1;
            let pace = self.paces.get(&place.group);
            let stand = Stand {
                position: *position,
                of: 0,
                is_reserved: place.is_reserved,
                estimate_ms: pace.and_then(|pace| pace.wait_ms(now, *position)),
                deadline: place.deadline,
            };
            stands.push((ticket, place.group, stand));
        }
        let with_count = |(ticket, group, stand): (TicketId, u64, Stand)| {
            (ticket, Stand { of: counts.get(&group).copied().unwrap_or(0), ..stand })
        };
        stands.into_iter().map(with_count).collect()
    }
}

/// Numbers for names, each while somebody uses it. A number is never used again.
#[derive(Clone, Debug, Default)]
struct Names {
    known: BTreeMap<Vec<u8>, (u64, usize)>,
    names: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Names {
    fn take(&mut self, name: Vec<u8>) -> u64 {
        if let Some((number, uses)) = self.known.get_mut(&name) {
            *uses += 1;
            return *number;
        }
        self.next += 1;
        self.names.insert(self.next, name.clone());
        self.known.insert(name, (self.next, 1));
        self.next
    }

    fn give_back(&mut self, number: u64) {
        let Some(name) = self.names.get(&number) else { return };
        let Some((_, uses)) = self.known.get_mut(name) else { return };
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.known.remove(name);
            self.names.remove(&number);
        }
    }

    fn has(&self, number: u64) -> bool {
        self.names.contains_key(&number)
    }
}

#[cfg(test)]
mod tests;
