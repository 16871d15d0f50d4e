//! The escrow contract against the ledger's own arithmetic: the same random history through both
//! gives the same balances, to the wei, after every step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
use alloy_sol_types::SolCall;
use proptest::prelude::*;
use welkin_chain::address;
use welkin_chain::contracts::{Ath, Escrow as Contract, IEscrow, LocalFaucet, MedianOracle};
use welkin_chain::genesis::{self, LocalSetup, Places};
use welkin_chain::outbox::OutboxConfig;
use welkin_chain::rpc::{BoxFuture, CallRequest, Rpc, RpcError, Transport, TransportError};
use welkin_chain::sender::{SendError, Sender, SenderConfig};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};
use welkin_ledger::{Escrow, EscrowTerms};
use welkin_proto::{AccountKey, AccountSignature, Domain, Order, SignedByAccount, Voucher};
use welkin_types::{AccountId, ContainerId, LeaseId, NodeId, Price, UnixMillis, Usd};

use welkin_node::Shutdown;

use crate::world::account;

const ADMIN: u8 = 250;
const BUYERS: u8 = 3;
const OPERATORS: u8 = 2;
const LANES: u8 = 2;
const GRACE_SECONDS: u64 = 86_400;

#[derive(Debug)]
struct InProcess(Arc<Chain>);

impl Transport for InProcess {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move { Ok(self.0.rpc(&request).await) })
    }
}

