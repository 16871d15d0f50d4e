//! All parameters at once: read, shown, changed.

use std::collections::BTreeSet;

use alloy_primitives::{Bytes, U256, aliases::U48};
use alloy_sol_types::SolCall;

use super::{Unit, Value};
use crate::ath::WHOLE;
use crate::contracts::{
    CheckerLicense, Emissions, Escrow, MedianOracle, Rewards, Slashing, Staking, Treasury,
    WelkinGovernor,
};
use crate::deployment::Contract;
use crate::ops::{Desk, OpsError};

/// The three streams of rewards.
const STREAMS: [&str; 3] = ["hosts", "checkers", "indexers"];
const DAY: u64 = 86_400;

/// All parameters as they stand, with changes that are to be proposed.
#[derive(Clone, Debug)]
pub struct State {
    fee: u16,
    thaw: u32,
    grace: u32,
    margin: u16,
    limits: MedianOracle::Limits,
    target: u64,
    pool_min: u128,
    pool_min_max: U256,
    coefficient: u128,
    slash_cap: u16,
    classes: Vec<(u32, Staking::Class)>,
    appeal: u32,
    bounty: u128,
    contest: u32,
    bond: u128,
    streams: Vec<(u32, u32)>,
    tiers: Vec<CheckerLicense::Tier>,
    vote: Vote,
}

/// The governor's own parameters, and the treasury's.
#[derive(Clone, Debug)]
struct Vote {
    delay: U256,
    period: U256,
    late: U48,
    threshold: U256,
    quorum: U256,
    timelock: U256,
}

/// A call that sets a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which contract.
    pub contract: Contract,
    /// The call's data.
    pub input: Bytes,
}

/// All parameters as they stand.
///
/// # Errors
///
/// [`OpsError`]
pub async fn read_all(desk: &Desk) -> Result<Vec<Value>, OpsError> {
    State::read(desk).await.map(|state| state.values())
}

impl State {
    /// Reads them all.
    ///
    /// # Errors
    ///
    /// [`OpsError`]
    pub async fn read(desk: &Desk) -> Result<Self, OpsError> {
        use Contract as C;
        let per_epoch = desk.look(C::Emissions, Emissions::COMPUTECall {}).await?
            / desk.look(C::Emissions, Emissions::EPOCHS_A_YEARCall {}).await?.max(U256::ONE);
        let mut streams = Vec::new();
        for number in 0..STREAMS.len() {
            let call = Rewards::streamsCall(U256::from(number));
            let stream = desk.look(C::Rewards, call).await?;
            streams.push((stream.minimum, stream.fee));
        }
        Ok(Self {
            fee: desk.look(C::Escrow, Escrow::feeBpsCall {}).await?,
            thaw: desk.look(C::Escrow, Escrow::thawPeriodCall {}).await?,
            grace: desk.look(C::Escrow, Escrow::releaseGraceCall {}).await?,
            margin: desk.look(C::Escrow, Escrow::holdMarginBpsCall {}).await?,
            limits: desk.look(C::Oracle, MedianOracle::limitsCall {}).await?,
            target: desk.look(C::Emissions, Emissions::targetCall {}).await?,
            pool_min: desk.look(C::Emissions, Emissions::poolMinCall {}).await?,
            pool_min_max: per_epoch / U256::from(100),
            coefficient: desk.look(C::Staking, Staking::coefficientCall {}).await?,
            slash_cap: desk.look(C::Staking, Staking::slashCapBpsCall {}).await?,
            classes: classes(desk).await?,
            appeal: desk.look(C::Slashing, Slashing::appealWindowCall {}).await?,
            bounty: desk.look(C::Slashing, Slashing::bountyCall {}).await?,
            contest: desk.look(C::Rewards, Rewards::windowCall {}).await?,
            bond: desk.look(C::Rewards, Rewards::contestBondCall {}).await?,
            streams,
            tiers: tiers(desk).await?,
            vote: Vote {
                delay: desk.look(C::Governor, WelkinGovernor::votingDelayCall {}).await?,
                period: desk.look(C::Governor, WelkinGovernor::votingPeriodCall {}).await?,
                late: desk
                    .look(C::Governor, WelkinGovernor::lateQuorumVoteExtensionCall {})
                    .await?,
                threshold: desk.look(C::Governor, WelkinGovernor::proposalThresholdCall {}).await?,
                quorum: desk.look(C::Governor, WelkinGovernor::quorumNumerator_0Call {}).await?,
                timelock: desk.look(C::Treasury, Treasury::getMinDelayCall {}).await?,
            },
        })
    }

