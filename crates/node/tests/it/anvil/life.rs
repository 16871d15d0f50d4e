//! The whole life of leases: a chain of somebody else's answers as the embedded one does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{Address, B256, FixedBytes};
use alloy_sol_types::SolCall as _;
use welkin_chain::contracts::Escrow;
use welkin_chain::deployment::{Contract, Places};
use welkin_chain::genesis::{self, LocalSetup};
use welkin_chain::rpc::{BoxFuture, Rpc, Transport, TransportError};
use welkin_chain::sender::{Sender, SenderConfig};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};
use welkin_node::Shutdown;
use welkin_node::settlement::{EvmConfig, EvmSettlement, Settle, SettlementError};
use welkin_proto::settle::{LeaseView, SettleRefusal};
use welkin_proto::{Domain, Order, SignedByAccount, Voucher};
use welkin_types::{ContainerId, LeaseId, NodeId, Price, UnixMillis, Usd};

use super::world::{ADMIN, PRICE_MICROS, World, address, quick};
use crate::world::account;

/// Where the script is played.
enum Stage {
    Anvil(Box<World>),
    Embedded { chain: Arc<Chain>, now: Arc<AtomicU64>, shutdown: Shutdown, _dir: tempfile::TempDir },
}

#[derive(Debug)]
struct InProcess(Arc<Chain>);

impl Transport for InProcess {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move { Ok(self.0.rpc(&request).await) })
    }
}

impl Stage {
    fn embedded() -> Self {
        const START: u64 = 1_800_000_000;
        let dir = tempfile::tempdir().unwrap();
        let setup = LocalSetup {
            admin: address(&account(ADMIN)),
            start: START,
            ath_price_micros: PRICE_MICROS,
            faucet_micros_max: 10_000_000_000,
        };
        let mut genesis = Genesis::new(Domain::LOCAL.chain_id);
        genesis.timestamp = START;
        genesis.transactions = genesis::local(&setup)
            .into_iter()
            .map(|first| GenesisTransaction { from: first.from, to: first.to, data: first.input })
            .collect();
        let now = Arc::new(AtomicU64::new(START));
        let seen = Arc::clone(&now);
        let clock = Clock::new(move || seen.load(Ordering::SeqCst));
        let chain = Chain::open(&dir.path().join("chain.redb"), genesis, clock).unwrap();
        Self::Embedded { chain, now, shutdown: Shutdown::default(), _dir: dir }
    }

    fn domain(&self) -> Domain {
        match self {
            Self::Anvil(world) => world.domain(),
            Self::Embedded { .. } => Domain::LOCAL,
        }
    }

    fn settle(&self, n: u8) -> Settle {
        match self {
            Self::Anvil(world) => world.settle(n, 0),
            Self::Embedded { chain, shutdown, .. } => {
                let rpc = Rpc::new(InProcess(Arc::clone(chain)));
                let config = EvmConfig::of(Domain::LOCAL);
                Settle::new(EvmSettlement::over(rpc, None, account(n), config, shutdown))
            }
        }
    }

    async fn seconds(&self) -> u64 {
        match self {
            Self::Anvil(world) => world.anvil.rpc.head().await.unwrap().timestamp.to(),
            Self::Embedded { now, .. } => now.load(Ordering::SeqCst),
        }
    }

    async fn wait(&self, seconds: u64) {
        match self {
            Self::Anvil(world) => world.anvil.wait(seconds).await,
            Self::Embedded { now, .. } => {
                now.fetch_add(seconds, Ordering::SeqCst);
            }
        }
    }

    /// Account `n` calls the escrow itself; whether it took effect.
    async fn call(&self, n: u8, input: Vec<u8>) -> bool {
        match self {
            Self::Anvil(world) => world.call(n, Contract::Escrow, input).await.is_ok(),
            Self::Embedded { chain, shutdown, .. } => {
                let config = SenderConfig {
                    chain_id: Domain::LOCAL.chain_id,
                    outbox: quick(0),
                    is_gas_free: true,
                    clock: Arc::new(welkin_node::outside::now),
                };
                let rpc = Rpc::new(InProcess(Arc::clone(chain)));
                let (sender, work) = Sender::new(rpc, account(n), config);
                shutdown.spawn_until_asked("sender", work);
                sender.send(Some(Places::local().escrow), input.into(), true).await.is_ok()
            }
        }
    }
}

