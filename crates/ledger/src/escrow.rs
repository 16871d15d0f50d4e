//! The escrow contract's arithmetic, to the wei.
//!
//! A second, independent statement of what `contracts/src/Escrow.sol` does with money: a test plays
//! the same histories through both and compares every balance. It knows no signatures and no gas;
//! whoever calls it has checked who signed. Amounts in orders and vouchers are micro-dollars,
//! balances are wei of ATH; everything is rounded down, and what is rounded off stays where it was.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use welkin_proto::{Order, Voucher};
use welkin_types::{AccountId, LeaseId};

/// 1e12 from micro-dollars to 18 decimals, times 1e18 of the price's decimals.
const SCALE: u128 = 1_000_000_000_000_000_000_000_000_000_000;
/// Basis points of a whole.
const WHOLE_BP: u64 = 10_000;
/// The most micro-dollars of an order.
const MICROS_MAX: u64 = 1_000_000_000_000_000;
/// How far off an order's expiry counts for a release, in seconds.
const EXPIRY_SECONDS_MAX: u64 = 30 * 86_400;

/// What is paid in which terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscrowTerms {
    /// USD for an ATH, 18 decimals.
    pub price: U256,
    /// The fee, in basis points.
    pub fee_bp: u64,
    /// How much more than its worth is set aside, in basis points.
    pub margin_bp: u64,
    /// How long after the last payment a buyer may release a lease, in seconds.
    pub release_grace_seconds: u64,
}

impl EscrowTerms {
    /// Wei for micro-dollars.
    pub fn wei(&self, micros: u64) -> U256 {
        U256::from(micros) * U256::from(SCALE) / self.price
    }

    /// Micro-dollars for wei.
    pub fn micros(&self, wei: U256) -> u64 {
        u64::try_from(wei * self.price / U256::from(SCALE)).unwrap_or(u64::MAX)
    }

    fn with_margin(&self, wei: U256) -> U256 {
        wei + share(wei, self.margin_bp)
    }
}

fn share(amount: U256, bp: u64) -> U256 {
    amount * U256::from(bp) / U256::from(WHOLE_BP)
}

/// Why the escrow refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EscrowRefusal {
    /// More wei is needed than there is.
    #[error("more is needed than there is")]
    Funds,
    /// The order has expired.
    #[error("the order has expired")]
    Expired,
    /// A number is out of its bounds.
    #[error("a number is out of its bounds")]
    Range,
    /// Another lease has the lane.
    #[error("another lease has the lane")]
    LaneBusy,
    /// The lease was closed.
    #[error("the lease was closed")]
    Closed,
    /// The lane has taken a later order.
    #[error("the lane has taken a later order")]
    Replayed,
    /// The lane does not hold this lease.
    #[error("the lane does not hold this lease")]
    UnknownLease,
    /// Not yet.
    #[error("not yet")]
    NotYet,
}

/// One account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EscrowAccount {
    /// All of it, in wei.
    pub balance: U256,
    /// Of it set aside for open leases.
    pub held: U256,
    /// Paid in all, in micro-dollars.
    pub spent: u64,
}

impl EscrowAccount {
    fn free(&self) -> U256 {
        self.balance.saturating_sub(self.held)
    }
}

/// One lane: the lease that it holds or held last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscrowLane {
    /// Which lease.
    pub lease: LeaseId,
    /// When its order was signed, in milliseconds since 1970.
    pub issued: u64,
    /// Whether it has not ended.
    pub open: bool,
    /// Aside for it, in wei; of a closed lease what was given back.
    pub held: U256,
    /// Paid, in micro-dollars.
    pub paid: u64,
    /// The most that may be paid.
    pub budget: u64,
    /// The later of its order's expiry and its last payment, in seconds since 1970.
    pub active: u64,
}

/// What a payment brought to whom.
#[derive(Clone, Copy, Debug)]
struct Earned {
    operator: AccountId,
    earned: U256,
    fee: U256,
}

type LaneKey = (AccountId, AccountId, [u8; 4]);

/// The escrow's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escrow {
    treasury: AccountId,
    accounts: BTreeMap<AccountId, EscrowAccount>,
    lanes: BTreeMap<LaneKey, EscrowLane>,
}

fn key(buyer: AccountId, operator: AccountId, lease: LeaseId) -> LaneKey {
    let [.., a, b, c, d] = *lease.as_bytes();
    (buyer, operator, [a, b, c, d])
}

