//! An epoch's root is brought to the settlement contract by the checkers, without any command: a network
//! of real roles on a chain whose days pass when the test says so. Its minutes are real ones.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use welkin_chain::contracts::Rewards;
use welkin_chain::deployment::Contract;
use welkin_chain::genesis::{self, LocalSetup};
use welkin_chain::ops::committee::{self, Standing};
use welkin_chain::ops::rewards::{self, Proof, Stream};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};
use welkin_ledger::epoch::{Book, Emissions, Stream as Paid};
use welkin_node::checker::{self, Concern, RootsDeps, RootsReason, RootsStatus};
use welkin_node::epoch::{Published, TARGET_MICROS, outcome};
use welkin_node::settlement::{Contracts, Service, ServiceConfig};
use welkin_node::{Caller, Shutdown, outside};
use welkin_proto::epoch::{EvidenceAsk, Heading, Roll, Statement};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, Domain, NodeKey, Signed};

use crate::regions::paper::PaperHost;
use crate::world::{World, account, settle};

const EPOCH_SECONDS: u64 = 60;
const DAY: u64 = 86_400;
/// Who set the network up.
const ADMIN: u8 = 250;
/// The committee, of which two must sign. The last one sees other evidence than the others.
const MEMBERS: [u8; 3] = [20, 21, 22];
const ASTRAY: u8 = 22;

fn now() -> u64 {
    outside::now().0 / 1_000
}

fn address(n: u8) -> Address {
    Address::from(*account(n).id().as_bytes())
}

/// A network whose contract counts a day that ends with one of the network's epochs, soon.
struct Town {
    world: World,
    /// How far the chain's clock is ahead.
    ahead: Arc<AtomicU64>,
    /// The network's epoch that is settled.
    epoch: u64,
}

