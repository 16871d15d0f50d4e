//! The scripted buyer: asks, tries one candidate after the other, and pays for what it sees.

use std::collections::VecDeque;

use welkin_ledger::Meter;
use welkin_proto::{Offer, Order, SignedByAccount, Voucher};
use welkin_types::task::Needs;
use welkin_types::{LeaseId, Tier, UnixMillis};

use super::{Event, Violation, World};
use crate::actors::{BuyerLease, Message, Want};

/// The most tasks of one buyer at once, looking or running.
const TASKS_MAX: usize = 4;
/// How long a task looks for a host.
const PATIENCE_MS: u64 = 15_000;
/// How long a lease may be silent before its buyer gives it up.
const SILENCE_MS: u64 = 30_000;

impl World {
    pub(super) fn on_want(&mut self, buyer: usize) {
        let now = self.now;
        let known = &mut self.buyers[buyer];
        known.wants.retain(|_, want| want.since + PATIENCE_MS > now);
        known.leases.retain(|_, lease| lease.heard + SILENCE_MS > now);
        if known.wants.len() + known.leases.len() >= TASKS_MAX {
            return;
        }
        let needs = Needs {
            cpu_milli_min: 1_000 * (1 + u32::try_from(self.chance.index(2)).unwrap_or(0)),
            memory_bytes_min: 1 << 30,
            disk_bytes_min: 1 << 30,
            isolation_min: Tier::Container,
            ..Needs::default()
        };
        let since = now;
        let want = Want { needs, tried: Vec::new(), offers: VecDeque::new(), open: None, since };
        let number = self.chance.word();
        self.buyers[buyer].wants.insert(number, want);
        self.send(Message::Match { buyer, want: number });
    }

    pub(super) fn on_offers(
        &mut self,
        buyer: usize,
        number: u64,
        offers: Vec<Offer>,
    ) -> Result<(), Violation> {
        let Some(want) = self.buyers[buyer].wants.get_mut(&number) else { return Ok(()) };
        // The answer may come twice; one candidate at a time is asked.
        if want.open.is_some() || !want.offers.is_empty() {
            return Ok(());
        }
        want.offers.extend(offers);
        self.try_next(buyer, number)
    }

    fn try_next(&mut self, buyer: usize, number: u64) -> Result<(), Violation> {
        let Some(want) = self.buyers[buyer].wants.get_mut(&number) else { return Ok(()) };
        let Some(offer) = want.offers.pop_front() else {
            // None is left: ask again, without those that refused.
            self.after(3_000, Event::Deliver(Message::Match { buyer, want: number }));
            return Ok(());
        };
        want.tried.push(offer.addr.node);
        let Some(host) = self.hosts.iter().position(|host| host.node == offer.addr.node) else {
            return Err(self.broken("an offer of a host that is none"));
        };
        let seconds = self.chance.between(5, 60);
        let order = Order {
            lease: LeaseId::from_bytes(self.chance.bytes()),
            buyer: self.buyers[buyer].key.id(),
            operator: offer.operator,
            host: offer.addr.node,
            container: offer.container,
            price: offer.price,
            budget: offer.price.cost(seconds),
            task_sha256: [7; 32],
            issued: UnixMillis(self.now),
            expires: UnixMillis(self.now + 10_000),
        };
        self.buyers[buyer].ordered.insert(order.lease);
        if let Some(want) = self.buyers[buyer].wants.get_mut(&number) {
            want.open = Some((order.clone(), host));
        }
        let order = Box::new(self.signed(buyer, order)?);
        self.send(Message::Open { host, buyer, want: number, order });
        Ok(())
    }

    pub(super) fn on_answer(
        &mut self,
        buyer: usize,
        number: u64,
        lease: LeaseId,
        is_accepted: bool,
    ) -> Result<(), Violation> {
        let Some(want) = self.buyers[buyer].wants.get_mut(&number) else { return Ok(()) };
        let Some((order, host)) = want.open.take_if(|(order, _)| order.lease == lease) else {
            return Ok(());
        };
        if !is_accepted {
            return self.try_next(buyer, number);
        }
        self.buyers[buyer].wants.remove(&number);
        let mut meter = Meter::new(order.price);
        meter.start(UnixMillis(self.now));
        let until = self.now + self.chance.between(3_000, 60_000);
        let begun = BuyerLease {
            host,
            operator: order.operator,
            price: order.price,
            budget: order.budget,
            meter,
            until,
            heard: self.now,
        };
        let is_new = self.buyers[buyer].leases.insert(lease, begun).is_none();
        self.law(is_new, "a lease was accepted twice")
    }

    /// Pays for what the host says and the own clock confirms.
    pub(super) fn on_usage(
        &mut self,
        buyer: usize,
        id: LeaseId,
        seconds: u64,
    ) -> Result<(), Violation> {
        let now = UnixMillis(self.now);
        let Some(lease) = self.buyers[buyer].leases.get_mut(&id) else { return Ok(()) };
        lease.heard = self.now;
        let (host, until) = (lease.host, lease.until);
        let seconds = seconds.min(lease.meter.seconds(now) + 1);
        let amount = lease.price.cost(seconds).min(lease.budget);
        let voucher = Voucher { lease: id, operator: lease.operator, amount, seconds };
        let best = self.promised.entry(id).or_default();
        *best = (*best).max(amount);
        // A cheat in one of fifty stops paying and works on.
        if id.as_bytes()[0] < 5 {
            return Ok(());
        }
        let voucher = Box::new(self.signed(buyer, voucher)?);
        self.send(Message::Voucher { host, voucher });
        if self.now >= until {
            self.buyers[buyer].leases.remove(&id);
            self.send(Message::Stop { host, lease: id });
        }
        Ok(())
    }

    /// Gets back what hosts have abandoned.
    pub(super) fn release_abandoned(&mut self, buyer: usize) -> Result<(), Violation> {
        let (now, caller) = (UnixMillis(self.now), self.buyers[buyer].key.id());
        let ordered: Vec<_> = self.buyers[buyer].ordered.iter().copied().collect();
        for id in ordered {
            let Some(view) = self.books.lease(id).filter(|view| view.is_open) else { continue };
            let before = self.books.available(caller);
            let done = self.books.release(now, caller, id);
            self.settled(done)?;
            let gained = self.books.available(caller).saturating_sub(before);
            self.law(gained == view.held, "a release gave back other than what was aside")?;
            self.stats.released += 1;
        }
        Ok(())
    }

    fn signed<T: welkin_proto::Eip712>(
        &self,
        buyer: usize,
        message: T,
    ) -> Result<SignedByAccount<T>, Violation> {
        let signed = SignedByAccount::sign(&self.domain, &self.buyers[buyer].key, message);
        signed.map_err(|error| self.broken(&error.to_string()))
    }
}
