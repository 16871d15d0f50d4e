//! A network whose contracts are on a chain of somebody else's, from its settlement service to a
//! job's receipt.

#[path = "../../../node/tests/it/anvil/node.rs"]
pub(crate) mod node;
#[path = "../../../node/tests/it/anvil/world.rs"]
#[expect(dead_code, reason = "shared with tests of another crate, which use more of it")]
pub(crate) mod world;

use std::path::PathBuf;

use alloy_primitives::{Address, B256};
use welkin_node::identity;
use welkin_types::{AccountId, LeaseState, Reason};

use self::world::World;
use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Place, Proc, until};

/// A network on a node, whose roles pay for gas.
struct OnAnvil {
    runtime: tokio::runtime::Runtime,
    world: World,
    services: Services,
    _files: tempfile::TempDir,
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl OnAnvil {
    fn start() -> Option<Self> {
        let runtime = runtime();
        let world = runtime.block_on(World::start(&[]));
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("deployment.json");
        world.deployment.save(&file).unwrap();
        let config = settings(&world.anvil.url(), &file);
        let services = Services::start_on(&config, HERE, Some(file))?;
        Some(Self { runtime, world, services, _files: files })
    }

    fn coins(&self, account: AccountId) {
        self.runtime.block_on(self.world.anvil.coins(Address::from(*account.as_bytes()), 10));
    }

    /// A host that can pay for gas.
    fn host(&self) -> Proc {
        let host = self.services.host("host-1", HERE);
        let key = self.services.dir("host-1").join("host/account.key");
        self.coins(identity::account_key(&key).unwrap().id());
        host
    }
}

fn settings(url: &str, deployment: &std::path::Path) -> String {
    format!(
        "[settlement]\nchain_rpc = \"{url}/?key=secret\"\ndeployment = \"{}\"\n",
        deployment.display()
    )
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_job_is_paid_on_a_chain_of_others() {
    let Some(mut net) = OnAnvil::start() else { return };
    let _host = net.host();
    let observer = net.services.observer();
    net.services.wait_free(&observer, 3);
    let (buyer, leases) = (net.services.leases().account(), net.services.leases());
    // Without coins the buyer is told where to send some.
    let address = Address::from(*buyer.as_bytes()).to_string();
    let poor = net.services.run(&["fund", "5"]);
    assert_ne!(poor.code, 0);
    poor.says("send coins to").says(&address);
    net.coins(buyer);
    net.services.fund("5");
    let output = net.services.run(&["run", "--", "echo", "on another chain"]).expect(0);
    assert_eq!(output.text(), "on another chain\n");
    let receipt = leases.ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    // What the receipt says is what was paid, in a transaction that the node knows.
    let view =
        |net: &OnAnvil| net.runtime.block_on(observer.buyer.settle().lease(receipt.lease)).ok();
    until(DEADLINE, "the lease is settled", || view(&net).is_some_and(|view| view.closed));
    let settled = view(&net).unwrap();
    assert_eq!((settled.paid, settled.fee), (receipt.cost, receipt.fee));
    let hash = B256::from(*settled.transaction.unwrap().as_bytes());
    let known = net.runtime.block_on(net.world.anvil.rpc.receipt(hash)).unwrap().unwrap();
    assert_eq!(known.status.to::<u64>(), 1);
    observer.books_close();
    assert_eq!(observer.balance(buyer).spent, receipt.cost);
    // `show` knows the transaction, and nobody has said what was secret in the node's address.
    let shown = net.services.run(&["show", &receipt.lease.to_string()]).expect(0);
    assert!(shown.text().contains(&hash.to_string()), "{}", shown.text());
    net.services.are_well();
    net.services.say_nothing("key=secret");
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_settlement_service_says_what_is_wrong_with_its_chain() {
    let runtime = runtime();
    let world = runtime.block_on(World::start(&[]));
    let other = node::Anvil::start(&["--chain-id", "5"]);
    let twin = node::Anvil::start(&[]);
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("deployment.json");
    world.deployment.save(&file).unwrap();
    let settlement = |config: &str| {
        let place = Place::new(config);
        Proc::spawn(place.command(&place.path().join("settlement"), &["settlement"])).finish()
    };
    settlement(&settings(&other.url(), &file)).expect(64).says("chain 5").says("chain 31337");
    settlement(&settings(&twin.url(), &file)).expect(64).says("there is no contract at");
    settlement(&settings(&twin.url(), &PathBuf::new())).expect(64).says("chain deploy");
    let missing = files.path().join("nothing.json");
    let output = settlement(&settings(&twin.url(), &missing));
    assert_ne!(output.code, 0);
    output.says("nothing.json");
    settlement(&settings("ftp://127.0.0.1", &file)).expect(64).says("chain_rpc");
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_settlement_service_waits_for_its_node() {
    let Some(mut net) = OnAnvil::start() else { return };
    let _host = net.host();
    let observer = net.services.observer();
    net.services.wait_free(&observer, 3);
    net.coins(net.services.leases().account());
    net.services.fund("5");
    net.world.anvil.stop();
    net.services.run(&["balance"]).says("its chain's node");
    // Started anew without it, it begins as well.
    net.services.restart_roles(HERE);
    net.world.anvil.again();
    until(DEADLINE, "the chain is back", || net.services.run(&["balance"]).code == 0);
    net.services.wait_free(&observer, 3);
    net.services.run(&["run", "--", "true"]).expect(0);
    observer.books_close();
    net.services.are_well();
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_client_may_ask_a_node_of_its_own() {
    let Some(net) = OnAnvil::start() else { return };
    let other = node::Anvil::start(&["--chain-id", "5"]);
    net.coins(net.services.leases().account());
    net.services.fund("5");
    let balance = |url: &str| {
        let mut command = net.services.command("buyer", HERE, &["balance"]);
        command.env("WELKIN_CHAIN__RPC", format!("{url}/?key=secret"));
        let output = Proc::spawn(command).finish();
        assert!(!output.stderr.contains("key=secret"), "{}", output.stderr);
        output
    };
    assert!(balance(&net.world.anvil.url()).expect(0).text().contains('5'));
    balance(&other.url()).expect(69).says("chain 5").says("chain 31337");
    balance("ftp://127.0.0.1").says("chain.rpc");
    // Neither is it printed with the settings.
    let mut command = net.services.command("buyer", HERE, &["config"]);
    command.env("WELKIN_CHAIN__RPC", "https://node.example/v3/secret");
    let shown = Proc::spawn(command).finish().expect(0).text();
    assert!(shown.contains("https://node.example") && !shown.contains("secret"), "{shown}");
}
