//! What goes wrong with chains of others: the service goes on, settles later exactly once, and says
//! what it waits for.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use serde_json::json;
use tokio::task::{AbortHandle, JoinSet};
use welkin_chain::http::Http;
use welkin_chain::node::{Expected, NodeError};
use welkin_chain::outbox::Waiting;
use welkin_chain::rpc::Rpc;
use welkin_chain::sender::{SendError, Sender};
use welkin_node::settlement::{Line, Service, ServiceConfig, Settle, SettlementError};
use welkin_proto::settle::SettleRefusal;
use welkin_proto::{Domain, NodeKey};
use welkin_types::{LeaseId, Usd};

use super::life::{lease, order, usd, voucher};
use super::node::Anvil;
use super::world::{PRICE_MICROS, World, address, sender};
use crate::world::{account, join_all};

const DEADLINE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

/// Something that goes on beside the test.
struct Begun<T>(JoinSet<T>, AbortHandle);

fn begin<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Begun<T> {
    let mut set = JoinSet::new();
    let handle = set.spawn(work);
    Begun(set, handle)
}

impl<T: 'static> Begun<T> {
    fn is_finished(&self) -> bool {
        self.1.is_finished()
    }

    async fn result(mut self) -> T {
        self.0.join_next().await.unwrap().unwrap()
    }
}

/// Waits until something is so on the chain.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::time::timeout(DEADLINE, look).await.unwrap_or_else(|_| panic!("never: {what}"));
}

impl World {
    /// Account 1 has money and a lease with account 2, with half a dollar aside.
    pub(crate) async fn leased(&self, id: LeaseId) -> (Settle, Settle) {
        let (buyer, host) = (self.settle(1, 0), self.settle(2, 0));
        if buyer.balance(account(1).id()).await.unwrap().deposited.is_zero() {
            buyer.fund(account(1).id(), usd("5")).await.unwrap();
        }
        self.reserve(&host, id).await;
        (buyer, host)
    }

    pub(crate) async fn reserve(&self, host: &Settle, id: LeaseId) {
        let now = self.anvil.rpc.head().await.unwrap().timestamp.to::<u64>() * 1_000;
        let order = order(&self.domain(), id, "2", now, now + 3_600_000);
        host.reserve(order, usd("0.5")).await.unwrap();
    }

