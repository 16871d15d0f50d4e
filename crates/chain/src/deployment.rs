//! The whole set of contracts: how it is deployed and wired, on a local chain or any other.
//!
//! [`steps`] is the one list of what is sent, in order; who sends it and where the contracts come to
//! stand is the caller's: [`crate::genesis`] for a local chain, a deploying account for others.

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, keccak256, uint};
use alloy_sol_types::{SolCall, SolConstructor as _};
use serde::{Deserialize, Serialize};

mod file;

pub use file::{Deployment, DeploymentError};

use crate::ath::WHOLE;
use crate::contracts::{
    AccessManager, Ath, CheckerLicense, Emissions, Escrow, LocalFaucet, MedianOracle, Registry,
    Rewards, Slashing, Staking, Treasury, WelkinGovernor,
};

/// All ATH, in wei.
const SUPPLY: U256 = uint!(42_000_000_000_000_000_000_000_000_000_U256);
/// The faucet's part of the ecosystem's share.
const FAUCET: U256 = uint!(3_000_000_000_000_000_000_000_000_000_U256);
/// What is left of the ecosystem's share (7.5 % of all) then.
const ECOSYSTEM_REST: U256 = uint!(150_000_000_000_000_000_000_000_000_U256);
/// What a unit of capacity should earn in an epoch, in micro-dollars.
const EMISSION_TARGET: u64 = 5_000_000;
/// How long licences stay with who bought them, in seconds.
const LICENCE_LOCK_SECONDS: u64 = 365 * 86_400;
/// The code of the access manager's own role: who may do everything else.
pub const ROLE_ADMIN: u64 = 0;

/// A contract of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// Who may what.
    Authority,
    /// The token.
    Ath,
    /// What ATH costs.
    Oracle,
    /// The timelock that holds the fees.
    Treasury,
    /// Where all ATH begins.
    Emissions,
    /// Checkers' licences.
    Licences,
    /// Hosts, containers, indexers, checkers.
    Registry,
    /// Stakes.
    Staking,
    /// Buyers' money.
    Escrow,
    /// What is earned for work.
    Rewards,
    /// Penalties.
    Slashing,
    /// Decisions.
    Governor,
    /// Test money; local networks only.
    Faucet,
}

impl Contract {
    /// All of them, in the order in which they are deployed.
    pub const ALL: [Self; 13] = [
        Self::Authority,
        Self::Ath,
        Self::Oracle,
        Self::Treasury,
        Self::Emissions,
        Self::Licences,
        Self::Registry,
        Self::Staking,
        Self::Escrow,
        Self::Rewards,
        Self::Slashing,
        Self::Governor,
        Self::Faucet,
    ];

    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Ath => "ath",
            Self::Oracle => "oracle",
            Self::Treasury => "treasury",
            Self::Emissions => "emissions",
            Self::Licences => "licences",
            Self::Registry => "registry",
            Self::Staking => "staking",
            Self::Escrow => "escrow",
            Self::Rewards => "rewards",
            Self::Slashing => "slashing",
            Self::Governor => "governor",
            Self::Faucet => "faucet",
        }
    }

    /// The code that deploys it, without its arguments.
    pub fn init_code(self) -> &'static Bytes {
        match self {
            Self::Authority => &AccessManager::BYTECODE,
            Self::Ath => &Ath::BYTECODE,
            Self::Oracle => &MedianOracle::BYTECODE,
            Self::Treasury => &Treasury::BYTECODE,
            Self::Emissions => &Emissions::BYTECODE,
            Self::Licences => &CheckerLicense::BYTECODE,
            Self::Registry => &Registry::BYTECODE,
            Self::Staking => &Staking::BYTECODE,
            Self::Escrow => &Escrow::BYTECODE,
            Self::Rewards => &Rewards::BYTECODE,
            Self::Slashing => &Slashing::BYTECODE,
            Self::Governor => &WelkinGovernor::BYTECODE,
            Self::Faucet => &LocalFaucet::BYTECODE,
        }
    }

    /// The code that stands on a chain, with zeros for what its constructor fills in.
    pub fn deployed_code(self) -> &'static Bytes {
        match self {
            Self::Authority => &AccessManager::DEPLOYED_BYTECODE,
            Self::Ath => &Ath::DEPLOYED_BYTECODE,
            Self::Oracle => &MedianOracle::DEPLOYED_BYTECODE,
            Self::Treasury => &Treasury::DEPLOYED_BYTECODE,
            Self::Emissions => &Emissions::DEPLOYED_BYTECODE,
            Self::Licences => &CheckerLicense::DEPLOYED_BYTECODE,
            Self::Registry => &Registry::DEPLOYED_BYTECODE,
            Self::Staking => &Staking::DEPLOYED_BYTECODE,
            Self::Escrow => &Escrow::DEPLOYED_BYTECODE,
            Self::Rewards => &Rewards::DEPLOYED_BYTECODE,
            Self::Slashing => &Slashing::DEPLOYED_BYTECODE,
            Self::Governor => &WelkinGovernor::DEPLOYED_BYTECODE,
            Self::Faucet => &LocalFaucet::DEPLOYED_BYTECODE,
        }
    }
}

