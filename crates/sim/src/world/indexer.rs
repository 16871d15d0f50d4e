//! The indexer's shell: connections in, answers out. It asks the real fleet.

use welkin_match::{Found, Query};
use welkin_proto::index::{Beat, Hold};
use welkin_proto::{Capability, Offer};
use welkin_types::{OfferId, UnixMillis};

use super::{Event, Violation, World};
use crate::actors::Message;

/// How long an offer holds a slot.
const OFFER_MS: u64 = 5_000;

impl World {
    pub(super) fn on_announce(
        &mut self,
        host: usize,
        connection: u64,
        capability: Capability,
    ) -> Result<(), Violation> {
        if connection < self.connections[host] {
            return Ok(());
        }
        self.connections[host] = connection;
        let now = UnixMillis(self.now);
        let operator = capability.check(&self.domain, self.hosts[host].node, now);
        let operator = operator.map_err(|error| self.broken(&error.to_string()))?;
        let taken = self.fleet.announce(now, operator, capability);
        taken.map_err(|refusal| self.broken(&format!("an announcement: {refusal}")))
    }

    /// Beats may come late, twice or to an indexer that has forgotten their host.
    pub(super) fn on_beat(&mut self, host: usize, connection: u64, beat: &Beat) {
        let node = self.hosts[host].node;
        let is_known = connection == self.connections[host]
            && self.fleet.beat(UnixMillis(self.now), node, beat).is_ok();
        // The real stream would be closed and made anew; here the host just says who it is.
        let is_needed = self.fleet.locate(node).is_none() || connection > self.connections[host];
        if !is_known && is_needed && self.hosts[host].is_up {
            self.send_announce(host);
        }
    }

    pub(super) fn on_lost(&mut self, host: usize, connection: u64) {
        if connection == self.connections[host] {
            self.fleet.leave(UnixMillis(self.now), self.hosts[host].node);
        }
    }

    pub(super) fn on_match(&mut self, buyer: usize, want: u64) -> Result<(), Violation> {
        let (tie, now) = (self.chance.word(), UnixMillis(self.now));
        let Some(known) = self.buyers[buyer].wants.get(&want) else { return Ok(()) };
        let query = Query {
            needs: &known.needs,
            exclude: &known.tried,
            buyer: self.buyers[buyer].key.id(),
            count: 3,
            tie,
            round_trips_us: &[],
        };
        let candidates = match self.fleet.find(now, &query) {
            Found::Candidates(candidates) => candidates,
            Found::WhyNot(why) => {
                self.stats.why_not += 1;
                let removed: u32 = why.removed.iter().map(|(_, count)| count).sum();
                self.law(removed == why.containers, "a container was removed twice or never")?;
                Vec::new()
            }
        };
        let tried = &self.buyers[buyer].wants[&want].tried;
        let is_new = candidates.iter().all(|one| !tried.contains(&one.listing.addr.node));
        let is_free = candidates.iter().all(|one| one.listing.free > 0);
        self.law(is_new && is_free, "a candidate that is excluded or full")?;
        let expires = UnixMillis(self.now + OFFER_MS);
        let mut offers: Vec<Offer> = Vec::new();
        for candidate in &candidates {
            offers.push(candidate.offer(OfferId::from_bytes(self.chance.bytes()), expires));
        }
        if let Some(first) = offers.first() {
            self.stats.matched += 1;
            let Offer { id: offer, container, buyer, expires, .. } = *first;
            let node = first.addr.node;
            let held = self.fleet.hold(now, node, Hold { offer, container, buyer, expires });
            held.map_err(|refusal| self.broken(&format!("a hold of a candidate: {refusal}")))?;
        }
        self.send(Message::Offers { buyer, want, offers });
        Ok(())
    }

    pub(super) fn send_announce(&mut self, host: usize) {
        let capability = Box::new(self.hosts[host].capability(self.now));
        let connection = self.hosts[host].connection;
        // A stream loses nothing while it stands, and keeps its order.
        let message = Message::Announce { host, connection, capability };
        self.after(50, Event::Deliver(message));
    }

    pub(super) fn send_beat(&mut self, host: usize) {
        let connection = self.hosts[host].connection;
        let beat = self.hosts[host].beat();
        self.send(Message::Beat { host, connection, beat });
    }
}
