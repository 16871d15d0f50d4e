//! The ledger: every verb of the settlement as a plan, and its application.
//!
//! What a lease may take from its buyer is bounded by what the buyer signed: the order's budget
//! bounds what is set aside, a voucher bounds what is paid.

use std::collections::BTreeMap;
use std::time::Duration;

use welkin_proto::settle::{AccountView, LeaseView, SettleRefusal, Totals};
use welkin_proto::{Domain, Eip712 as _, Order, SignedByAccount, Voucher};
use welkin_types::{AccountId, BasisPoints, LeaseId, UnixMillis, Usd};

use crate::row::{AccountRow, Changes, FUND_KEYS_MAX, LeaseRow};

/// The most accounts; a further one is refused with [`SettleRefusal::Full`].
pub const ACCOUNTS_MAX: usize = 1 << 20;
/// The most leases kept; a further one is refused with [`SettleRefusal::Full`].
pub const LEASES_MAX: usize = 1 << 20;
/// How long after the order's end and the last payment a buyer may release a lease.
pub const RELEASE_GRACE: Duration = Duration::from_hours(1);
/// How long after the order's end and the last payment a closed lease is forgotten.
pub const FORGET_AFTER: Duration = Duration::from_hours(24 * 30);
/// The most leases that one [`Ledger::forget`] removes.
pub const FORGOTTEN_MAX: usize = 256;

/// Changes were planned on another state of the ledger than the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes planned at generation {planned} do not fit generation {present}")]
pub struct StaleChanges {
    /// The generation of the changes.
    pub planned: u64,
    /// The generation of the ledger.
    pub present: u64,
}

/// Accounts, reservations and the treasury.
///
/// ```
/// use welkin_ledger::Ledger;
/// use welkin_types::{AccountId, Usd};
/// let (mut ledger, buyer) = (Ledger::default(), AccountId::from_bytes([1; 20]));
/// let changes = ledger.deposit(buyer, Usd::from_micros(5), [0; 16])?;
/// // Here a shell writes `changes` to its disk.
/// ledger.apply(&changes)?;
/// assert_eq!(ledger.account(buyer).available, Usd::from_micros(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(crate) accounts: BTreeMap<AccountId, AccountRow>,
    pub(crate) leases: BTreeMap<LeaseId, LeaseRow>,
    pub(crate) totals: Totals,
    pub(crate) generation: u64,
}

