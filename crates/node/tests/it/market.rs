//! Announcements, listings and refusals.

use std::time::Duration;

use welkin_node::buyer::BuyerError;
use welkin_types::task::TaskSpec;

use crate::world::{World, epoch};

/// Waits for a condition that other tasks bring about.
async fn eventually<F: AsyncFnMut() -> bool>(mut is_so: F) {
    let all = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
}

#[tokio::test]
async fn a_host_that_cannot_isolate_offers_nothing_and_says_why() {
    let world = World::start().await;
    let host = world.host(10).await;
    let buyer = world.buyer().await;
    let needs = TaskSpec::default().needs();
    let refused = buyer.candidates(&needs, 3, true, Vec::new()).await.unwrap_err();
    let BuyerError::NothingFits(why) = refused else { panic!("{refused:?}") };
    assert_eq!(why.nearest, []);
    // It can be reached all the same: the connection works, the lease would be refused.
    let session = buyer.connect(&host.addr()).await.unwrap();
    assert_eq!(session.info(None).await.unwrap(), []);
    buyer.close().await;
}

#[tokio::test]
async fn a_checker_registers_and_is_in_the_public_list() {
    let world = World::start().await;
    world.checker(20).await;
    let buyer = world.buyer().await;
    let settle = buyer.settle().clone();
    let is_listed = async |epoch| settle.epoch(epoch).await.is_ok_and(|v| v.checkers.len() == 1);
    eventually(async || is_listed(epoch()).await).await;
    let (one, other) = (settle.epoch(1).await.unwrap(), settle.epoch(2).await.unwrap());
    assert_ne!(one.seed, other.seed);
    assert_eq!((&one, one.checkers.len()), (&settle.epoch(1).await.unwrap(), 0));
    // Nobody knows the seed of what is to come.
    assert!(settle.epoch(epoch() + 1).await.is_err());
    buyer.close().await;
}

#[tokio::test]
async fn without_an_indexer_the_buyer_says_so() {
    let mut world = World::start().await;
    world.network.indexers.clear();
    let buyer = world.buyer().await;
    assert!(matches!(buyer.offers(None).await, Err(BuyerError::NoIndexerNamed)));
    buyer.close().await;
}

#[tokio::test]
async fn a_host_is_renewed_at_all_its_indexers_without_leaving_any() {
    let mut world = World::start().await;
    world.indexer(3).await;
    let host = world.host(10).await;
    eventually(async || host.welcomes() == 2).await;
    for _ in 0..20 {
        host.renew();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that refused a beat would have let the host go, which then comes back.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(host.welcomes(), 2);
}
