//! The contracts of a fresh local chain: each stands, knows the others, and obeys the right ones.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolCall;
use welkin_chain::contracts::{
    AccessManager, Ath, CheckerLicense, Emissions, Escrow, LocalFaucet, MedianOracle, Registry,
    Rewards, Slashing, Staking, Treasury, WelkinGovernor,
};
use welkin_chain::deployment::{Contract, Places, ROLE_ADMIN, Role};
use welkin_chain::rpc::{CallRequest, Rpc};
use welkin_node::settlement::Line;
use welkin_proto::NodeKey;

use crate::world::{account, service};

struct Chain(Rpc);

impl Chain {
    async fn open(dir: &std::path::Path) -> Self {
        let service = service(dir).await;
        Self(Rpc::new(Line::local(service, NodeKey::from_secret(&[9; 32]).id())))
    }

    async fn look<C: SolCall>(&self, to: Address, call: C) -> C::Return {
        let request = CallRequest { from: None, to: Some(to), input: call.abi_encode().into() };
        let data = self.0.call(&request).await.unwrap();
        C::abi_decode_returns(&data).unwrap()
    }
}

fn admin() -> Address {
    Address::from(*account(250).id().as_bytes())
}

#[tokio::test]
async fn every_contract_stands_where_its_name_says() {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::open(dir.path()).await;
    let places = Places::local();
    assert_eq!(places.each().count(), Contract::ALL.len());
    for (contract, place) in places.each() {
        let code = chain.0.code(place).await.unwrap();
        assert_eq!(code.len(), contract.deployed_code().len(), "{contract:?} at {place}");
    }
}

#[tokio::test]
async fn contracts_know_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::open(dir.path()).await;
    let p = Places::local();
    assert_eq!(chain.look(p.escrow, Escrow::tokenCall {}).await, p.ath);
    assert_eq!(chain.look(p.escrow, Escrow::oracleCall {}).await, p.oracle);
    assert_eq!(chain.look(p.escrow, Escrow::treasuryCall {}).await, p.treasury);
    assert_eq!(chain.look(p.emissions, Emissions::tokenCall {}).await, p.ath);
    assert_eq!(chain.look(p.licences, CheckerLicense::treasuryCall {}).await, p.treasury);
    assert_eq!(chain.look(p.registry, Registry::licensesCall {}).await, p.licences);
    assert_eq!(chain.look(p.staking, Staking::registryCall {}).await, p.registry);
    assert_eq!(chain.look(p.rewards, Rewards::emissionsCall {}).await, p.emissions);
    assert_eq!(chain.look(p.slashing, Slashing::stakingCall {}).await, p.staking);
    assert_eq!(chain.look(p.slashing, Slashing::rewardsCall {}).await, p.rewards);
    assert_eq!(chain.look(p.slashing, Slashing::escrowCall {}).await, p.escrow);
    assert_eq!(chain.look(p.governor, WelkinGovernor::timelockCall {}).await, p.treasury);
    assert_eq!(chain.look(p.governor, WelkinGovernor::stakingCall {}).await, p.staking);
    assert_eq!(chain.look(p.faucet, LocalFaucet::escrowCall {}).await, p.escrow);
    assert_eq!(chain.look(p.oracle, MedianOracle::treasuryCall {}).await, p.treasury);
    for managed in
        [p.oracle, p.emissions, p.licences, p.registry, p.staking, p.escrow, p.rewards, p.slashing]
    {
        assert_eq!(chain.look(managed, Escrow::authorityCall {}).await, p.authority);
    }
    // Epochs begin with the network, not in 1970.
    let start = chain.look(p.emissions, Emissions::startCall {}).await;
    let now = U256::from(welkin_node::outside::now().0 / 1_000);
    assert!(start <= now && start + U256::from(600) > now, "{start} {now}");
    let committee = chain.look(p.rewards, Rewards::membersCall {}).await;
    assert_eq!(committee, vec![admin()]);
}

#[tokio::test]
async fn all_ath_is_where_it_is_meant_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::open(dir.path()).await;
    let p = Places::local();
    let mut sum = U256::ZERO;
    for account in [p.emissions, p.treasury, p.faucet, admin()] {
        let part = chain.look(p.ath, Ath::balanceOfCall { account }).await;
        assert!(!part.is_zero(), "{account} has nothing");
        sum += part;
    }
    assert_eq!(sum, chain.look(p.ath, Ath::totalSupplyCall {}).await);
}

#[tokio::test]
async fn rights_are_the_treasurys_and_the_services() {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::open(dir.path()).await;
    let p = Places::local();
    let has = async |role: u64, account| {
        let call = AccessManager::hasRoleCall { roleId: role, account };
        chain.look(p.authority, call).await.isMember
    };
    assert!(has(ROLE_ADMIN, p.treasury).await && has(ROLE_ADMIN, admin()).await);
    // Who set it up has no rights left.
    let root = Address::from_word(keccak256("welkin/genesis/authority"));
    assert!(!has(ROLE_ADMIN, root).await);
    let call = Treasury::hasRoleCall { role: B256::ZERO, account: root };
    assert!(!chain.look(p.treasury, call).await);
    for role in ["PROPOSER_ROLE", "CANCELLER_ROLE"] {
        let call = Treasury::hasRoleCall { role: keccak256(role), account: p.governor };
        assert!(chain.look(p.treasury, call).await, "{role}");
    }
    for role in Role::ALL {
        let holder = role.contract().map_or(admin(), |contract| p.of(contract));
        assert!(has(role.id(), holder).await, "{role:?}");
        assert!(!has(role.id(), root).await, "{role:?}");
        for (contract, selectors) in role.calls() {
            for selector in selectors {
                let call = AccessManager::getTargetFunctionRoleCall {
                    target: p.of(contract),
                    selector: selector.into(),
                };
                assert_eq!(chain.look(p.authority, call).await, role.id(), "{role:?}");
            }
        }
    }
}

/// What the genesis costs at the first start. The bound is for a debug build on a slow machine.
#[tokio::test]
async fn a_fresh_chain_is_there_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let _chain = Chain::open(dir.path()).await;
    let elapsed = began.elapsed();
    assert!(elapsed < std::time::Duration::from_secs(5), "{elapsed:?}");
}
