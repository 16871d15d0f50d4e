//! What must be true after every step, and those who try to break it.

use std::collections::BTreeSet;

use welkin_proto::Domain;
use welkin_types::{UnixMillis, Usd};

use super::{Violation, World};

impl World {
    pub(super) fn check_laws(&self) -> Result<(), Violation> {
        self.check_money()?;
        self.check_slots()
    }

    pub(super) fn check_money(&self) -> Result<(), Violation> {
        if let Some(fault) = self.books.fault() {
            return Err(self.broken(fault));
        }
        for (id, lease) in self.books.leases() {
            let is_sound = lease.held <= lease.budget.saturating_sub(lease.paid)
                && lease.paid <= self.promised.get(&id).copied().unwrap_or_default();
            self.law(is_sound, "a lease paid more than was promised")?;
        }
        Ok(())
    }

    fn check_slots(&self) -> Result<(), Violation> {
        let mut running = BTreeSet::new();
        for host in &self.hosts {
            for container in &host.containers {
                let is_within = host.carried(container.id) <= container.slots;
                self.law(is_within, "a container carries more than its slots")?;
            }
            for id in host.leases.keys() {
                self.law(running.insert(*id), "a lease runs on two hosts")?;
                let is_open = self.books.lease(*id).is_some_and(|view| view.is_open);
                self.law(is_open, "a lease runs without a reservation")?;
            }
        }
        Ok(())
    }

    /// Somebody takes an old voucher and tries to make money of it.
    pub(super) fn on_attack(&mut self) -> Result<(), Violation> {
        if self.sent.is_empty() || !self.chance.happens(30) {
            return Ok(());
        }
        self.stats.attacks += 1;
        let mut voucher = self.sent[self.chance.index(self.sent.len())].clone();
        let caller = self.hosts[self.chance.index(self.hosts.len())].key.id();
        let mut domain = self.domain;
        let kind = self.chance.index(4);
        match kind {
            0 => voucher.message.amount = Usd::from_micros(voucher.message.amount.micros() + 1),
            1 => domain = Domain { chain_id: 1, ..domain },
            2 => voucher.message.operator = caller,
            _ => {}
        }
        let (now, id) = (UnixMillis(self.now), voucher.message.lease);
        let before = self.books.lease(id);
        let is_operator = before.is_some_and(|view| view.operator == caller);
        let is_honest = kind == 3 || (kind == 2 && is_operator);
        let done = self.books.redeem(&domain, now, caller, &voucher, Usd::ZERO);
        let is_allowed = is_operator && is_honest;
        self.law(done.is_err() || is_allowed, "a forged or stolen voucher was taken")?;
        if done.is_err() {
            return Ok(());
        }
        let paid = before.map_or(Usd::ZERO, |view| view.paid.max(voucher.message.amount));
        let after = self.books.lease(id).map_or(Usd::ZERO, |view| view.paid);
        self.law(after == paid, "a replayed voucher paid")
    }
}
