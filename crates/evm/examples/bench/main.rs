//! Measures the chain: ERC-20 transfers per second, in process and beside anvil, and how long opening
//! 100,000 blocks takes.
//!
//! `cargo run --release -p welkin-evm --example bench [transfers|restart] [how many]`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement stops at the first surprise and prints what it found"
)]

mod peer;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, Signature, TxKind, U256, hex, keccak256};
use k256::ecdsa::SigningKey;
use tokio::task::JoinSet;
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};

const CHAIN_ID: u64 = 412_346;
const SENDERS: u8 = 16;
/// Transfers of one sender on the way at a time.
const WINDOW: usize = 128;
/// Transfers of each round beside anvil.
const PEER_TRANSFERS: u64 = 16_000;

/// `transfer(address,uint256)` of a token with a mapping and an event; call data of 36 bytes sets
/// the caller's balance.
const TOKEN: &[u8] = &hex!(
    "607e80600b6000396000f336602414606f5733600052604060002080546024358082106069578091"
    "039091556004356000526040600020805482019055600052600435337fddf252ad1be2c89b69c2b0"
    "68fc378daa952ba7f163c4a11628f55a4df523b3ef60206000a3600160005260206000f35b600060"
    "00fd5b3360005260043560406000205500"
);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let which = arguments.next().unwrap_or_default();
    let count = arguments.next().and_then(|count| count.parse().ok());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if which != "restart" {
        runtime.block_on(transfers(count.unwrap_or(50_000)));
    }
    if which != "transfers" {
        runtime.block_on(restart(count.unwrap_or(100_000)));
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn token() -> Address {
    Address::ZERO.create(0)
}

fn genesis() -> Genesis {
    let mut genesis = Genesis::new(CHAIN_ID);
    genesis.transactions = vec![GenesisTransaction::deploy(Address::ZERO, TOKEN)];
    for seed in 1..=SENDERS {
        let from = Address::from_private_key(&key(seed));
        let mut data = vec![0; 4];
        data.extend(U256::from(u64::MAX).to_be_bytes::<32>());
        genesis.transactions.push(GenesisTransaction::call(from, token(), data));
    }
    genesis
}

fn open(path: &Path) -> Arc<Chain> {
    Chain::open(path, genesis(), Clock::system()).unwrap()
}

fn transfer(key: &SigningKey, nonce: u64, to: u64) -> Vec<u8> {
    let mut data = hex!("a9059cbb").to_vec();
    data.extend([0; 12]);
    data.extend(&keccak256(to.to_be_bytes())[12..]);
    data.extend(U256::ONE.to_be_bytes::<32>());
    let transaction = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        to: TxKind::Call(token()),
        input: data.into(),
        ..TxEip1559::default()
    };
    let hash = transaction.signature_hash();
    let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).unwrap();
    TxEnvelope::from(transaction.into_signed(Signature::from((signature, id)))).encoded_2718()
}

/// So many transfers of each sender.
fn sign_all(each: u64) -> Vec<Vec<Vec<u8>>> {
    let of = |seed| {
        let key = key(seed);
        let sign = |nonce: u64| transfer(&key, nonce, nonce * 7 % 1_000);
        (1..=each).map(sign).collect()
    };
    (1..=SENDERS).map(of).collect()
}

async fn transfers(count: u64) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("chain.redb");
    let chain = open(&path);
    let each = count / u64::from(SENDERS);
    let signed = sign_all(each);
    let first = chain.head().number;
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for signed in signed {
        let chain = Arc::clone(&chain);
        senders.spawn(async move {
            let mut sent = JoinSet::new();
            for raw in signed {
                if sent.len() >= WINDOW {
                    sent.join_next().await.unwrap().unwrap();
                }
                let chain = Arc::clone(&chain);
                sent.spawn(async move { chain.send_raw(&raw).await.unwrap() });
            }
            sent.join_all().await;
        });
    }
    senders.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let done = each * u64::from(SENDERS);
    let blocks = chain.head().number - first;
    drop(chain);
    let bytes = std::fs::metadata(&path).unwrap().len();
    let beside = match peer::compare(PEER_TRANSFERS.min(count)).await {
        Some(found) => format!(
            " ratio_vs_anvil={:.2} http_per_s={:.0} anvil_http_per_s={:.0}",
            found.here / found.anvil,
            found.here,
            found.anvil
        ),
        // `npm ci` in contracts/ brings it.
        None => String::new(),
    };
    println!(
        "RESULT evm-transfers per_s={:.0}{beside} transfers={done} blocks={blocks} file_mb={:.1}",
        done as f64 / seconds,
        bytes as f64 / 1e6
    );
}

async fn restart(blocks: u64) {
    // Blocks are made in memory, where a flush costs nothing, and opened from the disk.
    let fast = Path::new("/dev/shm");
    let made = if fast.is_dir() { tempfile::tempdir_in(fast) } else { tempfile::tempdir() };
    let made = made.unwrap();
    let path = made.path().join("chain.redb");
    let chain = open(&path);
    let key = key(1);
    let start = Instant::now();
    for nonce in 1..=blocks {
        chain.send_raw(&transfer(&key, nonce, nonce % 1_000)).await.unwrap();
    }
    let made_s = start.elapsed().as_secs_f64();
    let head = chain.head();
    // As a crash leaves it, and as a stop does.
    let folder = tempfile::tempdir_in(".").unwrap();
    let crashed = folder.path().join("crashed.redb");
    std::fs::copy(&path, &crashed).unwrap();
    drop(chain);
    let stopped = folder.path().join("stopped.redb");
    std::fs::copy(&path, &stopped).unwrap();
    let reopen = |path: &Path| {
        let start = Instant::now();
        let chain = open(path);
        let millis = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(chain.head(), head);
        millis
    };
    let (ms, after_crash_ms) = (reopen(&stopped), reopen(&crashed));
    println!(
        "RESULT evm-restart ms={ms:.0} after_crash_ms={after_crash_ms:.0} blocks={} file_mb={:.1} \
         made_s={made_s:.0}",
        head.number,
        std::fs::metadata(&stopped).unwrap().len() as f64 / 1e6
    );
}
