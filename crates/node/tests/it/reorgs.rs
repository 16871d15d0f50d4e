//! A chain that goes back: what was read of it is read again from where it parted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::Address;
use proptest::prelude::*;
use serde_json::json;
use welkin_chain::genesis::{self, LocalSetup};
use welkin_chain::rpc::{BoxFuture, Rpc, Transport, TransportError};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};
use welkin_node::Shutdown;
use welkin_node::settlement::{EvmConfig, EvmSettlement, Settle};
use welkin_proto::{Domain, Order, SignedByAccount, Voucher};
use welkin_types::{ContainerId, LeaseId, NodeId, Price, UnixMillis, Usd};

use crate::world::account;

const START: u64 = 1_800_000_000;
const LEASES: u8 = 4;

#[derive(Debug)]
struct InProcess(Arc<Chain>);

impl Transport for InProcess {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move { Ok(self.0.rpc(&request).await) })
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Fund(u8),
    Reserve(u8),
    Redeem(u8, u32),
    Close(u8),
    Look,
    Mine(u8),
    GoBack(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = prop_oneof![
        2 => (1..50_u8).prop_map(Act::Fund),
        2 => (0..LEASES).prop_map(Act::Reserve),
        4 => (0..LEASES, 1..50_000_u32).prop_map(|(lease, more)| Act::Redeem(lease, more)),
        1 => (0..LEASES).prop_map(Act::Close),
        3 => Just(Act::Look),
        1 => (1..6_u8).prop_map(Act::Mine),
        3 => (1..12_u8).prop_map(Act::GoBack),
    ];
    prop::collection::vec(one, 1..40)
}

struct World {
    chain: Arc<Chain>,
    now: Arc<AtomicU64>,
    shutdown: Shutdown,
    host: Settle,
    /// Looks again and again, and remembers.
    follower: Settle,
    promised: [u64; LEASES as usize],
    orders: u64,
    /// The last block of the chain's beginning: it never goes back farther.
    first: u64,
    _dir: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = LocalSetup {
            admin: Address::from(*account(250).id().as_bytes()),
            start: START,
            ath_price_micros: 50_000,
            faucet_micros_max: 10_000_000_000,
        };
        let mut genesis = Genesis::new(Domain::LOCAL.chain_id);
        genesis.timestamp = START;
        genesis.testing = true;
        genesis.transactions = genesis::local(&setup)
            .into_iter()
            .map(|first| GenesisTransaction { from: first.from, to: first.to, data: first.input })
            .collect();
        let now = Arc::new(AtomicU64::new(START));
        let seen = Arc::clone(&now);
        let clock = Clock::new(move || seen.load(Ordering::SeqCst));
        let chain = Chain::open(&dir.path().join("chain.redb"), genesis, clock).unwrap();
        let shutdown = Shutdown::default();
        let host = settle(&chain, 2, &shutdown);
        let follower = settle(&chain, 3, &shutdown);
        let (promised, orders) = ([0; LEASES as usize], 0);
        let first = chain.head().number;
        Self { chain, now, shutdown, host, follower, promised, orders, first, _dir: dir }
    }

    fn lease(n: u8) -> LeaseId {
        let mut id = [9; 16];
        id[12..].copy_from_slice(&[0, 0, 0, n]);
        LeaseId::from_bytes(id)
    }

    async fn ask(&self, method: &str, params: serde_json::Value) {
        let rpc = Rpc::new(InProcess(Arc::clone(&self.chain)));
        rpc.ask::<serde_json::Value>(method, params).await.unwrap();
    }

    async fn act(&mut self, act: Act) {
        // Blocks after a fork differ, as time does not go back.
        self.now.fetch_add(1, Ordering::SeqCst);
        match act {
            Act::Fund(cents) => {
                let amount = Usd::from_micros(u64::from(cents) * 10_000);
                for of in [1, 2] {
                    self.host.fund(account(of).id(), amount).await.unwrap();
                }
            }
            Act::Reserve(n) => {
                self.orders += 1;
                let order = Order {
                    lease: Self::lease(n),
                    buyer: account(1).id(),
                    operator: account(2).id(),
                    host: NodeId::from_bytes([3; 32]),
                    container: ContainerId::from_bytes([4; 16]),
                    price: Price::per_hour(Usd::from_micros(1)),
                    budget: Usd::from_micros(1_000_000),
                    task_sha256: [0; 32],
                    issued: UnixMillis(self.orders),
                    expires: UnixMillis((START + 1_000_000) * 1_000),
                };
                let order = SignedByAccount::sign(&Domain::LOCAL, &account(1), order).unwrap();
                // There may be no money, or an open lease.
                let _ = self.host.reserve(order, Usd::from_micros(1_000)).await;
            }
            Act::Redeem(n, more) => {
                let promised = &mut self.promised[usize::from(n)];
                *promised += u64::from(more);
                let voucher = Voucher {
                    lease: Self::lease(n),
                    operator: account(2).id(),
                    amount: Usd::from_micros(*promised),
                    seconds: 1,
                };
                let voucher = SignedByAccount::sign(&Domain::LOCAL, &account(1), voucher).unwrap();
                let _ = self.host.redeem(voucher, Usd::from_micros(1_000)).await;
            }
            Act::Close(n) => {
                let _ = self.host.close(Self::lease(n), None).await;
            }
            Act::Look => self.look().await,
            Act::Mine(blocks) => {
                for _ in 0..blocks {
                    self.ask("evm_mine", json!([])).await;
                }
            }
            Act::GoBack(blocks) => {
                let to = self.chain.head().number.saturating_sub(u64::from(blocks));
                let to = to.max(self.first);
                self.ask("evm_revert", json!([format!("{to:#x}")])).await;
            }
        }
    }

    /// Who has read all along sees what one sees who reads for the first time.
    async fn look(&self) {
        let fresh = settle(&self.chain, 4, &self.shutdown);
        for of in [1, 2] {
            let known = self.follower.balance(account(of).id()).await.unwrap();
            assert_eq!(known, fresh.balance(account(of).id()).await.unwrap(), "account {of}");
        }
        for n in 0..LEASES {
            let id = Self::lease(n);
            let known = self.follower.lease(id).await.map_err(|error| format!("{error:?}"));
            let first = fresh.lease(id).await.map_err(|error| format!("{error:?}"));
            assert_eq!(known, first, "lease {n}");
        }
    }
}

fn settle(chain: &Arc<Chain>, n: u8, shutdown: &Shutdown) -> Settle {
    let rpc = Rpc::new(InProcess(Arc::clone(chain)));
    let mut config = EvmConfig::of(Domain::LOCAL);
    config.outbox.look_every = Duration::from_millis(5);
    Settle::new(EvmSettlement::over(rpc, None, account(n), config, shutdown))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_that_goes_back_is_read_as_if_for_the_first_time(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::start();
            for act in acts {
                world.act(act).await;
            }
            world.look().await;
        });
    }
}
