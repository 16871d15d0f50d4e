//! The embedded books: what was confirmed is there after a restart, and they add up.

use welkin_node::Shutdown;
use welkin_node::settlement::{LocalChain, SettlementError};
use welkin_proto::settle::SettleRefusal;
use welkin_proto::{Domain, Order, SignedByAccount, Voucher};
use welkin_types::{ContainerId, LeaseId, NodeId, Price, UnixMillis, Usd};

use crate::world::{World, account, service, settle};

fn order(budget: &str) -> SignedByAccount<Order> {
    let (buyer, operator) = (account(1), account(2));
    let order = Order {
        lease: LeaseId::from_bytes([7; 16]),
        buyer: buyer.id(),
        operator: operator.id(),
        host: NodeId::from_bytes([3; 32]),
        container: ContainerId::from_bytes([4; 16]),
        price: Price::per_hour("3.60".parse().unwrap()),
        budget: budget.parse().unwrap(),
        task_sha256: [0; 32],
        issued: welkin_node::outside::now(),
        expires: welkin_node::outside::now().after(std::time::Duration::from_secs(60)),
    };
    SignedByAccount::sign(&Domain::LOCAL, &buyer, order).unwrap()
}

fn voucher(seconds: u64) -> SignedByAccount<Voucher> {
    let voucher = Voucher {
        lease: LeaseId::from_bytes([7; 16]),
        operator: account(2).id(),
        amount: Usd::from_micros(1_000 * seconds),
        seconds,
    };
    SignedByAccount::sign(&Domain::LOCAL, &account(1), voucher).unwrap()
}

#[tokio::test]
async fn a_lease_is_settled_to_the_cent_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::default();
    let before = service(dir.path()).await;
    let buyer = settle(&before, 1, &shutdown);
    let operator = settle(&before, 2, &shutdown);
    buyer.fund(account(1).id(), "1".parse().unwrap()).await.unwrap();
    let held = operator.reserve(order("0.5"), "0.1".parse().unwrap()).await.unwrap().held;
    assert_eq!(held, "0.1".parse().unwrap());
    operator.redeem(voucher(10), "0.1".parse().unwrap()).await.unwrap();
    drop((buyer, operator, before));
    assert!(shutdown.finish(std::time::Duration::from_secs(5)).await);

    // The chain's thread lets go of the file a moment later.
    let again = LocalChain { admin: account(250).id(), faucet_max: Usd::ZERO };
    while again.open(dir.path()).is_err() {
        tokio::task::yield_now().await;
    }
    let shutdown = Shutdown::default();
    let operator = settle(&service(dir.path()).await, 2, &shutdown);
    // The same voucher again pays nothing more; a higher one pays the difference.
    operator.redeem(voucher(10), Usd::ZERO).await.unwrap();
    let lease = operator.close(LeaseId::from_bytes([7; 16]), Some(voucher(20))).await.unwrap();
    assert_eq!((lease.paid.micros(), lease.fee.micros(), lease.closed), (20_000, 4_000, true));
    let (one, two) = (account(1).id(), account(2).id());
    assert_eq!(operator.balance(one).await.unwrap().available.micros(), 980_000);
    assert_eq!(operator.balance(two).await.unwrap().available.micros(), 16_000);
    let totals = operator.totals().await.unwrap();
    assert_eq!(totals.treasury.micros(), 4_000);
    assert_eq!(totals.deposited.micros(), 1_000_000);
}

#[tokio::test]
async fn strangers_and_the_poor_are_refused() {
    let world = World::start().await;
    let stranger = settle(&world.service, 3, &world.shutdown);
    let refused = stranger.reserve(order("0.5"), "0.1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, SettlementError::Refused(SettleRefusal::NotAllowed)), "{refused:?}");
    let operator = settle(&world.service, 2, &world.shutdown);
    let refused = operator.reserve(order("0.5"), "0.1".parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(refused, SettlementError::Refused(SettleRefusal::Funds { .. })),
        "{refused:?}"
    );
    let late = UnixMillis(1);
    assert!(late < welkin_node::outside::now());
}

#[tokio::test]
async fn the_books_answer_over_the_network() {
    let world = World::start().await;
    let buyer = world.buyer().await;
    let view = buyer.settle().fund(buyer.account(), "5".parse().unwrap()).await.unwrap();
    assert_eq!(view.available, "5".parse().unwrap());
    let again = buyer.settle().balance(buyer.account()).await.unwrap();
    assert_eq!(again, view);
    buyer.close().await;
}