/// Where the contracts of a network stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Places {
    /// Who may what.
    pub authority: Address,
    /// The token.
    pub ath: Address,
    /// What ATH costs.
    pub oracle: Address,
    /// The timelock, whom fees go to.
    pub treasury: Address,
    /// Where all ATH begins.
    pub emissions: Address,
    /// Checkers' licences.
    pub licences: Address,
    /// Hosts, containers, indexers, checkers.
    pub registry: Address,
    /// Stakes.
    pub staking: Address,
    /// Buyers' money.
    pub escrow: Address,
    /// What is earned for work.
    pub rewards: Address,
    /// Penalties.
    pub slashing: Address,
    /// Decisions.
    pub governor: Address,
    /// Test money; zero but on local networks.
    #[serde(default, skip_serializing_if = "is_none")]
    pub faucet: Address,
}

fn is_none(place: &Address) -> bool {
    place.is_zero()
}

impl Places {
    /// Each where a function says.
    pub fn by(mut at: impl FnMut(Contract) -> Address) -> Self {
        Self {
            authority: at(Contract::Authority),
            ath: at(Contract::Ath),
            oracle: at(Contract::Oracle),
            treasury: at(Contract::Treasury),
            emissions: at(Contract::Emissions),
            licences: at(Contract::Licences),
            registry: at(Contract::Registry),
            staking: at(Contract::Staking),
            escrow: at(Contract::Escrow),
            rewards: at(Contract::Rewards),
            slashing: at(Contract::Slashing),
            governor: at(Contract::Governor),
            faucet: at(Contract::Faucet),
        }
    }

    /// Where one stands.
    pub const fn of(&self, contract: Contract) -> Address {
        match contract {
            Contract::Authority => self.authority,
            Contract::Ath => self.ath,
            Contract::Oracle => self.oracle,
            Contract::Treasury => self.treasury,
            Contract::Emissions => self.emissions,
            Contract::Licences => self.licences,
            Contract::Registry => self.registry,
            Contract::Staking => self.staking,
            Contract::Escrow => self.escrow,
            Contract::Rewards => self.rewards,
            Contract::Slashing => self.slashing,
            Contract::Governor => self.governor,
            Contract::Faucet => self.faucet,
        }
    }

    /// Those that there are, in the order of [`Contract::ALL`].
    pub fn each(&self) -> impl Iterator<Item = (Contract, Address)> + '_ {
        let all = Contract::ALL.into_iter().map(|contract| (contract, self.of(contract)));
        all.filter(|(_, place)| !place.is_zero())
    }
}

/// How slow decisions and exits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seconds between queueing a decision and executing it.
    pub timelock_seconds: u64,
    /// Seconds from a proposal to its vote.
    pub voting_delay_seconds: u64,
    /// Seconds of a vote.
    pub voting_seconds: u32,
    /// Seconds that a vote goes on at least after its quorum was reached.
    pub late_quorum_seconds: u64,
    /// Whole ATH of votes needed to propose.
    pub threshold_ath: u64,
    /// The part of the supply that must vote.
    pub quorum_percent: u8,
    /// Seconds from announcing a withdrawal to taking it; none: the contract's own.
    pub thaw_seconds: Option<u32>,
    /// Seconds for which a price counts.
    pub price_seconds_max: u32,
}

impl Terms {
    /// Of a network for real.
    pub const NETWORK: Self = Self {
        timelock_seconds: 2 * 86_400,
        voting_delay_seconds: 86_400,
        voting_seconds: 5 * 86_400,
        late_quorum_seconds: 2 * 86_400,
        threshold_ath: 100_000,
        quorum_percent: 4,
        thaw_seconds: None,
        price_seconds_max: 3_600,
    };
    /// Of a local network: a decision takes two minutes, a withdrawal ten seconds, and a quorum is
    /// not needed, since most of its ATH lies where nobody votes. Its price never gets too old.
    pub const LOCAL: Self = Self {
        timelock_seconds: 60,
        voting_delay_seconds: 5,
        voting_seconds: 60,
        late_quorum_seconds: 10,
        threshold_ath: 100,
        quorum_percent: 0,
        thaw_seconds: Some(10),
        price_seconds_max: u32::MAX,
    };
}

