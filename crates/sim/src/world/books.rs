//! The settlement of the simulated world: the escrow contract's arithmetic behind what the contract
//! checks of callers and signatures.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use welkin_ledger::{Escrow, EscrowRefusal, EscrowTerms};
use welkin_proto::{Domain, Order, SignedByAccount, Voucher};
use welkin_types::{AccountId, BasisPoints, LeaseId, UnixMillis, Usd};

/// Five cents for an ATH, 18 decimals: a whole number of wei for each micro-dollar.
const PRICE: u64 = 50_000_000_000_000_000;
/// How long a lease must be silent before its buyer may release it, in seconds.
pub(super) const RELEASE_GRACE_SECONDS: u64 = 86_400;
/// Whom fees go to.
const TREASURY: AccountId = AccountId::from_bytes([0xfe; 20]);

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The caller may not do this, or a signature is not the one that is needed.
    #[error("the caller or a signature is wrong")]
    Signature,
    /// The escrow says no.
    #[error(transparent)]
    Escrow(#[from] EscrowRefusal),
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaseView {
    pub(super) buyer: AccountId,
    pub(super) operator: AccountId,
    pub(super) held: Usd,
    pub(super) paid: Usd,
    pub(super) budget: Usd,
    pub(super) is_open: bool,
}

/// All money of the world.
#[derive(Debug)]
pub(super) struct Books {
    escrow: Escrow,
    terms: EscrowTerms,
    deposited: U256,
    parties: BTreeMap<LeaseId, (AccountId, AccountId)>,
}

impl Books {
    pub(super) fn new() -> Self {
        let terms = EscrowTerms {
            price: U256::from(PRICE),
            fee_bp: u64::from(BasisPoints::SERVICE_FEE.points()),
            margin_bp: 0,
            release_grace_seconds: RELEASE_GRACE_SECONDS,
        };
        let (deposited, parties) = (U256::ZERO, BTreeMap::new());
        Self { escrow: Escrow::new(TREASURY), terms, deposited, parties }
    }

    fn wei(&self, amount: Usd) -> U256 {
        self.terms.wei(amount.micros())
    }

    fn usd(&self, wei: U256) -> Usd {
        Usd::from_micros(self.terms.micros(wei))
    }

    pub(super) fn deposit(&mut self, account: AccountId, amount: Usd) {
        let wei = self.wei(amount);
        self.deposited += wei;
        self.escrow.deposit(account, wei);
    }

    /// What an account may spend.
    pub(super) fn available(&self, account: AccountId) -> Usd {
        let account = self.escrow.account(account);
        self.usd(account.balance.saturating_sub(account.held))
    }

    pub(super) fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        let (buyer, operator) = *self.parties.get(&id)?;
        let lane = self.escrow.lane(buyer, operator, id)?;
        Some(LeaseView {
            buyer,
            operator,
            held: if lane.open { self.usd(lane.held) } else { Usd::ZERO },
            paid: Usd::from_micros(lane.paid),
            budget: Usd::from_micros(lane.budget),
            is_open: lane.open,
        })
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = (LeaseId, LeaseView)> {
        self.parties.keys().filter_map(|id| Some((*id, self.lease(*id)?)))
    }

    pub(super) fn reserve(
        &mut self,
        domain: &Domain,
        now: UnixMillis,
        caller: AccountId,
        order: &SignedByAccount<Order>,
        amount: Usd,
    ) -> Result<(), Refusal> {
        let message = &order.message;
        if order.signer(domain) != Ok(message.buyer) || caller != message.operator {
            return Err(Refusal::Signature);
        }
        self.escrow.reserve(&self.terms, now.0 / 1_000, message, amount.micros())?;
        self.parties.insert(message.lease, (message.buyer, message.operator));
        Ok(())
    }

    /// The buyer of a lease that the caller operates, if it signed this voucher for it.
    fn payer(
        &self,
        domain: &Domain,
        caller: AccountId,
        voucher: &SignedByAccount<Voucher>,
    ) -> Result<AccountId, Refusal> {
        let (buyer, _) = self.operated(caller, voucher.message.lease)?;
        let is_good = voucher.message.operator == caller && voucher.signer(domain) == Ok(buyer);
        if is_good { Ok(buyer) } else { Err(Refusal::Signature) }
    }

    fn operated(
        &self,
        caller: AccountId,
        id: LeaseId,
    ) -> Result<(AccountId, AccountId), EscrowRefusal> {
        let parties = self.parties.get(&id).copied();
        parties.filter(|(_, operator)| *operator == caller).ok_or(EscrowRefusal::UnknownLease)
    }

    pub(super) fn redeem(
        &mut self,
        domain: &Domain,
        now: UnixMillis,
        caller: AccountId,
        voucher: &SignedByAccount<Voucher>,
        ahead: Usd,
    ) -> Result<(), Refusal> {
        let buyer = self.payer(domain, caller, voucher)?;
        let (now, ahead) = (now.0 / 1_000, ahead.micros());
        Ok(self.escrow.redeem(&self.terms, now, buyer, &voucher.message, ahead)?)
    }

    pub(super) fn close(
        &mut self,
        domain: &Domain,
        now: UnixMillis,
        caller: AccountId,
        id: LeaseId,
        voucher: Option<&SignedByAccount<Voucher>>,
    ) -> Result<(), Refusal> {
        let Some(voucher) = voucher else {
            let (buyer, operator) = self.operated(caller, id)?;
            return Ok(self.escrow.close(buyer, operator, id)?);
        };
        let buyer = self.payer(domain, caller, voucher)?;
        Ok(self.escrow.close_with(&self.terms, now.0 / 1_000, buyer, &voucher.message)?)
    }

    pub(super) fn release(
        &mut self,
        now: UnixMillis,
        caller: AccountId,
        id: LeaseId,
    ) -> Result<(), Refusal> {
        let (buyer, operator) = *self.parties.get(&id).ok_or(EscrowRefusal::UnknownLease)?;
        if buyer != caller {
            return Err(Refusal::Signature);
        }
        Ok(self.escrow.release(&self.terms, now.0 / 1_000, buyer, operator, id)?)
    }

    /// What must always be true: nothing is lost or made, what accounts hold is what leases have
    /// aside, and the treasury has the fee of what was paid and nothing else.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let (mut all, mut held) = (U256::ZERO, U256::ZERO);
        for (_, account) in self.escrow.accounts() {
            all += account.balance;
            held += account.held;
        }
        if all != self.deposited {
            return Some("money was lost or made");
        }
        let (mut aside, mut fees) = (U256::ZERO, U256::ZERO);
        for (_, lease) in self.leases() {
            aside += self.wei(lease.held);
            fees += self.wei(lease.paid.split(BasisPoints::SERVICE_FEE).0);
        }
        if aside != held {
            return Some("what leases have aside is not what accounts hold");
        }
        (self.escrow.account(TREASURY).balance != fees).then_some("the fees are not the treasury")
    }

    /// Whether nothing is aside for any lease.
    pub(super) fn is_settled(&self) -> bool {
        self.escrow.accounts().all(|(_, account)| account.held.is_zero())
    }
}
