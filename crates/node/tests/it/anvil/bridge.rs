//! ATH on two chains: kept at home and made on the rollup by gateways with Arbitrum's interfaces,
//! with this test as the rollup's machinery that carries messages between them.

use std::time::{Duration, Instant};

use alloy_primitives::aliases::U160;
use alloy_primitives::{Address, B256, Bytes, U256, address};
use alloy_sol_types::{SolCall, SolConstructor, SolEvent as _, SolValue as _};
use serde_json::json;
use welkin_chain::contracts::{AccessManager, Escrow, MedianOracle};
use welkin_chain::rpc::{CallRequest, Log, LogFilter, Receipt};
use welkin_node::Shutdown;
use welkin_node::settlement::{EvmConfig, EvmSettlement, Settle};
use welkin_proto::Domain;
use welkin_types::{AccountId, Usd};

use super::life::{lease, order, usd, voucher};
use super::node::Anvil;
use super::world::{self, ADMIN, PRICE_MICROS, account, quick, sender};

mod l1 {
    alloy_sol_types::sol!(AthL1, "../../contracts/abi/AthL1.json");
}
mod l2 {
    alloy_sol_types::sol!(AthL2, "../../contracts/abi/AthL2.json");
}
mod inbox {
    alloy_sol_types::sol!(TestInbox, "../../contracts/abi/TestInbox.json");
}
mod gateway_l1 {
    alloy_sol_types::sol!(TestGatewayL1, "../../contracts/abi/TestGatewayL1.json");
}
mod gateway_l2 {
    alloy_sol_types::sol!(TestGatewayL2, "../../contracts/abi/TestGatewayL2.json");
}
mod router {
    alloy_sol_types::sol!(TestRouterL1, "../../contracts/abi/TestRouterL1.json");
}
mod arb_sys {
    alloy_sol_types::sol!(TestArbSys, "../../contracts/abi/TestArbSys.json");
}
use arb_sys::TestArbSys;
use gateway_l1::TestGatewayL1;
use gateway_l2::TestGatewayL2;
use inbox::TestInbox;
use l1::AthL1;
use l2::AthL2;
use router::TestRouterL1;

const ARB_SYS: Address = address!("0000000000000000000000000000000000000064");
const ALIAS: Address = address!("1111000000000000000000000000000000001111");
const DEPLOYER: Address = address!("00000000000000000000000000000000deb10ee7");
const RELAYER: Address = address!("00000000000000000000000000000000002e1a1e");
const HOLDER: Address = address!("0000000000000000000000000000000000401de2");
/// What a message down costs, in wei.
const SUBMISSION: u64 = 1_000_000;

fn ath(whole: u64) -> U256 {
    U256::from(whole) * U256::from(10).pow(U256::from(18))
}

/// How the rollup sees a contract of home's: another address, so that nobody there can be it.
fn aliased(at_home: Address) -> Address {
    let word = |address: Address| U160::from_be_bytes(address.0.0);
    Address::from(word(at_home).wrapping_add(word(ALIAS)).to_be_bytes())
}

/// Sends in anybody's name; whether it took effect stands in the receipt.
async fn send(
    on: &Anvil,
    from: Address,
    to: Option<Address>,
    value: u64,
    input: impl Into<Bytes>,
) -> Receipt {
    on.ask("anvil_impersonateAccount", json!([from])).await;
    on.coins(from, 1).await;
    let (value, input, gas) = (U256::from(value), input.into(), U256::from(8_000_000));
    let sent = json!([{"from": from, "to": to, "value": value, "input": input, "gas": gas}]);
    let hash: B256 = serde_json::from_value(on.ask("eth_sendTransaction", sent).await).unwrap();
    // Its block is made a moment later.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(receipt) = on.rpc.receipt(hash).await.unwrap() {
            return receipt;
        }
        assert!(Instant::now() < end, "no block takes it");
        tokio::task::yield_now().await;
    }
}

