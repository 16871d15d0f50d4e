//! What people do with the contracts, over their whole life: months pass in a moment here, since
//! the chain's clock is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue as _};
use welkin_chain::contracts::{AccessManager, Ath, Committee, LocalFaucet, Registry, Rewards};
use welkin_chain::deployment::{Contract, Deployment, Places, Role};
use welkin_chain::genesis::{self, LocalSetup};
use welkin_chain::ops::escrow::{self, Withdrawal};
use welkin_chain::ops::gov::{self, Support};
use welkin_chain::ops::params::{self, State};
use welkin_chain::ops::rewards::{self, Proof, Stream};
use welkin_chain::ops::stake::{self, Machine};
use welkin_chain::ops::typed_data::{self, Session, Signature};
use welkin_chain::ops::{Act, Desk, OpsError, calls, licence, verify};
use welkin_chain::outbox::OutboxConfig;
use welkin_chain::rpc::{BoxFuture, Rpc, Transport, TransportError};
use welkin_chain::sender::{Sender, SenderConfig};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};
use welkin_node::Shutdown;
use welkin_proto::Domain;

use crate::world::account;

/// Who set the network up: committee, court, verifier.
const ADMIN: u8 = 250;
const DAY: u64 = 86_400;
const START: u64 = 1_800_000_000;

#[derive(Debug)]
struct InProcess(Arc<Chain>);

impl Transport for InProcess {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move { Ok(self.0.rpc(&request).await) })
    }
}

/// A chain with all contracts, whose clock goes on when told.
struct Town {
    now: Arc<AtomicU64>,
    rpc: Rpc,
    shutdown: Shutdown,
    _dir: tempfile::TempDir,
}

fn ath(whole: u64) -> U256 {
    U256::from(whole) * U256::from(10).pow(U256::from(18))
}

fn address(n: u8) -> Address {
    Address::from(*account(n).id().as_bytes())
}

impl Town {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = LocalSetup {
            admin: address(ADMIN),
            start: START,
            ath_price_micros: 50_000,
            faucet_micros_max: 100_000_000_000_000,
        };
        let mut genesis = Genesis::new(Domain::LOCAL.chain_id);
        genesis.timestamp = START;
        genesis.transactions = genesis::local(&setup)
            .into_iter()
            .map(|first| GenesisTransaction { from: first.from, to: first.to, data: first.input })
            .collect();
        let now = Arc::new(AtomicU64::new(START + 1));
        let clock = {
            let now = Arc::clone(&now);
            Clock::new(move || now.load(Ordering::SeqCst))
        };
        let chain = Chain::open(&dir.path().join("chain.redb"), genesis, clock).unwrap();
        let rpc = Rpc::new(InProcess(chain));
        Self { now, rpc, shutdown: Shutdown::default(), _dir: dir }
    }

    fn desk(&self, n: u8) -> Desk {
        let deployment = Deployment {
            chain_id: Domain::LOCAL.chain_id,
            first_block: 0,
            contracts: Places::local(),
        };
        Desk::new(self.rpc.clone(), deployment, address(n))
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn wait(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Sends in the name of account `n`; a second passes with each.
    async fn send(&self, n: u8, acts: &[Act]) {
        let config = SenderConfig {
            chain_id: Domain::LOCAL.chain_id,
            outbox: OutboxConfig::default(),
            is_gas_free: true,
            clock: Arc::new(welkin_node::outside::now),
        };
        let (sender, work) = Sender::new(self.rpc.clone(), account(n), config);
        self.shutdown.spawn("sender", work);
        for act in acts {
            let sent = sender.send(Some(act.to), act.input.clone(), false).await;
            if let Err(error) = sent {
                let error = OpsError::of_send(act.what.clone(), error);
                panic!("{}", welkin_node::chain(&error));
            }
            self.wait(1);
        }
    }

    async fn call<C: SolCall>(&self, n: u8, contract: Contract, call: C) {
        let act = self.desk(n).act("call", contract, &call).unwrap();
        self.send(n, &[act]).await;
    }

    /// Gives an account ATH in its wallet.
    async fn give(&self, n: u8, amount: U256) {
        self.call(ADMIN, Contract::Ath, Ath::transferCall { to: address(n), value: amount }).await;
    }

    /// Gives an account dollars in the escrow.
    async fn fund(&self, n: u8, dollars: u64) {
        let key = FixedBytes::from(keccak256([n]).first_chunk::<16>().unwrap());
        let call = LocalFaucet::fundCall { account: address(n), micros: dollars * 1_000_000, key };
        self.call(n, Contract::Faucet, call).await;
    }
}

/// The name of the contract's error.
fn refused<T: std::fmt::Debug>(result: Result<T, OpsError>) -> &'static str {
    let error = result.unwrap_err();
    error.refusal().map_or_else(|| panic!("{error:?}"), |refusal| refusal.name)
}