/// What a network is set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Where the contracts will stand.
    pub places: Places,
    /// Who sets up and holds every right until the end of it.
    pub root: Address,
    /// Who verifies, judges, guards and reports the price at first.
    pub operator: Address,
    /// Whether the operator may set every parameter, beside the treasury: local networks only.
    pub is_operator_admin: bool,
    /// When the first epoch begins, in seconds since 1970.
    pub start: u64,
    /// What an ATH costs in micro-dollars.
    pub ath_price_micros: u64,
    /// The most test money at once, in micro-dollars; none: no faucet.
    pub faucet_micros_max: Option<u64>,
    /// How slow things are.
    pub terms: Terms,
}

/// One thing that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which contract is deployed or called.
    pub contract: Contract,
    /// Whether it is deployed by this step.
    pub is_deployment: bool,
    /// Whether the operator sends it, not the root.
    pub is_by_operator: bool,
    /// Init code with arguments, or the call's data.
    pub input: Bytes,
}

/// Everything that is sent to set a network up, in order.
pub fn steps(setup: &Setup) -> Vec<Step> {
    let mut list: Vec<Step> = Contract::ALL
        .into_iter()
        .filter(|contract| *contract != Contract::Faucet || setup.faucet_micros_max.is_some())
        .map(|contract| {
            let code = contract.init_code().as_ref();
            let input = [code, &arguments(setup, contract)].concat().into();
            Step { contract, is_deployment: true, is_by_operator: false, input }
        })
        .collect();
    let mut wiring = Wiring(&mut list);
    wiring.token(setup);
    wiring.roles(setup);
    wiring.parameters(setup);
    wiring.rights(setup);
    list
}

/// What a contract's constructor is given.
fn arguments(setup: &Setup, contract: Contract) -> Vec<u8> {
    let p = setup.places;
    let (token_, oracle_, treasury_, authority_) = (p.ath, p.oracle, p.treasury, p.authority);
    match contract {
        Contract::Authority => {
            AccessManager::constructorCall { initialAdmin: setup.root }.abi_encode()
        }
        Contract::Ath => Ath::constructorCall { holder: setup.root }.abi_encode(),
        Contract::Oracle => oracle_arguments(setup),
        Contract::Treasury => Treasury::constructorCall {
            delay: U256::from(setup.terms.timelock_seconds),
            proposers: Vec::new(),
            executors: vec![Address::ZERO],
            admin: setup.root,
        }
        .abi_encode(),
        Contract::Emissions => {
            // Shares that are not handed out yet wait in the treasury for a decision.
            let recipients_ = Emissions::Recipients {
                team: treasury_,
                investors: treasury_,
                treasury: treasury_,
                ecosystem: setup.root,
                airdrop: treasury_,
                advisers: treasury_,
            };
            let (start_, target_) = (U256::from(setup.start), EMISSION_TARGET);
            Emissions::constructorCall { token_, oracle_, authority_, recipients_, start_, target_ }
                .abi_encode()
        }
        Contract::Licences => {
            let from = setup.start.saturating_add(LICENCE_LOCK_SECONDS);
            let from = alloy_primitives::aliases::U48::from(from);
            CheckerLicense::constructorCall {
                token_,
                oracle_,
                treasury_,
                authority_,
                transferableFrom_: from,
            }
            .abi_encode()
        }
        Contract::Registry => {
            Registry::constructorCall { authority_, licenses_: p.licences }.abi_encode()
        }
        Contract::Staking => {
            Staking::constructorCall { token_, registry_: p.registry, oracle_, authority_ }
                .abi_encode()
        }
        Contract::Escrow => {
            Escrow::constructorCall { token_, oracle_, treasury_, authority_ }.abi_encode()
        }
        Contract::Rewards => Rewards::constructorCall {
            token_,
            emissions_: p.emissions,
            treasury_,
            authority_,
            members: vec![setup.operator],
            threshold: U256::ONE,
        }
        .abi_encode(),
        Contract::Slashing => Slashing::constructorCall {
            token_,
            registry_: p.registry,
            staking_: p.staking,
            rewards_: p.rewards,
            escrow_: p.escrow,
            treasury_,
            authority_,
        }
        .abi_encode(),
        Contract::Governor => WelkinGovernor::constructorCall {
            ath: token_,
            staking_: p.staking,
            treasury: treasury_,
            s: settings(&setup.terms),
        }
        .abi_encode(),
        Contract::Faucet => LocalFaucet::constructorCall {
            token_,
            escrow_: p.escrow,
            oracle_,
            maxMicros_: setup.faucet_micros_max.unwrap_or(0),
        }
        .abi_encode(),
    }
}