    /// All of them, by contract.
    pub fn values(&self) -> Vec<Value> {
        let mut list = List(Vec::new());
        self.money(&mut list);
        self.work(&mut list);
        self.licences(&mut list);
        self.votes(&mut list);
        list.0
    }

    fn money(&self, list: &mut List) {
        let c = Contract::Escrow;
        list.add(c, "fee", Unit::BasisPoints, self.fee, 0, 3_000, "of every payment");
        list.add(c, "thaw-period", Unit::Seconds, self.thaw, 0, 30 * DAY, "before a withdrawal");
        let about = "before a buyer may release an abandoned lease";
        list.add(c, "release-grace", Unit::Seconds, self.grace, 600, 30 * DAY, about);
        let about = "set aside beyond a lease's price";
        list.add(c, "hold-margin", Unit::BasisPoints, self.margin, 0, 5_000, about);
        let (c, limits) = (Contract::Oracle, &self.limits);
        let least = u64::from(limits.interval.max(1));
        let about = "after which a price counts no more";
        list.add(c, "max-age", Unit::Seconds, limits.maxAge, least, u64::from(u32::MAX), about);
        let about = "between two moves of the price";
        list.add(c, "interval", Unit::Seconds, limits.interval, 0, limits.maxAge.into(), about);
        let (bps, about) = (limits.deviationBps, "the most that one move can be");
        list.add(c, "deviation", Unit::BasisPoints, bps, 1, u16::MAX.into(), about);
        let (least, about) = (limits.minReports, "reports that a price needs");
        list.add(c, "min-reports", Unit::Count, least, 1, 15, about);
        let c = Contract::Emissions;
        let about = "income of a unit of capacity in an epoch";
        list.add(c, "target", Unit::Dollars, self.target, 1, u64::MAX, about);
        let (pool, most) = (self.pool_min, self.pool_min_max);
        list.push(c, "pool-min", Unit::Ath, U256::from(pool), 1, Some(most), "of an epoch");
    }

    fn work(&self, list: &mut List) {
        let c = Contract::Staking;
        let most = Some(U256::from(10).pow(U256::from(24)));
        let about = "by which every class's stake is multiplied";
        list.push(c, "coefficient", Unit::Factor, U256::from(self.coefficient), 1, most, about);
        let about = "of a stake that can be taken in 7 days";
        list.add(c, "slash-cap", Unit::BasisPoints, self.slash_cap, 1_000, 10_000, about);
        for (class, value) in &self.classes {
            let name = |field| format!("class.{class}.{field}");
            let most = Some(U256::from(100_000_000) * WHOLE);
            let (k, about) = (U256::from(value.k), "stake of a container of this class");
            list.push(c, &name("k"), Unit::Ath, k, 0, most, about);
            let about = "the same in dollars, where it is pegged";
            list.add(c, &name("usd"), Unit::Dollars, value.usd, 0, 1_000_000_000_000_000, about);
            let (is_pegged, about) = (u8::from(value.pegged), "whether the dollars count");
            list.add(c, &name("pegged"), Unit::Flag, is_pegged, 0, 1, about);
        }
        let c = Contract::Slashing;
        let about = "to appeal against a penalty";
        list.add(c, "appeal-window", Unit::Seconds, self.appeal, DAY, 30 * DAY, about);
        let (most, about) = (Some(U256::from(10_000) * WHOLE), "for whoever reports, at most");
        list.push(c, "bounty", Unit::Ath, U256::from(self.bounty), 0, most, about);
        let c = Contract::Rewards;
        let about = "to contest an epoch";
        list.add(c, "contest-window", Unit::Seconds, self.contest, 3_600, 14 * DAY, about);
        let (most, about) = (Some(U256::from(1_000_000) * WHOLE), "lost by a wrong contest");
        list.push(c, "contest-bond", Unit::Ath, U256::from(self.bond), 0, most, about);
        for (stream, (minimum, fee)) in STREAMS.into_iter().zip(&self.streams) {
            let (name, about) = (format!("{stream}.minimum"), "the least claim");
            list.add(c, &name, Unit::MilliAth, *minimum, (*fee).into(), 1_000_000, about);
            let (name, about) = (format!("{stream}.fee"), "what a claim costs");
            list.add(c, &name, Unit::MilliAth, *fee, 0, (*minimum).into(), about);
        }
    }

