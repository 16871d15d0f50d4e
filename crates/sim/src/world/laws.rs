//! What must be true after every step, and those who try to break it.

use std::collections::BTreeSet;

use welkin_ledger::Ledger;
use welkin_proto::Domain;
use welkin_types::{BasisPoints, UnixMillis, Usd};

use super::{Violation, World};

/// How often the whole ledger is rebuilt from its rows.
const REBUILD_STEPS: u64 = 250;

impl World {
    pub(super) fn check_laws(&self) -> Result<(), Violation> {
        self.check_money()?;
        self.check_slots()
    }

    pub(super) fn check_money(&self) -> Result<(), Violation> {
        let micros = |amount: Usd| u128::from(amount.micros());
        let totals = self.ledger.totals();
        let present = micros(totals.available) + micros(totals.held) + micros(totals.treasury);
        self.law(micros(totals.deposited) == present, "money was lost or made")?;
        let rows: u128 =
            self.ledger.accounts().map(|(_, row)| micros(row.available) + micros(row.held)).sum();
        self.law(rows + micros(totals.treasury) == present, "accounts and totals differ")?;
        let (mut held, mut fees) = (0, 0);
        for (id, row) in self.ledger.leases() {
            held += micros(row.held);
            fees += micros(row.fee);
            let is_sound = row.fee == row.paid.split(BasisPoints::SERVICE_FEE).0
                && micros(row.paid) + micros(row.held) <= micros(row.budget)
                && row.paid <= self.promised.get(&id).copied().unwrap_or_default();
            self.law(is_sound, "a lease paid more than was promised, or another fee")?;
        }
        let is_sum = held == micros(totals.held) && fees == micros(totals.treasury);
        self.law(is_sum, "leases and totals differ")?;
        if self.step.is_multiple_of(REBUILD_STEPS) {
            let accounts = self.ledger.accounts().map(|(id, row)| (id, row.clone()));
            let leases = self.ledger.leases().map(|(id, row)| (id, *row));
            let rebuilt = Ledger::restore(accounts, leases, totals.treasury);
            let is_same = rebuilt.is_ok_and(|rebuilt| rebuilt.totals() == totals);
            self.law(is_same, "the rows are no ledger")?;
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
                let view = self.ledger.lease(*id);
                let is_open = view.is_some_and(|view| !view.closed);
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
        let before = self.ledger.lease(id);
        let is_operator = before.is_some_and(|view| view.operator == caller);
        let is_honest = kind == 3 || (kind == 2 && is_operator);
        let planned = self.ledger.redeem(&domain, now, caller, &voucher, Usd::ZERO);
        let is_allowed = is_operator && is_honest;
        self.law(planned.is_err() || is_allowed, "a forged or stolen voucher was taken")?;
        if planned.is_err() {
            return Ok(());
        }
        self.settle(planned)?;
        let paid = before.map_or(Usd::ZERO, |view| view.paid.max(voucher.message.amount));
        let after = self.ledger.lease(id).map_or(Usd::ZERO, |view| view.paid);
        self.law(after == paid, "a replayed voucher paid")
    }
}