pub(crate) fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// A lease's id: its number, and its lane.
pub(crate) fn lease(number: u8, lane: u8) -> LeaseId {
    let mut id = [number; 16];
    id[12..].copy_from_slice(&[0, 0, 0, lane]);
    LeaseId::from_bytes(id)
}

/// An order of account 1 to account 2.
pub(crate) fn order(
    domain: &Domain,
    id: LeaseId,
    budget: &str,
    issued: u64,
    expires: u64,
) -> SignedByAccount<Order> {
    let order = Order {
        lease: id,
        buyer: account(1).id(),
        operator: account(2).id(),
        host: NodeId::from_bytes([3; 32]),
        container: ContainerId::from_bytes([4; 16]),
        price: Price::per_hour(usd("3.60")),
        budget: usd(budget),
        task_sha256: [0; 32],
        issued: UnixMillis(issued),
        expires: UnixMillis(expires),
    };
    SignedByAccount::sign(domain, &account(1), order).unwrap()
}

/// A voucher of account `by` for account 2.
pub(crate) fn voucher(
    domain: &Domain,
    id: LeaseId,
    by: u8,
    micros: u64,
) -> SignedByAccount<Voucher> {
    let voucher = Voucher {
        lease: id,
        operator: account(2).id(),
        amount: Usd::from_micros(micros),
        seconds: micros / 1_000,
    };
    SignedByAccount::sign(domain, &account(by), voucher).unwrap()
}