#[derive(Clone, Debug)]
enum Act {
    Deposit { who: u8, wei: u64 },
    Reserve { buyer: u8, operator: u8, lane: u8, fresh: bool, budget: u32, part: u8 },
    Redeem { buyer: u8, operator: u8, lane: u8, amount: u32, beyond: u32 },
    Batch(Vec<(u8, u8, u8, u32, u32)>),
    Close { buyer: u8, operator: u8, lane: u8 },
    CloseWith { buyer: u8, operator: u8, lane: u8, amount: u32 },
    Release { buyer: u8, operator: u8, lane: u8 },
    Price(u64),
    Wait(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (b, o, l) = (0..BUYERS + 1, 0..OPERATORS, 0..LANES);
    let who = (b.clone(), o, l);
    let one = prop_oneof![
        2 => (b, any::<u64>()).prop_map(|(who, wei)| Act::Deposit { who, wei: wei >> 8 }),
        4 => (who.clone(), any::<bool>(), 0..40_000_u32, 0..=255_u8).prop_map(
            |((buyer, operator, lane), fresh, budget, part)| Act::Reserve {
                buyer, operator, lane, fresh, budget, part
            }
        ),
        5 => (who.clone(), 0..50_000_u32, 0..50_000_u32).prop_map(
            |((buyer, operator, lane), amount, beyond)| Act::Redeem {
                buyer, operator, lane, amount, beyond
            }
        ),
        2 => prop::collection::vec(
            (0..BUYERS + 1, 0..OPERATORS, 0..LANES, 0..50_000_u32, 0..50_000_u32), 0..5
        ).prop_map(Act::Batch),
        2 => who.clone().prop_map(|(buyer, operator, lane)| Act::Close { buyer, operator, lane }),
        2 => (who.clone(), 0..50_000_u32).prop_map(|((buyer, operator, lane), amount)| {
            Act::CloseWith { buyer, operator, lane, amount }
        }),
        1 => who.prop_map(|(buyer, operator, lane)| Act::Release { buyer, operator, lane }),
        1 => (1_u64..5_000_000).prop_map(Act::Price),
        1 => (1_u32..100_000).prop_map(Act::Wait),
    ];
    prop::collection::vec(one, 1..50)
}

struct Both {
    chain: Arc<Chain>,
    now: Arc<AtomicU64>,
    rpc: Rpc,
    senders: Vec<Sender>,
    admin: Sender,
    model: Escrow,
    terms: EscrowTerms,
    /// How many leases a lane has had: the upper bytes of a lease's id.
    leases: std::collections::BTreeMap<(u8, u8, u8), (u64, u64)>,
    _dir: tempfile::TempDir,
}

fn bytes(signature: &AccountSignature) -> Bytes {
    [&signature.r[..], &signature.s, &[signature.v]].concat().into()
}

/// Buyers are accounts 1 to 3; the fourth buyer is the first operator itself.
fn buyer_key(n: u8) -> AccountKey {
    if n == BUYERS { operator_key(0) } else { account(1 + n) }
}

fn operator_key(n: u8) -> AccountKey {
    account(101 + n)
}

fn voucher_words(voucher: &Voucher) -> IEscrow::Voucher {
    IEscrow::Voucher {
        lease: FixedBytes::from(*voucher.lease.as_bytes()),
        operator: address(voucher.operator),
        amount: U256::from(voucher.amount.micros()),
        secondsUsed: voucher.seconds,
    }
}

impl Both {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = account(ADMIN);
        let setup = LocalSetup {
            admin: address(admin.id()),
            start: 1_800_000_000,
            ath_price_micros: 50_000,
            faucet_micros_max: 100_000_000_000_000,
        };
        let places = Places::local();
        let mut genesis = Genesis::new(Domain::LOCAL.chain_id);
        genesis.timestamp = 1_800_000_000;
        genesis.transactions = genesis::local(&setup)
            .into_iter()
            .map(|first| GenesisTransaction { from: first.from, to: first.to, data: first.input })
            .collect();
        // Play money for everybody, and leave to put it into the escrow.
        for n in 0..=BUYERS {
            let of = address(buyer_key(n).id());
            let spend = Ath::approveCall { spender: places.escrow, value: U256::MAX };
            genesis.transactions.push(GenesisTransaction::call(of, places.ath, spend.abi_encode()));
        }
        let now = Arc::new(AtomicU64::new(1_800_000_000));
        let clock = {
            let now = Arc::clone(&now);
            Clock::new(move || now.load(Ordering::SeqCst))
        };
        let chain = Chain::open(&dir.path().join("chain.redb"), genesis, clock).unwrap();
        let rpc = Rpc::new(InProcess(Arc::clone(&chain)));
        let shutdown = Shutdown::default();
        let sender = |key: AccountKey| {
            let config = SenderConfig {
                chain_id: Domain::LOCAL.chain_id,
                outbox: OutboxConfig::default(),
                is_gas_free: true,
                clock: Arc::new(welkin_node::outside::now),
            };
            let (sender, work) = Sender::new(rpc.clone(), key, config);
            shutdown.spawn("sender", work);
            sender
        };
        let senders = (0..OPERATORS).map(|n| sender(operator_key(n)));
        let senders = senders.chain((0..BUYERS).map(|n| sender(buyer_key(n)))).collect();
        let treasury = AccountId::from_bytes(places.treasury.0.0);
        let terms = EscrowTerms {
            price: U256::from(50_000_000_000_000_000_u64),
            fee_bp: 2_000,
            margin_bp: 0,
            release_grace_seconds: GRACE_SECONDS,
        };
        let id = address(admin.id());
        let admin = sender(admin);
        // The faucet's money, taken out again, for deposits of any size.
        let fund = LocalFaucet::fundCall {
            account: id,
            micros: 100_000_000_000_000,
            key: FixedBytes::ZERO,
        };
        assert!(Self::send(&admin, places.faucet, fund).await);
        let amount = U256::from(2_000_000_000) * U256::from(10).pow(U256::from(18));
        assert!(Self::send(&admin, places.escrow, Contract::thawCall { amount }).await);
        now.fetch_add(2 * 86_400, Ordering::SeqCst);
        assert!(Self::send(&admin, places.escrow, Contract::withdrawCall { to: id }).await);
        Self {
            admin,
            chain,
            now,
            rpc,
            senders,
            model: Escrow::new(treasury),
            terms,
            leases: std::collections::BTreeMap::new(),
            _dir: dir,
        }
    }

    fn operator(&self, n: u8) -> &Sender {
        &self.senders[usize::from(n)]
    }

    fn buyer(&self, n: u8) -> &Sender {
        if n == BUYERS { self.operator(0) } else { &self.senders[usize::from(OPERATORS + n)] }
    }