fn unfit<T: std::fmt::Debug>(result: Result<T, OpsError>) -> String {
    match result.unwrap_err() {
        OpsError::Unfit { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_withdrawal_is_announced_waited_for_and_taken() {
    let town = Town::open();
    let (desk, me) = (town.desk(1), address(1));
    assert!(unfit(escrow::withdrawal(&desk, Some(ath(1)), me).await).contains("0 ATH are free"));
    town.fund(1, 10).await;
    let Withdrawal::Announce { act, amount, wait_seconds } =
        escrow::withdrawal(&desk, Some(ath(150)), me).await.unwrap()
    else {
        panic!("it is not announced")
    };
    assert_eq!((amount, wait_seconds), (ath(150), 10));
    town.send(1, &[act]).await;
    let waiting = escrow::withdrawal(&desk, Some(ath(150)), me).await.unwrap();
    assert!(matches!(waiting, Withdrawal::Wait { amount, .. } if amount == ath(150)));
    // Called off, and announced again.
    let off = escrow::call_off(&desk).await.unwrap().unwrap();
    town.send(1, &[off]).await;
    assert_eq!(escrow::call_off(&desk).await.unwrap(), None);
    let Withdrawal::Announce { act, .. } = escrow::withdrawal(&desk, None, me).await.unwrap()
    else {
        panic!("it is not announced")
    };
    town.send(1, &[act]).await;
    town.wait(10);
    let elsewhere = address(7);
    let Withdrawal::Take { act, amount } =
        escrow::withdrawal(&desk, None, elsewhere).await.unwrap()
    else {
        panic!("it can't be taken")
    };
    assert_eq!(amount, ath(200));
    town.send(1, &[act]).await;
    assert_eq!(town.desk(7).wallet().await.unwrap(), ath(200));
    assert_eq!(escrow::standing(&desk).await.unwrap(), escrow::Standing::default());
}

#[tokio::test]
async fn a_deposit_asks_only_for_the_permission_that_is_missing() {
    let town = Town::open();
    town.give(1, ath(50)).await;
    let desk = town.desk(1);
    let acts = escrow::deposit(&desk, ath(20), address(2)).await.unwrap();
    assert_eq!(acts.len(), 2, "{acts:?}");
    // Broken off after the first: the second run does the rest.
    town.send(1, &acts[..1]).await;
    let rest = escrow::deposit(&desk, ath(20), address(2)).await.unwrap();
    assert_eq!(rest, acts[1..]);
    town.send(1, &rest).await;
    assert_eq!(escrow::standing(&town.desk(2)).await.unwrap().balance, ath(20));
    let why = unfit(escrow::deposit(&desk, ath(31), address(2)).await);
    assert!(why.contains("30 ATH"), "{why}");
}

fn machine(n: u8) -> Machine {
    Machine {
        host: B256::repeat_byte(n),
        container: FixedBytes::repeat_byte(n),
        class: 1,
        fingerprint: B256::repeat_byte(n ^ 0xff),
        operator: address(n),
    }
}

#[tokio::test]
async fn a_stake_goes_in_works_and_comes_back_after_180_days() {
    let town = Town::open();
    town.give(1, ath(500)).await;
    let (desk, machine) = (town.desk(1), machine(1));
    let subject = machine.subject(address(1));
    let acts = stake::register(&desk, &machine).await.unwrap();
    assert_eq!(acts.len(), 3, "{acts:?}");
    town.send(1, &acts[..2]).await;
    // It broke off: only the commitment is left.
    let rest = stake::register(&desk, &machine).await.unwrap();
    assert_eq!(rest, acts[2..]);
    town.send(1, &rest).await;
    assert_eq!(stake::register(&desk, &machine).await.unwrap(), Vec::new());
    assert_eq!(stake::containers(&desk).await.unwrap(), [(subject, machine.container)]);
    town.send(1, &stake::stake(&desk, subject, ath(120)).await.unwrap()).await;
    let stands = stake::standing(&desk, subject).await.unwrap();
    assert_eq!((stands.required, stands.staked, stands.own), (ath(100), ath(120), ath(120)));
    assert!(!stands.is_active, "nobody has looked at the machine");
    let call = Registry::verifyCall { id: subject, generation: 0, key: machine.fingerprint };
    town.call(ADMIN, Contract::Registry, call).await;
    assert!(stake::standing(&desk, subject).await.unwrap().is_active);

    // Another machine must be looked at again.
    let changed = Machine { fingerprint: B256::repeat_byte(3), ..machine };
    town.send(1, &stake::register(&desk, &changed).await.unwrap()).await;
    assert!(!stake::standing(&desk, subject).await.unwrap().is_active);

    let why = unfit(stake::unstake(&desk, subject, Some(ath(121))).await);
    assert!(why.contains("120 ATH"), "{why}");
    let first = stake::unstake(&desk, subject, Some(ath(20))).await.unwrap();
    town.send(1, &[first]).await;
    town.wait(30 * DAY);
    let rest = stake::unstake(&desk, subject, None).await.unwrap();
    town.send(1, &[rest]).await;
    let exits = stake::exits(&desk).await.unwrap();
    let amounts: Vec<_> = exits.iter().map(|exit| exit.amount).collect();
    assert_eq!(amounts, [ath(20), ath(100)]);
    assert_eq!(stake::take_due(&desk).await.unwrap(), Vec::new());
    town.wait(150 * DAY);
    let due = stake::take_due(&desk).await.unwrap();
    assert_eq!(due.len(), 1, "the second has 30 days to go");
    town.send(1, &due).await;
    assert_eq!(desk.wallet().await.unwrap(), ath(400));
    town.wait(30 * DAY);
    town.send(1, &stake::take_due(&desk).await.unwrap()).await;
    assert_eq!(desk.wallet().await.unwrap(), ath(500));
    assert_eq!(stake::exits(&desk).await.unwrap(), Vec::new());
    let list = stake::list(&desk).await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].staked, U256::ZERO);
}

#[tokio::test]
async fn somebody_else_may_add_to_a_stake_and_not_to_what_is_unknown() {
    let town = Town::open();
    town.give(2, ath(10)).await;
    let subject = machine(1).subject(address(1));
    let early = stake::stake(&town.desk(2), subject, ath(5)).await.unwrap();
    town.send(2, &early[..1]).await;
    assert_eq!(refused(town.desk(2).check(&early[1]).await), "NotOwner");
    town.send(1, &stake::register(&town.desk(1), &machine(1)).await.unwrap()).await;
    town.send(2, &stake::stake(&town.desk(2), subject, ath(5)).await.unwrap()).await;
    let seen = stake::list(&town.desk(2)).await.unwrap();
    assert_eq!((seen[0].own, seen[0].owner), (ath(5), address(1)));
    let unknown = Machine { class: 9, ..machine(2) };
    let why = unfit(stake::register(&town.desk(2), &unknown).await);
    assert!(why.contains("class 9"), "{why}");
}

/// A tree of two leaves: its root, and each leaf's proof.
fn tree(leaves: [(u8, Stream, U256); 2]) -> (B256, [B256; 2]) {
    let hash = |(n, stream, total): (u8, Stream, U256)| {
        let words = (address(n), U256::from(stream as u8), total).abi_encode();
        keccak256(keccak256(words))
    };
    let [a, b] = leaves.map(hash);
    let root = keccak256(if a < b { [a, b].concat() } else { [b, a].concat() });
    (root, [b, a])
}

/// Has the committee sign an epoch and waits until it counts.
async fn epoch(town: &Town, number: u32, root: B256, totals: [U256; 3]) {
    let admin = town.desk(ADMIN);
    let next = Committee::Epoch { number, root, data: B256::ZERO, totals, units: U256::from(100) };
    let call = Rewards::epochHashCall { epoch_: next.clone() };
    let digest = admin.look(Contract::Rewards, call).await.unwrap();
    let signed = account(ADMIN).sign(&digest.0).unwrap();
    let who = address(ADMIN);
    let signature: Bytes = [who.as_slice(), &signed.r, &signed.s, &[signed.v]].concat().into();
    let call = Rewards::proposeCall { next, signatures: vec![signature] };
    town.wait(2 * DAY);
    town.call(ADMIN, Contract::Rewards, call).await;
    town.wait(2 * DAY);
    town.call(ADMIN, Contract::Rewards, Rewards::acceptCall {}).await;
}

/// A settled epoch is signed by the committee, proposed, accepted, and claimed by its own proofs.
#[tokio::test]
async fn what_was_settled_is_signed_proposed_and_claimed() {
    use welkin_chain::ops::committee::{self, Epoch};
    use welkin_ledger::epoch::{Claim, Claims, Stream as Paid};
    let town = Town::open();
    let (admin, host) = (town.desk(ADMIN), town.desk(1));
    let own = welkin_types::AccountId::from_bytes(host.account().into_array());
    let units = 1_000_000_000_000;
    let claims = Claims::new([Claim { account: own, stream: Paid::Hosts, units }]);
    let (claim, beside) = claims.proof(own, Paid::Hosts).unwrap();
    let next = Epoch {
        number: 1,
        root: B256::from(claims.root()),
        data: B256::repeat_byte(7),
        totals: [claim.wei(), U256::ZERO, U256::ZERO],
        units: 9,
    };
    assert_eq!(committee::members(&admin).await.unwrap(), (vec![address(ADMIN)], 1));
    let data = committee::to_sign(&admin, &next).await.unwrap();
    let digest = welkin_chain::ops::typed_data::digest(&data).unwrap();
    let sign = |n: u8| {
        let signed = account(n).sign(&digest).unwrap();
        let bytes = [&signed.r[..], &signed.s, &[signed.v]].concat();
        let text = alloy_primitives::hex::encode(bytes);
        (address(n), text.parse::<welkin_chain::ops::typed_data::Signature>().unwrap())
    };
    let early = committee::propose(&admin, &next, vec![sign(ADMIN)]).await;
    assert_eq!(refused(early.map(drop)), "NotYet");
    town.wait(2 * DAY);
    let strange = committee::propose(&admin, &next, vec![sign(1)]).await;
    assert_eq!(refused(strange.map(drop)), "Signatures");
    let other = Epoch { units: 10, ..next.clone() };
    let other = committee::propose(&admin, &other, vec![sign(ADMIN)]).await;
    assert_eq!(refused(other.map(drop)), "Signatures");
    // Anybody may bring what the committee has signed.
    let act = committee::propose(&host, &next, vec![sign(ADMIN), sign(ADMIN)]).await.unwrap();
    town.send(1, &[act]).await;
    assert_eq!(refused(committee::accept(&host).await.map(drop)), "NotYet");
    town.wait(2 * DAY);
    town.send(1, &[committee::accept(&host).await.unwrap()]).await;
    let proof = Proof {
        epoch: 1,
        account: address(1),
        stream: Stream::Hosts,
        total: claim.wei(),
        proof: beside.into_iter().map(B256::from).collect(),
    };
    town.send(1, &rewards::claim(&host, &[proof], false).await.unwrap()).await;
    assert_eq!(rewards::standing(&host).await.unwrap()[0].claimed, claim.wei());
}

/// What each epoch had to give is reckoned back from what the next one has.
#[tokio::test]
async fn what_counts_is_told_with_its_root_and_emissions() {
    use welkin_chain::ops::committee::{self, Proposed};
    let town = Town::open();
    let desk = town.desk(ADMIN);
    let price = U256::from(50_000_000_000_000_000_u64);
    let mut emissions = welkin_ledger::epoch::Emissions::new(5_000_000);
    let same = |grants: committee::Grants, emissions: &welkin_ledger::epoch::Emissions| {
        assert_eq!(
            (grants.epoch, grants.pool, grants.granted, grants.pool_min, grants.target_micros),
            (
                emissions.epoch,
                emissions.pool,
                emissions.granted,
                emissions.pool_min,
                emissions.target_micros
            )
        );
    };
    let mut before = Vec::new();
    for number in 1..=3 {
        let root = B256::repeat_byte(u8::try_from(number).unwrap());
        epoch(&town, number, root, [U256::ZERO; 3]).await;
        before.push(emissions);
        emissions.advance(100, price);
    }
    let standing = committee::standing(&desk).await.unwrap();
    assert_eq!((standing.counted, standing.root), (3, B256::repeat_byte(3)));
    assert_eq!((standing.next_ends, standing.proposed), (START + 4 * DAY, None));
    assert_eq!((standing.members.clone(), standing.threshold), (vec![address(ADMIN)], 1));
    same(standing.grants, &emissions);
    let counted = committee::counted_after(&desk, &standing, 1).await.unwrap();
    assert_eq!(counted.len(), 2);
    for (epoch, emissions) in
        committee::counted_after(&desk, &standing, 0).await.unwrap().into_iter().zip(&before)
    {
        let n = u8::try_from(epoch.number).unwrap();
        assert_eq!((epoch.root, epoch.ends), (B256::repeat_byte(n), START + u64::from(n) * DAY));
        same(epoch.grants, emissions);
    }
    assert_eq!(committee::counted(&desk).await.unwrap(), 3);
    // The next one is proposed, and waits for its window.
    let root = B256::repeat_byte(4);
    let next =
        committee::Epoch { number: 4, root, data: B256::ZERO, totals: [U256::ZERO; 3], units: 1 };
    let signed = account(ADMIN).sign(&committee::digest(&desk, &next).await.unwrap()).unwrap();
    let signatures = vec![(address(ADMIN), Signature::from(signed))];
    town.send(ADMIN, &[committee::propose(&desk, &next, signatures).await.unwrap()]).await;
    let proposed = committee::standing(&desk).await.unwrap().proposed;
    let at = town.now() - 1 + DAY;
    assert!(matches!(proposed, Some(Proposed { root: of, ready_at, is_contested: false })
        if of == root && ready_at <= at + 1));
}

#[tokio::test]
async fn rewards_are_claimed_and_paid_out_over_half_a_year() {
    let town = Town::open();
    let (host, checker) = (town.desk(1), town.desk(2));
    let leaves = [(1, Stream::Hosts, ath(1_000)), (2, Stream::Checkers, ath(205))];
    let (root, proofs) = tree(leaves);
    epoch(&town, 1, root, [ath(1_000), ath(205), U256::ZERO]).await;
    let proofs: Vec<Proof> = leaves
        .into_iter()
        .zip(proofs)
        .map(|((n, stream, total), beside)| Proof {
            epoch: 1,
            account: address(n),
            stream,
            total,
            proof: vec![beside],
        })
        .collect();
    let late = Proof { epoch: 2, ..proofs[0].clone() };
    assert!(unfit(rewards::claim(&host, &[late], false).await).contains("epoch 2"));
    let acts = rewards::claim(&host, &proofs, false).await.unwrap();
    assert_eq!(acts.len(), 1, "one's own only");
    town.send(1, &acts).await;
    assert_eq!(rewards::claim(&host, &proofs, false).await.unwrap(), Vec::new());
    let claimed = town.now();
    town.send(2, &rewards::claim(&checker, &proofs, false).await.unwrap()).await;

    // 30, 30, 40 % after 0, 90, 180 days.
    for (days, paid) in [(0, 300), (89, 300), (2, 600), (90, 1_000)] {
        town.wait(days * DAY);
        town.send(1, &rewards::release(&host).await.unwrap()).await;
        assert_eq!(host.wallet().await.unwrap(), ath(paid), "{days} days later");
    }
    let standing = &rewards::standing(&host).await.unwrap()[0];
    assert_eq!((standing.claimed, standing.pending), (ath(1_000), U256::ZERO));
    assert_eq!(standing.grants, Vec::new(), "it is paid out in full");

    // A checker's waits 180 days; 5 of it were the fee.
    let standing = &rewards::standing(&checker).await.unwrap()[1];
    assert_eq!(standing.granted, ath(200));
    let grant = &standing.grants[0];
    assert!(grant.at.abs_diff(claimed) < 10);
    assert_eq!((grant.due, grant.next(grant.at)), (ath(200), None));
    town.send(2, &rewards::release(&checker).await.unwrap()).await;
    assert_eq!(checker.wallet().await.unwrap(), ath(200));
    assert_eq!(rewards::release(&checker).await.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_checker_in_a_hurry_gives_three_quarters_up() {
    let town = Town::open();
    let checker = town.desk(2);
    let leaves = [(1, Stream::Hosts, ath(1)), (2, Stream::Checkers, ath(405))];
    let (root, [_, beside]) = tree(leaves);
    epoch(&town, 1, root, [ath(1), ath(405), U256::ZERO]).await;
    let proof = Proof {
        epoch: 1,
        account: address(2),
        stream: Stream::Checkers,
        total: ath(405),
        proof: vec![beside],
    };
    let wrong = Proof { total: ath(406), ..proof.clone() };
    let acts = rewards::claim(&checker, &[wrong], true).await.unwrap();
    assert_eq!(refused(checker.check(&acts[0]).await), "Proof");
    town.send(2, &rewards::claim(&checker, &[proof], true).await.unwrap()).await;
    let grant = rewards::standing(&checker).await.unwrap()[1].grants[0].clone();
    assert_eq!((grant.amount, grant.due), (ath(100), U256::ZERO));
    assert_eq!(grant.next(town.now()), Some(grant.at + 30 * DAY));
    town.wait(30 * DAY);
    town.send(2, &rewards::release(&checker).await.unwrap()).await;
    assert_eq!(checker.wallet().await.unwrap(), ath(100));
}

#[tokio::test]
async fn licences_are_bought_lent_and_come_back() {
    let town = Town::open();
    town.give(1, ath(1_000)).await;
    let (owner, friend) = (town.desk(1), town.desk(2));
    assert_eq!(licence::cost(&owner, 0, 2).await.unwrap(), ath(200));
    let none = licence::ListProof::default();
    let why = unfit(licence::buy(&owner, 0, 2, ath(199), &none).await);
    assert!(why.contains("200 ATH"), "{why}");
    assert!(unfit(licence::cost(&owner, 1, 1).await).contains("no tier 1"));
    town.send(1, &licence::buy(&owner, 0, 2, ath(210), &none).await.unwrap()).await;
    assert_eq!(owner.wallet().await.unwrap(), ath(800));
    let tier = &licence::tiers(&owner).await.unwrap()[0];
    assert_eq!((tier.left, tier.for_account), (9_998, U256::from(48)));

    let number = U256::from(2);
    let until = town.now() + 30 * DAY;
    let lend = licence::delegate(&owner, number, address(2), until).await.unwrap();
    town.send(1, &[lend]).await;
    let seen = licence::list(&friend).await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].number, seen[0].owner, seen[0].until), (number, address(1), until));
    let taken = licence::delegate(&friend, number, address(3), until).await;
    assert_eq!(refused(taken), "ERC721InsufficientApproval");
    town.wait(31 * DAY);
    assert_eq!(licence::list(&friend).await.unwrap(), Vec::new());
    assert_eq!(licence::list(&owner).await.unwrap().len(), 2);
    assert_eq!(licence::licence(&owner, number).await.unwrap().runner, address(1));
    let absent = licence::licence(&owner, U256::from(9)).await;
    assert_eq!(refused(absent), "ERC721NonexistentToken");
}