impl Town {
    async fn start() -> Self {
        // Whoever registers before the epoch begins checks in it.
        let epoch = (now() + 20) / EPOCH_SECONDS + 1;
        let start = (epoch + 1) * EPOCH_SECONDS - DAY;
        let (dir, ahead) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(0)));
        let setup = LocalSetup {
            admin: address(ADMIN),
            start,
            ath_price_micros: 50_000,
            faucet_micros_max: 1_000_000,
        };
        let mut genesis = Genesis::new(Domain::LOCAL.chain_id);
        genesis.timestamp = start;
        genesis.transactions = genesis::local(&setup)
            .into_iter()
            .map(|first| GenesisTransaction { from: first.from, to: first.to, data: first.input })
            .collect();
        let clock = Arc::clone(&ahead);
        let clock = Clock::new(move || now() + clock.load(Ordering::SeqCst));
        let chain = Chain::open(&dir.path().join("chain.redb"), genesis, clock).unwrap();
        let founding = Duration::from_secs(6);
        let config =
            ServiceConfig { domain: Domain::LOCAL, epoch_seconds: EPOCH_SECONDS, founding };
        let service = Service::open(&dir.path().join("checkers.redb"), chain, config).await;
        let service = Arc::new(service.unwrap());
        let mut world = World::start_over("local", dir, service).await;
        world.indexer(3).await;
        let town = Self { world, ahead, epoch };
        let members = MEMBERS.map(address).to_vec();
        let call = Rewards::setCommitteeCall { members, threshold: U256::from(2) };
        let admin = town.contracts(ADMIN);
        let act = admin.desk().act("set the committee", Contract::Rewards, &call).unwrap();
        admin.send(&act).await.unwrap();
        town
    }

    fn contracts(&self, n: u8) -> Contracts {
        settle(&self.world.service, n, &self.world.shutdown).contracts().unwrap()
    }

    fn folder(&self, n: u8) -> PathBuf {
        self.world.dir.path().join(format!("roots-{n}"))
    }

    /// A checker that knows these indexers; what stops it.
    async fn checker(&self, n: u8, indexers: &[usize]) -> Shutdown {
        let shutdown = self.world.shutdown.child();
        let all = &self.world.network.indexers;
        let roots = RootsDeps { account: account(n), dir: self.folder(n) };
        let deps = checker::Deps {
            indexers: indexers.iter().map(|place| all[*place].clone()).collect(),
            cosign_mib_max: 128,
            roots: Some(roots),
            ..self.world.checker_deps(n).await
        };
        checker::start(deps, &shutdown);
        shutdown
    }

    /// A host that takes part in the epoch, known to both indexers.
    async fn host(&self, n: u8) -> PaperHost {
        let indexers: Vec<_> = self.world.network.indexers.iter().collect();
        let paper = PaperHost::start(n, "local", 4, &indexers).await;
        let key = NodeKey::from_secret(&[n; 32]);
        let offer = &paper.capability.containers[0];
        let endpoint = crate::world::endpoint([n; 32], &[]).await;
        for indexer in indexers {
            let caller = Caller::new(endpoint.clone(), indexer.clone(), ALPN_INDEX);
            // Until it is announced there and the epoch is near.
            loop {
                let roll = Roll {
                    epoch: self.epoch,
                    issued: outside::now(),
                    account: paper.capability.operator.clone(),
                    containers: vec![(offer.id, offer.class.clone())],
                    region: Some(paper.capability.region.clone()),
                };
                let signed = Signed::sign(&Domain::LOCAL, &key, &roll).unwrap();
                let state = IndexRequest::State(Box::new(Statement::Roll(Box::new(signed))));
                let hello = IndexHello::Ask(Box::new(state));
                let told: IndexReply = caller.ask(&hello, Duration::from_secs(10)).await.unwrap();
                if told == IndexReply::Reported {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        paper
    }

    async fn standing(&self) -> Option<Standing> {
        committee::standing(self.contracts(ADMIN).desk()).await.ok()
    }

    /// Waits until the contract stands so.
    async fn until(&self, what: &str, is_so: impl Fn(&Standing) -> bool) -> Standing {
        for _ in 0..1_200 {
            if let Some(standing) = self.standing().await.filter(|standing| is_so(standing)) {
                return standing;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let said = MEMBERS.map(|n| RootsStatus::read(&self.folder(n)));
        panic!("not {what}: {:?}, {said:?}", self.standing().await);
    }

    /// Waits until a checker says that it stands so.
    async fn until_said(&self, n: u8, is_so: impl Fn(&RootsStatus) -> bool) -> RootsStatus {
        for _ in 0..240 {
            let said = RootsStatus::read(&self.folder(n));
            if let Some(said) = said.filter(|said| is_so(said)) {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("checker {n} says {:?}", RootsStatus::read(&self.folder(n)));
    }

    fn pass(&self, days: u64) {
        self.ahead.fetch_add(days * DAY, Ordering::SeqCst);
    }

    /// The root of the epoch and the proof of a checker's claim, as anybody finds them.
    async fn found(&self, of: u8) -> (B256, Proof) {
        let view = settle(&self.world.service, of, &self.world.shutdown).epoch(self.epoch).await;
        let heading = Heading::new(Domain::LOCAL, view.unwrap());
        let endpoint = crate::world::endpoint([90; 32], &[]).await;
        let caller = Caller::new(endpoint, self.world.network.indexers[0].clone(), ALPN_INDEX);
        let (mut statements, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let ask = IndexRequest::Epoch(EvidenceAsk { epoch: self.epoch, from });
            let hello = IndexHello::Ask(Box::new(ask));
            let reply = caller.ask(&hello, Duration::from_secs(10)).await.unwrap();
            let IndexReply::Epoch(page) = reply else { panic!("{reply:?}") };
            statements.extend(page.statements);
            next = page.next;
        }
        let published = Published { heading, statements };
        let book = Book::new(Emissions::new(TARGET_MICROS));
        let gathered = published.gather();
        let (refused, probes) = (gathered.refused.clone(), gathered.probes.len());
        let settled = outcome(gathered, &book).unwrap().settled;
        let claim = settled.claims.proof(account(of).id(), Paid::Checkers);
        let (claim, beside) = claim.unwrap_or_else(|| {
            panic!(
                "nothing is earned by {probes} probes; refused: {refused:?}, {:?}",
                settled.refused
            )
        });
        let proof = Proof {
            epoch: 1,
            account: address(of),
            stream: Stream::Checkers,
            total: claim.wei(),
            proof: beside.into_iter().map(B256::from).collect(),
        };
        (settled.claims.root().into(), proof)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkers_bring_an_epochs_root_to_the_contract_and_it_is_paid() {
    let town = Town::start().await;
    let first = town.checker(20, &[0]).await;
    let second = town.checker(21, &[0]).await;
    let _astray = town.checker(ASTRAY, &[1]).await;
    let _host = town.host(10).await;

    let standing = town.until("proposed", |standing| standing.proposed.is_some()).await;
    let (root, proof) = town.found(21).await;
    assert_eq!(standing.proposed.unwrap().root, root);
    assert_eq!((standing.counted, standing.root), (0, B256::ZERO));
    // Who has found another root signs nothing of this one.
    let said = town.until_said(ASTRAY, |said| said.reason == RootsReason::OtherRoot).await;
    assert!(said.is_member && said.root.is_some_and(|other| other != root), "{said:?}");
    let said = town.until_said(20, |said| said.signed == 2).await;
    assert_eq!((said.root, said.epoch, said.threshold), (Some(root), Some(town.epoch), 2));

    // A checker that is stopped keeps what it has found, and goes on without any evidence.
    second.finish(Duration::from_secs(5)).await;
    let _again = town.checker(21, &[]).await;
    town.pass(1);
    let standing = town.until("counted", |standing| standing.counted == 1).await;
    assert_eq!((standing.root, standing.proposed), (root, None));
    for n in [20, 21] {
        let said = town.until_said(n, |said| said.book == 1).await;
        assert_eq!(said.reason.concern(), Concern::Waits, "{said:?}");
    }
    // Who can't find what counts does not go on from it.
    let is_lost = |said: &RootsStatus| said.reason == RootsReason::OtherCounted;
    let said = town.until_said(ASTRAY, is_lost).await;
    assert_eq!(said.book, 0, "{said:?}");
    // One that comes late finds it from the published evidence.
    let _late = town.checker(24, &[0]).await;
    let said = town.until_said(24, |said| said.book == 1).await;
    assert_eq!((said.is_member, said.reason.concern()), (false, Concern::Waits), "{said:?}");

    // One that is given the book of another needs no evidence of what is in it.
    std::fs::create_dir_all(town.folder(25)).unwrap();
    let book = |n| town.folder(n).join("book.json");
    std::fs::copy(book(20), book(25)).unwrap();
    let _given = town.checker(25, &[]).await;
    let said = town.until_said(25, |said| said.book == 1).await;
    assert_eq!(said.reason.concern(), Concern::Waits, "{said:?}");

    paid(&town, proof).await;
    first.finish(Duration::from_secs(5)).await;
}

/// A claim is proven against the root, and paid when its time has come.
async fn paid(town: &Town, proof: Proof) {
    let contracts = town.contracts(21);
    let desk = contracts.desk();
    for act in rewards::claim(desk, std::slice::from_ref(&proof), false).await.unwrap() {
        contracts.send(&act).await.unwrap();
    }
    let standing = rewards::standing(desk).await.unwrap();
    let standing = standing.iter().find(|standing| standing.stream == Stream::Checkers).unwrap();
    assert_eq!(standing.claimed, proof.total);
    assert_eq!(desk.wallet().await.unwrap(), U256::ZERO);
    town.pass(181);
    for act in rewards::release(desk).await.unwrap() {
        contracts.send(&act).await.unwrap();
    }
    assert_eq!(desk.wallet().await.unwrap(), standing.granted);
    assert!(!standing.granted.is_zero());
}
