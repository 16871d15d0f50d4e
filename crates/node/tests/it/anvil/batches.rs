//! Vouchers that wait to be worth their gas.

use serde_json::json;
use welkin_node::settlement::{EvmConfig, SettlementError};
use welkin_proto::settle::SettleRefusal;
use welkin_types::Usd;

use super::faults::until;
use super::life::{lease, usd, voucher};
use super::world::World;

/// At 40 gwei a redemption costs about seven cents, at the least tip of a gwei a fifth of a cent.
fn dear(world: &World) -> EvmConfig {
    EvmConfig { coin: usd("40"), ..world.config(0) }
}
const DEAR: u64 = 40_000_000_000;
const CHEAP: u64 = 1_000_000;

impl World {
    /// Sets the price of gas from the next block on.
    async fn gas(&self, wei: u64) {
        let wei = format!("{wei:#x}");
        self.anvil.ask("anvil_setNextBlockBaseFeePerGas", json!([wei])).await;
        self.anvil.mine(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn vouchers_wait_until_gas_is_worth_it_and_go_together() {
    let world = World::start(&[]).await;
    let domain = world.domain();
    for n in 1..=5 {
        world.leased(lease(n, n)).await;
    }
    let host = world.settle_with(2, dear(&world));
    world.gas(DEAR).await;
    let before = world.anvil.rpc.block_number().await.unwrap();
    for n in 1..=5 {
        for micros in [50_000, 100_000, 80_000] {
            let view = host.redeem(voucher(&domain, lease(n, n), 1, micros), usd("0.5")).await;
            let view = view.unwrap();
            // What stands on the chain, not what will.
            assert_eq!((view.paid, view.held, view.transaction), (Usd::ZERO, usd("0.5"), None));
        }
    }
    assert_eq!(world.anvil.rpc.block_number().await.unwrap(), before, "nothing was sent");
    // Half of what is aside for the first is due: it goes, whatever it costs, and alone.
    let view = host.redeem(voucher(&domain, lease(1, 1), 1, 250_000), usd("0.5")).await.unwrap();
    assert_eq!((view.paid.micros(), view.held), (250_000, usd("0.5")));
    assert!(view.transaction.is_some());
    assert_eq!(world.anvil.rpc.block_number().await.unwrap(), before + 1);
    // One of them is closed behind its back: its voucher stops no other.
    let twin = world.settle(2, 0);
    assert!(twin.close(lease(5, 5), None).await.unwrap().closed);
    world.gas(CHEAP).await;
    let block = world.anvil.rpc.block_number().await.unwrap();
    until("the others go together", async || world.anvil.rpc.block_number().await.unwrap() > block)
        .await;
    for n in 2..=4 {
        let view = host.lease(lease(n, n)).await.unwrap();
        assert_eq!((view.paid.micros(), view.held), (100_000, usd("0.5")), "{n}: its highest");
    }
    assert_eq!(world.anvil.rpc.block_number().await.unwrap(), block + 1, "one transaction");
    let late = host.redeem(voucher(&domain, lease(5, 5), 1, 120_000), usd("0.5")).await;
    let late = late.unwrap_err();
    assert!(matches!(late, SettlementError::Refused(SettleRefusal::Closed)), "{late:?}");
    // A lease's end pays at once, also what its host has forgotten.
    world.gas(DEAR).await;
    host.redeem(voucher(&domain, lease(4, 4), 1, 190_000), usd("0.5")).await.unwrap();
    let closed = host.close(lease(4, 4), None).await.unwrap();
    assert_eq!((closed.paid.micros(), closed.closed), (190_000, true));
    for n in 1..=3 {
        host.close(lease(n, n), None).await.unwrap();
    }
    let totals = host.totals().await.unwrap();
    assert_eq!((totals.held, totals.deposited), (Usd::ZERO, usd("5")));
    assert_eq!(totals.treasury.micros(), (250_000 + 100_000 * 2 + 190_000) / 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn a_host_that_cannot_redeem_takes_no_new_leases() {
    let world = World::start(&[]).await;
    let domain = world.domain();
    let mut config = dear(&world);
    config.batch.due_max = usd("0.2");
    let host = world.settle_with(2, config);
    for n in 1..=2 {
        world.leased(lease(n, n)).await;
    }
    world.anvil.wait(7_200).await;
    for n in 1..=2 {
        let stale = host.redeem(voucher(&domain, lease(n, n), 1, 250_000), usd("0.5")).await;
        assert!(stale.is_err_and(|error| error.is_retryable()));
    }
    let now = world.anvil.rpc.head().await.unwrap().timestamp.to::<u64>() * 1_000;
    let more = super::life::order(&domain, lease(3, 3), "1", now, now + 3_600_000);
    let refused = host.reserve(more.clone(), usd("0.5")).await.unwrap_err();
    let text = welkin_node::chain(&refused);
    assert!(matches!(refused, SettlementError::NoCredit(_)), "{text}");
    assert!(text.contains("can't be redeemed"), "{text}");
    // As soon as there is a price again, what is due is paid and credit given.
    world.report(super::world::PRICE_MICROS).await;
    until("credit is given", async || host.reserve(more.clone(), usd("0.5")).await.is_ok()).await;
    for n in 1..=2 {
        assert_eq!(host.lease(lease(n, n)).await.unwrap().paid.micros(), 250_000);
    }
}
