//! The scripted host: the authority over its slots. It works only while it is covered.

use welkin_ledger::{EscrowRefusal, Exposure, Meter};
use welkin_proto::{Order, SignedByAccount, Voucher};
use welkin_types::{LeaseId, UnixMillis, Usd};

use super::books::Refusal;
use super::{Event, REPLAYED_MAX, Violation, World};
use crate::actors::{HostLease, Message};

/// For how many seconds a host wants money aside.
const AHEAD_SECONDS: u64 = 30;
/// How often a host looks, in seconds: so much more than the bound may be uncovered.
const LOOK_SECONDS: u64 = 2;

impl World {
    pub(super) fn on_fate(&mut self, host: usize) -> Result<(), Violation> {
        let is_up = self.hosts[host].is_up;
        let connection = self.hosts[host].connection;
        if is_up {
            self.stats.vanished += 1;
            self.hosts[host].is_up = false;
            // The indexer may notice at once, late or only by the silence.
            if self.chance.happens(70) {
                let late = self.chance.between(10, 30_000);
                self.after(late, Event::Deliver(Message::Lost { host, connection }));
            }
            let down = if self.chance.happens(20) { 200_000 } else { 20_000 };
            let down = self.chance.between(1_000, down);
            self.after(down, Event::FateDue(host));
            return Ok(());
        }
        self.hosts[host].is_up = true;
        self.hosts[host].connection += 1;
        self.hosts[host].sequence = 0;
        // What ran is gone; the newest vouchers are on its disk.
        let leases: Vec<_> = self.hosts[host].leases.keys().copied().collect();
        leases.into_iter().try_for_each(|lease| self.end_lease(host, lease))?;
        self.send_announce(host);
        if connection == 0 {
            self.after(60, Event::BeatDue(host));
            self.after(500, Event::MeterDue(host));
        }
        let up = self.chance.between(10_000, 200_000);
        self.after(up, Event::FateDue(host));
        Ok(())
    }

    pub(super) fn on_open(
        &mut self,
        host: usize,
        buyer: usize,
        want: u64,
        order: &SignedByAccount<Order>,
    ) -> Result<(), Violation> {
        if !self.hosts[host].is_up {
            return Ok(());
        }
        let message = &order.message;
        let lease = message.lease;
        let is_accepted = if self.hosts[host].leases.contains_key(&lease) {
            // The order came twice: it is the same lease.
            true
        } else if self.hosts[host].ended.contains(&lease) {
            false
        } else if !self.has_slot(host, message) {
            self.stats.busy += 1;
            false
        } else {
            self.accept(host, buyer, order)?
        };
        self.send(Message::Answer { buyer, want, lease, is_accepted });
        Ok(())
    }

    fn has_slot(&self, host: usize, order: &Order) -> bool {
        let known = self.hosts[host].containers.iter().find(|known| known.id == order.container);
        known.is_some_and(|known| {
            known.price == order.price && self.hosts[host].carried(known.id) < known.slots
        })
    }

    fn accept(
        &mut self,
        host: usize,
        buyer: usize,
        order: &SignedByAccount<Order>,
    ) -> Result<bool, Violation> {
        let message = &order.message;
        let amount = message.price.cost(AHEAD_SECONDS).min(message.budget);
        let (now, operator) = (UnixMillis(self.now), self.hosts[host].key.id());
        let done = self.books.reserve(&self.domain, now, operator, order, amount);
        let is_understood = match &done {
            Ok(()) => true,
            Err(Refusal::Escrow(EscrowRefusal::Funds | EscrowRefusal::Expired)) => true,
            Err(_) => false,
        };
        self.law(is_understood, &format!("an honest order was refused: {done:?}"))?;
        if done.is_err() {
            self.stats.unfunded += 1;
            return Ok(false);
        }
        let mut meter = Meter::new(message.price);
        meter.start(now);
        let lease = HostLease {
            buyer,
            container: message.container,
            price: message.price,
            budget: message.budget,
            meter,
            newest: None,
            covered_seconds: 0,
            vouchers: 0,
        };
        self.hosts[host].leases.insert(message.lease, lease);
        self.stats.accepted += 1;
        self.send_beat(host);
        Ok(true)
    }