impl Ledger {
    /// Applies what was planned on exactly this state.
    ///
    /// # Errors
    ///
    /// [`StaleChanges`] if something else was applied in between; then nothing is changed.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), StaleChanges> {
        if changes.generation != self.generation {
            return Err(StaleChanges { planned: changes.generation, present: self.generation });
        }
        for (id, row) in &changes.accounts {
            let before = self.accounts.insert(*id, row.clone()).unwrap_or_default();
            replace(&mut self.totals.deposited, before.deposited, row.deposited);
            replace(&mut self.totals.available, before.available, row.available);
            replace(&mut self.totals.held, before.held, row.held);
        }
        self.leases.extend(changes.lease);
        for id in &changes.removed {
            self.leases.remove(id);
        }
        self.totals.treasury = changes.treasury.unwrap_or(self.totals.treasury);
        self.generation += 1;
        Ok(())
    }

    /// Plans to add money from outside. A key that the account remembers is carried out already.
    ///
    /// # Errors
    ///
    /// [`SettleRefusal::Range`] for nothing and for more than all money there may be,
    /// [`SettleRefusal::Full`] where the ledger is full.
    pub fn deposit(
        &self,
        account: AccountId,
        amount: Usd,
        idempotency: [u8; 16],
    ) -> Result<Changes, SettleRefusal> {
        let known = self.accounts.get(&account);
        if known.is_some_and(|row| row.fund_keys.contains(&idempotency)) {
            return Ok(self.unchanged());
        }
        if known.is_none() && self.accounts.len() >= ACCOUNTS_MAX {
            return Err(SettleRefusal::Full);
        }
        // All money together is at most the largest amount, so that no sum of balances overflows.
        let is_representable = self.totals.deposited.checked_add(amount).is_some();
        if amount.is_zero() || !is_representable {
            return Err(SettleRefusal::Range);
        }
        let mut draft = Draft::new(self);
        let row = draft.account(account);
        add(&mut row.deposited, amount)?;
        add(&mut row.available, amount)?;
        row.fund_keys.push(idempotency);
        let surplus = row.fund_keys.len().saturating_sub(FUND_KEYS_MAX);
        row.fund_keys.drain(..surplus);
        Ok(draft.finish())
    }

    /// Plans to set `amount` of the buyer's money aside for an order. The same order again changes
    /// nothing, whatever the amount.
    ///
    /// # Errors
    ///
    /// [`SettleRefusal`] saying what is wrong.
    pub fn reserve(
        &self,
        domain: &Domain,
        now: UnixMillis,
        caller: AccountId,
        order: &SignedByAccount<Order>,
        amount: Usd,
    ) -> Result<Changes, SettleRefusal> {
        let message = &order.message;
        if caller != message.operator {
            return Err(SettleRefusal::NotAllowed);
        }
        if order.signer(domain) != Ok(message.buyer) {
            return Err(SettleRefusal::Signature);
        }
        if let Some(known) = self.leases.get(&message.lease) {
            return self.reserve_again(known, message);
        }
        if message.expires < now {
            return Err(SettleRefusal::Expired { at: message.expires });
        }
        let largest = amount.max(message.budget).max(message.price.hour());
        if largest > Usd::MAX || amount > message.budget {
            return Err(SettleRefusal::Range);
        }
        let mut draft = Draft::new(self);
        let buyer = draft.account(message.buyer);
        if buyer.available < amount {
            return Err(SettleRefusal::Funds { needed: amount, available: buyer.available });
        }
        draft.account(message.operator);
        let strangers = draft.accounts.keys().filter(|id| !self.accounts.contains_key(id)).count();
        if self.leases.len() >= LEASES_MAX || self.accounts.len() + strangers > ACCOUNTS_MAX {
            return Err(SettleRefusal::Full);
        }
        let mut lease = LeaseRow::new(message, now);
        draft.hold(&mut lease, amount)?;
        Ok(draft.finish_with(message.lease, lease))
    }

    /// Plans to cash a voucher and to have up to `hold_beyond` aside after that, as far as the
    /// budget and the buyer's money go. A voucher not above what was paid pays nothing.
    ///
    /// # Errors
    ///
    /// [`SettleRefusal`] saying what is wrong.
    pub fn redeem(
        &self,
        domain: &Domain,
        now: UnixMillis,
        caller: AccountId,
        voucher: &SignedByAccount<Voucher>,
        hold_beyond: Usd,
    ) -> Result<Changes, SettleRefusal> {
        let id = voucher.message.lease;
        let mut lease = self.operated(caller, id)?;
        check_voucher(domain, &lease, id, voucher)?;
        if lease.closed {
            return Err(SettleRefusal::Closed);
        }
        let mut draft = Draft::new(self);
        draft.pay(&mut lease, voucher.message.amount, now)?;
        let wanted = hold_beyond.min(lease.budget.saturating_sub(lease.paid));
        let missing = wanted.saturating_sub(lease.held);
        let available = draft.account(lease.buyer).available;
        draft.hold(&mut lease, missing.min(available))?;
        if self.leases.get(&id) == Some(&lease) {
            return Ok(self.unchanged());
        }
        Ok(draft.finish_with(id, lease))
    }

    /// Plans to end a lease: pays its last voucher as far as money is aside for it, and gives the
    /// rest back. Ending it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`SettleRefusal`] saying what is wrong.
    pub fn close(
        &self,
        domain: &Domain,
        now: UnixMillis,
        caller: AccountId,
        id: LeaseId,
        voucher: Option<&SignedByAccount<Voucher>>,
    ) -> Result<Changes, SettleRefusal> {
        let mut lease = self.operated(caller, id)?;
        if let Some(voucher) = voucher {
            check_voucher(domain, &lease, id, voucher)?;
        }
        if lease.closed {
            return Ok(self.unchanged());
        }
        let promised = voucher.map_or(lease.paid, |voucher| voucher.message.amount);
        if promised > lease.budget {
            return Err(SettleRefusal::Range);
        }
        // More than is aside can't be had, and is no reason to pay nothing.
        let aside = lease.paid.checked_add(lease.held).ok_or(SettleRefusal::Range)?;
        let amount = promised.min(aside);
        let mut draft = Draft::new(self);
        draft.pay(&mut lease, amount, now)?;
        draft.refund(&mut lease)?;
        Ok(draft.finish_with(id, lease))
    }

    /// Plans to end a lease that its host has abandoned: gives its buyer what is aside, at the
    /// earliest [`RELEASE_GRACE`] after the order's end and the last payment. An ended lease is
    /// left as it is.
    ///
    /// # Errors
    ///
    /// [`SettleRefusal::UnknownLease`], or [`SettleRefusal::NotAllowed`] for anybody but the buyer
    /// and before that time.
    pub fn release(
        &self,
        caller: AccountId,
        id: LeaseId,
        now: UnixMillis,
    ) -> Result<Changes, SettleRefusal> {
        let mut lease = *self.leases.get(&id).ok_or(SettleRefusal::UnknownLease)?;
        if caller != lease.buyer {
            return Err(SettleRefusal::NotAllowed);
        }
        if lease.closed {
            return Ok(self.unchanged());
        }
        if now <= quiet_since(&lease).after(RELEASE_GRACE) {
            return Err(SettleRefusal::NotAllowed);
        }
        let mut draft = Draft::new(self);
        draft.refund(&mut lease)?;
        Ok(draft.finish_with(id, lease))
    }

    /// Plans to forget leases that ended long ago, at most [`FORGOTTEN_MAX`]. Their orders are too
    /// old to be reserved again.
    pub fn forget(&self, now: UnixMillis) -> Changes {
        let is_old =
            |lease: &LeaseRow| lease.closed && quiet_since(lease).after(FORGET_AFTER) < now;
        let old = self.leases.iter().filter(|(_, lease)| is_old(lease));
        let removed = old.map(|(id, _)| *id).take(FORGOTTEN_MAX).collect();
        Changes { removed, ..self.unchanged() }
    }

    /// Whether a new account or lease would be refused with [`SettleRefusal::Full`].
    pub fn is_full(&self) -> bool {
        self.leases.len() >= LEASES_MAX || self.accounts.len() >= ACCOUNTS_MAX
    }

    /// How an account stands. One never heard of has nothing.
    pub fn account(&self, id: AccountId) -> AccountView {
        self.accounts.get(&id).map(AccountRow::view).unwrap_or_default()
    }

    /// How a lease stands.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.leases.get(&id).map(LeaseRow::view)
    }

    /// Sums over everything.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Every account's row, in order.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountId, &AccountRow)> {
        self.accounts.iter().map(|(id, row)| (*id, row))
    }

    /// Every lease's row, in order.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, &LeaseRow)> {
        self.leases.iter().map(|(id, row)| (*id, row))
    }

    /// No changes to this state.
    fn unchanged(&self) -> Changes {
        Changes { generation: self.generation, ..Changes::default() }
    }

    fn reserve_again(&self, known: &LeaseRow, order: &Order) -> Result<Changes, SettleRefusal> {
        if known.order != order.hash_struct() {
            return Err(SettleRefusal::NotAllowed);
        }
        if known.closed { Err(SettleRefusal::Closed) } else { Ok(self.unchanged()) }
    }

    /// The lease, if the caller is its operator.
    fn operated(&self, caller: AccountId, id: LeaseId) -> Result<LeaseRow, SettleRefusal> {
        let lease = *self.leases.get(&id).ok_or(SettleRefusal::UnknownLease)?;
        if caller == lease.operator { Ok(lease) } else { Err(SettleRefusal::NotAllowed) }
    }
}