    fn licences(&self, list: &mut List) {
        let c = Contract::Licences;
        for (number, tier) in self.tiers.iter().enumerate() {
            let name = |field| format!("tier.{number}.{field}");
            let about = "of one licence";
            list.add(c, &name("price"), Unit::Dollars, tier.price, 0, 1_000_000_000_000_000, about);
            let about = "licences in all";
            list.add(
                c,
                &name("supply"),
                Unit::Count,
                tier.supply,
                tier.sold.into(),
                100_000,
                about,
            );
            let about = "licences for one account";
            list.add(c, &name("most"), Unit::Count, tier.most, 0, u32::MAX.into(), about);
            let (opens, about) = (tier.opens.to::<u64>(), "when the sale opens");
            list.add(c, &name("opens"), Unit::Time, opens, 0, (1_u64 << 48) - 1, about);
        }
    }

    fn votes(&self, list: &mut List) {
        let (c, vote) = (Contract::Governor, &self.vote);
        let most = Some(U256::from((1_u64 << 48) - 1));
        list.push(c, "voting-delay", Unit::Seconds, vote.delay, 0, most, "before a vote");
        let (period, most_) = (vote.period, Some(U256::from(u32::MAX)));
        list.push(c, "voting-period", Unit::Seconds, period, 1, most_, "of a vote");
        let about = "of a vote after its quorum, at least";
        list.push(c, "late-quorum", Unit::Seconds, U256::from(vote.late), 0, most, about);
        let about = "votes needed to propose";
        list.push(c, "threshold", Unit::Ath, vote.threshold, 0, None, about);
        let (most, about) = (Some(U256::from(100)), "of the supply that must vote");
        list.push(c, "quorum", Unit::Percent, vote.quorum, 0, most, about);
        let about = "between queueing and executing";
        list.push(Contract::Treasury, "delay", Unit::Seconds, vote.timelock, 0, None, about);
    }

    /// Changes one; the call that does it on the chain.
    ///
    /// # Errors
    ///
    /// [`OpsError::Unfit`] where there is no such parameter, or the value is out of its bounds.
    pub fn set(&mut self, name: &str, value: U256) -> Result<Change, OpsError> {
        let values = self.values();
        let Some(found) = values.iter().find(|value| value.name == name) else {
            return Err(OpsError::unfit(
                format!("there is no parameter `{name}`"),
                "`welkin gov params` lists them; others by --call",
            ));
        };
        let (contract, new) = (found.contract, Value { value, ..found.clone() });
        if let Some(bounds) = new.outside() {
            return Err(OpsError::unfit(format!("{name} can be {bounds}, not {new}"), ""));
        }
        let too_large = || OpsError::unfit(format!("{new} is too large for {name}"), "");
        let field = name.split_once('.').map_or(name, |(_, field)| field);
        let input = match contract {
            Contract::Escrow | Contract::Oracle | Contract::Emissions => {
                self.set_money(contract, field, value)
            }
            Contract::Staking | Contract::Slashing | Contract::Rewards => {
                self.set_work(contract, field, value)
            }
            Contract::Licences => self.set_licences(field, value),
            _ => set_votes(field, value),
        };
        input.map(|input| Change { contract, input: input.into() }).ok_or_else(too_large)
    }