/// A parameter as it is shown.
async fn shown(desk: &Desk, name: &str) -> String {
    let all = params::read_all(desk).await.unwrap();
    all.iter().find(|value| value.name == name).unwrap().to_string()
}

#[tokio::test]
async fn a_decision_is_proposed_voted_on_queued_and_carried_out() {
    let town = Town::open();
    town.give(1, ath(1_000)).await;
    let desk = town.desk(1);
    let mut state = State::read(&desk).await.unwrap();
    let fee = state.set("escrow.fee", U256::from(1_500)).unwrap();
    let minimum = state.set("rewards.checkers.minimum", U256::from(40_000)).unwrap();
    let both = state.set("rewards.checkers.fee", U256::from(6_000)).unwrap();
    assert_ne!(minimum, both, "the second call sets both");
    let delay = state.set("governor.voting-delay", U256::from(7)).unwrap();
    let changes = [fee, both, delay];
    let list: Vec<_> = changes.into_iter().map(|change| (change.contract, change.input)).collect();

    // Nobody votes with ATH that was not counted.
    let poor = gov::propose(&desk, list.clone(), "lower the fee").await;
    assert_eq!(refused(poor), "GovernorInsufficientProposerVotes");
    town.send(1, &gov::delegate(&desk, address(1)).await.unwrap()).await;
    assert_eq!(gov::delegate(&desk, address(1)).await.unwrap(), Vec::new());
    assert_eq!(gov::votes(&desk).await.unwrap(), ath(1_000));
    let (id, act) = gov::propose(&desk, list.clone(), "lower the fee").await.unwrap();
    town.send(1, &[act]).await;
    let again = gov::propose(&desk, list, "lower the fee").await;
    assert_eq!(refused(again), "GovernorUnexpectedProposalState");

    let found = gov::find(&desk, &gov::hex(id)[..10]).await.unwrap();
    assert_eq!((found.id, found.state, found.next().unwrap().0), (id, "pending", "vote"));
    assert_eq!(found.call_texts(&desk)[0], "escrow.setFee(1500)");
    let early = gov::vote(&desk, &found, Support::For, "").await;
    assert_eq!(refused(early), "GovernorUnexpectedProposalState");
    town.wait(6);
    let stranger = gov::vote(&town.desk(9), &found, Support::For, "").await;
    assert!(unfit(stranger).contains("no votes"));
    town.send(1, &[gov::vote(&desk, &found, Support::For, "cheaper").await.unwrap()]).await;
    let twice = gov::vote(&desk, &found, Support::Against, "").await;
    assert_eq!(refused(twice), "GovernorAlreadyCastVote");
    let early = gov::queue(&desk, &found).await;
    assert_eq!(refused(early), "GovernorUnexpectedProposalState");
    town.wait(61);
    let found = gov::find(&desk, "last").await.unwrap();
    assert_eq!((found.state, found.votes_for, found.has_voted), ("succeeded", ath(1_000), true));
    town.send(1, &[gov::queue(&desk, &found).await.unwrap()]).await;
    let found = gov::find(&desk, &id.to_string()).await.unwrap();
    assert_eq!(found.state, "queued");
    assert!(found.eta > town.now(), "it waits in the treasury");
    let early = gov::execute(&desk, &found).await;
    assert_eq!(refused(early), "TimelockUnexpectedOperationState");
    town.wait(61);
    // Anybody may carry out what was decided.
    town.send(9, &[gov::execute(&town.desk(9), &found).await.unwrap()]).await;
    assert_eq!(gov::find(&desk, "last").await.unwrap().state, "executed");
    for (name, value) in [
        ("escrow.fee", "15%"),
        ("rewards.checkers.minimum", "40 ATH"),
        ("rewards.checkers.fee", "6 ATH"),
        ("governor.voting-delay", "7s"),
    ] {
        assert_eq!(shown(&desk, name).await, value, "{name}");
    }
}

