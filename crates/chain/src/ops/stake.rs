//! Stakes: what a host's owner puts up for its containers, and how it comes back.
//!
//! A container must be known on the chain before anybody can stake for it: its owner registers the
//! host and the container, and commits to what its class needs. [`stake`] does all that is missing.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, FixedBytes, U256};

use super::{Act, Desk, OpsError};
use crate::ath;
use crate::contracts::{Registry, Staking};
use crate::deployment::Contract;

/// How long money stays after it was asked back, in seconds: the contract's own.
pub const UNBONDING_SECONDS: u64 = 180 * 86_400;

/// A container as the registry knows it, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The host's node id.
    pub host: B256,
    /// The container's id on that host.
    pub container: FixedBytes<16>,
    /// Its class.
    pub class: u32,
    /// The hash of its hardware.
    pub fingerprint: B256,
    /// Who acts for the host: signs offers, redeems vouchers.
    pub operator: Address,
}

impl Machine {
    /// The host's entry, where `owner` registered it.
    pub fn host_id(&self, owner: Address) -> B256 {
        alloy_primitives::keccak256([owner.into_word(), self.host].concat())
    }

    /// The container's entry, where `owner` registered its host.
    pub fn subject(&self, owner: Address) -> B256 {
        let host = self.host_id(owner);
        let container = self.container.concat_const::<16, 32>(FixedBytes::ZERO);
        alloy_primitives::keccak256([host, container].concat())
    }
}

/// A container's stake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stake {
    /// The container's entry.
    pub subject: B256,
    /// Its owner; zero if it is not registered.
    pub owner: Address,
    /// Its class.
    pub class: u32,
    /// Whether checkers confirmed its hardware.
    pub is_verified: bool,
    /// Whether it may earn: verified, committed, and enough staked.
    pub is_active: bool,
    /// What its owner committed to, in wei.
    pub required: U256,
    /// Staked by everybody, in wei.
    pub staked: U256,
    /// Of it this account's, in wei.
    pub own: U256,
    /// That in the contract's shares.
    pub own_shares: U256,
    /// Everything ever taken as a penalty, in wei.
    pub slashed: U256,
}

/// Money on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its number.
    pub number: U256,
    /// The container's entry.
    pub subject: B256,
    /// What it is worth at present, in wei: a penalty still takes of it.
    pub amount: U256,
    /// From when it can be taken, in seconds since 1970.
    pub end: u64,
}

/// How a container's stake stands.
///
/// # Errors
///
/// [`OpsError`]
pub async fn standing(desk: &Desk, subject: B256) -> Result<Stake, OpsError> {
    let c = Contract::Staking;
    let entry = desk.look(Contract::Registry, Registry::entryOfCall { id: subject }).await?;
    let own = desk.look(c, Staking::stakeOfCall { subject, account: desk.account() }).await?;
    Ok(Stake {
        subject,
        owner: entry.owner,
        class: entry.class,
        is_verified: entry.verified,
        is_active: desk.look(c, Staking::isActiveCall { subject }).await?,
        required: desk.look(c, Staking::requiredOfCall { subject }).await?,
        staked: desk.look(c, Staking::stakedOfCall { subject }).await?.staked,
        own: own.amount,
        own_shares: own.shares,
        slashed: desk.look(c, Staking::slashedOfCall { subject }).await?,
    })
}

/// The entries that this account staked for or owns.
///
/// # Errors
///
/// [`OpsError`]
pub async fn list(desk: &Desk) -> Result<Vec<Stake>, OpsError> {
    // Both events name the account second.
    let fields = [None, Some(desk.account().into_word())];
    let staked: Vec<Staking::Staked> = desk.events(Contract::Staking, &fields).await?;
    let mut subjects: BTreeSet<B256> = staked.into_iter().map(|event| event.subject).collect();
    let hosts: Vec<Registry::HostRegistered> = desk.events(Contract::Registry, &fields).await?;
    let hosts: BTreeSet<B256> = hosts.into_iter().map(|event| event.id).collect();
    let containers: Vec<Registry::ContainerRegistered> =
        desk.events(Contract::Registry, &[]).await?;
    let mine = containers.into_iter().filter(|event| hosts.contains(&event.host));
    subjects.extend(mine.map(|event| event.id));
    let mut list = Vec::new();
    for subject in subjects {
        list.push(standing(desk, subject).await?);
    }
    Ok(list)
}

/// Every container that was ever registered: its entry, and its id on its host.
///
/// # Errors
///
/// [`OpsError`]
pub async fn containers(desk: &Desk) -> Result<Vec<(B256, FixedBytes<16>)>, OpsError> {
    let all: Vec<Registry::ContainerRegistered> = desk.events(Contract::Registry, &[]).await?;
    Ok(all.into_iter().map(|event| (event.id, event.container)).collect())
}