    fn set_money(&mut self, contract: Contract, field: &str, value: U256) -> Option<Vec<u8>> {
        if contract == Contract::Oracle {
            let limits = &mut self.limits;
            match field {
                "max-age" => limits.maxAge = value.try_into().ok()?,
                "interval" => limits.interval = value.try_into().ok()?,
                "deviation" => limits.deviationBps = value.try_into().ok()?,
                _ => limits.minReports = value.try_into().ok()?,
            }
            return Some(MedianOracle::setLimitsCall { limits_: limits.clone() }.abi_encode());
        }
        let small = u32::try_from(value);
        let bps = u16::try_from(value);
        Some(match field {
            "fee" => Escrow::setFeeCall { bps: bps.ok()? }.abi_encode(),
            "hold-margin" => Escrow::setHoldMarginCall { bps: bps.ok()? }.abi_encode(),
            "thaw-period" => Escrow::setThawPeriodCall { period: small.ok()? }.abi_encode(),
            "release-grace" => Escrow::setReleaseGraceCall { grace: small.ok()? }.abi_encode(),
            _ => {
                match field {
                    "target" => self.target = value.try_into().ok()?,
                    _ => self.pool_min = value.try_into().ok()?,
                }
                let (micros, pool) = (self.target, self.pool_min);
                Emissions::setTargetCall { micros, poolMin_: pool }.abi_encode()
            }
        })
    }

    fn set_work(&mut self, contract: Contract, field: &str, value: U256) -> Option<Vec<u8>> {
        if contract == Contract::Slashing {
            match field {
                "bounty" => self.bounty = value.try_into().ok()?,
                _ => self.appeal = value.try_into().ok()?,
            }
            let (window, bounty_) = (self.appeal, self.bounty);
            return Some(Slashing::setTermsCall { window, bounty_ }.abi_encode());
        }
        Some(match field {
            "coefficient" => {
                Staking::setCoefficientCall { value: value.try_into().ok()? }.abi_encode()
            }
            "slash-cap" => Staking::setSlashCapCall { bps: value.try_into().ok()? }.abi_encode(),
            "contest-window" | "contest-bond" => {
                match field {
                    "contest-bond" => self.bond = value.try_into().ok()?,
                    _ => self.contest = value.try_into().ok()?,
                }
                let (window_, bond) = (self.contest, self.bond);
                Rewards::setContestCall { window_, bond }.abi_encode()
            }
            _ if contract == Contract::Staking => self.set_class(field, value)?,
            _ => self.set_stream(field, value)?,
        })
    }

    fn set_class(&mut self, field: &str, new: U256) -> Option<Vec<u8>> {
        let (number, field) = field.strip_prefix("class.")?.split_once('.')?;
        let class: u32 = number.parse().ok()?;
        let (_, value) = self.classes.iter_mut().find(|(number, _)| *number == class)?;
        match field {
            "k" => value.k = new.try_into().ok()?,
            "usd" => value.usd = new.try_into().ok()?,
            _ => value.pegged = !new.is_zero(),
        }
        Some(Staking::setClassCall { class, value: value.clone() }.abi_encode())
    }

    fn set_stream(&mut self, field: &str, new: U256) -> Option<Vec<u8>> {
        let (stream, field) = field.split_once('.')?;
        let number = STREAMS.iter().position(|name| *name == stream)?;
        let (minimum, fee) = self.streams.get_mut(number)?;
        match field {
            "minimum" => *minimum = new.try_into().ok()?,
            _ => *fee = new.try_into().ok()?,
        }
        let stream = u8::try_from(number).ok()?;
        Some(Rewards::setTermsCall { stream, minimum: *minimum, fee: *fee }.abi_encode())
    }