#[tokio::test]
async fn a_proposal_can_be_taken_back_or_fail() {
    let town = Town::open();
    town.give(1, ath(1_000)).await;
    town.give(2, ath(2_000)).await;
    let desk = town.desk(1);
    town.send(1, &gov::delegate(&desk, address(1)).await.unwrap()).await;
    town.send(2, &gov::delegate(&town.desk(2), address(2)).await.unwrap()).await;
    let call = calls::parse("escrow.setHoldMargin(100)").unwrap();
    let (_, act) = gov::propose(&desk, vec![call.clone()], "one").await.unwrap();
    town.send(1, &[act]).await;
    let first = gov::find(&desk, "last").await.unwrap();
    let theirs = gov::cancel(&town.desk(2), &first).await;
    assert_eq!(refused(theirs), "GovernorUnableToCancel");
    town.send(1, &[gov::cancel(&desk, &first).await.unwrap()]).await;
    let (_, act) = gov::propose(&desk, vec![call], "two").await.unwrap();
    town.send(1, &[act]).await;
    town.wait(6);
    let second = gov::find(&desk, "last").await.unwrap();
    for (n, support) in [(1, Support::For), (2, Support::Against)] {
        let act = gov::vote(&town.desk(n), &second, support, "").await.unwrap();
        town.send(n, &[act]).await;
    }
    town.wait(61);
    let states: Vec<_> =
        gov::list(&desk).await.unwrap().iter().map(|proposal| proposal.state).collect();
    assert_eq!(states, ["defeated", "canceled"]);
    let lost = gov::find(&desk, "last").await.unwrap();
    assert_eq!(lost.next(), None);
    assert_eq!(refused(gov::queue(&desk, &lost).await), "GovernorUnexpectedProposalState");
    assert!(unfit(gov::find(&desk, "0xzz").await).contains("no proposal"));
}