    pub(super) fn on_meter(&mut self, host: usize) -> Result<(), Violation> {
        if !self.hosts[host].is_up {
            return Ok(());
        }
        let now = UnixMillis(self.now);
        let exposure = Exposure::default();
        let mut over = Vec::new();
        let mut usages = Vec::new();
        for (id, lease) in &self.hosts[host].leases {
            let seconds = lease.meter.seconds(now);
            let is_uncovered = exposure.is_exceeded(seconds, lease.covered_seconds);
            let uncovered = exposure.uncovered(seconds, lease.covered_seconds);
            let bound = exposure.bound_seconds + LOOK_SECONDS;
            self.law(uncovered <= bound, "a host worked for too long without cover")?;
            if is_uncovered || lease.meter.owed(now) >= lease.budget {
                over.push((*id, is_uncovered));
            } else {
                usages.push(Message::Usage { buyer: lease.buyer, lease: *id, seconds });
            }
        }
        for (lease, is_uncovered) in over {
            self.stats.uncovered += u64::from(is_uncovered);
            self.end_lease(host, lease)?;
        }
        usages.into_iter().for_each(|usage| self.send(usage));
        Ok(())
    }

    pub(super) fn on_voucher(
        &mut self,
        host: usize,
        voucher: SignedByAccount<Voucher>,
    ) -> Result<(), Violation> {
        if !self.hosts[host].is_up {
            return Ok(());
        }
        let Voucher { lease: id, amount, seconds, .. } = voucher.message;
        let Some(view) = self.books.lease(id) else { return Ok(()) };
        let Some(lease) = self.hosts[host].leases.get_mut(&id) else { return Ok(()) };
        let is_buyers = voucher.signer(&self.domain) == Ok(view.buyer);
        // What is promised but not aside covers nothing.
        let is_covered = amount.saturating_sub(view.paid) <= view.held;
        let is_better = lease.newest.as_ref().is_none_or(|newest| newest.message.amount < amount);
        if !is_buyers || !is_covered || !is_better || amount < lease.price.cost(seconds) {
            return Ok(());
        }
        lease.covered_seconds = lease.covered_seconds.max(seconds);
        lease.newest = Some(voucher.clone());
        lease.vouchers += 1;
        let (is_due, ahead) = (lease.vouchers % 3 == 1, lease.price.cost(AHEAD_SECONDS));
        if self.sent.len() < REPLAYED_MAX {
            self.sent.push(voucher.clone());
        }
        if is_due {
            self.stats.redeemed += 1;
            let (now, operator) = (UnixMillis(self.now), self.hosts[host].key.id());
            let done = self.books.redeem(&self.domain, now, operator, &voucher, ahead);
            self.settled(done)?;
        }
        Ok(())
    }

    /// Ends a lease with the best voucher there is. Unknown and ended ones stay as they are.
    pub(super) fn end_lease(&mut self, host: usize, id: LeaseId) -> Result<(), Violation> {
        if !self.hosts[host].is_up {
            return Ok(());
        }
        let Some(lease) = self.hosts[host].leases.remove(&id) else { return Ok(()) };
        self.hosts[host].ended.insert(id);
        let (now, operator) = (UnixMillis(self.now), self.hosts[host].key.id());
        let newest = lease.newest.as_ref();
        let done = self.books.close(&self.domain, now, operator, id, newest);
        self.settled(done)?;
        let paid = self.books.lease(id).map_or(Usd::ZERO, |view| view.paid);
        let due = newest.map_or(Usd::ZERO, |voucher| voucher.message.amount);
        self.law(paid == due, "a lease was closed with other than its best voucher")?;
        self.stats.closed += 1;
        self.send_beat(host);
        Ok(())
    }
}
