//! A naive ledger: it keeps only what was put in, put aside and paid, and sums up every balance
//! from that each time it is asked.

use std::collections::{BTreeMap, BTreeSet};

/// What the model knows of a lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) buyer: usize,
    pub(super) operator: usize,
    pub(super) variant: u8,
    pub(super) budget: i128,
    pub(super) expires: u64,
    pub(super) active: u64,
    pub(super) aside_in_all: i128,
    pub(super) paid: i128,
    pub(super) is_closed: bool,
}

impl Lease {
    pub(super) fn held(&self) -> i128 {
        if self.is_closed { 0 } else { self.aside_in_all - self.paid }
    }
}

/// The naive ledger. Each verb says whether it is carried out.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    deposits: Vec<(usize, i128)>,
    keys: BTreeSet<(usize, u8)>,
    pub(super) leases: BTreeMap<u8, Lease>,
}

impl Model {
    pub(super) fn deposited(&self, who: usize) -> i128 {
        self.deposits.iter().filter(|(account, _)| *account == who).map(|(_, amount)| amount).sum()
    }

    pub(super) fn held(&self, who: usize) -> i128 {
        self.leases.values().filter(|lease| lease.buyer == who).map(Lease::held).sum()
    }

    pub(super) fn spent(&self, who: usize) -> i128 {
        self.leases.values().filter(|lease| lease.buyer == who).map(|lease| lease.paid).sum()
    }

    pub(super) fn earned(&self, who: usize) -> i128 {
        let leases = self.leases.values().filter(|lease| lease.operator == who);
        leases.map(|lease| lease.paid - lease.paid / 5).sum()
    }

    pub(super) fn available(&self, who: usize) -> i128 {
        self.deposited(who) + self.earned(who) - self.spent(who) - self.held(who)
    }

    pub(super) fn treasury(&self) -> i128 {
        self.leases.values().map(|lease| lease.paid / 5).sum()
    }

    pub(super) fn deposit(&mut self, who: usize, amount: i128, key: u8) -> bool {
        if self.keys.contains(&(who, key)) {
            return true;
        }
        if amount == 0 {
            return false;
        }
        self.keys.insert((who, key));
        self.deposits.push((who, amount));
        true
    }

    pub(super) fn reserve(&mut self, id: u8, lease: Lease, now: u64) -> bool {
        if let Some(known) = self.leases.get(&id) {
            return !known.is_closed
                && (known.buyer, known.operator, known.variant, known.budget, known.expires)
                    == (lease.buyer, lease.operator, lease.variant, lease.budget, lease.expires);
        }
        let fits = lease.aside_in_all <= lease.budget
            && lease.aside_in_all <= self.available(lease.buyer)
            && lease.expires >= now;
        if fits {
            self.leases.insert(id, lease);
        }
        fits
    }

    pub(super) fn redeem(&mut self, id: u8, amount: i128, beyond: i128, now: u64) -> bool {
        let Some(lease) = self.leases.get(&id).filter(|lease| !lease.is_closed) else {
            return false;
        };
        if !self.pay(id, lease.clone(), amount, now) {
            return false;
        }
        let buyer = self.leases[&id].buyer;
        let available = self.available(buyer);
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        let wanted = beyond.min(lease.budget - lease.paid);
        lease.aside_in_all += (wanted - lease.held()).clamp(0, available);
        true
    }

    pub(super) fn close(&mut self, id: u8, amount: Option<i128>, now: u64) -> bool {
        let Some(lease) = self.leases.get(&id).cloned() else { return false };
        let promised = amount.unwrap_or(lease.paid);
        if lease.is_closed {
            return true;
        }
        let amount =
            if promised > lease.budget { promised } else { promised.min(lease.aside_in_all) };
        let is_paid = self.pay(id, lease, amount, now);
        if let Some(lease) = self.leases.get_mut(&id).filter(|_| is_paid) {
            lease.is_closed = true;
        }
        is_paid
    }

    pub(super) fn release(&mut self, id: u8, who: usize, now: u64) -> bool {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.buyer == who) else {
            return false;
        };
        let is_due = now > lease.expires.max(lease.active) + 3_600_000;
        let is_released = lease.is_closed || is_due;
        lease.is_closed = is_released;
        is_released
    }

    fn pay(&mut self, id: u8, mut lease: Lease, amount: i128, now: u64) -> bool {
        if amount > lease.budget || amount > lease.aside_in_all {
            return false;
        }
        if amount > lease.paid {
            lease.paid = amount;
            lease.active = now;
        }
        self.leases.insert(id, lease);
        true
    }
}