impl Escrow {
    /// An empty escrow whose fees go to this account.
    pub const fn new(treasury: AccountId) -> Self {
        Self { treasury, accounts: BTreeMap::new(), lanes: BTreeMap::new() }
    }

    /// How an account stands.
    pub fn account(&self, id: AccountId) -> EscrowAccount {
        self.accounts.get(&id).copied().unwrap_or_default()
    }

    /// Every account.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountId, EscrowAccount)> {
        self.accounts.iter().map(|(id, account)| (*id, *account))
    }

    /// How a lease stands, if its lane still holds it.
    pub fn lane(
        &self,
        buyer: AccountId,
        operator: AccountId,
        lease: LeaseId,
    ) -> Option<EscrowLane> {
        let lane = self.lanes.get(&key(buyer, operator, lease))?;
        (lane.lease == lease).then_some(*lane)
    }

    /// Adds wei to an account.
    pub fn deposit(&mut self, account: AccountId, wei: U256) {
        let account = self.entry(account);
        account.balance = account.balance.saturating_add(wei);
    }

    fn entry(&mut self, account: AccountId) -> &mut EscrowAccount {
        self.accounts.entry(account).or_default()
    }

    fn known(
        &mut self,
        buyer: AccountId,
        operator: AccountId,
        lease: LeaseId,
    ) -> Result<&mut EscrowLane, EscrowRefusal> {
        let lane = self.lanes.get_mut(&key(buyer, operator, lease));
        lane.filter(|lane| lane.lease == lease).ok_or(EscrowRefusal::UnknownLease)
    }

    /// Takes an order and sets `micros` aside. `now` is the block's time in seconds.
    ///
    /// # Errors
    ///
    /// [`EscrowRefusal`]; then nothing is changed, as of every operation.
    pub fn reserve(
        &mut self,
        terms: &EscrowTerms,
        now: u64,
        order: &Order,
        micros: u64,
    ) -> Result<(), EscrowRefusal> {
        let place = key(order.buyer, order.operator, order.lease);
        if let Some(last) = self.lanes.get(&place) {
            if last.lease == order.lease {
                if !last.open {
                    return Err(EscrowRefusal::Closed);
                }
                if last.issued == order.issued.0 {
                    return Ok(());
                }
            }
            if last.open {
                return Err(EscrowRefusal::LaneBusy);
            }
            if order.issued.0 <= last.issued {
                return Err(EscrowRefusal::Replayed);
            }
        } else if order.issued.0 == 0 {
            return Err(EscrowRefusal::Replayed);
        }
        if order.expires.0 < now * 1_000 {
            return Err(EscrowRefusal::Expired);
        }
        let budget = order.budget.micros();
        if micros > budget || budget > MICROS_MAX {
            return Err(EscrowRefusal::Range);
        }
        let needed = terms.with_margin(terms.wei(micros));
        let buyer = self.entry(order.buyer);
        if needed > buyer.free() {
            return Err(EscrowRefusal::Funds);
        }
        buyer.held += needed;
        let expires = order.expires.0.div_ceil(1_000);
        let lane = EscrowLane {
            lease: order.lease,
            issued: order.issued.0,
            open: true,
            held: needed,
            paid: 0,
            budget,
            active: expires.min(now + EXPIRY_SECONDS_MAX),
        };
        self.lanes.insert(place, lane);
        Ok(())
    }

    /// Pays what a voucher promises beyond what was paid, then sets aside what `hold_beyond`
    /// micro-dollars more would need, both as far as money goes.
    ///
    /// # Errors
    ///
    /// [`EscrowRefusal`]
    pub fn redeem(
        &mut self,
        terms: &EscrowTerms,
        now: u64,
        buyer: AccountId,
        voucher: &Voucher,
        hold_beyond: u64,
    ) -> Result<(), EscrowRefusal> {
        let earned = self.settle(terms, now, buyer, voucher, hold_beyond)?;
        self.credit(earned);
        Ok(())
    }

    /// As [`Self::redeem`]; what the operator and the treasury get is still to be booked.
    fn settle(
        &mut self,
        terms: &EscrowTerms,
        now: u64,
        buyer: AccountId,
        voucher: &Voucher,
        hold_beyond: u64,
    ) -> Result<Earned, EscrowRefusal> {
        let operator = voucher.operator;
        let mut lane = *self.known(buyer, operator, voucher.lease)?;
        if !lane.open {
            return Err(EscrowRefusal::Closed);
        }
        let promised = voucher.amount.micros();
        if promised > lane.budget {
            return Err(EscrowRefusal::Range);
        }
        let mut account = self.account(buyer);
        let (mut earned, mut fee) = (U256::ZERO, U256::ZERO);
        if promised > lane.paid {
            let available = lane.held + account.free();
            let mut covered = promised - lane.paid;
            if terms.wei(covered) > available {
                covered = terms.micros(available);
            }
            if covered > 0 {
                let out = terms.wei(covered);
                let aside = out.min(lane.held);
                account.held -= aside;
                account.balance -= out;
                account.spent = account.spent.saturating_add(covered);
                lane.held -= aside;
                lane.paid += covered;
                lane.active = lane.active.max(now);
                let fee_of =
                    |paid: u64| u128::from(paid) * u128::from(terms.fee_bp) / u128::from(WHOLE_BP);
                let fee_micros = fee_of(lane.paid) - fee_of(lane.paid - covered);
                fee = out * U256::from(fee_micros) / U256::from(covered);
                earned = out - fee;
            }
        }
        if hold_beyond > 0 {
            let beyond = hold_beyond.min(lane.budget - lane.paid);
            let goal = terms.with_margin(terms.wei(beyond));
            let more = goal.saturating_sub(lane.held).min(account.free());
            account.held += more;
            lane.held += more;
        }
        self.accounts.insert(buyer, account);
        self.lanes.insert(key(buyer, operator, voucher.lease), lane);
        Ok(Earned { operator, earned, fee })
    }

    fn credit(&mut self, of: Earned) {
        if !of.earned.is_zero() {
            self.deposit(of.operator, of.earned);
        }
        if !of.fee.is_zero() {
            self.deposit(self.treasury, of.fee);
        }
    }

    /// Redeems many; what can't be redeemed is left out.
    pub fn redeem_batch(
        &mut self,
        terms: &EscrowTerms,
        now: u64,
        list: &[(AccountId, Voucher, u64)],
    ) {
        // An operator's earnings are booked when its run of entries ends, so they can't pay for an
        // entry of the same run.
        let mut run: Option<Earned> = None;
        for (buyer, voucher, beyond) in list {
            let lane = self.lane(*buyer, voucher.operator, voucher.lease);
            let is_good = |lane: EscrowLane| lane.open && voucher.amount.micros() <= lane.budget;
            if !lane.is_some_and(is_good) {
                continue;
            }
            if let Some(before) = run.take_if(|run| run.operator != voucher.operator) {
                self.credit(before);
            }
            if let Ok(new) = self.settle(terms, now, *buyer, voucher, *beyond) {
                let so_far =
                    run.get_or_insert(Earned { earned: U256::ZERO, fee: U256::ZERO, ..new });
                so_far.earned += new.earned;
                so_far.fee += new.fee;
            }
        }
        if let Some(last) = run {
            self.credit(last);
        }
    }

    /// Ends a lease and gives back what is aside. Again, it changes nothing.
    ///
    /// # Errors
    ///
    /// [`EscrowRefusal::UnknownLease`]
    pub fn close(
        &mut self,
        buyer: AccountId,
        operator: AccountId,
        lease: LeaseId,
    ) -> Result<(), EscrowRefusal> {
        let lane = self.known(buyer, operator, lease)?;
        if !lane.open {
            return Ok(());
        }
        lane.open = false;
        let held = lane.held;
        self.entry(buyer).held -= held;
        Ok(())
    }

    /// Redeems a last voucher, then closes.
    ///
    /// # Errors
    ///
    /// [`EscrowRefusal`]
    pub fn close_with(
        &mut self,
        terms: &EscrowTerms,
        now: u64,
        buyer: AccountId,
        voucher: &Voucher,
    ) -> Result<(), EscrowRefusal> {
        let lane = *self.known(buyer, voucher.operator, voucher.lease)?;
        if voucher.amount.micros() > lane.paid {
            self.redeem(terms, now, buyer, voucher, 0)?;
        }
        self.close(buyer, voucher.operator, voucher.lease)
    }

    /// A buyer ends a lease that its operator has abandoned.
    ///
    /// # Errors
    ///
    /// [`EscrowRefusal`]
    pub fn release(
        &mut self,
        terms: &EscrowTerms,
        now: u64,
        buyer: AccountId,
        operator: AccountId,
        lease: LeaseId,
    ) -> Result<(), EscrowRefusal> {
        let lane = *self.known(buyer, operator, lease)?;
        if !lane.open {
            return Err(EscrowRefusal::Closed);
        }
        if lane.active + terms.release_grace_seconds > now {
            return Err(EscrowRefusal::NotYet);
        }
        self.close(buyer, operator, lease)
    }
}