async fn call<C: SolCall>(on: &Anvil, from: Address, to: Address, call: C) -> bool {
    send(on, from, Some(to), 0, call.abi_encode()).await.status.to::<u64>() == 1
}

async fn look<C: SolCall>(on: &Anvil, to: Address, call: C) -> C::Return {
    let request = CallRequest { from: None, to: Some(to), input: call.abi_encode().into() };
    C::abi_decode_returns(&on.rpc.call(&request).await.unwrap()).unwrap()
}

async fn deploy(on: &Anvil, code: &Bytes, arguments: impl SolConstructor) -> Address {
    let input = [code.as_ref(), &arguments.abi_encode()].concat();
    let made = send(on, DEPLOYER, None, 0, input).await;
    assert_eq!(made.status.to::<u64>(), 1);
    made.contract_address.unwrap()
}

/// A message from home to the rollup.
#[derive(Clone, Debug)]
struct Ticket {
    from: Address,
    to: Address,
    data: Bytes,
    /// ATH that are kept for it and not made yet.
    amount: U256,
}

/// A message from the rollup home.
#[derive(Clone, Debug)]
struct Message {
    position: U256,
    caller: Address,
    to: Address,
    data: Bytes,
    amount: U256,
}

/// Two chains, the token's two forms, and the messages between them.
struct Bridge {
    home: Anvil,
    rollup: Anvil,
    inbox: Address,
    router: Address,
    gateway: Address,
    token: Address,
    /// On the rollup.
    counterpart: Address,
    form: Address,
    tickets: Vec<Ticket>,
    messages: Vec<Message>,
    /// The first blocks that were not read yet.
    read: (u64, u64),
}

impl Bridge {
    async fn start() -> Self {
        let (home, rollup) = (Anvil::start(&[]), Anvil::start(&["--chain-id", "31338"]));
        let code = TestArbSys::DEPLOYED_BYTECODE.clone();
        rollup.ask("anvil_setCode", json!([ARB_SYS, code])).await;
        // Each gateway knows the other, so that their places are counted ahead.
        let (counterpart, gateway) = (DEPLOYER.create(0), DEPLOYER.create(2));
        let relayer = TestInbox::constructorCall { relayer_: RELAYER };
        let inbox = deploy(&home, &TestInbox::BYTECODE, relayer).await;
        let parts =
            TestRouterL1::constructorCall { inbox_: inbox, counterpart_: Address::repeat_byte(7) };
        let router = deploy(&home, &TestRouterL1::BYTECODE, parts).await;
        let parts = TestGatewayL1::constructorCall {
            inbox_: inbox,
            router_: router,
            counterpart_: counterpart,
        };
        assert_eq!(deploy(&home, &TestGatewayL1::BYTECODE, parts).await, gateway);
        let parts = TestGatewayL2::constructorCall { counterpart_: gateway };
        assert_eq!(deploy(&rollup, &TestGatewayL2::BYTECODE, parts).await, counterpart);
        let parts = AthL1::constructorCall {
            holder: HOLDER,
            gateway_: gateway,
            router_: router,
            registrar_: DEPLOYER,
        };
        let token = deploy(&home, &AthL1::BYTECODE, parts).await;
        let parts = AthL2::constructorCall { gateway_: counterpart, l1Address_: token };
        let form = deploy(&rollup, &AthL2::BYTECODE, parts).await;
        let (tickets, messages, read) = (Vec::new(), Vec::new(), (0, 0));
        Self {
            home,
            rollup,
            inbox,
            router,
            gateway,
            token,
            counterpart,
            form,
            tickets,
            messages,
            read,
        }
    }

    /// The token at home tells gateway and router of its form.
    async fn register(&self) -> bool {
        self.register_as(self.form).await
    }

