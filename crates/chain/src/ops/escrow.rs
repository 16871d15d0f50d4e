//! Money in the escrow: how it stands, how it gets in, and how it gets out again in two steps.

use alloy_primitives::{Address, U256};

use super::{Act, Desk, OpsError};
use crate::ath;
use crate::contracts::Escrow;
use crate::deployment::Contract;

/// An account in the escrow, in wei.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// All that is in it.
    pub balance: U256,
    /// Of it set aside for leases.
    pub held: U256,
    /// What was announced to be withdrawn; zero if nothing was.
    pub thawing: U256,
    /// From when that can be taken, in seconds since 1970.
    pub thaw_end: u64,
}

impl Standing {
    /// What is not set aside.
    pub const fn free(&self) -> U256 {
        self.balance.saturating_sub(self.held)
    }
}

/// What becomes of a wish to withdraw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It is announced first.
    Announce {
        /// The announcement.
        act: Act,
        /// How much, in wei.
        amount: U256,
        /// How long until it can be taken, in seconds.
        wait_seconds: u64,
    },
    /// It is announced, and can't be taken yet.
    Wait {
        /// How much, in wei.
        amount: U256,
        /// From when it can be taken, in seconds since 1970.
        at: u64,
    },
    /// It can be taken now.
    Take {
        /// The transaction.
        act: Act,
        /// How much, in wei: what was announced, as far as it is not set aside for a lease.
        amount: U256,
    },
}

/// How an account stands in the escrow.
///
/// # Errors
///
/// [`OpsError`]
pub async fn standing(desk: &Desk) -> Result<Standing, OpsError> {
    let call = Escrow::accountOfCall { account: desk.account() };
    let seen = desk.look(Contract::Escrow, call).await?;
    Ok(Standing {
        balance: seen.balance,
        held: seen.held,
        thawing: seen.thawing,
        thaw_end: seen.thawEnd,
    })
}

/// The next step of withdrawing to `to`. Where a withdrawal was announced, it goes on with that
/// one; else it announces `wanted` (in wei; none: all there is).
///
/// # Errors
///
/// [`OpsError`], also where there is not so much, or nothing to go on with.
pub async fn withdrawal(
    desk: &Desk,
    wanted: Option<U256>,
    to: Address,
) -> Result<Withdrawal, OpsError> {
    let stands = standing(desk).await?;
    if stands.thawing.is_zero() {
        return announce(desk, stands, wanted).await;
    }
    let amount = stands.thawing.min(stands.free());
    let what = format!("withdraw {} to {to}", ath::show(amount));
    let act = desk.act(what, Contract::Escrow, &Escrow::withdrawCall { to })?;
    match desk.check(&act).await {
        Ok(()) => Ok(Withdrawal::Take { act, amount }),
        Err(error) if error.refusal().is_some_and(|refusal| refusal.name == "NotYet") => {
            Ok(Withdrawal::Wait { amount: stands.thawing, at: stands.thaw_end })
        }
        Err(error) => Err(error),
    }
}

async fn announce(
    desk: &Desk,
    stands: Standing,
    wanted: Option<U256>,
) -> Result<Withdrawal, OpsError> {
    let amount = wanted.unwrap_or(stands.balance);
    let free = stands.free();
    let is_too_much = if wanted.is_none() { free.is_zero() } else { amount > free };
    if is_too_much || amount.is_zero() {
        let mut why = format!("{} are free in the escrow", ath::show(free));
        if !stands.held.is_zero() {
            why = format!("{why}, {} are set aside for leases", ath::show(stands.held));
        }
        if wanted.is_some() {
            why = format!("{} can't be withdrawn: {why}", ath::show(amount));
        }
        return Err(OpsError::money(why, "`welkin balance` shows what is free"));
    }
    let call = Escrow::thawCall { amount };
    let what = format!("announce the withdrawal of {}", ath::show(amount));
    let act = desk.act(what, Contract::Escrow, &call)?;
    let period = desk.look(Contract::Escrow, Escrow::thawPeriodCall {}).await?;
    Ok(Withdrawal::Announce { act, amount, wait_seconds: u64::from(period) })
}

/// Calls an announced withdrawal off; none where nothing was announced.
///
/// # Errors
///
/// [`OpsError`]
pub async fn call_off(desk: &Desk) -> Result<Option<Act>, OpsError> {
    let stands = standing(desk).await?;
    if stands.thawing.is_zero() {
        return Ok(None);
    }
    let call = Escrow::thawCall { amount: U256::ZERO };
    let what = format!("call the withdrawal of {} off", ath::show(stands.thawing));
    desk.act(what, Contract::Escrow, &call).map(Some)
}

/// Puts ATH of the wallet into the escrow, for this account or another: a permission, where it is
/// missing, and the deposit.
///
/// # Errors
///
/// [`OpsError`], also where the wallet has less.
pub async fn deposit(desk: &Desk, amount: U256, account: Address) -> Result<Vec<Act>, OpsError> {
    let mut acts: Vec<Act> = desk.permission(Contract::Escrow, amount).await?.into_iter().collect();
    let call = Escrow::depositCall { account, amount };
    let what = format!("deposit {} for {account}", ath::show(amount));
    acts.push(desk.act(what, Contract::Escrow, &call)?);
    Ok(acts)
}