    fn set_licences(&mut self, field: &str, new: U256) -> Option<Vec<u8>> {
        let (number, field) = field.strip_prefix("tier.")?.split_once('.')?;
        let index: usize = number.parse().ok()?;
        let tier = self.tiers.get_mut(index)?;
        match field {
            "price" => tier.price = new.try_into().ok()?,
            "supply" => tier.supply = new.try_into().ok()?,
            "most" => tier.most = new.try_into().ok()?,
            _ => tier.opens = U48::from(u64::try_from(new).ok()?),
        }
        let number = U256::from(index);
        Some(CheckerLicense::setTierCall { number, tier: tier.clone() }.abi_encode())
    }
}

fn set_votes(field: &str, value: U256) -> Option<Vec<u8>> {
    let long = || u64::try_from(value).ok().map(U48::from);
    Some(match field {
        "voting-delay" => {
            WelkinGovernor::setVotingDelayCall { newVotingDelay: long()? }.abi_encode()
        }
        "voting-period" => {
            let period = value.try_into().ok()?;
            WelkinGovernor::setVotingPeriodCall { newVotingPeriod: period }.abi_encode()
        }
        "late-quorum" => {
            let late = long()?;
            WelkinGovernor::setLateQuorumVoteExtensionCall { newVoteExtension: late }.abi_encode()
        }
        "threshold" => {
            WelkinGovernor::setProposalThresholdCall { newProposalThreshold: value }.abi_encode()
        }
        "quorum" => {
            WelkinGovernor::updateQuorumNumeratorCall { newQuorumNumerator: value }.abi_encode()
        }
        _ => Treasury::updateDelayCall { newDelay: value }.abi_encode(),
    })
}

/// The classes that were ever set.
async fn classes(desk: &Desk) -> Result<Vec<(u32, Staking::Class)>, OpsError> {
    let set: Vec<Staking::ClassSet> = desk.events(Contract::Staking, &[]).await?;
    let mut classes = Vec::new();
    for class in set.into_iter().map(|event| event.class).collect::<BTreeSet<_>>() {
        let seen = desk.look(Contract::Staking, Staking::classesCall { class }).await?;
        let value = Staking::Class { k: seen.k, usd: seen.usd, pegged: seen.pegged };
        classes.push((class, value));
    }
    Ok(classes)
}

/// The tiers of the licences' sale.
pub(crate) async fn tiers(desk: &Desk) -> Result<Vec<CheckerLicense::Tier>, OpsError> {
    let set: Vec<CheckerLicense::TierSet> = desk.events(Contract::Licences, &[]).await?;
    let mut tiers = Vec::new();
    for number in set.into_iter().map(|event| event.tier).collect::<BTreeSet<_>>() {
        let seen = desk.look(Contract::Licences, CheckerLicense::tiersCall(number)).await?;
        tiers.push(CheckerLicense::Tier {
            price: seen.price,
            supply: seen.supply,
            sold: seen.sold,
            most: seen.most,
            opens: seen.opens,
            root: seen.root,
        });
    }
    Ok(tiers)
}

struct List(Vec<Value>);

impl List {
    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    fn add(
        &mut self,
        contract: Contract,
        name: &str,
        unit: Unit,
        value: impl Into<u64>,
        min: u64,
        max: u64,
        about: &'static str,
    ) {
        let (value, max) = (U256::from(value.into()), U256::from(max));
        self.push(contract, name, unit, value, min, Some(max), about);
    }

    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    fn push(
        &mut self,
        contract: Contract,
        name: &str,
        unit: Unit,
        value: U256,
        min: u64,
        max: Option<U256>,
        about: &'static str,
    ) {
        let (name, min) = (format!("{}.{name}", contract.name()), U256::from(min));
        self.0.push(Value { name, contract, unit, value, min, max, about });
    }
}