/// The rows of a plan in the making. One account may be both buyer and operator, so each row is
/// looked up where it is changed.
struct Draft<'a> {
    ledger: &'a Ledger,
    accounts: BTreeMap<AccountId, AccountRow>,
    treasury: Usd,
}

impl<'a> Draft<'a> {
    const fn new(ledger: &'a Ledger) -> Self {
        Self { ledger, accounts: BTreeMap::new(), treasury: ledger.totals.treasury }
    }

    fn account(&mut self, id: AccountId) -> &mut AccountRow {
        let known = || self.ledger.accounts.get(&id).cloned().unwrap_or_default();
        self.accounts.entry(id).or_insert_with(known)
    }

    /// Moves the buyer's money aside.
    fn hold(&mut self, lease: &mut LeaseRow, amount: Usd) -> Result<(), SettleRefusal> {
        let buyer = self.account(lease.buyer);
        take(&mut buyer.available, amount)?;
        add(&mut buyer.held, amount)?;
        add(&mut lease.held, amount)
    }

    /// Pays out of what is aside until `total` is paid in all.
    fn pay(
        &mut self,
        lease: &mut LeaseRow,
        total: Usd,
        now: UnixMillis,
    ) -> Result<(), SettleRefusal> {
        if total > lease.budget {
            return Err(SettleRefusal::Range);
        }
        let due = total.saturating_sub(lease.paid);
        if due.is_zero() {
            return Ok(());
        }
        if due > lease.held {
            return Err(SettleRefusal::Uncovered { amount: due, covered: lease.held });
        }
        let fee = total.split(BasisPoints::SERVICE_FEE).0;
        let fee_due = fee.checked_sub(lease.fee).ok_or(SettleRefusal::Range)?;
        let earned = due.checked_sub(fee_due).ok_or(SettleRefusal::Range)?;
        take(&mut lease.held, due)?;
        lease.paid = total;
        lease.fee = fee;
        lease.active = lease.active.max(now);
        let buyer = self.account(lease.buyer);
        take(&mut buyer.held, due)?;
        add(&mut buyer.spent, due)?;
        let operator = self.account(lease.operator);
        add(&mut operator.available, earned)?;
        add(&mut operator.earned, earned)?;
        add(&mut self.treasury, fee_due)
    }