#[tokio::test]
async fn every_parameter_can_be_proposed_within_its_bounds_and_not_beyond() {
    let town = Town::open();
    let desk = town.desk(ADMIN);
    let state = State::read(&desk).await.unwrap();
    let treasury =
        Desk::new(town.rpc.clone(), *desk.deployment(), desk.deployment().contracts.treasury);
    for value in state.values() {
        let bounds = [Some(value.min), value.max.map(|max| max.min(U256::from(u64::MAX)))];
        for bound in bounds.into_iter().flatten() {
            let change = state.clone().set(&value.name, bound).unwrap();
            // The governor changes itself only by a proposal that went through.
            if value.contract == Contract::Governor {
                continue;
            }
            let to = treasury.place(change.contract).unwrap();
            let act = Act { what: value.name.clone(), to, input: change.input };
            let tried = treasury.check(&act).await;
            assert!(tried.is_ok(), "{} = {bound}: {tried:?}", value.name);
        }
        if let Some(above) = value.max.and_then(|max| max.checked_add(U256::ONE)) {
            assert!(state.clone().set(&value.name, above).is_err(), "{}", value.name);
        }
        if let Some(below) = value.min.checked_sub(U256::ONE) {
            assert!(state.clone().set(&value.name, below).is_err(), "{}", value.name);
        }
    }
}