/// One reporter, whose price counts alone.
fn oracle_arguments(setup: &Setup) -> Vec<u8> {
    let limits_ = MedianOracle::Limits {
        maxAge: setup.terms.price_seconds_max,
        interval: 0,
        deviationBps: u16::MAX,
        minReports: 1,
    };
    MedianOracle::constructorCall {
        token_: setup.places.ath,
        treasury_: setup.places.treasury,
        authority_: setup.places.authority,
        bond_: 0,
        limits_,
        reporters_: vec![setup.operator],
    }
    .abi_encode()
}

fn settings(terms: &Terms) -> WelkinGovernor::Settings {
    use alloy_primitives::aliases::U48;
    WelkinGovernor::Settings {
        delay: U48::from(terms.voting_delay_seconds),
        period: terms.voting_seconds,
        lateQuorum: U48::from(terms.late_quorum_seconds),
        threshold: U256::from(terms.threshold_ath).saturating_mul(WHOLE),
        quorumPercent: U256::from(terms.quorum_percent),
    }
}

/// A role of the access manager that is not the admin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Confirms containers and indexers.
    Verifier = 1,
    /// Opens cases.
    Proposer = 2,
    /// Decides appeals and contests.
    Court = 3,
    /// Takes stakes and rewards: the slashing contract.
    Slasher = 4,
    /// Gives payments back: the slashing contract.
    Refunder = 5,
    /// Draws emissions: the rewards contract.
    Emitter = 6,
    /// Pauses new reservations.
    Guardian = 7,
    /// Suspends licences.
    Banner = 8,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Verifier,
        Self::Proposer,
        Self::Court,
        Self::Slasher,
        Self::Refunder,
        Self::Emitter,
        Self::Guardian,
        Self::Banner,
    ];

    /// Its number in the access manager.
    pub const fn id(self) -> u64 {
        self as u64
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verifier => "verifier",
            Self::Proposer => "proposer",
            Self::Court => "court",
            Self::Slasher => "slasher",
            Self::Refunder => "refunder",
            Self::Emitter => "emitter",
            Self::Guardian => "guardian",
            Self::Banner => "banner",
        }
    }

    /// The contract that has it; none: the operator.
    pub const fn contract(self) -> Option<Contract> {
        match self {
            Self::Slasher | Self::Refunder => Some(Contract::Slashing),
            Self::Emitter => Some(Contract::Rewards),
            Self::Verifier | Self::Proposer | Self::Court | Self::Guardian | Self::Banner => None,
        }
    }

    /// What it may call.
    pub fn calls(self) -> Vec<(Contract, Vec<[u8; 4]>)> {
        match self {
            Self::Verifier => vec![(
                Contract::Registry,
                vec![Registry::verifyCall::SELECTOR, Registry::unverifyCall::SELECTOR],
            )],
            Self::Proposer => vec![(Contract::Slashing, vec![Slashing::openCall::SELECTOR])],
            Self::Court => vec![
                (
                    Contract::Slashing,
                    vec![Slashing::decideCall::SELECTOR, Slashing::refundCall::SELECTOR],
                ),
                (Contract::Rewards, vec![Rewards::decideCall::SELECTOR]),
                (Contract::Licences, vec![CheckerLicense::decideCall::SELECTOR]),
            ],
            Self::Slasher => vec![
                (Contract::Staking, vec![Staking::slashCall::SELECTOR]),
                (Contract::Rewards, vec![Rewards::forfeitCall::SELECTOR]),
            ],
            Self::Refunder => vec![(Contract::Escrow, vec![Escrow::refundCall::SELECTOR])],
            Self::Emitter => vec![(
                Contract::Emissions,
                vec![Emissions::drawCall::SELECTOR, Emissions::advanceCall::SELECTOR],
            )],
            Self::Guardian => vec![(
                Contract::Escrow,
                vec![Escrow::pauseCall::SELECTOR, Escrow::unpauseCall::SELECTOR],
            )],
            Self::Banner => vec![(Contract::Licences, vec![CheckerLicense::suspendCall::SELECTOR])],
        }
    }
}