    /// Every wei is somewhere, and the lease paid exactly this.
    async fn paid(&self, id: LeaseId, micros: u64) {
        let view = self.settle(1, 0).lease(id).await.unwrap();
        assert_eq!(view.paid.micros(), micros);
        let totals = self.settle(1, 0).totals().await.unwrap();
        let sum = totals.available.checked_add(totals.held).unwrap();
        assert_eq!(sum.checked_add(totals.treasury), Some(totals.deposited), "{totals:?}");
        let spent = self.settle(1, 0).balance(account(1).id()).await.unwrap().spent;
        assert_eq!(spent.micros(), micros, "paid once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_reorganisation_that_drops_a_redemption_only_delays_it() {
    let world = World::start(&[]).await;
    let (one, domain) = (lease(1, 1), world.domain());
    world.leased(one).await;
    world.anvil.automine(false).await;
    let host = world.settle(2, 3);
    let redeeming = begin({
        let voucher = voucher(&domain, one, 1, 100_000);
        async move { host.redeem(voucher, usd("0.5")).await }
    });
    until("the transaction is in the pool", async || world.anvil.pooled().await == 1).await;
    let before = world.anvil.ask("evm_snapshot", json!([])).await;
    world.anvil.mine(2).await;
    assert_eq!(world.settle(1, 0).lease(one).await.unwrap().paid.micros(), 100_000);
    assert!(!redeeming.is_finished(), "two blocks are not four");
    // The chain goes back, and on without it.
    assert_eq!(world.anvil.ask("evm_revert", json!([before])).await, json!(true));
    world.anvil.ask("anvil_dropAllTransactions", json!([])).await;
    world.anvil.mine(6).await;
    assert!(world.settle(1, 0).lease(one).await.unwrap().paid.is_zero(), "it is gone");
    until("it is sent again and lies deep", async || {
        world.anvil.mine(1).await;
        redeeming.is_finished()
    })
    .await;
    assert_eq!(redeeming.result().await.unwrap().paid.micros(), 100_000);
    world.paid(one, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_node_that_goes_away_in_the_middle_is_waited_for() {
    let mut world = World::start(&[]).await;
    let (one, domain) = (lease(1, 1), world.domain());
    let (_, host) = world.leased(one).await;
    world.anvil.automine(false).await;
    let redeeming = begin({
        let (host, voucher) = (host.clone(), voucher(&domain, one, 1, 100_000));
        async move { host.redeem(voucher, usd("0.5")).await }
    });
    until("the transaction is in the pool", async || world.anvil.pooled().await == 1).await;
    // The pool is lost with the process.
    world.anvil.stop();
    let refused = host.balance(account(2).id()).await.unwrap_err();
    assert!(matches!(refused, SettlementError::Unreachable(_)), "{refused:?}");
    assert!(refused.is_retryable());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!redeeming.is_finished());
    world.anvil.again();
    assert_eq!(redeeming.result().await.unwrap().paid.micros(), 100_000);
    world.paid(one, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn gas_that_becomes_dearer_is_paid_and_what_is_stuck_replaced() {
    let world = World::start(&[]).await;
    let (one, domain) = (lease(1, 1), world.domain());
    let (_, host) = world.leased(one).await;
    world.anvil.automine(false).await;
    let redeeming = begin({
        let voucher = voucher(&domain, one, 1, 100_000);
        async move { host.redeem(voucher, usd("0.5")).await }
    });
    until("the transaction is in the pool", async || world.anvil.pooled().await == 1).await;
    // More than it offers, less than it may cost.
    world.anvil.ask("anvil_setNextBlockBaseFeePerGas", json!(["0x1bf08eb00"])).await;
    world.anvil.mine(1).await;
    assert!(world.settle(1, 0).lease(one).await.unwrap().paid.is_zero(), "no block takes it");
    until("it is replaced", async || {
        world.anvil.ask("anvil_setNextBlockBaseFeePerGas", json!(["0x1bf08eb00"])).await;
        world.anvil.mine(1).await;
        redeeming.is_finished()
    })
    .await;
    assert_eq!(redeeming.result().await.unwrap().paid.micros(), 100_000);
    world.paid(one, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn gas_that_is_too_dear_is_waited_for_and_said() {
    let world = World::start(&[]).await;
    let shutdown = &world.shutdown;
    let me = address(&account(4));
    let by: Sender = sender(world.anvil.rpc.clone(), 31_337, account(4), shutdown);
    // 100 gwei are allowed.
    world.anvil.ask("anvil_setNextBlockBaseFeePerGas", json!(["0x2540be4000"])).await;
    world.anvil.mine(1).await;
    let sending = begin({
        let by = by.clone();
        async move { by.send(Some(me), Default::default(), false).await }
    });
    until(
        "it says what it waits for",
        async || matches!(by.waiting_for(), Waiting::Gas { price, limit } if price > limit),
    )
    .await;
    assert_eq!(world.anvil.pooled().await, 0);
    world.anvil.ask("anvil_setNextBlockBaseFeePerGas", json!(["0x3b9aca00"])).await;
    world.anvil.mine(1).await;
    sending.result().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_stale_price_stops_paying_and_nothing_else() {
    let world = World::start(&[]).await;
    let (one, two, domain) = (lease(1, 1), lease(2, 2), world.domain());
    let (buyer, host) = world.leased(one).await;
    world.reserve(&host, two).await;
    world.anvil.wait(7_200).await;
    let stale = |error: &SettlementError| {
        matches!(error, SettlementError::Refused(SettleRefusal::StalePrice)) && error.is_retryable()
    };
    let cashing = || host.redeem(voucher(&domain, one, 1, 100_000), usd("0.5"));
    assert!(stale(&cashing().await.unwrap_err()));
    let now = world.anvil.rpc.head().await.unwrap().timestamp.to::<u64>() * 1_000;
    let third = order(&domain, lease(3, 3), "1", now, now + 3_600_000);
    assert!(stale(&host.reserve(third, usd("0.5")).await.unwrap_err()));
    // Nothing due: closed without a price, and shown at the last one.
    assert!(host.close(two, None).await.unwrap().closed);
    assert_eq!(buyer.balance(account(1).id()).await.unwrap().available, usd("4.5"));
    // Also by somebody who has never seen a price.
    let stranger = world.settle(3, 0);
    assert_eq!(stranger.lease(one).await.unwrap().held, usd("0.5"));
    world.report(PRICE_MICROS).await;
    // What was refused is kept, and goes out by itself.
    until("it is paid", async || !buyer.lease(one).await.unwrap().paid.is_zero()).await;
    assert_eq!(cashing().await.unwrap().paid.micros(), 100_000);
    world.paid(one, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_wrong_node_is_told_apart_and_never_used() {
    let world = World::start(&[]).await;
    let other = Anvil::start(&["--chain-id", "5"]);
    let twin = Anvil::start(&[]);
    let escrow = world.deployment.contracts.escrow;
    let expected = Expected { chain_id: 31_337, contract: escrow };
    expected.check(&world.anvil.rpc).await.unwrap();
    let error = expected.check(&other.rpc).await.unwrap_err();
    assert_eq!(error, NodeError::Chain { found: 5, expected: 31_337 });
    let error = expected.check(&twin.rpc).await.unwrap_err();
    assert_eq!(error, NodeError::NoContract(escrow));
    // A settlement service over it answers nothing, and over the right one everything.
    let dir = tempfile::tempdir().unwrap();
    for (number, (node, is_right)) in
        [(&other, false), (&twin, false), (&world.anvil, true)].into_iter().enumerate()
    {
        let path = dir.path().join(format!("{number}.redb"));
        let service = service(&world, &path, &node.url()).await;
        assert_eq!(service.check().await.is_ok(), is_right);
        let line = Line::local(service, NodeKey::from_secret(&[9; 32]).id());
        let asked = Rpc::new(line).block_number().await;
        assert_eq!(asked.is_ok(), is_right, "{asked:?}");
    }
}

async fn service(world: &World, path: &std::path::Path, url: &str) -> Arc<Service> {
    let founding = std::time::Duration::ZERO;
    let config = ServiceConfig { domain: world.domain(), epoch_seconds: 60, founding };
    Arc::new(Service::remote(path, Http::new(url).unwrap(), config).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn the_service_passes_on_what_settling_needs_and_no_more() {
    let mut world = World::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let service = service(&world, &dir.path().join("db"), &world.anvil.url()).await;
    let node = NodeKey::from_secret(&[9; 32]).id();
    let line = Line::local(service, node);
    let rpc = Rpc::new(line.clone());
    for method in ["anvil_setBalance", "evm_revert", "eth_accounts", "eth_sendTransaction"] {
        let asked = rpc.ask::<serde_json::Value>(method, json!([])).await;
        assert!(asked.is_err(), "{method}: {asked:?}");
    }
    // A whole lease goes that way.
    let settle = |n| {
        let evm = welkin_node::settlement::EvmSettlement::new(
            line.clone(),
            account(n),
            world.config(0),
            &world.shutdown,
        );
        Settle::new(evm)
    };
    let (buyer, host, one, domain) = (settle(1), settle(2), lease(1, 1), world.domain());
    buyer.fund(account(1).id(), usd("5")).await.unwrap();
    world.reserve(&host, one).await;
    host.redeem(voucher(&domain, one, 1, 100_000), usd("0.5")).await.unwrap();
    host.close(one, Some(voucher(&domain, one, 1, 200_000))).await.unwrap();
    world.paid(one, 200_000).await;
    buyer.register_checker([0; 32]).await.unwrap();
    assert_eq!(buyer.epoch(1).await.unwrap().checkers, []);
    let present = || welkin_node::outside::now().0 / 60_000;
    until("it is listed", async || {
        buyer.epoch(present()).await.is_ok_and(|view| view.nodes() == [node])
    })
    .await;
    // Its node is gone: said, and over as soon as it is back.
    world.anvil.stop();
    let refused = buyer.balance(account(1).id()).await.unwrap_err();
    assert!(matches!(&refused, SettlementError::Unreachable(_)), "{refused:?}");
    assert!(welkin_node::chain(&refused).contains("its chain's node"), "{refused:?}");
    world.anvil.again();
    until("the node is back", async || buyer.balance(account(1).id()).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn an_account_without_coins_is_told_where_to_send_some() {
    let world = World::start(&[]).await;
    let poor = world.settle(77, 0);
    let refused = poor.fund(account(77).id(), usd("1")).await.unwrap_err();
    let SettlementError::Chain(SendError::NoCoins { account: who, has, needed }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(who, address(&account(77)));
    assert!(has.is_zero() && !needed.is_zero());
    world.anvil.coins(who, 1).await;
    poor.fund(account(77).id(), usd("1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_gap_in_the_numbers_is_filled() {
    let world = World::start(&[]).await;
    let (_, host) = world.leased(lease(1, 1)).await;
    for n in 2..=3 {
        world.reserve(&host, lease(n, n)).await;
    }
    world.anvil.automine(false).await;
    let domain = world.domain();
    let closing: Vec<_> = (1..=3)
        .map(|n| {
            let (host, id) = (host.clone(), lease(n, n));
            let voucher = voucher(&domain, id, 1, 100_000);
            begin(async move { host.close(id, Some(voucher)).await })
        })
        .collect();
    until("all are in the pool", async || world.anvil.pooled().await == 3).await;
    // The node forgets the first of them: the others can't go before it.
    let me: Address = address(&account(2));
    let block = world.anvil.ask("txpool_content", json!([])).await;
    let of = block["pending"].as_object().unwrap();
    let of = of.iter().find(|(who, _)| who.parse() == Ok(me)).unwrap().1.as_object().unwrap();
    let first = of.iter().min_by_key(|(nonce, _)| nonce.parse::<u64>().unwrap()).unwrap().1;
    world.anvil.ask("anvil_dropTransaction", json!([first["hash"]])).await;
    until("they are all in blocks", async || {
        world.anvil.mine(1).await;
        closing.iter().all(Begun::is_finished)
    })
    .await;
    for one in closing {
        assert_eq!(one.result().await.unwrap().paid.micros(), 100_000);
    }
    let spent = host.balance(account(1).id()).await.unwrap().spent;
    assert_eq!(spent.micros(), 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn two_senders_with_one_key_get_everything_settled_once() {
    let world = World::start(&[]).await;
    let (_, host) = world.leased(lease(1, 1)).await;
    for n in 2..=6 {
        world.reserve(&host, lease(n, n)).await;
    }
    let (twin, domain) = (world.settle(2, 0), world.domain());
    let all = (1..=6).map(|n| {
        let by = if n % 2 == 0 { host.clone() } else { twin.clone() };
        let domain = &domain;
        async move {
            let id = lease(n, n);
            by.redeem(voucher(domain, id, 1, 100_000), usd("0.5")).await.unwrap();
            by.close(id, Some(voucher(domain, id, 1, 150_000))).await.unwrap()
        }
    });
    for view in join_all(all).await {
        assert_eq!((view.paid.micros(), view.closed), (150_000, true));
    }
    let totals = host.totals().await.unwrap();
    assert_eq!((totals.held, totals.treasury.micros()), (Usd::ZERO, 6 * 30_000));
    assert_ne!(domain, Domain::LOCAL);
}