/// What was answered, without hashes and times.
fn told(answer: Result<LeaseView, SettlementError>) -> String {
    match answer {
        Ok(mut view) => {
            view.transaction = None;
            format!("{view:?}")
        }
        Err(SettlementError::Refused(SettleRefusal::Expired { .. })) => "expired".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// Everything that can become of leases; what was answered, in order.
async fn play(stage: &Stage) -> Vec<String> {
    let domain = stage.domain();
    let (buyer, host, stranger) = (stage.settle(1), stage.settle(2), stage.settle(3));
    let mut script = Vec::new();
    let start = stage.seconds().await * 1_000;
    let end = start + 3_600_000;
    let (one, two, three) = (lease(1, 1), lease(2, 2), lease(3, 3));
    let first = order(&domain, one, "2", start + 1, end);
    script.push(told(host.reserve(first.clone(), usd("1")).await));
    buyer.fund(account(1).id(), usd("5")).await.unwrap();

    // Paid bit by bit, topped up, closed with the rest.
    script.push(told(stranger.reserve(first.clone(), usd("1")).await));
    script.push(told(host.reserve(first.clone(), usd("3")).await));
    script.push(told(host.reserve(first.clone(), usd("1")).await));
    script.push(told(host.reserve(first.clone(), usd("1")).await));
    let busy = order(&domain, lease(9, 1), "1", start + 2, end);
    script.push(told(host.reserve(busy, usd("1")).await));
    for (micros, beyond) in [(300_000, "1"), (300_000, "1"), (200_000, "0"), (900_000, "1.5")] {
        let voucher = voucher(&domain, one, 1, micros);
        script.push(told(host.redeem(voucher, usd(beyond)).await));
    }
    let forged = voucher(&domain, one, 3, 1_000_000);
    script.push(told(host.redeem(forged, usd("1")).await));
    let beyond_budget = voucher(&domain, one, 1, 2_000_001);
    script.push(told(host.redeem(beyond_budget, usd("1")).await));
    script.push(told(stranger.close(one, None).await));
    script.push(told(host.close(one, Some(voucher(&domain, one, 1, 1_234_567))).await));
    script.push(told(host.close(one, None).await));
    script.push(told(host.redeem(voucher(&domain, one, 1, 1_500_000), Usd::ZERO).await));
    script.push(told(host.reserve(first.clone(), usd("1")).await));
    let replayed = order(&domain, lease(8, 1), "1", start + 1, end);
    script.push(told(host.reserve(replayed, usd("1")).await));

    // Given back by its host: no fee is kept.
    let call = Escrow::refundCall {
        buyer: address(&account(1)),
        operator: address(&account(2)),
        lease: FixedBytes::from(*one.as_bytes()),
        micros: 234_567,
        reason: B256::ZERO,
    };
    script.push(format!("{}", stage.call(3, call.abi_encode()).await));
    script.push(format!("{}", stage.call(2, call.abi_encode()).await));
    script.push(told(buyer.lease(one).await));

    // Never begun, and left by its host.
    let second = order(&domain, two, "1", start + 3, end);
    script.push(told(host.reserve(second, usd("0.5")).await));
    script.push(told(host.close(two, None).await));
    let third = order(&domain, three, "1", start + 4, end);
    script.push(told(host.reserve(third, usd("0.7")).await));
    script.push(told(host.release(three).await));
    script.push(told(buyer.release(three).await));
    stage.wait(3_600 + 86_400 + 10).await;
    report(stage).await;
    script.push(told(host.redeem(voucher(&domain, three, 1, 50_000), Usd::ZERO).await));
    script.push(told(buyer.release(three).await));
    stage.wait(86_400 + 10).await;
    report(stage).await;
    script.push(told(buyer.release(three).await));
    script.push(told(buyer.release(three).await));
    script.push(told(buyer.release(lease(7, 7)).await));
    let late = order(&domain, lease(6, 6), "1", start + 5, end);
    script.push(told(host.reserve(late, usd("0.1")).await));

    for of in [1, 2, 3] {
        script.push(format!("{:?}", buyer.balance(account(of).id()).await.unwrap()));
    }
    script.push(format!("{:?}", buyer.totals().await.unwrap()));
    script
}

/// The price is fresh again.
async fn report(stage: &Stage) {
    if let Stage::Anvil(world) = stage {
        world.report(PRICE_MICROS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn leases_end_as_they_do_on_the_embedded_chain() {
    let anvil = Stage::Anvil(Box::new(World::start(&[]).await));
    let embedded = Stage::embedded();
    let (there, here) = (play(&anvil).await, play(&embedded).await);
    for (number, (there, here)) in there.iter().zip(&here).enumerate() {
        assert_eq!(there, here, "line {number}");
    }
    assert_eq!(there.len(), here.len());
    // Not two mistakes that are alike.
    let all = there.join("\n");
    for told in [
        "Funds",
        "NotAllowed",
        "Range",
        "LaneBusy",
        "Signature",
        "Closed",
        "Replayed",
        "expired",
        "UnknownLease",
        "closed: true",
        "true",
        "false",
    ] {
        assert!(all.contains(told), "{told} is missing in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn everything_stands_where_the_deployment_says() {
    let world = World::start(&[]).await;
    let places = world.deployment.contracts;
    assert_eq!(places.each().count(), Contract::ALL.len());
    for (contract, place) in places.each() {
        let code = world.anvil.rpc.code(place).await.unwrap();
        assert_eq!(code.len(), contract.deployed_code().len(), "{contract:?} at {place}");
    }
    assert_ne!(places.escrow, Address::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_lease_lives_on_a_chain_with_blocks_by_the_clock() {
    let world = World::start(&[]).await;
    world.anvil.ask("evm_setAutomine", serde_json::json!([false])).await;
    world.anvil.ask("evm_setIntervalMining", serde_json::json!([1])).await;
    let domain = world.domain();
    let (buyer, host) = (world.settle(1, 1), world.settle(2, 1));
    buyer.fund(account(1).id(), usd("5")).await.unwrap();
    let now = world.anvil.rpc.head().await.unwrap().timestamp.to::<u64>() * 1_000;
    let mut leases = Vec::new();
    for n in 1..=4 {
        let end = now + 3_600_000;
        leases.push((lease(n, n), order(&domain, lease(n, n), "1", now, end)));
    }
    // Side by side: their transactions share blocks.
    let all = leases.iter().map(async |(id, order)| {
        host.reserve(order.clone(), usd("0.5")).await.unwrap();
        host.redeem(voucher(&domain, *id, 1, 100_000), usd("0.5")).await.unwrap();
        host.close(*id, Some(voucher(&domain, *id, 1, 250_000))).await.unwrap()
    });
    for view in crate::world::join_all(all).await {
        assert_eq!((view.paid.micros(), view.closed), (250_000, true));
    }
    let totals = host.totals().await.unwrap();
    assert_eq!((totals.held, totals.treasury.micros()), (Usd::ZERO, 200_000));
    assert_eq!(totals.deposited, usd("5"));
}