    async fn register_as(&self, form: Address) -> bool {
        let call = AthL1::registerTokenOnL2Call {
            l2CustomTokenAddress: form,
            maxSubmissionCostForCustomGateway: U256::from(SUBMISSION),
            maxSubmissionCostForRouter: U256::from(SUBMISSION),
            maxGasForCustomGateway: U256::from(10),
            maxGasForRouter: U256::from(10),
            gasPriceBid: U256::from(3),
            valueForGateway: U256::from(SUBMISSION + 30),
            valueForRouter: U256::from(SUBMISSION + 30),
            creditBackAddress: DEPLOYER,
        };
        let value = 2 * (SUBMISSION + 30);
        let sent = send(&self.home, DEPLOYER, Some(self.token), value, call.abi_encode()).await;
        sent.status.to::<u64>() == 1
    }

    /// Sends ATH to the rollup by the router.
    async fn deposit(&self, from: Address, to: Address, amount: U256) -> bool {
        let approve = AthL1::approveCall { spender: self.gateway, value: amount };
        assert!(call(&self.home, from, self.token, approve).await);
        let data = (U256::from(SUBMISSION), Bytes::new()).abi_encode_params();
        let out = TestRouterL1::outboundTransferCall {
            l1Token: self.token,
            to,
            amount,
            maxGas: U256::from(5),
            gasPriceBid: U256::from(7),
            data: data.into(),
        };
        let value = SUBMISSION + 35;
        let sent = send(&self.home, from, Some(self.router), value, out.abi_encode()).await;
        sent.status.to::<u64>() == 1
    }

    /// Sends ATH home.
    async fn withdraw(&self, from: Address, to: Address, amount: U256) -> bool {
        let out = TestGatewayL2::outboundTransferCall {
            l1Token: self.token,
            to,
            amount,
            data: Bytes::new(),
        };
        call(&self.rollup, from, self.counterpart, out).await
    }

    async fn logs(on: &Anvil, of: Address, event: B256, from: &mut u64) -> Vec<Log> {
        let to = on.rpc.block_number().await.unwrap();
        if *from > to {
            return Vec::new();
        }
        let topics = vec![vec![event]];
        let filter = LogFilter { address: of, topics, from: *from, to: Some(to) };
        *from = to + 1;
        on.rpc.logs(&filter).await.unwrap()
    }

    /// Reads what was sent on either chain.
    async fn read(&mut self) {
        let event = TestInbox::Ticket::SIGNATURE_HASH;
        for log in Self::logs(&self.home, self.inbox, event, &mut self.read.0).await {
            let sent =
                TestInbox::Ticket::decode_raw_log(log.topics.iter().copied(), &log.data).unwrap();
            let made = TestGatewayL2::finalizeInboundTransferCall::abi_decode(&sent.data);
            let amount = made.map_or(U256::ZERO, |made| made.amount);
            let (from, to, data) = (sent.from, sent.to, sent.data);
            self.tickets.push(Ticket { from, to, data, amount });
        }
        let event = TestArbSys::L2ToL1Tx::SIGNATURE_HASH;
        for log in Self::logs(&self.rollup, ARB_SYS, event, &mut self.read.1).await {
            let sent = TestArbSys::L2ToL1Tx::decode_raw_log(log.topics.iter().copied(), &log.data);
            let sent = sent.unwrap();
            let back = TestGatewayL1::finalizeInboundTransferCall::abi_decode(&sent.data);
            let amount = back.map_or(U256::ZERO, |back| back.amount);
            let (position, caller) = (sent.position, sent.caller);
            let (to, data) = (sent.destination, sent.data);
            self.messages.push(Message { position, caller, to, data, amount });
        }
    }

    /// Carries one message to the rollup; one that fails there stays to be tried again.
    async fn down(&mut self, index: usize) -> bool {
        let ticket = self.tickets[index].clone();
        let from = aliased(ticket.from);
        let done = send(&self.rollup, from, Some(ticket.to), 0, ticket.data).await;
        let is_done = done.status.to::<u64>() == 1;
        if is_done {
            self.tickets.remove(index);
        }
        is_done
    }