#[tokio::test]
async fn what_stands_is_compared_with_what_should() {
    let town = Town::open();
    let desk = town.desk(1);
    let found = verify::verify(&desk).await.unwrap();
    assert!(found.len() > 100, "{}", found.len());
    let wrong: Vec<_> = found.iter().filter(|finding| finding.wrong.is_some()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Somebody who may take stakes, besides the contract for that.
    let call = AccessManager::grantRoleCall {
        roleId: Role::Slasher.id(),
        account: address(66),
        executionDelay: 0,
    };
    town.call(ADMIN, Contract::Authority, call).await;
    let found = verify::verify(&desk).await.unwrap();
    let wrong: Vec<_> = found.iter().filter(|finding| finding.wrong.is_some()).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0].about, "role slasher");
    // Another contract in a place.
    let mut deployment = *desk.deployment();
    std::mem::swap(&mut deployment.contracts.escrow, &mut deployment.contracts.staking);
    let swapped = Desk::new(town.rpc.clone(), deployment, address(1));
    let found = verify::verify(&swapped).await.unwrap();
    let wrong: Vec<_> = found.iter().filter(|finding| finding.wrong.is_some()).collect();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert_eq!(wrong[0].about, "code of staking");
}

/// Signs typed data as a wallet does: by nothing but the JSON.
fn sign(n: u8, data: &serde_json::Value) -> Signature {
    let signed = account(n).sign(&typed_data::digest(data).unwrap()).unwrap();
    let bytes = [&signed.r[..], &signed.s, &[signed.v]].concat();
    alloy_primitives::hex::encode_prefixed(bytes).parse().unwrap()
}

