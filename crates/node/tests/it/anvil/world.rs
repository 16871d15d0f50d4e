//! Welkin's contracts on a node, and accounts that settle there.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::SolCall as _;
use welkin_chain::batch::BatchConfig;
use welkin_chain::contracts::MedianOracle;
use welkin_chain::deployment::{Contract, Deployment, Places, Setup, Terms, steps};
use welkin_chain::http::Http;
use welkin_chain::outbox::OutboxConfig;
use welkin_chain::rpc::{Receipt, Rpc};
use welkin_chain::sender::{SendError, Sender, SenderConfig};
use welkin_node::Shutdown;
use welkin_node::settlement::{EvmConfig, EvmSettlement, Settle};
use welkin_proto::{AccountKey, Domain};
use welkin_types::{AccountId, Usd};

use super::node::Anvil;

/// Who deploys; who reports prices and judges.
const ROOT: u8 = 240;
pub(crate) const ADMIN: u8 = 250;
/// What an ATH costs at first: as on a local network.
pub(crate) const PRICE_MICROS: u64 = 50_000;

pub(crate) fn account(n: u8) -> AccountKey {
    AccountKey::from_secret(&[n; 32]).unwrap()
}

pub(crate) fn address(key: &AccountKey) -> Address {
    Address::from(*key.id().as_bytes())
}

/// A way out for one key, fast enough for tests.
pub(crate) fn sender(rpc: Rpc, chain_id: u64, key: AccountKey, shutdown: &Shutdown) -> Sender {
    let config = SenderConfig {
        chain_id,
        outbox: quick(0),
        is_gas_free: false,
        clock: Arc::new(welkin_node::outside::now),
    };
    let (sender, work) = Sender::new(rpc, key, config);
    shutdown.spawn_until_asked("sender", work);
    sender
}

/// Impatient enough for tests.
pub(crate) fn quick(depth: u64) -> OutboxConfig {
    OutboxConfig {
        depth,
        look_every: Duration::from_millis(20),
        stuck_after: Duration::from_millis(400),
        ..OutboxConfig::default()
    }
}

/// A node with the contracts.
pub(crate) struct World {
    pub(crate) anvil: Anvil,
    pub(crate) deployment: Deployment,
    pub(crate) shutdown: Shutdown,
}

impl World {
    /// Deploys everything on a fresh node.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::on(Anvil::start(arguments)).await
    }

    pub(crate) async fn on(anvil: Anvil) -> Self {
        let chain_id = anvil.rpc.chain_id().await.unwrap();
        let shutdown = Shutdown::default();
        let (root, admin) = (account(ROOT), account(ADMIN));
        for n in [1, 2, 3, 4, ROOT, ADMIN] {
            anvil.coins(address(&account(n)), 100).await;
        }
        let first_block = anvil.rpc.block_number().await.unwrap();
        let mut nonce = 0;
        let places = Places::by(|_| {
            nonce += 1;
            address(&root).create(nonce - 1)
        });
        let setup = Setup {
            places,
            root: address(&root),
            operator: address(&admin),
            is_operator_admin: true,
            start: anvil.rpc.head().await.unwrap().timestamp.to(),
            ath_price_micros: PRICE_MICROS,
            faucet_micros_max: Some(10_000_000_000),
            terms: Terms::NETWORK,
        };
        let by_root = sender(anvil.rpc.clone(), chain_id, root, &shutdown);
        let by_admin = sender(anvil.rpc.clone(), chain_id, admin, &shutdown);
        for step in steps(&setup) {
            let to = (!step.is_deployment).then(|| places.of(step.contract));
            let by = if step.is_by_operator { &by_admin } else { &by_root };
            let done = by.send(to, step.input, false).await.unwrap();
            if step.is_deployment {
                assert_eq!(done.contract_address, Some(places.of(step.contract)));
            }
        }
        let deployment = Deployment { chain_id, first_block, contracts: places };
        Self { anvil, deployment, shutdown }
    }

    pub(crate) fn domain(&self) -> Domain {
        let contract = AccountId::from_bytes(self.deployment.contracts.escrow.0.0);
        Domain { chain_id: self.deployment.chain_id, contract }
    }

    pub(crate) fn config(&self, depth: u64) -> EvmConfig {
        EvmConfig {
            domain: self.domain(),
            faucet: Some(AccountId::from_bytes(self.deployment.contracts.faucet.0.0)),
            outbox: quick(depth),
            is_gas_free: false,
            first_block: self.deployment.first_block,
            batch: BatchConfig::default(),
            // So that everything goes out at once.
            coin: Usd::ZERO,
            contracts: Some(self.deployment.contracts),
        }
    }

    /// Settlement for account `n` by HTTP.
    pub(crate) fn settle(&self, n: u8, depth: u64) -> Settle {
        self.settle_with(n, self.config(depth))
    }

    pub(crate) fn settle_with(&self, n: u8, config: EvmConfig) -> Settle {
        let rpc = Rpc::new(Http::new(&self.anvil.url()).unwrap());
        Settle::new(EvmSettlement::over(rpc, None, account(n), config, &self.shutdown))
    }

    /// Account `n` calls a contract itself.
    pub(crate) async fn call(
        &self,
        n: u8,
        contract: Contract,
        input: Vec<u8>,
    ) -> Result<Receipt, SendError> {
        let chain_id = self.deployment.chain_id;
        let by = sender(self.anvil.rpc.clone(), chain_id, account(n), &self.shutdown);
        by.send(Some(self.deployment.contracts.of(contract)), Bytes::from(input), true).await
    }

    /// The price of ATH is said (again).
    pub(crate) async fn report(&self, micros: u64) {
        let value = U256::from(micros) * U256::from(1_000_000_000_000_u64);
        let input = MedianOracle::reportCall { value }.abi_encode();
        self.call(ADMIN, Contract::Oracle, input).await.unwrap();
    }
}