    /// Carries one message home.
    async fn up(&mut self, index: usize) -> bool {
        let message = self.messages.remove(index);
        self.execute(RELAYER, &message).await
    }

    async fn execute(&self, by: Address, message: &Message) -> bool {
        let execute = TestInbox::executeTransactionCall {
            index: message.position,
            l2Sender: message.caller,
            to: message.to,
            data: message.data.clone(),
        };
        call(&self.home, by, self.inbox, execute).await
    }

    async fn relay_all(&mut self) {
        self.read().await;
        while !self.tickets.is_empty() {
            assert!(self.down(0).await);
        }
        while !self.messages.is_empty() {
            assert!(self.up(0).await);
        }
    }

    /// What is kept at home is what there is on the rollup and on its way; nothing else is anywhere.
    async fn is_conserved(&mut self) {
        self.read().await;
        let supply = look(&self.home, self.token, AthL1::totalSupplyCall {}).await;
        assert_eq!(supply, ath(42_000_000_000));
        let account = self.gateway;
        let kept = look(&self.home, self.token, AthL1::balanceOfCall { account }).await;
        let made = look(&self.rollup, self.form, AthL2::totalSupplyCall {}).await;
        let down: U256 = self.tickets.iter().map(|ticket| ticket.amount).sum();
        let up: U256 = self.messages.iter().map(|message| message.amount).sum();
        assert_eq!(kept, made + down + up);
    }

    async fn at_home(&self, account: Address) -> U256 {
        look(&self.home, self.token, AthL1::balanceOfCall { account }).await
    }

    async fn on_rollup(&self, account: Address) -> U256 {
        look(&self.rollup, self.form, AthL2::balanceOfCall { account }).await
    }
}