    /// Gives what is aside back and ends the lease.
    fn refund(&mut self, lease: &mut LeaseRow) -> Result<(), SettleRefusal> {
        let rest = lease.held;
        let buyer = self.account(lease.buyer);
        take(&mut buyer.held, rest)?;
        add(&mut buyer.available, rest)?;
        lease.held = Usd::ZERO;
        lease.refunded = rest;
        lease.closed = true;
        Ok(())
    }

    fn finish(self) -> Changes {
        let before = self.ledger.totals.treasury;
        let treasury = (self.treasury != before).then_some(self.treasury);
        let is_changed =
            |id: &AccountId, row: &AccountRow| self.ledger.accounts.get(id) != Some(row);
        let accounts = self.accounts.into_iter().filter(|(id, row)| is_changed(id, row)).collect();
        Changes { accounts, treasury, ..self.ledger.unchanged() }
    }

    fn finish_with(self, id: LeaseId, lease: LeaseRow) -> Changes {
        Changes { lease: Some((id, lease)), ..self.finish() }
    }
}

/// Whether a voucher is the buyer's, for this lease and its operator.
fn check_voucher(
    domain: &Domain,
    lease: &LeaseRow,
    id: LeaseId,
    voucher: &SignedByAccount<Voucher>,
) -> Result<(), SettleRefusal> {
    let message = &voucher.message;
    let is_for_lease = message.lease == id && message.operator == lease.operator;
    if is_for_lease && voucher.signer(domain) == Ok(lease.buyer) {
        return Ok(());
    }
    Err(SettleRefusal::Signature)
}

/// Since when neither the order nor a payment shows that somebody works.
fn quiet_since(lease: &LeaseRow) -> UnixMillis {
    lease.expires.max(lease.active)
}

fn add(to: &mut Usd, amount: Usd) -> Result<(), SettleRefusal> {
    *to = to.checked_add(amount).ok_or(SettleRefusal::Range)?;
    Ok(())
}

fn take(from: &mut Usd, amount: Usd) -> Result<(), SettleRefusal> {
    *from = from.checked_sub(amount).ok_or(SettleRefusal::Range)?;
    Ok(())
}

/// Replaces one term of a sum. Every sum is at most what was deposited, which is at most
/// [`Usd::MAX`], so nothing saturates.
fn replace(sum: &mut Usd, before: Usd, after: Usd) {
    let rest = sum.saturating_sub(before);
    *sum = Usd::from_micros(rest.micros().saturating_add(after.micros()));
}

#[cfg(test)]
mod tests;