/// The calls after all contracts stand.
struct Wiring<'a>(&'a mut Vec<Step>);

impl Wiring<'_> {
    fn call(&mut self, contract: Contract, call: &impl SolCall) {
        let input = call.abi_encode().into();
        self.0.push(Step { contract, is_deployment: false, is_by_operator: false, input });
    }

    /// All ATH goes to the emissions and from there to who is to have it.
    fn token(&mut self, setup: &Setup) {
        let p = setup.places;
        self.call(Contract::Ath, &Ath::transferCall { to: p.emissions, value: SUPPLY });
        self.call(Contract::Emissions, &Emissions::distributeCall {});
        if setup.faucet_micros_max.is_some() {
            self.call(Contract::Ath, &Ath::transferCall { to: p.faucet, value: FAUCET });
        }
        if setup.root != setup.operator && setup.faucet_micros_max.is_some() {
            let call = Ath::transferCall { to: setup.operator, value: ECOSYSTEM_REST };
            self.call(Contract::Ath, &call);
        }
    }

    fn roles(&mut self, setup: &Setup) {
        for role in Role::ALL {
            for (contract, selectors) in role.calls() {
                let call = AccessManager::setTargetFunctionRoleCall {
                    target: setup.places.of(contract),
                    selectors: selectors.into_iter().map(FixedBytes::from).collect(),
                    roleId: role.id(),
                };
                self.call(Contract::Authority, &call);
            }
            let account = role.contract().map_or(setup.operator, |it| setup.places.of(it));
            let call =
                AccessManager::grantRoleCall { roleId: role.id(), account, executionDelay: 0 };
            self.call(Contract::Authority, &call);
        }
    }

    /// The first class, rules, licences and price.
    fn parameters(&mut self, setup: &Setup) {
        let k = 100_000_000_000_000_000_000; // 100 ATH
        let value = Staking::Class { k, usd: 0, pegged: false };
        self.call(Contract::Staking, &Staking::setClassCall { class: 1, value });
        let rule = |first, second| Slashing::Rule {
            first,
            second,
            further: 10_000,
            buyer: 5_000,
            memoryPeriod: 90 * 86_400,
        };
        let rules = vec![rule(3_333, 3_333), rule(10_000, 10_000)];
        self.call(Contract::Slashing, &Slashing::setRulesCall { codes: vec![1, 2], rules });
        let tier = CheckerLicense::Tier {
            price: 5_000_000,
            supply: 10_000,
            sold: 0,
            most: 50,
            opens: alloy_primitives::aliases::U48::ZERO,
            root: B256::ZERO,
        };
        self.call(Contract::Licences, &CheckerLicense::addTierCall { tier });
        if let Some(period) = setup.terms.thaw_seconds {
            self.call(Contract::Escrow, &Escrow::setThawPeriodCall { period });
        }
        // 6 decimals to 18.
        let price = U256::from(setup.ath_price_micros) * U256::from(1_000_000_000_000_u64);
        let input = MedianOracle::reportCall { value: price }.abi_encode().into();
        let contract = Contract::Oracle;
        self.0.push(Step { contract, is_deployment: false, is_by_operator: true, input });
    }

    /// In the end the treasury decides and the root has no rights left.
    fn rights(&mut self, setup: &Setup) {
        let (root, p) = (setup.root, setup.places);
        for name in ["PROPOSER_ROLE", "CANCELLER_ROLE"] {
            let call = Treasury::grantRoleCall { role: keccak256(name), account: p.governor };
            self.call(Contract::Treasury, &call);
        }
        let call = Treasury::renounceRoleCall { role: B256::ZERO, callerConfirmation: root };
        self.call(Contract::Treasury, &call);
        let admin = |account| AccessManager::grantRoleCall {
            roleId: ROLE_ADMIN,
            account,
            executionDelay: 0,
        };
        self.call(Contract::Authority, &admin(p.treasury));
        if setup.is_operator_admin {
            self.call(Contract::Authority, &admin(setup.operator));
        }
        if !(setup.is_operator_admin && setup.operator == root) {
            let call =
                AccessManager::renounceRoleCall { roleId: ROLE_ADMIN, callerConfirmation: root };
            self.call(Contract::Authority, &call);
        }
    }
}