/// What registers a container and commits to its class's stake, as far as it is missing.
///
/// # Errors
///
/// [`OpsError`], also where the class needs no stake or the hardware changed.
pub async fn register(desk: &Desk, machine: &Machine) -> Result<Vec<Act>, OpsError> {
    let owner = desk.account();
    let host = machine.host_id(owner);
    let subject = machine.subject(owner);
    let mut acts = Vec::new();
    let entry = desk.look(Contract::Registry, Registry::entryOfCall { id: host }).await?;
    if entry.owner.is_zero() {
        let call = Registry::registerHostCall { node: machine.host, operator: machine.operator };
        let what = format!("register the host with {} as its operator", machine.operator);
        acts.push(desk.act(what, Contract::Registry, &call)?);
    }
    let entry = desk.look(Contract::Registry, Registry::entryOfCall { id: subject }).await?;
    if entry.retired {
        return Err(OpsError::unfit("the container is retired", "give the container another id"));
    }
    if entry.owner.is_zero() {
        let (container, class) = (machine.container, machine.class);
        let fingerprint = machine.fingerprint;
        let call = Registry::registerContainerCall { host, container, class, fingerprint };
        acts.push(desk.act("register the container", Contract::Registry, &call)?);
    } else if entry.key != machine.fingerprint {
        let (class, fingerprint) = (machine.class, machine.fingerprint);
        let call = Registry::setFingerprintCall { id: subject, class, fingerprint };
        let what = "tell the container's new hardware, which checkers must confirm again";
        acts.push(desk.act(what, Contract::Registry, &call)?);
    }
    let call = Staking::requirementCall { class: machine.class };
    let required = desk.look(Contract::Staking, call).await?;
    if required.is_zero() {
        return Err(OpsError::unfit(
            format!("nothing can be staked for class {} on this network", machine.class),
            "`welkin gov params` lists the classes (staking.class...)",
        ));
    }
    let call = Staking::requiredOfCall { subject };
    if !acts.is_empty() || desk.look(Contract::Staking, call).await? != required {
        let what = format!("commit to a stake of {}", ath::show(required));
        acts.push(desk.act(what, Contract::Staking, &Staking::commitCall { subject })?);
    }
    Ok(acts)
}

/// What stakes ATH of the wallet for an entry: a permission, where it is missing, and the stake.
///
/// # Errors
///
/// [`OpsError`], also where the wallet has less.
pub async fn stake(desk: &Desk, subject: B256, amount: U256) -> Result<Vec<Act>, OpsError> {
    if amount.is_zero() {
        return Err(OpsError::unfit("nothing can't be staked", "say how many ATH"));
    }
    let mut acts: Vec<Act> =
        desk.permission(Contract::Staking, amount).await?.into_iter().collect();
    let what = format!("stake {}", ath::show(amount));
    acts.push(desk.act(what, Contract::Staking, &Staking::stakeCall { subject, amount })?);
    Ok(acts)
}

/// What asks a stake back; it can be taken after [`UNBONDING_SECONDS`]. None of `amount`: all.
///
/// # Errors
///
/// [`OpsError`], also where the account has not so much there.
pub async fn unstake(desk: &Desk, subject: B256, amount: Option<U256>) -> Result<Act, OpsError> {
    let stands = standing(desk, subject).await?;
    if stands.own.is_zero() || amount.is_some_and(|amount| amount > stands.own) {
        return Err(OpsError::money(
            format!("this account has {} staked there", ath::show(stands.own)),
            "`welkin stake list` shows all stakes",
        ));
    }
    // Rounded up, so that at least what was asked for comes back; all of it is all shares.
    let shares = match amount {
        Some(amount) if amount < stands.own => {
            (amount * stands.own_shares).div_ceil(stands.own).min(stands.own_shares)
        }
        _ => stands.own_shares,
    };
    let what =
        format!("ask {} back, for 180 days from now", ath::show(amount.unwrap_or(stands.own)));
    desk.act(what, Contract::Staking, &Staking::unstakeCall { subject, shares })
}

/// This account's money on its way back, the next first.
///
/// # Errors
///
/// [`OpsError`]
pub async fn exits(desk: &Desk) -> Result<Vec<Exit>, OpsError> {
    let fields = [None, Some(desk.account().into_word())];
    let begun: Vec<Staking::Unbonding> = desk.events(Contract::Staking, &fields).await?;
    let mut exits = Vec::new();
    for event in begun {
        let call = Staking::unbondOfCall { unbond: event.unbond };
        let seen = desk.look(Contract::Staking, call).await?;
        if seen.u.account.is_zero() {
            continue;
        }
        let (number, subject) = (event.unbond, event.subject);
        exits.push(Exit { number, subject, amount: seen.amount, end: seen.u.end.to() });
    }
    exits.sort_by_key(|exit| (exit.end, exit.number));
    Ok(exits)
}

/// What takes every exit whose time has come.
///
/// # Errors
///
/// [`OpsError`]
pub async fn take_due(desk: &Desk) -> Result<Vec<Act>, OpsError> {
    let mut acts = Vec::new();
    for exit in exits(desk).await? {
        let what = format!("take {} back", ath::show(exit.amount));
        let call = Staking::withdrawCall { unbond: exit.number };
        let act = desk.act(what, Contract::Staking, &call)?;
        match desk.check(&act).await {
            Ok(()) => acts.push(act),
            Err(error) if error.refusal().is_some_and(|it| it.name == "NotYet") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(acts)
}
