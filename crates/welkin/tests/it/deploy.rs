//! `welkin chain deploy` on a chain of others, and a network on what it deployed.

use std::path::{Path, PathBuf};
use std::process::Command;

use alloy_primitives::{Address, B256, U256, keccak256};
use serde_json::{Value, json};
use welkin_chain::contracts::{Committee, Rewards};
use welkin_chain::deployment::{Contract, Deployment};
use welkin_chain::ops::Desk;
use welkin_node::Shutdown;
use welkin_node::keystore::Keys;

use crate::anvil::node::Anvil;
use crate::anvil::runtime;
use crate::anvil::world::sender;
use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Output, Place, Proc, until};

/// What must never be shown: it stands in the node's address.
const SECRET: &str = "f00dfeed";

struct Deployer {
    runtime: tokio::runtime::Runtime,
    anvil: Anvil,
    place: Place,
}

impl Deployer {
    /// An account with coins, under a passphrase.
    fn start() -> Self {
        let runtime = runtime();
        let deployer = Self { runtime, anvil: Anvil::start(&[]), place: Place::new("") };
        let file = deployer.path("passphrase");
        std::fs::write(&file, "correct horse battery").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let made = deployer.run(&["key", "new", "deployer"]).expect(0).text();
        let account: Address = made.trim().parse().unwrap();
        deployer.runtime.block_on(deployer.anvil.coins(account, 100));
        deployer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn with_env(&self, mut command: Command) -> Command {
        command
            .env("WELKIN_KEYS", self.path("keys"))
            .env("WELKIN_KEY_PASSPHRASE_FILE", self.path("passphrase"))
            .env("WELKIN_CHAIN__RPC", format!("{}/?key={SECRET}", self.anvil.url()))
            .current_dir(self.place.path());
        command
    }

    fn spawn(&self, args: &[&str]) -> Proc {
        Proc::spawn(self.with_env(self.place.command(&self.path("dir"), args)))
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        let output = self.spawn(args).finish();
        for said in [&output.text(), &output.stderr] {
            assert!(!said.contains(SECRET), "{args:?}: {said}");
        }
        output
    }

    fn deploy(&self, more: &[&str]) -> Vec<String> {
        let args = ["chain", "deploy", "-y", "--as", "deployer", "--ath-price", "0.05", "--trial"];
        args.iter().chain(more).map(ToString::to_string).collect()
    }
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_deployment_that_broke_off_goes_on() {
    let deployer = Deployer::start();
    let args = deployer.deploy(&[]);
    let planned = deployer.run(&words(&deployer.deploy(&["--dry-run"]))).expect(0);
    let steps = planned.text().lines().count();
    assert!(steps > 40, "{}", planned.text());
    // The last one leaves steps enough for the kill to come before the end.
    for stop in [" 5/", "20/", &format!("{}/", steps - 10)] {
        let mut process = deployer.spawn(&words(&args));
        process.wait_stderr(stop);
        process.kill_9();
        assert!(deployer.path("deployment.journal").is_file());
    }
    // It goes on as it was begun.
    let other = deployer.deploy(&["--operator", "0x1111111111111111111111111111111111111111"]);
    deployer.run(&words(&other)).expect(64).says("other settings: --operator");
    let mut dear = args.clone();
    dear[6] = "0.06".to_owned();
    deployer.run(&words(&dear)).expect(64).says("--ath-price");
    let output = deployer.run(&["chain", "deploy", "-y", "--as", "deployer"]).expect(0);
    let last = output.stderr.lines().last().unwrap().to_owned();
    assert!(last.contains("checks are right"), "{last}");
    assert!(!deployer.path("deployment.journal").exists());
    deployer.run(&words(&args)).expect(0).says("was written before");
    verify(&deployer);
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_step_that_waits_for_its_block_is_sent_once() {
    let deployer = Deployer::start();
    let (runtime, anvil) = (&deployer.runtime, &deployer.anvil);
    let pooled = || runtime.block_on(anvil.pooled());
    runtime.block_on(anvil.automine(false));
    let args = deployer.deploy(&[]);
    // Two crashes while the same step waits for a block.
    for _ in 0..2 {
        let process = deployer.spawn(&words(&args));
        until(DEADLINE, "a step waits", || pooled() == 1);
        process.kill_9();
    }
    let mut process = deployer.spawn(&words(&args));
    runtime.block_on(anvil.automine(true));
    until(DEADLINE, "it is done", || {
        if pooled() > 0 {
            runtime.block_on(anvil.mine(1));
        }
        !process.is_running()
    });
    process.finish().expect(0).says("checks are right");
    let sent = deployer.run(&[
        "--json",
        "chain",
        "status",
        "--deployment",
        "deployment.json",
        "--as",
        "deployer",
    ]);
    let sent: Value = serde_json::from_str(&sent.expect(0).text()).unwrap();
    let planned = deployer.run(&words(&deployer.deploy(&["--dry-run", "--out", "other.json"])));
    let steps = planned.expect(0).text().lines().count();
    assert_eq!(sent["transactions"].as_u64(), Some(steps as u64), "each once");
}

/// Foundry's tool for wallets.
fn cast(args: &[&str]) -> String {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../contracts/node_modules/@foundry-rs/cast-linux-amd64/bin/cast");
    let program = std::env::var_os("WELKIN_CAST").map_or(found, PathBuf::from);
    let output = Command::new(program).arg("wallet").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "run by the contract stage: needs cast"]
fn keys_go_to_other_programs_and_come_from_them() {
    let place = Place::new("");
    let file = place.path().join("passphrase");
    std::fs::write(&file, "correct horse battery").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let run = |args: &[&str]| {
        let mut command = place.command(&place.path().join("dir"), args);
        command.env("WELKIN_KEYS", place.path().join("keys"));
        command.env("WELKIN_KEY_PASSPHRASE_FILE", &file);
        Proc::spawn(command).finish().expect(0).text().trim().to_owned()
    };
    let (passphrase, ours) = (file.to_str().unwrap(), place.path().join("keys/ours.json"));
    let made = run(&["key", "new", "ours"]);
    let args = ["address", "--keystore", ours.to_str().unwrap(), "--password-file", passphrase];
    assert_eq!(cast(&args), made, "cast opens it");
    let theirs = place.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    let args = ["new", theirs.to_str().unwrap(), "--unsafe-password", "correct horse battery"];
    let said = cast(&args);
    let name = crate::support::children(&theirs).pop().unwrap();
    let address = run(&["key", "import", "theirs", name.to_str().unwrap()]);
    assert!(said.contains(&address), "{said} is not {address}");
}

/// What stands there is right, and a change of it is found.
fn verify(deployer: &Deployer) {
    let look = ["--json", "chain", "verify", "--deployment", "deployment.json"];
    let found: Value = serde_json::from_str(&deployer.run(&look).expect(0).text()).unwrap();
    assert_eq!((found["is_right"].as_bool(), found["wrong"].as_u64()), (Some(true), Some(0)));
    let file = std::fs::read(deployer.path("deployment.json")).unwrap();
    let places: Value = serde_json::from_slice(&file).unwrap();
    let place = places["contracts"]["staking"].clone();
    let ask = |method, params| deployer.runtime.block_on(deployer.anvil.ask(method, params));
    let code = ask("eth_getCode", json!([place, "latest"])).as_str().unwrap().to_owned();
    let mut changed = code.clone().into_bytes();
    let last = changed.len() - 3;
    changed[last] = if changed[last] == b'0' { b'1' } else { b'0' };
    let changed = String::from_utf8(changed).unwrap();
    ask("anvil_setCode", json!([place, changed]));
    let output = deployer.run(&["chain", "verify", "--deployment", "deployment.json"]).expect(1);
    assert!(output.text().contains("WRONG  code of staking: it differs"), "{}", output.text());
    ask("anvil_setCode", json!([place, code]));
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_deployment_says_what_it_lacks() {
    let deployer = Deployer::start();
    let base = ["chain", "deploy", "-y", "--as", "deployer"];
    deployer.run(&base).expect(64).says("--ath-price");
    deployer.run(&[&base[..], &["--ath-price", "0"]].concat()).expect(64).says("--ath-price");
    deployer.run(&["key", "new", "poor"]).expect(0);
    let poor = ["chain", "deploy", "-y", "--as", "poor", "--ath-price", "1"];
    let output = deployer.run(&poor).expect(78);
    output.says("the deployment broke off").says("coins");
    // The account sends something else in between: the places would be others.
    std::fs::remove_file(deployer.path("deployment.journal")).unwrap();
    let mut process = deployer.spawn(&words(&deployer.deploy(&[])));
    process.wait_stderr("3/");
    process.kill_9();
    let journal = std::fs::read_to_string(deployer.path("deployment.journal")).unwrap();
    let mut journal: Value = serde_json::from_str(&journal).unwrap();
    let nonce = journal["first_nonce"].as_u64().unwrap();
    // As if the first transaction had been another.
    journal["first_nonce"] = (nonce + 1).into();
    std::fs::write(deployer.path("deployment.journal"), journal.to_string()).unwrap();
    deployer.run(&base).expect(1).says("has sent something else in between").says("another --out");
    let missing = Path::new("missing.json");
    let args = ["chain", "status", "--deployment", missing.to_str().unwrap()];
    assert_ne!(deployer.run(&args).code, 0);
}

/// Has the deployer, who is the committee, sign an epoch in which an account earned this as a host.
async fn epoch(town: &Town, account: Address, total: U256) -> B256 {
    let keys = Keys::new(town.deployer.path("keys"));
    let key = keys.open("deployer", "correct horse battery").unwrap();
    let deployment = Deployment::load(&town.deployer.path("deployment.json")).unwrap();
    let owner = Address::from(*key.id().as_bytes());
    let desk = Desk::new(town.deployer.anvil.rpc.clone(), deployment, owner);
    let leaf = |account: Address| {
        let words = [account.into_word(), B256::ZERO, B256::from(total)].concat();
        keccak256(keccak256(words))
    };
    let (own, other) = (leaf(account), leaf(Address::repeat_byte(9)));
    let root = keccak256(if own < other { [own, other] } else { [other, own] }.concat());
    let totals = [total + total, U256::ZERO, U256::ZERO];
    let next =
        Committee::Epoch { number: 1, root, data: B256::ZERO, totals, units: U256::from(10) };
    let call = Rewards::epochHashCall { epoch_: next.clone() };
    let digest = desk.look(Contract::Rewards, call).await.unwrap();
    let signed = key.sign(&digest.0).unwrap();
    let signature = [owner.as_slice(), &signed.r, &signed.s, &[signed.v]].concat().into();
    let shutdown = Shutdown::default();
    let sender = sender(desk.rpc().clone(), deployment.chain_id, key, &shutdown);
    let propose = Rewards::proposeCall { next, signatures: vec![signature] };
    let propose = desk.act("propose", Contract::Rewards, &propose).unwrap();
    let accept = desk.act("accept", Contract::Rewards, &Rewards::acceptCall {}).unwrap();
    for act in [propose, accept] {
        town.deployer.anvil.wait(2 * 86_400).await;
        sender.send(Some(act.to), act.input, false).await.unwrap();
    }
    other
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn what_was_earned_is_claimed_and_paid_out() {
    let Some(town) = Town::start() else { return };
    town.run(&["claim"]).expect(1).says("no epoch counts so far");
    let buyer = Address::from(*town.services.leases().account().as_bytes());
    let total = U256::from(1_000) * U256::from(10).pow(U256::from(18));
    let runtime = &town.deployer.runtime;
    runtime.block_on(town.deployer.anvil.coins(buyer, 10));
    let beside = runtime.block_on(epoch(&town, buyer, total));
    let file = town.deployer.path("totals.json");
    let proof = json!([{"epoch": 1, "account": buyer, "stream": "hosts", "total": total,
        "proof": [beside]}]);
    std::fs::write(&file, proof.to_string()).unwrap();
    let file = file.to_str().unwrap();
    town.run(&["claim"]).expect(64).says("--file");
    town.run(&["claim", "--epoch", "2", "--file", file]).expect(64).says("the present one, 1");
    let shown = town.run(&["rewards", "--file", file]).expect(0).text();
    assert!(shown.contains("hosts     1000 ATH"), "{shown}");
    town.run(&["claim", "--file", file]).expect(0);
    town.run(&["claim", "--file", file]).expect(0).says("all of it is claimed already");
    for (days, paid) in [(0, "300 ATH"), (90, "600 ATH"), (90, "1000 ATH")] {
        town.wait(days * 86_400);
        let shown = town.run(&["rewards", "--release"]).expect(0).text();
        let row = shown.lines().find(|line| line.starts_with("hosts")).unwrap();
        assert!(row.contains(paid), "{shown}");
        assert!(town.run(&["balance"]).expect(0).text().contains(&format!("wallet     {paid}")));
    }
    // Those who report the price, and others who do not.
    let price = ["chain", "price", "0.06"];
    town.run(&price).expect(1).says("does not report prices");
    town.run(&[&price[..], &["--as", "deployer"]].concat()).expect(0);
    let shown = town.run(&["chain", "status"]).expect(0).text();
    assert!(shown.contains("$0.06 for an ATH"), "{shown}");
    let pause = ["chain", "send", "escrow.pause(60)"];
    town.run(&pause).expect(77).says("has no right");
    town.run(&[&pause[..], &["--as", "deployer"]].concat()).expect(0);
}

/// A network on what was deployed.
struct Town {
    deployer: Deployer,
    services: Services,
}

impl Town {
    fn start() -> Option<Self> {
        let deployer = Deployer::start();
        let args = deployer.deploy(&["--faucet", "1000"]);
        deployer.run(&words(&args)).expect(0);
        let file = deployer.path("deployment.json");
        let (url, shown) = (deployer.anvil.url(), file.display());
        let config = format!("[settlement]\nchain_rpc = \"{url}\"\ndeployment = \"{shown}\"\n");
        let services = Services::start_on(&config, HERE, Some(file))?;
        Some(Self { deployer, services })
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        let command = self.services.command("buyer", HERE, args);
        let output = Proc::spawn(self.deployer.with_env(command)).finish();
        for said in [&output.text(), &output.stderr] {
            assert!(!said.contains(SECRET), "{args:?}: {said}");
        }
        output
    }

    #[track_caller]
    fn state(&self) -> Value {
        let output = self.run(&["--json", "gov", "show", "last"]).expect(0);
        serde_json::from_str::<Value>(&output.text()).unwrap()["state"].clone()
    }

    fn wait(&self, seconds: u64) {
        self.deployer.runtime.block_on(self.deployer.anvil.wait(seconds));
    }
}

#[test]
#[ignore = "run by the contract stage: needs anvil"]
fn a_vote_changes_the_fee_and_a_wallet_funds_another_account() {
    let Some(town) = Town::start() else { return };
    town.run(&["key", "use", "deployer"]).expect(0);
    town.run(&["chain", "status"]).expect(0);
    town.run(&["gov", "delegate", "self"]).expect(0);
    town.wait(1);
    town.run(&["gov", "propose", "escrow.fee=15%", "--why", "cheaper for all"]).expect(0);
    town.run(&["gov", "execute", "last"]).expect(1).says("the proposal is pending");
    town.wait(6);
    town.run(&["gov", "vote", "last", "for", "--why", "yes"]).expect(0);
    assert_eq!(town.state(), "active");
    town.wait(61);
    assert_eq!(town.state(), "succeeded");
    town.run(&["gov", "queue", "last"]).expect(0);
    town.run(&["gov", "execute", "last"]).expect(1).says("not come");
    town.wait(61);
    town.run(&["gov", "execute", "last"]).expect(0);
    assert_eq!(town.state(), "executed");
    let fee = town.run(&["--json", "gov", "params", "escrow.fee"]).expect(0).text();
    assert!(fee.contains("\"15%\""), "{fee}");

    // Somebody's wallet pays into the account that leases are paid from.
    let buyer = Address::from(*town.services.leases().account().as_bytes()).to_string();
    let fund = ["fund", "5", "--wallet", "--as", "deployer", "--to", &buyer];
    town.run(&fund).expect(0);
    let view = town.run(&["--json", "balance"]).expect(0).text();
    let view: Value = serde_json::from_str(&view).unwrap();
    assert_eq!(view["available"].as_u64(), Some(5_000_000), "{view}");
}
