//! Checkers' licences: buying them, letting somebody else run them, and how they stand.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, U256};

use super::{Act, Desk, OpsError, params};
use crate::ath;
use crate::contracts::CheckerLicense;
use crate::deployment::Contract;

/// How a licence stands, in the contract's order.
pub const STANDINGS: [&str; 4] = ["good", "suspended", "appealed", "banned"];

/// A tier of the sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its number.
    pub number: usize,
    /// The price of one, in micro-dollars.
    pub price_micros: u64,
    /// How many are left.
    pub left: u32,
    /// How many this account may still buy, where there is no list.
    pub for_account: U256,
    /// From when it is open, in seconds since 1970.
    pub opens: u64,
    /// Whether only those on a list may buy.
    pub has_list: bool,
}

/// A licence of the account, or one that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licence {
    /// Its number.
    pub number: U256,
    /// Whose it is.
    pub owner: Address,
    /// Who runs it; zero if nobody may.
    pub runner: Address,
    /// Until when somebody else may run it, in seconds since 1970; 0: nobody else.
    pub until: u64,
    /// One of [`STANDINGS`].
    pub standing: &'static str,
}

/// The proof that an account is on a tier's list.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListProof {
    /// How many the list gives the account.
    pub most: U256,
    /// The hashes beside the way to the list's root.
    pub proof: Vec<B256>,
}

/// The tiers on sale.
///
/// # Errors
///
/// [`OpsError`]
pub async fn tiers(desk: &Desk) -> Result<Vec<Tier>, OpsError> {
    let mut list = Vec::new();
    for (number, tier) in params::tiers(desk).await?.into_iter().enumerate() {
        let call = CheckerLicense::boughtCall { tier: U256::from(number), account: desk.account() };
        let bought = desk.look(Contract::Licences, call).await?;
        list.push(Tier {
            number,
            price_micros: tier.price,
            left: tier.supply.saturating_sub(tier.sold),
            for_account: U256::from(tier.most).saturating_sub(bought),
            opens: tier.opens.to(),
            has_list: !tier.root.is_zero(),
        });
    }
    Ok(list)
}

/// What buying costs at most: the price now and a little more, since the price of ATH moves.
///
/// # Errors
///
/// [`OpsError`], also where there is no such tier.
pub async fn cost(desk: &Desk, tier: usize, count: u64) -> Result<U256, OpsError> {
    let tiers = tiers(desk).await?;
    let Some(found) = tiers.get(tier) else {
        return Err(OpsError::unfit(
            format!("there is no tier {tier}: there are {}", tiers.len()),
            "`welkin licence list` shows them",
        ));
    };
    let micros = found.price_micros.checked_mul(count);
    let micros = micros.ok_or_else(|| OpsError::unfit("so many can't be bought", ""))?;
    desk.wei(micros).await
}

/// What buys licences for at most `cost_max` wei: a permission, where it is missing, and the
/// purchase.
///
/// # Errors
///
/// [`OpsError`]
pub async fn buy(
    desk: &Desk,
    tier: usize,
    count: u64,
    cost_max: U256,
    list: &ListProof,
) -> Result<Vec<Act>, OpsError> {
    let cost = cost(desk, tier, count).await?;
    if cost > cost_max {
        let (cost, most) = (ath::show(cost), ath::show(cost_max));
        let why = format!("it costs {cost}, more than the {most} that were allowed");
        return Err(OpsError::money(why, "raise --max-cost"));
    }
    let mut acts: Vec<Act> = if cost.is_zero() {
        Vec::new()
    } else {
        desk.permission(Contract::Licences, cost_max.min(desk.wallet().await?).max(cost))
            .await?
            .into_iter()
            .collect()
    };
    let call = CheckerLicense::buyCall {
        tier: U256::from(tier),
        count: U256::from(count),
        costMax: cost_max,
        most: list.most,
        proof: list.proof.clone(),
    };
    let what = format!("buy {count} of tier {tier} for about {}", ath::show(cost));
    acts.push(desk.act(what, Contract::Licences, &call)?);
    Ok(acts)
}

/// What lets `user` run a licence until then (in seconds since 1970); nobody with the address 0.
///
/// # Errors
///
/// [`OpsError`]
pub async fn delegate(
    desk: &Desk,
    licence: U256,
    user: Address,
    until: u64,
) -> Result<Act, OpsError> {
    let what = if user.is_zero() {
        format!("let nobody else run licence {licence}")
    } else {
        format!("let {user} run licence {licence} until {}", crate::refusals::time(until))
    };
    let call = CheckerLicense::setUserCall { licence, user, expires: until };
    let act = desk.act(what, Contract::Licences, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// The licences that the account owns or runs.
///
/// # Errors
///
/// [`OpsError`]
pub async fn list(desk: &Desk) -> Result<Vec<Licence>, OpsError> {
    let own = desk.account();
    // Both events name a licence's receiver second.
    let fields = [None, Some(own.into_word())];
    let moved: Vec<CheckerLicense::Transfer> = desk.events(Contract::Licences, &fields).await?;
    let lent: Vec<CheckerLicense::UpdateUser> = desk.events(Contract::Licences, &fields).await?;
    let numbers = moved.into_iter().map(|event| event.tokenId);
    let numbers = numbers.chain(lent.into_iter().map(|event| event.tokenId));
    let mut list = Vec::new();
    for number in numbers.collect::<BTreeSet<_>>() {
        let licence = licence(desk, number).await?;
        if licence.owner == own || licence.runner == own {
            list.push(licence);
        }
    }
    Ok(list)
}

/// One licence.
///
/// # Errors
///
/// [`OpsError`]
pub async fn licence(desk: &Desk, number: U256) -> Result<Licence, OpsError> {
    let c = Contract::Licences;
    let owner = desk.look(c, CheckerLicense::ownerOfCall { tokenId: number }).await?;
    let runner = desk.look(c, CheckerLicense::runnerOfCall { licence: number }).await?;
    let until = desk.look(c, CheckerLicense::userExpiresCall { licence: number }).await?;
    let standing = desk.look(c, CheckerLicense::standingOfCall { licence: number }).await?;
    let standing = STANDINGS.get(usize::from(standing)).ok_or(OpsError::Confused(c.name()))?;
    Ok(Licence { number, owner, runner, until: until.saturating_to(), standing })
}