#[tokio::test]
async fn what_a_wallet_signs_is_what_the_contracts_check() {
    let town = Town::open();
    town.give(1, ath(300)).await;
    let desk = town.desk(1);
    let deadline = town.now() + DAY;
    let staking = Contract::Staking;
    // A permission for a stake: told by somebody else, who pays for it.
    let data = typed_data::permit(&desk, staking, ath(10), deadline).await.unwrap();
    let signature = sign(1, &data);
    let act = typed_data::permitted(&desk, staking, ath(10), deadline, &signature).await;
    town.send(2, &[act.unwrap()]).await;
    let needed = desk.permission(staking, ath(10)).await.unwrap();
    assert_eq!(needed, None, "the permission is there");
    let data = typed_data::permit(&desk, staking, ath(1), deadline).await.unwrap();
    let act = typed_data::permitted(&desk, staking, ath(1), deadline, &sign(3, &data)).await;
    assert_eq!(refused(act), "ERC2612InvalidSigner");
    // One for a deposit, in one transaction.
    let data = typed_data::permit(&desk, Contract::Escrow, ath(20), deadline).await.unwrap();
    let act = typed_data::deposit(&desk, ath(20), address(1), deadline, &sign(1, &data)).unwrap();
    town.send(1, &[act]).await;
    assert_eq!(escrow::standing(&desk).await.unwrap().balance, ath(20));
    // A session key says yes, and is let go again.
    let session = Session { signer: address(4), until: deadline, allowance_micros: 5_000_000 };
    let data = typed_data::session(&desk, &session).await.unwrap();
    let wrong = typed_data::allow(&desk, &session, &sign(1, &data)).await;
    assert_eq!(refused(wrong), "Signature");
    let act = typed_data::allow(&desk, &session, &sign(4, &data)).await.unwrap();
    town.send(1, &[act]).await;
    town.send(1, &[typed_data::revoke(&desk, address(4)).unwrap()]).await;
    // A vote, sent by somebody else.
    town.send(1, &gov::delegate(&desk, address(1)).await.unwrap()).await;
    let call = calls::parse("escrow.setFee(1000)").unwrap();
    let (_, act) = gov::propose(&desk, vec![call], "by signature").await.unwrap();
    town.send(1, &[act]).await;
    town.wait(6);
    let proposal = gov::find(&desk, "last").await.unwrap();
    let data = typed_data::ballot(&desk, &proposal, Support::For).await.unwrap();
    let friend = town.desk(2);
    let signature = sign(1, &data);
    let other = typed_data::cast(&friend, &proposal, Support::Against, address(1), &signature);
    assert_eq!(refused(other.await), "GovernorInvalidSignature");
    let act = typed_data::cast(&friend, &proposal, Support::For, address(1), &signature).await;
    town.send(2, &[act.unwrap()]).await;
    let proposal = gov::find(&desk, "last").await.unwrap();
    assert_eq!((proposal.votes_for, proposal.has_voted), (ath(280), true));
}