#[test]
fn addresses_of_home_are_others_on_the_rollup() {
    for (at_home, there) in [
        (Address::ZERO, ALIAS),
        (Address::repeat_byte(0xff), address!("1111000000000000000000000000000000001110")),
        (
            address!("a3A7B6F88361F48403514059F1F16C8E78d60EeC"),
            address!("b4b8B6F88361F48403514059f1F16C8E78d61FfD"),
        ),
    ] {
        assert_eq!(aliased(at_home), there);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn ath_goes_to_the_rollup_and_home_and_none_is_made_or_lost() {
    let mut bridge = Bridge::start().await;
    let buyer = world::address(&account(1));
    assert!(!bridge.deposit(HOLDER, buyer, ath(1)).await, "it is not tied to its form yet");
    assert!(bridge.register().await);
    assert!(!bridge.register_as(Address::repeat_byte(7)).await, "it stays with its form");
    // A deposit that overtakes the registration fails on the rollup, and is tried again.
    assert!(bridge.deposit(HOLDER, buyer, ath(5)).await);
    bridge.is_conserved().await;
    assert_eq!(bridge.tickets.len(), 3, "gateway, router, deposit");
    assert!(!bridge.down(2).await);
    bridge.is_conserved().await;
    bridge.relay_all().await;
    assert_eq!(bridge.on_rollup(buyer).await, ath(5));
    assert_eq!(bridge.at_home(bridge.gateway).await, ath(5));
    // To and fro, with messages that are long on their way and overtake each other.
    let users = [buyer, HOLDER, RELAYER];
    for step in 0..30_usize {
        let (from, to) = (users[step % 3], users[step * 7 % 3]);
        let amount = ath((step as u64 * 37) % 11 + 1);
        if step % 3 == 0 {
            let has = bridge.on_rollup(from).await;
            assert_eq!(bridge.withdraw(from, to, amount).await, has >= amount);
        } else {
            assert!(bridge.deposit(HOLDER, to, amount).await);
        }
        bridge.is_conserved().await;
        if step % 4 == 1 && !bridge.tickets.is_empty() {
            assert!(bridge.down(step % bridge.tickets.len()).await);
            bridge.is_conserved().await;
        }
        if step % 5 == 2 && !bridge.messages.is_empty() {
            assert!(bridge.up(step % bridge.messages.len()).await);
            bridge.is_conserved().await;
        }
    }
    bridge.relay_all().await;
    bridge.is_conserved().await;
    for user in users {
        let all = bridge.on_rollup(user).await;
        assert!(bridge.withdraw(user, HOLDER, all).await);
    }
    bridge.relay_all().await;
    assert_eq!(look(&bridge.rollup, bridge.form, AthL2::totalSupplyCall {}).await, U256::ZERO);
    let sum = bridge.at_home(HOLDER).await + bridge.at_home(buyer).await;
    assert_eq!(sum + bridge.at_home(RELAYER).await, ath(42_000_000_000), "all are home");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn nobody_but_the_gateways_moves_ath_between_the_chains() {
    let mut bridge = Bridge::start().await;
    let (buyer, amount) = (world::address(&account(1)), ath(3));
    assert!(bridge.register().await);
    assert!(bridge.deposit(HOLDER, buyer, ath(10)).await);
    bridge.relay_all().await;
    let (form, counterpart, token) = (bridge.form, bridge.counterpart, bridge.token);
    let mint = || AthL2::bridgeMintCall { account: buyer, amount };
    let make = || TestGatewayL2::finalizeInboundTransferCall {
        l1Token: token,
        _1: HOLDER,
        to: buyer,
        amount,
        _4: Bytes::new(),
    };
    for stranger in [buyer, DEPLOYER, RELAYER, bridge.gateway, aliased(bridge.gateway)] {
        assert!(!call(&bridge.rollup, stranger, form, mint()).await, "{stranger}");
        let burn = AthL2::bridgeBurnCall { account: buyer, amount };
        assert!(!call(&bridge.rollup, stranger, form, burn).await, "{stranger}");
    }
    // On the rollup the gateway at home is its alias, and its own address is somebody else's.
    for stranger in [buyer, RELAYER, bridge.gateway, aliased(bridge.router)] {
        assert!(!call(&bridge.rollup, stranger, counterpart, make()).await, "{stranger}");
    }
    assert_eq!(bridge.on_rollup(buyer).await, ath(10));
    // At home only what the gateway on the rollup said is carried out, by the relayer, once.
    let back = || TestGatewayL1::finalizeInboundTransferCall {
        l1Token: token,
        _1: buyer,
        to: buyer,
        amount,
        _4: Bytes::new(),
    };
    assert!(!call(&bridge.home, RELAYER, bridge.gateway, back()).await);
    let (position, to, data) = (U256::from(900), bridge.gateway, back().abi_encode().into());
    let forged = Message { position, caller: buyer, to, data, amount };
    assert!(!bridge.execute(RELAYER, &forged).await, "of another sender");
    assert!(bridge.withdraw(buyer, buyer, amount).await);
    bridge.read().await;
    let message = bridge.messages[0].clone();
    assert!(!bridge.execute(buyer, &message).await, "not by anybody");
    assert!(bridge.execute(RELAYER, &message).await);
    assert!(!bridge.execute(RELAYER, &message).await, "once");
    bridge.messages.clear();
    assert_eq!(bridge.at_home(buyer).await, amount);
    bridge.is_conserved().await;
}

/// An escrow on the rollup that takes the token's form there.
async fn escrow(bridge: &Bridge) -> Address {
    let rollup = &bridge.rollup;
    let admin = world::address(&account(ADMIN));
    let manager = AccessManager::constructorCall { initialAdmin: admin };
    let authority_ = deploy(rollup, &AccessManager::BYTECODE, manager).await;
    let (token_, treasury_) = (bridge.form, Address::repeat_byte(9));
    let limits_ =
        MedianOracle::Limits { maxAge: 400_000, interval: 0, deviationBps: 10_000, minReports: 1 };
    let parts = MedianOracle::constructorCall {
        token_,
        treasury_,
        authority_,
        bond_: 0,
        limits_,
        reporters_: vec![admin],
    };
    let oracle_ = deploy(rollup, &MedianOracle::BYTECODE, parts).await;
    let value = U256::from(PRICE_MICROS) * U256::from(1_000_000_000_000_u64);
    assert!(call(rollup, admin, oracle_, MedianOracle::reportCall { value }).await);
    let parts = Escrow::constructorCall { token_, oracle_, treasury_, authority_ };
    deploy(rollup, &Escrow::BYTECODE, parts).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs anvil"]
async fn ath_from_home_pays_a_lease_on_the_rollup_and_comes_back() {
    let mut bridge = Bridge::start().await;
    let (one, two) = (world::address(&account(1)), world::address(&account(2)));
    assert!(bridge.register().await);
    // A hundred ATH are five dollars.
    assert!(bridge.deposit(HOLDER, one, ath(100)).await);
    bridge.relay_all().await;
    let escrow = escrow(&bridge).await;
    let (rollup, shutdown) = (&bridge.rollup, Shutdown::default());
    rollup.coins(one, 1).await;
    rollup.coins(two, 1).await;
    let domain = Domain { chain_id: 31_338, contract: AccountId::from_bytes(escrow.0.0) };
    let settle = |n| {
        let config = EvmConfig { outbox: quick(0), ..EvmConfig::of(domain) };
        let rpc = rollup.rpc.clone();
        Settle::new(EvmSettlement::over(rpc, None, account(n), config, &shutdown))
    };
    let (buyer, host) = (settle(1), settle(2));
    let pay = sender(rollup.rpc.clone(), 31_338, account(1), &shutdown);
    let approve = AthL2::approveCall { spender: escrow, value: ath(100) };
    pay.send(Some(bridge.form), approve.abi_encode().into(), true).await.unwrap();
    let deposit = Escrow::depositCall { account: one, amount: ath(100) };
    pay.send(Some(escrow), deposit.abi_encode().into(), true).await.unwrap();
    assert_eq!(buyer.balance(account(1).id()).await.unwrap().available, usd("5"));
    let now = rollup.rpc.head().await.unwrap().timestamp.to::<u64>() * 1_000;
    let id = lease(1, 1);
    let first = order(&domain, id, "2", now, now + 3_600_000);
    host.reserve(first, usd("1")).await.unwrap();
    host.redeem(voucher(&domain, id, 1, 400_000), usd("1")).await.unwrap();
    let closed = host.close(id, Some(voucher(&domain, id, 1, 1_000_000))).await.unwrap();
    assert_eq!((closed.paid, closed.fee), (usd("1"), usd("0.2")));
    assert_eq!(host.balance(account(2).id()).await.unwrap().available, usd("0.8"));
    assert_eq!(host.totals().await.unwrap().held, Usd::ZERO);
    // The host takes its sixteen ATH home.
    let earn = sender(rollup.rpc.clone(), 31_338, account(2), &shutdown);
    let thaw = Escrow::thawCall { amount: ath(16) };
    earn.send(Some(escrow), thaw.abi_encode().into(), true).await.unwrap();
    rollup.wait(86_400).await;
    let withdraw = Escrow::withdrawCall { to: two };
    earn.send(Some(escrow), withdraw.abi_encode().into(), true).await.unwrap();
    assert!(bridge.withdraw(two, two, ath(16)).await);
    bridge.is_conserved().await;
    bridge.relay_all().await;
    assert_eq!(bridge.at_home(two).await, ath(16));
    assert_eq!(bridge.on_rollup(escrow).await, ath(84));
    bridge.is_conserved().await;
}