    fn seconds(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    /// The id of a lane's present lease.
    fn lease(&self, buyer: u8, operator: u8, lane: u8) -> LeaseId {
        let (number, _) = self.leases.get(&(buyer, operator, lane)).copied().unwrap_or_default();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id[15] = lane;
        LeaseId::from_bytes(id)
    }

    fn voucher(&self, of: (u8, u8, u8), amount: u32) -> SignedByAccount<Voucher> {
        let (buyer, operator, lane) = of;
        let voucher = Voucher {
            lease: self.lease(buyer, operator, lane),
            operator: operator_key(operator).id(),
            amount: Usd::from_micros(u64::from(amount)),
            seconds: 1,
        };
        SignedByAccount::sign(&Domain::LOCAL, &buyer_key(buyer), voucher).unwrap()
    }

    async fn send<C: SolCall>(by: &Sender, to: Address, call: C) -> bool {
        match by.send(Some(to), call.abi_encode().into(), true).await {
            Ok(_) => true,
            Err(SendError::Rpc(RpcError::Reverted(_))) => false,
            Err(error) => {
                assert!(error.to_string().is_empty(), "{error}");
                false
            }
        }
    }

    /// Does it on both sides; they must agree whether it may be done.
    #[expect(clippy::too_many_lines, reason = "one arm for each act")]
    async fn act(&mut self, act: &Act) {
        let escrow = Places::local().escrow;
        let (now, terms) = (self.seconds(), self.terms);
        let (on_chain, in_model) = match act.clone() {
            Act::Deposit { who, wei } => {
                let (ath, to) = (Places::local().ath, address(buyer_key(who).id()));
                let value = U256::from(wei);
                assert!(Self::send(&self.admin, ath, Ath::transferCall { to, value }).await);
                let call = Contract::depositCall { account: to, amount: value };
                let done = Self::send(self.buyer(who), escrow, call).await;
                self.model.deposit(buyer_key(who).id(), value);
                (done, true)
            }
            Act::Reserve { buyer, operator, lane, fresh, budget, part } => {
                let entry = self.leases.entry((buyer, operator, lane)).or_default();
                if fresh {
                    *entry = (entry.0 + 1, entry.1 + 1);
                }
                let issued = UnixMillis(entry.1);
                let order = Order {
                    lease: self.lease(buyer, operator, lane),
                    buyer: buyer_key(buyer).id(),
                    operator: operator_key(operator).id(),
                    host: NodeId::from_bytes([3; 32]),
                    container: ContainerId::from_bytes([4; 16]),
                    price: Price::per_hour(Usd::from_micros(1)),
                    budget: Usd::from_micros(u64::from(budget)),
                    task_sha256: [0; 32],
                    issued,
                    expires: UnixMillis((now + 60) * 1_000 + u64::from(part)),
                };
                let micros = u64::from(budget) * u64::from(part) / 250;
                let signed =
                    SignedByAccount::sign(&Domain::LOCAL, &buyer_key(buyer), order.clone())
                        .unwrap();
                let call = Contract::reserveCall {
                    order: IEscrow::Order {
                        lease: FixedBytes::from(*order.lease.as_bytes()),
                        buyer: address(order.buyer),
                        operator: address(order.operator),
                        host: B256::from(*order.host.as_bytes()),
                        container: FixedBytes::from(*order.container.as_bytes()),
                        pricePerHour: U256::from(order.price.hour().micros()),
                        budget: U256::from(order.budget.micros()),
                        task: B256::ZERO,
                        issued: order.issued.0,
                        expires: order.expires.0,
                    },
                    signature: bytes(&signed.signature),
                    micros,
                };
                let done = Self::send(self.operator(operator), escrow, call).await;
                (done, self.model.reserve(&terms, now, &order, micros).is_ok())
            }
            Act::Redeem { buyer, operator, lane, amount, beyond } => {
                let voucher = self.voucher((buyer, operator, lane), amount);
                let payer = buyer_key(buyer).id();
                let call = Contract::redeemCall {
                    buyer: address(payer),
                    voucher: voucher_words(&voucher.message),
                    signature: bytes(&voucher.signature),
                    holdBeyond: u64::from(beyond),
                };
                let done = Self::send(self.operator(operator), escrow, call).await;
                let beyond = u64::from(beyond);
                let model = self.model.redeem(&terms, now, payer, &voucher.message, beyond);
                (done, model.is_ok())
            }
            Act::Batch(list) => {
                // The sender may act for itself only: the other operator's entries are skipped.
                let sender = list.first().map_or(0, |entry| entry.1);
                let signed: Vec<_> = list
                    .iter()
                    .map(|(b, o, l, amount, beyond)| {
                        let voucher = self.voucher((*b, *o, *l), *amount);
                        (buyer_key(*b).id(), voucher, u64::from(*beyond))
                    })
                    .collect();
                let redemptions = signed
                    .iter()
                    .map(|(buyer, voucher, beyond)| IEscrow::Redemption {
                        buyer: address(*buyer),
                        voucher: voucher_words(&voucher.message),
                        signature: bytes(&voucher.signature),
                        holdBeyond: *beyond,
                    })
                    .collect();
                let call = Contract::redeemBatchCall { redemptions };
                let done = Self::send(self.operator(sender), escrow, call).await;
                let own = operator_key(sender).id();
                let list: Vec<_> = signed
                    .into_iter()
                    .map(|(buyer, voucher, beyond)| (buyer, voucher.message, beyond))
                    .filter(|(_, voucher, _)| voucher.operator == own)
                    .collect();
                self.model.redeem_batch(&terms, now, &list);
                (done, true)
            }
            Act::Close { buyer, operator, lane } => {
                let lease = self.lease(buyer, operator, lane);
                let payer = buyer_key(buyer).id();
                let call = Contract::closeCall {
                    buyer: address(payer),
                    lease: FixedBytes::from(*lease.as_bytes()),
                };
                let done = Self::send(self.operator(operator), escrow, call).await;
                let model = self.model.close(payer, operator_key(operator).id(), lease);
                (done, model.is_ok())
            }
            Act::CloseWith { buyer, operator, lane, amount } => {
                let voucher = self.voucher((buyer, operator, lane), amount);
                let payer = buyer_key(buyer).id();
                let call = Contract::closeWithCall {
                    buyer: address(payer),
                    voucher: voucher_words(&voucher.message),
                    signature: bytes(&voucher.signature),
                };
                let done = Self::send(self.operator(operator), escrow, call).await;
                let model = self.model.close_with(&terms, now, payer, &voucher.message);
                (done, model.is_ok())
            }
            Act::Release { buyer, operator, lane } => {
                let lease = self.lease(buyer, operator, lane);
                let operator = operator_key(operator).id();
                let call = Contract::releaseCall {
                    operator: address(operator),
                    lease: FixedBytes::from(*lease.as_bytes()),
                };
                let done = Self::send(self.buyer(buyer), escrow, call).await;
                let payer = buyer_key(buyer).id();
                (done, self.model.release(&terms, now, payer, operator, lease).is_ok())
            }
            Act::Price(micros) => {
                let value = U256::from(micros) * U256::from(1_000_000_000_000_u64);
                let call = MedianOracle::reportCall { value };
                let done = Self::send(&self.admin, Places::local().oracle, call).await;
                // The oracle bounds how far one report moves the price.
                let call = MedianOracle::priceCall {}.abi_encode().into();
                let to = Some(Places::local().oracle);
                let data =
                    self.rpc.call(&CallRequest { from: None, to, input: call }).await.unwrap();
                self.terms.price = MedianOracle::priceCall::abi_decode_returns(&data).unwrap();
                (done, true)
            }
            Act::Wait(seconds) => {
                self.now.fetch_add(u64::from(seconds), Ordering::SeqCst);
                (true, true)
            }
        };
        assert_eq!(on_chain, in_model, "{act:?}: the contract, then the model");
        self.compare(act).await;
    }

    async fn compare(&self, act: &Act) {
        let places = Places::local();
        let look = |input: Vec<u8>, to| {
            let request = CallRequest { from: None, to: Some(to), input: input.into() };
            async move { self.rpc.call(&request).await.unwrap() }
        };
        let mut sum = U256::ZERO;
        for (id, expected) in self.model.accounts() {
            let call = Contract::accountOfCall { account: address(id) };
            let data = look(call.abi_encode(), places.escrow).await;
            let found = Contract::accountOfCall::abi_decode_returns(&data).unwrap();
            let found = (found.balance, found.held, found.spentMicros);
            assert_eq!(
                found,
                (expected.balance, expected.held, expected.spent),
                "{id} after {act:?}"
            );
            sum += expected.balance;
        }
        let call = Ath::balanceOfCall { account: places.escrow };
        let data = look(call.abi_encode(), places.ath).await;
        let all = Ath::balanceOfCall::abi_decode_returns(&data).unwrap();
        assert_eq!(all, sum, "wei were lost or made by {act:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_and_the_ledger_agree_to_the_wei(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut both = Both::start().await;
            for act in &acts {
                both.act(act).await;
            }
            drop(both.chain);
        });
    }
}
